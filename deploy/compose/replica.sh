#!/bin/bash
# The standby: a copy of the primary on the first start, then streaming from its own slot there. wal_level=logical is
# needed here too, for cdc's slot is on the standby; hot_standby_feedback keeps the rows that the slot's catalogue needs.
set -euo pipefail
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  # A first start that was cut short leaves a slot and half a copy.
  rm -rf "$PGDATA.new"
  psql -h primary -U replicator -d postgres -qAtc \
    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = 'replica' AND NOT active"
  pg_basebackup -h primary -U replicator -D "$PGDATA.new" -R -X stream -C -S replica
  chmod 700 "$PGDATA.new"
  rm -rf "$PGDATA"
  mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -c wal_level=logical -c hot_standby_feedback=on -c listen_addresses='*' -c unix_socket_directories=/var/run/postgresql
