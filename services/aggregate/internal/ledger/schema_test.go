package ledger

import (
	"log/slog"
	"testing"

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

func TestViewsAreQuickByHour(t *testing.T) {
	pool, _ := emptySales(t)
	for _, q := range []string{
		`EXPLAIN SELECT * FROM millrace.sales_hourly WHERE hour >= now() - interval '24 hours'`,
		`EXPLAIN SELECT hour, sum(net) FROM millrace.sales_hourly WHERE hour >= '2026-01-01' AND hour < '2026-03-01' GROUP BY hour`,
		`EXPLAIN SELECT * FROM millrace.sales_orders_hourly WHERE hour >= now() - interval '24 hours'`,
	} {
		rows, err := pool.Query(t.Context(), q)
		if err != nil {
			t.Fatalf("%s: %v", q, err)
		}
		plan := ""
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				t.Fatal(err)
			}
			plan += line + "\n"
		}
		t.Log(plan)
	}
}
