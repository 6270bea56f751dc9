# One image carries every Millrace service: /usr/local/bin/cdc, collect, enrich, ... Say which one to run:
#
#   docker build --build-arg VERSION=1.2.3 --tag millrace:1.2.3 .
#   docker run millrace:1.2.3 cdc --help
#
# It has no shell, runs as an unprivileged user, writes to /tmp and below /var/lib/millrace only, and so runs with a
# read-only root file system. standalone is not in it: it brings its own database and broker, for a laptop.

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=dev
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    set -eu; \
    for main in ./services/*/cmd/*/; do \
      case "$main" in ./services/standalone/*) ;; *) set -- "$@" "$main" ;; esac; \
    done; \
    mkdir -p /out/bin; \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" -o /out/bin/ "$@"; \
    install -d -o 65532 -g 65532 -m 0700 /out/state/millrace /out/state/millrace/keys

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /out/bin/ /usr/local/bin/
# A volume mounted here starts with this owner and mode.
COPY --from=build --chown=65532:65532 /out/state/ /var/lib/
USER 65532:65532
WORKDIR /tmp
EXPOSE 8080
