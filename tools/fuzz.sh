#!/usr/bin/env bash
# Runs every fuzz target of the packages for a while each, as many at a time as
# there are cores, from test binaries that are built first. One line per target;
# the output of one that fails, the input that made it fail, and how to repeat
# it. Ends with 1 if any failed.
#
#   tools/fuzz.sh 60s ./...
#
# The time is in seconds or minutes, or a number of inputs such as 1000x. Targets that read
# nothing from outside the bridge run for a sixth of it: those of the emulator,
# whose own users talk to it, and the one that searches our own decisions.
#
# Settings by environment: FUZZ_JOBS, targets at a time (the number of cores);
# FUZZ_TARGETS, a regular expression of the targets to run (all).
set -euo pipefail
cd "$(dirname "$0")/.."

one() { # package directory binary target: fuzz one target
	local pkg=$1 dir=$2 binary=$3 target=$4 log status=0 line runs
	local here=${dir#"$root"/}
	local time=$fuzztime
	case $here/$target in
	zerobus/emulator/* | */FuzzHalving)
		[[ $time == *s ]] && time=$(((${time%s} + 5) / 6))s ;;
	esac
	log=$work/$target.$$.log
	(cd "$dir" && exec "$binary" -test.run='^$' -test.fuzz="^$target\$" -test.fuzztime="$time" -test.parallel=1 \
		-test.fuzzminimizetime=2s -test.fuzzcachedir="$cache/$pkg") >"$log" 2>&1 </dev/null || status=$?
	line=$(grep -o 'elapsed: .*' "$log" | tail -1 || true)
	runs=$(sed -n 's/.*execs: \([0-9]*\).*/\1/p' <<<"$line")
	# Go may report its own deadline as a failure, when the time ends while an
	# input is being made smaller. Then there is nothing else in the output.
	if [ "$status" -ne 0 ] && grep -q '^ *context deadline exceeded$' "$log" &&
		! grep -Evq '^fuzz: elapsed|^--- FAIL: Fuzz|^ *context deadline exceeded$|^FAIL$|^$' "$log"; then
		status=0
	fi
	if [ "$status" -eq 0 ] && grep -q 'no fuzz tests to fuzz' "$log"; then
		status=1
	fi
	if [ "$status" -eq 0 ]; then # no inputs: a busy machine spent the time on the corpus
		printf 'ok    %-22s %-18s %s\n' "$target" "$here" "${line#elapsed: }"
		return
	fi
	{
		printf 'FAIL  %-22s %-18s ended with %d after %s inputs\n' "$target" "$here" "$status" "${runs:-0}"
		sed -n '/^fuzz: elapsed/!p' "$log" | tail -60
		local input
		input=$(sed -n 's|^ *Failing input written to ||p' "$log" | tail -1)
		if [ -n "$input" ]; then
			echo "The input is in $here/$input:"
			sed 's/^/    /' "$dir/$input" | cut -c 1-2000
			echo "Repeat with: go test -run '^$target\$/^${input##*/}\$' ./$here"
		else
			echo "Repeat with: go test -run '^$target\$' -fuzz '^$target\$' -fuzztime $time ./$here"
		fi
	} >"$log.said"
	cat "$log.said"
	exit 1
}

if [ "${1:-}" = --one ]; then # as called back by xargs below
	shift
	one "$@"
	exit
fi

fuzztime=${1:?give the time each target runs, as in: tools/fuzz.sh 60s ./...}
shift
[[ $fuzztime =~ ^[1-9][0-9]*[smx]$ ]] || { echo "the time must be in seconds or minutes, as in 10s or 1m, got $fuzztime" >&2; exit 2; }
[[ $fuzztime != *m ]] || fuzztime=$((${fuzztime%m} * 60))s
root=$PWD
cache=$(go env GOCACHE)/fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export fuzztime root cache work

n=0
while read -r pkg dir files; do # only files that are built: a tag may leave some out
	# shellcheck disable=SC2086 # the names are words
	targets=$(cd "$dir" && sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' $files | grep -E "${FUZZ_TARGETS:-.}" || true)
	[ -n "$targets" ] || continue
	n=$((n + 1))
	go test -c -fuzz=. -o "$work/$n.test" "$pkg"
	for target in $targets; do
		echo "$pkg $dir $work/$n.test $target"
	done
done < <(go list -f '{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}} {{.Dir}} {{join .TestGoFiles " "}} {{join .XTestGoFiles " "}}{{end}}' "${@:-./...}" | grep .) >"$work/targets"

[ -s "$work/targets" ] || { echo "no fuzz target in ${*:-./...} matches ${FUZZ_TARGETS:-.}" >&2; exit 2; }
echo "$(wc -l <"$work/targets") fuzz targets, $fuzztime each"
cores=$(nproc 2>/dev/null || sysctl -n hw.ncpu)
xargs -L 1 -P "${FUZZ_JOBS:-$cores}" "$0" --one <"$work/targets" || {
	echo "at least one fuzz target failed, see above" >&2
	exit 1
}
