#!/usr/bin/env bash
# Runs a command on another day, without touching the machine's clock:
#
#   tools/another-day.sh 365 make test        a year from now
#   tools/another-day.sh -30 go test ./...    a month ago
#
# Go programs that the command builds have a time.Now that is off by that many
# days, by an overlay over the standard library. Other programs, such as the
# JVM of the test brokers, keep the machine's clock. Modules must be downloaded
# before: a registry's certificate may not be valid on that day.
set -euo pipefail

days=${1:?how many days from now, such as 365}
shift
[[ $days =~ ^-?[0-9]+$ ]] || { echo "the first argument is $days; give a number of days, such as 365" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$(go env GOROOT)/src/time/time.go
seconds=$((days * 86400))
# Time that testing/synctest makes up begins in the year 2000 and stays as it is.
sed 's/^\tsec, nsec, mono := runtimeNow()$/&\n\tif sec > 1500000000 {\n\t\tsec += '"($seconds)"'\n\t}/' "$source" >"$work/time.go"
if [ "$(diff "$source" "$work/time.go" | grep -c '^>')" -lt 3 ]; then
	echo "time.Now of $(go version) is not the one this script expects; correct the sed expression" >&2
	exit 1
fi
printf '{"Replace": {"%s": "%s"}}\n' "$source" "$work/time.go" >"$work/overlay.json"
export GOFLAGS="${GOFLAGS:-} -overlay=$work/overlay.json"

echo "running on $(date -u -d "$days days" +%F 2>/dev/null || echo "another day"): $*" >&2
"$@"
