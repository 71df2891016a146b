#!/usr/bin/env bash
# usage: guard.sh [REF]. Compares the processor time per row of the bridge in the
# working tree with that of a commit, in turns on one machine: 200,000 events over gRPC
# with TLS, nine rounds. Without REF that is HEAD, or its parent where nothing has
# changed since. It reports and does not fail, also where there is nothing to compare
# with. It takes at most two minutes.
set -uo pipefail
cd "$(dirname "$0")/.."

skip() { echo "guard: skipped: $*"; exit 0; }
left() { echo "$((110 - SECONDS))s"; }

ref=${1:-}
if [ -z "$ref" ]; then
	ref=HEAD
	if [ -z "$(git status --porcelain 2>/dev/null)" ]; then ref=HEAD^; fi
fi
commit=$(git rev-parse --verify --quiet "$ref^{commit}") || skip "there is no commit $ref here, as in a shallow clone"
about=$(git log -1 --format='%h (%s)' "$commit")
work=$(mktemp -d) || skip "no room for temporary files"
trap 'rm -rf "$work"' EXIT

# Equal sources make equal binaries: no path and no revision is in them.
build() { CGO_ENABLED=0 timeout "$(left)" go -C "$1" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$2" ./cmd/bridge; }
mkdir "$work/before" && git archive "$commit" | tar -x -C "$work/before" || skip "the files of $about cannot be read"
build . "$work/new" || skip "the working tree does not build"
build "$work/before" "$work/old" || skip "$about does not build"
if cmp -s "$work/new" "$work/old"; then skip "the program is the same as that of $about"; fi

timeout "$(left)" go -C bench build -o "$work/bench" . || skip "bench does not build"
timeout -k 5 "$(left)" "$work/bench" versions --bridge "$work/new" --against "$work/old" --rounds 9 --events 200000 \
	--transport grpc --tls >"$work/report" 2>"$work/log" || { tail -3 "$work/log"; skip "the comparison did not end, see above"; }
sed -n '/^ *topic/,/^ *grpc *new/p' "$work/report"
verdict=$(sed -n 's/^verdict: //p' "$work/report")
case $verdict in
*"is slower than"*) echo "GUARD: SLOWER THAN $about: $verdict" ;;
*) echo "guard: against $about: $verdict" ;;
esac
