#!/bin/bash
# First start of the primary: the roles of the standby and of cdc. Tables, and what cdc may read of them, are the
# store's affair (here: the demo's).
set -euo pipefail
psql -v ON_ERROR_STOP=1 <<'SQL'
CREATE ROLE replicator LOGIN REPLICATION;
CREATE ROLE cdc LOGIN REPLICATION;
GRANT pg_read_all_stats TO cdc;
SQL
# "all" in pg_hba.conf does not stand for physical replication.
echo "host replication replicator samenet trust" >>"$PGDATA/pg_hba.conf"
