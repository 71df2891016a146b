#!/usr/bin/env bash
# Makes ready in .cache/compose what make compose-test runs beside Docker's daemon: docker
# compose and Prometheus from the Go module proxy, Kafka's jars from Maven Central, and a
# copy of the installed Java. Kafka and Prometheus have the versions of docker-compose.yml.
set -euo pipefail

cd "$(dirname "$0")/.."
cache=$PWD/.cache/compose
mkdir -p "$cache"

# version prints the version of an image of docker-compose.yml.
version() { sed -n "s|^ *image: $1:v\{0,1\}||p" docker-compose.yml | sort -u; }

# Its version is in tools/compose/go.mod. Later ones only build with docker buildx.
compose=$(go -C tools/compose list -m -f '{{.Version}}' github.com/docker/compose/v2)
if [ ! -x "$cache/docker-compose-$compose" ]; then
	echo "building docker compose $compose, which takes minutes"
	go -C tools/compose build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$compose" \
		-o "$cache/docker-compose-$compose" github.com/docker/compose/v2/cmd
fi
ln -sfn "docker-compose-$compose" "$cache/docker-compose"

# Version 3.16.0 is v0.316.0 of the Go module. The discovery of cloud services would be
# most of the build.
IFS=. read -r major minor patch <<<"$(version prom/prometheus)"
prometheus=$(printf 'v0.%d%02d.%d' "$major" "$minor" "$patch")
if [ ! -x "$cache/prometheus-$prometheus/prometheus" ]; then
	echo "building prometheus $prometheus, which takes minutes"
	CGO_ENABLED=0 GOBIN=$cache/prometheus-$prometheus go install -trimpath -tags remove_all_sd \
		-ldflags "-s -w -X github.com/prometheus/common/version.Version=$major.$minor.$patch" \
		"github.com/prometheus/prometheus/cmd/prometheus@$prometheus"
fi
mkdir -p "$cache/prometheus-$prometheus/data"
ln -sfn "prometheus-$prometheus" "$cache/prometheus"

kafka=$(version apache/kafka)
if [ ! -d "$cache/kafka-$kafka" ]; then
	rm -rf "$cache/kafka.partial"
	mvn -B -q -f test/compose/kafka/pom.xml org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
		-DincludeScope=runtime -Dkafka="$kafka" -DoutputDirectory="$cache/kafka.partial"
	mv "$cache/kafka.partial" "$cache/kafka-$kafka"
fi
ln -sfn "kafka-$kafka" "$cache/kafka"

# A root file system with Java, bash, the libraries they are linked with, and BusyBox.
home=$(java -XshowSettings:properties -version 2>&1 | sed -n 's/^ *java.home = //p')
root=$cache/java
rm -rf "$root"
mkdir -p "$root/opt/java/openjdk" "$root/bin" "$root/etc"
tar -C "$home" --create --dereference --exclude=src.zip bin conf lib release | tar -C "$root/opt/java/openjdk" --extract
cp "$(command -v busybox)" "$(command -v bash)" "$root/bin"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
ldd "$home/bin/java" "$home/lib/server/libjvm.so" "$(command -v bash)" | awk '$3 ~ "^/" { print $3 } $1 ~ "^/.*ld-" { print $1 }' | sort -u | grep -v "^$home" |
	xargs cp --dereference --parents --target-directory="$root"
