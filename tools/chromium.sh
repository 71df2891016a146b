#!/usr/bin/env bash
# Provides a Chromium for the tests of the page of live events.
# It installs Debian's package where that is wanted (CI=true) and possible (root,
# apt); elsewhere it prints what to do. The tests are skipped without one.
set -euo pipefail

for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome google-chrome-stable chrome-headless-shell headless-shell; do
	if [ -n "$name" ] && command -v "$name" >/dev/null; then
		exit 0
	fi
done

if [ "${CI:-}" = true ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
	echo "installing chromium"
	if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; then
		exit 0
	fi
	echo "chromium could not be installed" >&2
	exit 1
fi

echo "no Chromium: the browser tests are skipped; install it (apt-get install chromium), or name it in CHROMIUM"
