#!/usr/bin/env bash
# Checks the code and its modules with the Go vulnerability database. Ends
# with 1 if a known vulnerability is reached, or if the check itself fails. Where
# the database or the tool is not available it prints that and exits with 0: a closed
# network must not block a change.
#
#   tools/vuln.sh ./...
#
# Setting by environment: VULN_DB, a mirror of the database (https://vuln.go.dev).
set -uo pipefail
cd "$(dirname "$0")/.."

tool=golang.org/x/vuln/cmd/govulncheck@v1.1.4 # pinned: its findings decide
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
said=$work/said

# Installed first, so that a failed download is not reported as a failed check.
if ! GOBIN=$work timeout 120 go install "$tool" >"$said" 2>&1; then
	echo "not checked for known vulnerabilities: $tool cannot be installed:"
	tail -3 "$said"
	exit 0
fi
timeout 300 "$work/govulncheck" -db "${VULN_DB:-https://vuln.go.dev}" "${@:-./...}" >"$said" 2>&1
status=$?
if [ "$status" -ne 0 ] && grep -Eq '^govulncheck: (fetching vulnerabilities|.*(dial tcp|no such host|i/o timeout|TLS handshake|connection refused|proxyconnect))' "$said"; then
	echo "not checked for known vulnerabilities: the database cannot be reached:"
	grep '^govulncheck: ' "$said"
	exit 0
fi
if [ "$status" -eq 124 ]; then
	echo "not checked for known vulnerabilities: no end within 5 minutes"
	exit 0
fi
cat "$said"
[ "$status" -eq 0 ] || exit 1
