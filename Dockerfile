# The bridge as one static binary, without a shell, run by nobody in particular.
#
#   docker build --build-arg VERSION=$(git describe --tags --always) -t bridge .
#   docker run --rm bridge demo
#   docker run --stop-timeout 30 -v ./config.yaml:/etc/bridge/config.yaml:ro -p 127.0.0.1:9400:9400 bridge
#
# delivery.drain is 20 s, and docker stop kills after 10 by default.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -buildid= -X main.release=$VERSION" -o /bridge ./cmd/bridge

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="bridge" \
      org.opencontainers.image.description="Carries Datafly Signal events from Kafka into Databricks through Zerobus" \
      org.opencontainers.image.source="https://github.com/datafly/bridge" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
# TLS to the workspace and to Kafka is checked against these authorities.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /bridge /bridge
COPY LICENSE /LICENSE
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
