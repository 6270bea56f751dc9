package ledger

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Difference is a place where the ledger does not add up. It names keys and sums, never a customer.
type Difference struct {
	Where string // "line", "order", "cell" or "order cell"
	What  string
}

// Verified is the result of [Ledger.Verify].
type Verified struct {
	Orders, Lines, Waiting, Cells int64
	Found                         int64 // differences, all of them
	Differences                   []Difference
}

// checks compare, in turn: each line's image with what it counts, each order's image with what it counts, the sums of
// both with the cells. Each gives rows of text.
var checks = [...]struct{ where, sql string }{
	{"line", `
SELECT 'line ' || l.line_id || ' counts ' || coalesce(l.c_gross::text, 'nothing') || ' minor units'
FROM millrace.ledger_lines AS l
LEFT JOIN millrace.ledger_orders AS o ON o.order_id = l.order_id AND o.known
LEFT JOIN millrace.currencies AS c ON c.code = o.currency
WHERE CASE WHEN l.gone OR coalesce(o.gone, true) THEN l.c_cell IS NOT NULL
      ELSE (l.c_cell, l.c_region, l.c_country, l.c_product, l.c_currency, l.c_units, l.c_gross, l.c_cancelled) IS DISTINCT FROM
           (date_bin('15 minutes', o.placed_at, '2000-01-01 00:00:00+00'), o.region, o.country, l.product_code, o.currency, l.units,
            round(l.units * l.unit_price * 10::numeric ^ coalesce(c.exponent, 2)), o.cancelled) END
   OR l.waiting IS DISTINCT FROM (NOT l.gone AND o.order_id IS NULL)`},
	{"order", `
SELECT 'order ' || o.order_id || ' does not count as its header says'
FROM millrace.ledger_orders AS o
WHERE CASE WHEN o.gone OR NOT o.known THEN o.c_cell IS NOT NULL
      ELSE (o.c_cell, o.c_region, o.c_country, o.c_currency, o.c_cancelled) IS DISTINCT FROM
           (date_bin('15 minutes', o.placed_at, '2000-01-01 00:00:00+00'), o.region, o.country, o.currency, o.cancelled) END`},
	{"cell", `
SELECT concat_ws(' ', to_char(cell AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'), region, country, product_code, currency) ||
       ': lines ' || coalesce(l.lines, 0) || ' in the ledger, ' || coalesce(t.lines, 0) || ' in the totals; units ' ||
       coalesce(l.units, 0) || ', ' || coalesce(t.units, 0) || '; gross minor units ' || coalesce(l.gross, 0) || ', ' || coalesce(t.gross, 0) ||
       '; of it cancelled ' || coalesce(l.cancelled, 0) || ', ' || coalesce(t.cancelled, 0)
FROM (SELECT c_cell AS cell, c_region AS region, c_country AS country, c_product AS product_code, c_currency AS currency, count(*) AS lines,
             count(*) FILTER (WHERE c_cancelled) AS cancelled_lines, sum(c_units) AS units,
             coalesce(sum(c_units) FILTER (WHERE c_cancelled), 0) AS cancelled_units, sum(c_gross) AS gross,
             coalesce(sum(c_gross) FILTER (WHERE c_cancelled), 0) AS cancelled
      FROM millrace.ledger_lines WHERE c_cell IS NOT NULL GROUP BY 1, 2, 3, 4, 5) AS l
FULL JOIN (SELECT cell, region, country, product_code, currency, sum(lines) AS lines, sum(cancelled_lines) AS cancelled_lines,
                  sum(units) AS units, sum(cancelled_units) AS cancelled_units, sum(gross_minor) AS gross, sum(cancelled_minor) AS cancelled
           FROM millrace.cells GROUP BY 1, 2, 3, 4, 5) AS t USING (cell, region, country, product_code, currency)
WHERE (coalesce(l.lines, 0), coalesce(l.cancelled_lines, 0), coalesce(l.units, 0), coalesce(l.cancelled_units, 0), coalesce(l.gross, 0), coalesce(l.cancelled, 0))
   IS DISTINCT FROM
      (coalesce(t.lines, 0), coalesce(t.cancelled_lines, 0), coalesce(t.units, 0), coalesce(t.cancelled_units, 0), coalesce(t.gross, 0), coalesce(t.cancelled, 0))`},
	{"order cell", `
SELECT concat_ws(' ', to_char(cell AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"'), region, country, currency) ||
       ': orders ' || coalesce(o.orders, 0) || ' in the ledger, ' || coalesce(t.orders, 0) || ' in the totals; of them cancelled ' ||
       coalesce(o.cancelled, 0) || ', ' || coalesce(t.cancelled, 0)
FROM (SELECT c_cell AS cell, c_region AS region, c_country AS country, c_currency AS currency, count(*) AS orders,
             count(*) FILTER (WHERE c_cancelled) AS cancelled
      FROM millrace.ledger_orders WHERE c_cell IS NOT NULL GROUP BY 1, 2, 3, 4) AS o
FULL JOIN (SELECT cell, region, country, currency, sum(orders) AS orders, sum(cancelled_orders) AS cancelled
           FROM millrace.order_cells GROUP BY 1, 2, 3, 4) AS t USING (cell, region, country, currency)
WHERE (coalesce(o.orders, 0), coalesce(o.cancelled, 0)) IS DISTINCT FROM (coalesce(t.orders, 0), coalesce(t.cancelled, 0))`},
}

// Verify compares the images with what they count and the sum of what they count with the totals, in one snapshot. It
// returns the first limit differences of each kind.
func (l *Ledger) Verify(ctx context.Context, limit int) (Verified, error) {
	tx, err := l.pool.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return Verified{}, fmt.Errorf("verify: %w", safe(err))
	}
	defer tx.Rollback(context.WithoutCancel(ctx))
	if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
		return Verified{}, fmt.Errorf("verify: %w", safe(err))
	}
	var v Verified
	if err := tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM millrace.ledger_orders WHERE known AND NOT gone),
		    (SELECT count(*) FROM millrace.ledger_lines WHERE NOT gone), (SELECT count(*) FROM millrace.ledger_lines WHERE waiting),
		    (SELECT count(*) FROM millrace.cells)`).Scan(&v.Orders, &v.Lines, &v.Waiting, &v.Cells); err != nil {
		return Verified{}, fmt.Errorf("verify: %w", safe(err))
	}
	for _, c := range checks {
		if err := v.check(ctx, tx, c.where, c.sql, limit); err != nil {
			return Verified{}, fmt.Errorf("verify every %s: %w", c.where, safe(err))
		}
	}
	return v, nil
}

func (v *Verified) check(ctx context.Context, tx pgx.Tx, where, sql string, limit int) error {
	rows, err := tx.Query(ctx, sql)
	if err != nil {
		return err
	}
	defer rows.Close()
	for n := 0; rows.Next(); n++ {
		v.Found++
		if n >= limit {
			continue
		}
		d := Difference{Where: where}
		if err := rows.Scan(&d.What); err != nil {
			return err
		}
		v.Differences = append(v.Differences, d)
	}
	return rows.Err()
}
