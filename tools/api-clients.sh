#!/usr/bin/env bash
# Runs other people's tools over the install API of a demo: schemathesis, which makes
# requests from the OpenAPI document and compares the answers with it, and a client that
# openapi-python-client generates. It installs both from the package index of pip into
# .cache/api. No part of make test: neither build nor tests depend on them.
#
#   tools/api-clients.sh          a short run
#   tools/api-clients.sh 200      with so many requests for each operation
set -euo pipefail

examples=${1:-25}
cd "$(dirname "$0")/.."
cache=$PWD/.cache/api
port=${BRIDGE_API_PORT:-18084}
api=http://127.0.0.1:$port/v1/admin
mkdir -p "$cache"
if ! "$cache/venv/bin/schemathesis" --version >/dev/null 2>&1; then
	python3 -m venv "$cache/venv"
	"$cache/venv/bin/pip" install --quiet --disable-pip-version-check schemathesis==4.32.5 openapi-python-client==0.29.1
fi
go build -o "$cache/bridge" ./cmd/bridge

token=$(openssl rand -hex 32)
echo "tester admin sha256:$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)" >"$cache/tokens"

# The limit is lifted: the tester sends hundreds of requests in a minute.
"$cache/bridge" demo --events 0 --rate 20 --ops-address 127.0.0.1:0 --set "admin.address=127.0.0.1:$port" --set admin.rate_limit=1000000 --set "admin.token_file=$cache/tokens" >"$cache/demo.log" 2>&1 &
demo=$!
trap 'kill -INT $demo 2>/dev/null || true; wait $demo || true' EXIT
for _ in $(seq 300); do
	curl --silent --fail --output "$cache/openapi.json" --header "Authorization: Bearer $token" "$api/openapi.json" && break
	kill -0 $demo 2>/dev/null || { cat "$cache/demo.log"; exit 1; }
	sleep 0.1
done

rm -rf "$cache/client"
echo 'post_hooks: []' >"$cache/generate.yaml" # no formatting
"$cache/venv/bin/openapi-python-client" generate --path "$cache/openapi.json" --output-path "$cache/client" --meta none --config "$cache/generate.yaml" >"$cache/generate.log" 2>&1 || { cat "$cache/generate.log"; exit 1; }
if grep -i warning "$cache/generate.log"; then
	cat "$cache/generate.log"
	exit 1
fi
PYTHONPATH=$cache "$cache/venv/bin/python" test/api/install.py "http://127.0.0.1:$port" "$token"

# positive_data_acceptance does not hold: a body may satisfy the schema and name what does not
# exist, and an entity tag may be that of an older revision.
root=$PWD
cd "$cache" # where it keeps what it learns
tester() {
	"$cache/venv/bin/schemathesis" run "$cache/openapi.json" --url "http://127.0.0.1:$port" --header "Authorization: Bearer $token" \
		--seed 1 --request-timeout 60 --no-color --warnings off "$@"
}
tester --checks all --exclude-checks positive_data_acceptance,ignored_auth,missing_required_header --max-examples "$examples"
PYTHONPATH=$root/test/api SCHEMATHESIS_HOOKS=hooks tester --checks ignored_auth --phases coverage
