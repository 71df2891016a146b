#!/usr/bin/env bash
# Provides the programs that a test on a real engine runs, from Debian's packages. Such a
# test needs root. Without apt-get, it names what to install and fails. Each argument is a
# program and its package.
#
#   tools/engines.sh dockerd=docker.io busybox=busybox-static
set -euo pipefail

if [ "$(id -u)" -ne 0 ]; then
	echo "a Docker engine of its own needs root; run the target as root" >&2
	exit 1
fi
PATH=$PATH:/usr/sbin:/sbin
for pair in "$@"; do
	program=${pair%%=*} package=${pair#*=}
	command -v "$program" >/dev/null && continue
	if ! command -v apt-get >/dev/null; then
		echo "$program is not installed; install Debian's package $package, or the like of your system" >&2
		exit 1
	fi
	echo "installing $package"
	timeout 300 apt-get update -qq &&
		DEBIAN_FRONTEND=noninteractive timeout 600 apt-get install -y -qq --no-install-recommends "$package" >/dev/null &&
		command -v "$program" >/dev/null ||
		{ echo "Debian's package $package could not be installed, or has no $program; install it and run the target again" >&2; exit 1; }
done
