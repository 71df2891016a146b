# The bridge as one static binary, without a shell, run by nobody in particular.
#
#   make image VERSION=v1.2.3
#   docker run --rm bridge:v1.2.3 demo
#   docker run --stop-timeout 30 -v "$PWD/bridge:/etc/bridge:ro" -p 127.0.0.1:9400:9400 bridge:v1.2.3
#
# The folder bridge contains config.yaml. delivery.drain is 20 s, and docker stop kills
# after 10 by default.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
# A proxy for Go modules of your own; without it, that of Go.
ARG GOPROXY
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
# The same flags as those of make release, so that the bill of materials of a release
# is that of its image.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X main.release=$VERSION" -o /image/bridge ./cmd/bridge
# The licences of the modules in the binary are distributed with it.
RUN --mount=type=cache,target=/go/pkg/mod \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}{{end}}{{end}}' ./cmd/bridge | sort -u | \
    while read -r path version dir; do \
        for file in "$dir"/LICEN[CS]E* "$dir"/NOTICE* "$dir"/COPYING*; do \
            if [ -f "$file" ]; then printf '%s %s, %s\n\n' "$path" "$version" "${file##*/}" && cat "$file" && echo; fi; \
        done; \
    done > /image/THIRD_PARTY_LICENSES
# TLS to the workspace and to Kafka is checked against these authorities. The demo writes
# to /tmp, bridge run writes nowhere. All files get
# one time, so that the same sources give the same files.
ARG SOURCE_DATE_EPOCH=0
RUN mkdir -p /image/etc/bridge /image/etc/ssl/certs && mkdir -m 1777 /image/tmp && \
    cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ && cp LICENSE /image/ && chmod 644 /image/LICENSE && \
    find /image -exec touch -d @$SOURCE_DATE_EPOCH {} +

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="bridge" \
      org.opencontainers.image.description="Carries Datafly Signal events from Kafka into Databricks through Zerobus" \
      org.opencontainers.image.source="https://github.com/datafly/bridge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image /
# The configuration is looked for as ./config.yaml; variables alone do as well.
WORKDIR /etc/bridge
# Metrics and health must be reachable from outside the container.
ENV BRIDGE_OPS_ADDRESS=:9400
EXPOSE 9400
USER 65532:65532
# For Docker; Kubernetes asks /livez and /readyz itself. Ready is what counts here:
# the answer says why it is not and what to do, and needs no token.
HEALTHCHECK --interval=15s --timeout=5s --start-period=15s --retries=3 \
    CMD ["/bridge", "status", "--ready", "--address", "127.0.0.1:9400"]
ENTRYPOINT ["/bridge"]
CMD ["run"]
