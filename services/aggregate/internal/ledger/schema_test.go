package ledger

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/schemas"
)

// emptySales is an empty, migrated sales database.
func emptySales(t testing.TB) (*pgxpool.Pool, string) {
	t.Helper()
	return migrated(t, pgtest.Database(t))
}

func migrated(t testing.TB, dsn string) (*pgxpool.Pool, string) {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := postgres.Migrate(t.Context(), pool, schemas.SalesMigrations(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return pool, dsn
}

func TestViewsReadByTheHour(t *testing.T) {
	t.Parallel()
	pool, _ := emptySales(t)
	conn, err := pool.Acquire(t.Context())
	must(t, err)
	defer conn.Release()
	_, err = conn.Exec(t.Context(), `SET enable_seqscan = off`) // the tables are empty: only what is possible matters
	must(t, err)
	for q, index := range map[string]string{
		`EXPLAIN SELECT * FROM millrace.sales_hourly WHERE hour >= now() - interval '24 hours'`:                                                      "cells_hour",
		`EXPLAIN SELECT hour, sum(net) FROM millrace.sales_hourly WHERE hour >= '2026-01-01' AND hour < '2026-03-01' AND region = 'EMEA' GROUP BY 1`: "cells_hour",
		`EXPLAIN SELECT * FROM millrace.sales_quarter_hourly WHERE quarter >= now() - interval '24 hours'`:                                           "cells_pkey",
		`EXPLAIN SELECT * FROM millrace.sales_orders_hourly WHERE hour >= now() - interval '24 hours'`:                                               "order_cells_hour",
	} {
		rows, err := conn.Query(t.Context(), q)
		must(t, err)
		plan, err := pgx.CollectRows(rows, pgx.RowTo[string])
		must(t, err)
		text := strings.Join(plan, "\n")
		_, after, ok := strings.Cut(text, index)
		if !ok || !strings.Contains(after, "Index Cond: (") {
			t.Errorf("%s does not use %s:\n%s", q, index, text)
		}
	}
}
