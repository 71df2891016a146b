#!/usr/bin/env bash
# Signs people in to the console through oauth2-proxy, with an identity provider for tests,
# as docs/console.md describes. It builds oauth2-proxy into .cache/oidc. No part of
# make test: neither build nor tests depend on it.
#
#   tools/oidc-proxy.sh             with the version below
#   tools/oidc-proxy.sh v7.15.5     with another one
set -euo pipefail

version=${1:-v7.15.6}
cd "$(dirname "$0")/.."
bin=$PWD/.cache/oidc/$version
[ -x "$bin/oauth2-proxy" ] || GOBIN=$bin go install "github.com/oauth2-proxy/oauth2-proxy/v7@$version"
echo "oauth2-proxy $version"
go -C test run ./oidc -proxy "$bin/oauth2-proxy"
