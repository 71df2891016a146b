#!/usr/bin/env bash
# Lets the official Python SDK and the bridge's client write to the emulator, at the
# endpoint that the bridge discovers. It installs the SDK from the package index of pip
# into .cache/sdk. No part of make test: neither build nor tests depend on the SDK.
#
#   tools/official-sdk.sh            with the version below
#   tools/official-sdk.sh 1.10.0     with another one
set -euo pipefail

version=${1:-1.10.0}
cd "$(dirname "$0")/.."
venv=$PWD/.cache/sdk/$version
if ! "$venv/bin/python" -c 'import zerobus' 2>/dev/null; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check "databricks-zerobus-ingest-sdk==$version"
fi
echo "databricks-zerobus-ingest-sdk $("$venv/bin/pip" show databricks-zerobus-ingest-sdk 2>/dev/null | sed -n 's/^Version: //p')"
go -C test run ./sdk -python "$venv/bin/python"
