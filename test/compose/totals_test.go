//go:build compose

package compose

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// sourceCells is the GROUP BY over the store that the totals must equal.
const sourceCells = `
WITH line AS (
	SELECT o.*, d.product_code, d.quantity_ordered AS units,
	       round(d.quantity_ordered * d.price_each, CASE o.currency WHEN 'JPY' THEN 0 ELSE 2 END) AS amount
	  FROM orders o JOIN order_details d USING (order_number))
SELECT to_char(date_trunc('hour', l.ordered_at AT TIME ZONE 'UTC'), 'YYYY-MM-DD HH24'), coalesce(f.territory, 'unknown'), c.country,
       p.product_line, p.product_code, p.product_name, l.currency, count(*), sum(l.units), round(sum(l.amount), 4),
       round(coalesce(sum(l.amount) FILTER (WHERE l.status <> 'Cancelled'), 0), 4),
       round(coalesce(sum(l.amount) FILTER (WHERE l.status = 'Cancelled'), 0), 4)
  FROM line l JOIN products p USING (product_code) JOIN customers c USING (customer_number)
  LEFT JOIN employees e ON e.employee_number = c.sales_rep_employee_number LEFT JOIN offices f USING (office_code)
 GROUP BY 1, f.territory, c.country, p.product_line, p.product_code, p.product_name, l.currency`

const salesCells = `
SELECT to_char(hour AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24'), region, country, category, product_code, product_name, currency,
       lines, units, round(gross, 4), round(net, 4), round(cancelled, 4)
  FROM millrace.sales_hourly`

func TestTotalsEqualTheSource(t *testing.T) { totalsEqual(t) }

// totalsEqual compares the totals with the store at one position. A lock holds the store still meanwhile: the demo's
// trickle waits for it, as it would for a long ALTER TABLE.
func totalsEqual(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	source, sales := connect(ctx, t, primaryURL), connect(ctx, t, salesURL)
	tx, err := source.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // it only held the lock
	if _, err := tx.Exec(ctx, "LOCK TABLE orders, order_details, products, customers IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	drained(ctx, t, tx, sales)
	quiet := time.Since(start)
	want, got := cells(ctx, t, tx, sourceCells), cells(ctx, t, sales, salesCells)
	if len(want) == 0 {
		t.Fatal("the store has sold nothing, so nothing was compared")
	}
	missing, extra := less(want, got), less(got, want)
	if len(missing)+len(extra) > 0 {
		t.Fatalf("%d of %d cells of the store are not in the totals, %d cells of the totals are not in the store\nstore: %s\ntotals: %s",
			len(missing), len(want), len(extra), head(missing), head(extra))
	}
	t.Logf("%d cells equal, %v after the store was held still", len(want), quiet.Round(time.Millisecond))
}

type querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// drained waits until the totals hold all that the source has committed.
func drained(ctx context.Context, t *testing.T, source, sales querier) {
	t.Helper()
	var target string
	if err := source.QueryRow(ctx, "SELECT pg_current_wal_lsn()::text").Scan(&target); err != nil {
		t.Fatal(err)
	}
	waitFor(ctx, t, func() error {
		var at string
		var passed bool
		err := sales.QueryRow(ctx, "SELECT source_lsn::text, source_lsn >= $1::text::pg_lsn FROM millrace.sales_progress WHERE sink = 'postgres'", target).
			Scan(&at, &passed)
		if err != nil {
			return fmt.Errorf("read how far the totals are: %w", err)
		}
		if !passed {
			return fmt.Errorf("the totals are at %s, the source at %s", at, target)
		}
		return nil
	})
}

// cells reads the rows of a query as texts, and how often each occurs.
func cells(ctx context.Context, t *testing.T, db querier, sql string) map[string]int {
	t.Helper()
	rows, err := db.Query(ctx, "SELECT concat_ws(' | ', q.*) FROM ("+sql+") AS q")
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int, len(list))
	for _, cell := range list {
		count[cell]++
	}
	return count
}

// less lists the cells of a that b does not have as often.
func less(a, b map[string]int) []string {
	a = maps.Clone(a)
	maps.DeleteFunc(a, func(cell string, n int) bool { return b[cell] == n })
	return slices.Sorted(maps.Keys(a))
}

func head(list []string) string { return "\n  " + strings.Join(list[:min(len(list), 8)], "\n  ") }

func connect(ctx context.Context, t *testing.T, address string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(ctx)) })
	return conn
}
