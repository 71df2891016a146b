#!/usr/bin/env bash
# Provides the programs that a test on a real engine runs, from Debian's packages. It
# installs what is missing where it can (root, apt-get), else it names what to install
# and fails. Each argument is a program and its package.
#
#   tools/engines.sh dockerd=docker.io busybox=busybox-static
set -euo pipefail

PATH=$PATH:/usr/sbin:/sbin
for pair in "$@"; do
	program=${pair%%=*} package=${pair#*=}
	command -v "$program" >/dev/null && continue
	if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
		echo "$program is not installed; install Debian's package $package, or the like of your system" >&2
		exit 1
	fi
	echo "installing $package"
	timeout 300 apt-get update -qq
	DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends "$package" >/dev/null
done
