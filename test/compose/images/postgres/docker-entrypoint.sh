#!/bin/bash
# What the official entry point does, less its corner cases: init once, run /docker-entrypoint-initdb.d, exec the command.
set -euo pipefail
[ "${1:0:1}" != - ] || set -- postgres "$@"
if [ "$1" = postgres ]; then
  mkdir -p "$PGDATA"
  if [ "$(id -u)" = 0 ]; then
    chown -R postgres: "$PGDATA" /var/run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
  fi
  chmod 700 "$PGDATA"
  if [ ! -s "$PGDATA/PG_VERSION" ]; then
    auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256} password=${POSTGRES_PASSWORD:-}
    if [ -z "$password" ] && [ "$auth" != trust ]; then
      echo "POSTGRES_PASSWORD is not set (or POSTGRES_HOST_AUTH_METHOD=trust)" >&2
      exit 1
    fi
    user=${POSTGRES_USER:-postgres} db=${POSTGRES_DB:-${POSTGRES_USER:-postgres}}
    initdb -D "$PGDATA" -U "$user" -E UTF8 --auth-local=trust ${password:+--pwfile=<(printf '%s\n' "$password")}
    printf '\nhost all all all %s\n' "$auth" >>"$PGDATA/pg_hba.conf"
    # As the official image: during the first start nobody can connect over TCP.
    pg_ctl -D "$PGDATA" -w start -o "-c listen_addresses='' -c unix_socket_directories=/var/run/postgresql ${*:2}" >/dev/null
    export PGHOST=/var/run/postgresql PGUSER=$user
    [ "$db" = postgres ] || psql -qd postgres -c "CREATE DATABASE \"$db\""
    export PGDATABASE=$db
    for f in /docker-entrypoint-initdb.d/*; do
      case $f in
        *.sh) if [ -x "$f" ]; then "$f"; else . "$f"; fi ;;
        *.sql) psql -v ON_ERROR_STOP=1 -f "$f" ;;
      esac
    done
    pg_ctl -D "$PGDATA" -m fast -w stop >/dev/null
  fi
  set -- "$@" -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
fi
exec "$@"
