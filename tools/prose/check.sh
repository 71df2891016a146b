#!/usr/bin/env bash
# Checks the language of everything people read: documents, comments, texts of the
# program, names. Arguments are files and folders; none means all of them.
# The word list is tools/prose/styles.
set -euo pipefail
cd "$(dirname "$0")/../.."

mapfile -t files < <(git ls-files --cached --others --exclude-standard -- "$@" |
	grep -E '\.(go|md|ya?ml|js|css|sh|tpl|html|txtar|txt)$' |
	grep -vE '\.pb\.go$|(^|/)testdata/fuzz/|^tools/prose/styles/')

mkdir -p bin
go -C tools/prose build -o "$PWD/bin/vale" github.com/vale-cli/vale/v3/cmd/vale
status=0
for config in documents texts names; do
	bin/vale --config "tools/prose/$config.ini" --output line "${files[@]}" || status=1
done
exit $status
