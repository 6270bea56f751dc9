#!/bin/bash
# Builds the docker compose plugin from its Go module into the cache, for machines whose package manager has none, and
# prints the path of the binary. It is not put where docker looks for plugins: that is the caller's choice, such as
#
#   mkdir -p ~/.docker/cli-plugins && ln -s "$(test/compose/install-compose.sh)" ~/.docker/cli-plugins/docker-compose
set -euo pipefail
version=v2.40.3
if [ "$(id -u)" = 0 ]; then cache=/var/cache/millrace; else cache=${XDG_CACHE_HOME:-$HOME/.cache}/millrace; fi
plugin=$cache/compose-${version#v}/docker-compose
if [ ! -x "$plugin" ]; then
  echo "building docker compose $version from its module: some minutes" >&2
  mkdir -p "$(dirname "$plugin")"
  cd "$(mktemp -d)" # outside any module
  trap 'rm -rf "$PWD"' EXIT
  # Built in its own directory, so with the dependencies and checksums that it was released with.
  module=$(go mod download -json "github.com/docker/compose/v2@$version" | sed -n 's/.*"Dir": "\(.*\)",*/\1/p')
  CGO_ENABLED=0 nice go -C "$module" build -trimpath -ldflags "-s -w -X github.com/docker/compose/v2/internal.Version=$version" \
    -o "$plugin.$$" ./cmd
  mv "$plugin.$$" "$plugin"
fi
echo "$plugin"
