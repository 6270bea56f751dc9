#!/bin/bash
# Proves docker-compose.yml from nothing to nothing: builds the image, brings everything up until it is healthy, has the
# tests beside this file look through it, kill and restart parts of it, takes it down and up again with its data, and
# checks that nothing is left in the end. On a laptop it needs Docker with compose. As root on a plain Debian machine it
# starts an engine of its own where none runs, builds the compose plugin where there is none, and builds stand-ins
# (images/build.sh) where no image registry can be reached.
#
#   test/compose/run.sh             the whole
#   test/compose/run.sh parts       only what Millrace stands on: Kafka, registry, databases; no image of ours
#
# The project is named millrace-e2e, so the data of a stack that you run yourself is not touched; its ports must be free.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=$PWD/test/compose
export COMPOSE_PROJECT_NAME=millrace-e2e IMAGE_TAG=e2e COMPOSE_BAKE=false
run=$(mktemp -d /tmp/millrace-compose.XXXXXX)
engine= compose_up= events=
parts=()
case ${1:-} in
  '') ;;
  parts) parts=(kafka registry primary replica salesdb) ;;
  *) echo "usage: test/compose/run.sh [parts]" >&2; exit 2 ;;
esac

step() { printf '%4d s  %s\n' "$SECONDS" "$*"; }
# A missing part is a failure in CI and a reason to skip elsewhere.
missing() {
  echo "compose test skipped: $*" >&2
  if [ -n "${CI:-}" ]; then exit 1; fi
  exit 0
}

finish() {
  local status=$?
  trap - EXIT
  if [ -n "$compose_up" ]; then
    if [ $status -ne 0 ]; then
      docker compose ps --all
      docker compose --profile tools run --rm --no-deps admin status || true # shows which stage is behind
      docker compose logs --no-color --tail 40
    fi
    if [ -n "$events" ]; then kill "$events" 2>/dev/null || true; fi
    docker compose --profile '*' down --volumes --remove-orphans >"$run/down.log" 2>&1 || { cat "$run/down.log"; status=1; }
    nothing_left || status=1
    step "taken down"
    # What failed stands last, where it is looked for first.
    if [ $status -ne 0 ] && [ -s "$run/looked" ]; then grep -v '^=== RUN' "$run/looked" || true; fi
  fi
  if [ -n "$engine" ]; then stop_engine; fi
  rm -rf "$run"
  exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

nothing_left() {
  local label=label=com.docker.compose.project=$COMPOSE_PROJECT_NAME left
  left=$(docker ps --all --quiet --filter "$label"; docker volume ls --quiet --filter "$label"; docker network ls --quiet --filter "$label")
  if [ -n "$left" ]; then
    echo "left behind after down --volumes:" $left >&2
    return 1
  fi
}

# An engine of our own: socket, process id and state in a temporary directory, images in the cache.
start_engine() {
  if [ "$(id -u)" != 0 ] || ! command -v dockerd >/dev/null; then
    missing "no Docker engine answers; start Docker, or as root on Debian: apt-get install docker.io"
  fi
  local data=/var/cache/millrace/docker
  mkdir -p "$data"
  exec 9>"$data.lock"
  flock --nonblock 9 || missing "another run uses the engine in $data"
  bridge=$(ip -brief link show docker0 2>/dev/null || true)
  export DOCKER_HOST=unix://$run/docker.sock
  # In a session of its own: ^C must reach it after the containers are down, not with them.
  setsid dockerd --host "$DOCKER_HOST" --pidfile "$run/docker.pid" --exec-root "$run/exec" --data-root "$data" >"$run/dockerd.log" 2>&1 9>&- &
  engine=$!
  for _ in $(seq 120); do
    if docker info >/dev/null 2>&1; then return; fi
    kill -0 "$engine" 2>/dev/null || break
    sleep 0.25
  done
  tail -20 "$run/dockerd.log" >&2
  echo "the Docker engine did not start" >&2
  exit 1
}

stop_engine() {
  kill "$engine" 2>/dev/null || true
  wait "$engine" 2>/dev/null || true
  [ -n "$bridge" ] || ip link delete docker0 2>/dev/null || true
  step "engine stopped"
}

command -v docker >/dev/null || missing "the docker command is not installed; Debian: apt-get install docker.io"
if ! docker info >/dev/null 2>&1; then
  start_engine
  step "engine started"
fi
if ! docker compose version >/dev/null 2>&1; then
  plugin=$("$here/install-compose.sh")
  export DOCKER_CONFIG=$run/config # the user's own has no plugin, and stays as it is
  mkdir -p "$DOCKER_CONFIG/cli-plugins"
  ln -s "$plugin" "$DOCKER_CONFIG/cli-plugins/docker-compose"
  step "compose plugin ready"
fi
docker compose config --quiet
docker compose --profile '*' config --quiet
step "docker-compose.yml is valid"

if ! docker image inspect postgres:18 >/dev/null 2>&1 && ! timeout 300 docker pull --quiet postgres:18 >/dev/null 2>&1; then
  [ "$(id -u)" = 0 ] && command -v debootstrap >/dev/null || missing "no image registry answers, and stand-ins need root and debootstrap"
  standins=1
fi
if [ -n "${standins:-}" ] || docker image inspect millrace-standin/debian:bookworm >/dev/null 2>&1; then
  "$here/images/build.sh"
  step "stand-ins for the official images ready"
fi

up() {
  docker compose up --detach --wait --wait-timeout 300 "${parts[@]}" >"$run/up.log" 2>&1 || { tail -40 "$run/up.log"; exit 1; }
}
look() { # the tests with such names, in the order of the files
  (cd "$here" && "$run/look" -test.v -test.failfast -test.run "$1") | tee "$run/looked"
}
no_oom() {
  docker compose stats --no-stream --format 'table {{.Name}}\t{{.MemUsage}}\t{{.MemPerc}}'
  if [ -s "$run/oom" ]; then
    echo "out of memory:" >&2
    cat "$run/oom" >&2
    return 1
  fi
}

if [ ${#parts[@]} -eq 0 ]; then
  docker compose build --progress plain >"$run/build.log" 2>&1 || { tail -40 "$run/build.log"; exit 1; }
  step "image built"
  go test -c -tags compose -o "$run/look" "$here"
  step "tests built"
fi
compose_up=1
docker compose --profile '*' down --volumes --remove-orphans >"$run/down.log" 2>&1 # what a killed run has left
docker events --filter event=oom --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" --format '{{.Actor.Attributes.name}}' >"$run/oom" &
events=$!
up
step "up and healthy"
if [ ${#parts[@]} -eq 0 ]; then
  born=$SECONDS
  look 'Order|Activity|Pages|Shop|Operator|Totals'
  step "looked through"
  look 'KilledServices'
  step "killed services are back"
  look 'PartsRestart'
  step "Kafka and the databases were restarted"
  while [ $((SECONDS - born)) -lt 120 ]; do sleep 1; done # the demo's trickle is what fills memory
  no_oom
  step "two minutes within the memory limits"
  docker compose down >"$run/down.log" 2>&1
  step "taken down, volumes kept"
  up
  step "up and healthy again"
  look 'Kept'
  step "looked through again"
fi
no_oom
