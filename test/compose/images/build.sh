#!/bin/bash
# Builds stand-ins for the images that docker-compose.yml and the Dockerfile name, on a machine that reaches package
# registries (apt, Maven, the Go module proxy) but no image registry. Same name, entry point and environment contract
# as the official images, the same server inside, smaller at the edges (see each Dockerfile). Where an image registry
# can be reached, use the official ones.
#
#   build.sh [kafka] [postgres] [registry] [golang] [distroless]      default: all of them; one that exists is kept
#
# Needs: root on Debian, debootstrap, mvn, go, xz, python3, and a running engine (DOCKER_HOST).
set -euo pipefail
cd "$(dirname "$0")"
kafka_version=4.3.1
postgres_version=18.6.0
registry_version=2.6.13.Final
plugin=org.apache.maven.plugins:maven-dependency-plugin:3.6.0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DOCKER_BUILDKIT=0 # the classic builder: BuildKit's command line is a plugin that plain Debian lacks

step() { echo "stand-ins: $SECONDS s: $*"; }
have() { docker image inspect "$1" >/dev/null 2>&1; }
build() { nice docker build --quiet --network host --tag "$1" "$2" >/dev/null; step "$1"; }
copy() { (cd "$work" && nice mvn -q -B "$plugin:copy" -Dartifact="$1" -DoutputDirectory="$2"); } # in a directory without a pom.xml

base() {
  have millrace-standin/debian:bookworm && return
  local mirror
  mirror=$(awk '/^URIs:/{print $2; exit} /^deb /{print $2; exit}' /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null)
  nice debootstrap --variant=minbase bookworm "$work/base" "$mirror" >"$work/debootstrap.log" || { tail "$work/debootstrap.log"; exit 1; }
  rm -rf "$work"/base/var/cache/apt/archives/*.deb
  # What this machine needs to reach a mirror: settings and certificates.
  cp /etc/apt/apt.conf.d/* "$work/base/etc/apt/apt.conf.d/"
  mkdir -p "$work/base/etc/ssl/certs"
  cp /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
  tar -C "$work/base" -c . | docker import - millrace-standin/debian:bookworm >/dev/null
  rm -rf "$work/base"
  step millrace-standin/debian:bookworm
}

java() {
  base
  have millrace-standin/java:17 && return
  mkdir "$work/java"
  cat >"$work/java/Dockerfile" <<'D'
FROM millrace-standin/debian:bookworm
RUN apt-get update && apt-get install -y --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
D
  build millrace-standin/java:17 "$work/java"
}

kafka() {
  have "apache/kafka:$kafka_version" && return
  java
  local c=$work/kafka
  mkdir -p "$c/bin"
  cp kafka/* "$c/"
  nice mvn -q -B -f "$c/pom.xml" -Dkafka.version="$kafka_version" "$plugin:copy-dependencies" -DincludeScope=runtime -DoutputDirectory="$c/libs"
  tool() { # script, main class, default heap
    # shellcheck disable=SC2016 # for the script to expand
    printf '#!/bin/sh\nexec java ${KAFKA_HEAP_OPTS:-%s} ${KAFKA_OPTS:-} -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "/opt/kafka/libs/*" %s "$@"\n' "$3" "$2" >"$c/bin/$1"
  }
  tool kafka-server-start.sh kafka.Kafka "-Xms128m -Xmx512m"
  tool kafka-storage.sh kafka.tools.StorageTool -Xmx128m
  tool kafka-topics.sh org.apache.kafka.tools.TopicCommand -Xmx128m
  tool kafka-console-consumer.sh org.apache.kafka.tools.consumer.ConsoleConsumer -Xmx128m
  tool kafka-consumer-groups.sh org.apache.kafka.tools.consumer.group.ConsumerGroupCommand -Xmx128m
  chmod 755 "$c"/bin/* "$c/run"
  build "apache/kafka:$kafka_version" "$c"
}

postgres() {
  have postgres:18 && return
  base
  local c=$work/postgres arch
  case $(uname -m) in
    x86_64) arch=linux-amd64 ;;
    aarch64) arch=linux-arm64v8 ;;
    *) echo "no PostgreSQL binaries for $(uname -m)" >&2; exit 1 ;;
  esac
  mkdir -p "$c/server"
  cp postgres/* "$c/"
  chmod 755 "$c/docker-entrypoint.sh"
  copy "io.zonky.test.postgres:embedded-postgres-binaries-$arch:$postgres_version" "$work/pg"
  python3 -m zipfile -e "$work"/pg/*.jar "$work/pg"
  tar -xJf "$work"/pg/*.txz -C "$c/server"
  CGO_ENABLED=0 nice go build -trimpath -ldflags '-s -w' -o "$c/pg_basebackup" ./pg_basebackup
  build postgres:18 "$c"
}

registry() {
  have "quay.io/apicurio/apicurio-registry-mem:$registry_version" && return
  java
  local c=$work/registry
  mkdir -p "$c/app"
  cp registry/* "$c/"
  copy "io.apicurio:apicurio-registry-app:$registry_version:tar.gz:all" "$work/apicurio"
  tar -xzf "$work"/apicurio/*.tar.gz -C "$c/app"
  build "quay.io/apicurio/apicurio-registry-mem:$registry_version" "$c"
}

# The toolchain of this machine, with its settings for the module proxy.
golang() {
  have golang:1.26 && return
  base
  local c=$work/golang
  mkdir -p "$c/go"
  cp -a "$(go env GOROOT)/." "$c/go/"
  cat >"$c/Dockerfile" <<D
FROM millrace-standin/debian:bookworm
COPY go /usr/local/go
ENV GOPATH=/go PATH=/go/bin:/usr/local/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \\
    GOTOOLCHAIN=local GOPROXY="$(go env GOPROXY)" GOSUMDB="$(go env GOSUMDB)"
WORKDIR /go
D
  build golang:1.26 "$c"
}

distroless() {
  have gcr.io/distroless/static-debian12:nonroot && return
  local c=$work/distroless
  mkdir -p "$c/etc/ssl/certs" "$c/home/nonroot" "$c/tmp"
  cp /etc/ssl/certs/ca-certificates.crt "$c/etc/ssl/certs/"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n' >"$c/etc/passwd"
  printf 'root:x:0:\nnobody:x:65534:\nnonroot:x:65532:\n' >"$c/etc/group"
  chmod 1777 "$c/tmp" && chown 65532:65532 "$c/home/nonroot"
  tar -C "$c" -c . | docker import --change 'USER 65532' --change 'WORKDIR /home/nonroot' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
    - gcr.io/distroless/static-debian12:nonroot >/dev/null
  step gcr.io/distroless/static-debian12:nonroot
}

if [ $# -eq 0 ]; then set -- kafka postgres registry golang distroless; fi
for part; do "$part"; done
