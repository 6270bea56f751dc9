#!/usr/bin/env bash
# Runs Debezium's PostgreSQL connector beside cdc, on the same Kafka, standby and table, prints a table with ratios and
# writes it into docs/benchmarks.md. Needs Java and Maven; takes about ten minutes. -short takes less data and leaves the
# document alone. Let the machine do nothing else meanwhile.
set -euo pipefail
cd "$(dirname "$0")/../../.."
make --no-print-directory bin/cdc
MILLRACE_BENCH_DEBEZIUM=1 exec go test -tags bench -count=1 -timeout 40m -v "$@" -run '^TestDebezium$' ./test/bench
