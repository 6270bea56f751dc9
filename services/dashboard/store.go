package dashboard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/pkg/postgres"
)

// sink is the name of the sales database in its own progress.
const sink = "postgres"

// Reasons why there is no answer, in words for people.
var (
	errAway    = errors.New("the sales database does not answer (sales.url)")
	errNoViews = errors.New("the sales database has no totals yet: aggregate makes them, so start it")
	errSlow    = errors.New("the sales database took too long")
)

// readOnly prepares the pool: nothing is ever written, no statement runs on after its asker has gone, and plans fit the
// range that is asked for.
func readOnly(cfg Config) func(*pgxpool.Config) {
	return func(p *pgxpool.Config) {
		p.MaxConns = int32(cfg.Connections) + 1
		p.MaxConnLifetimeJitter = time.Minute
		for name, value := range map[string]string{
			"default_transaction_read_only":       "on",
			"statement_timeout":                   strconv.FormatInt(cfg.QueryTimeout.Milliseconds(), 10),
			"idle_in_transaction_session_timeout": strconv.FormatInt(2*cfg.QueryTimeout.Milliseconds(), 10),
			"plan_cache_mode":                     "force_custom_plan",
			"jit":                                 "off",
			"work_mem":                            "16MB", // sums over weeks sort once and not on disk
		} {
			p.ConnConfig.RuntimeParams[name] = value
		}
	}
}

// snapshot runs do on one state of the database: its totals and its progress belong together.
func snapshot(ctx context.Context, pool *pgxpool.Pool, do func(pgx.Tx) error) error {
	if pool == nil {
		return errAway
	}
	return explain(pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, do))
}

// explain turns an error of the database into one of the reasons above where it is one.
func explain(err error) error {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg) && (pg.Code == "42P01" || pg.Code == "3F000"):
		return errNoViews
	case errors.As(err, &pg) && pg.Code == "57014", errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", errSlow, postgres.Cause(err))
	case postgres.Retryable(err):
		return fmt.Errorf("%w: %w", errAway, postgres.Cause(err))
	}
	return err
}

// progress is how far one sink is.
type progress struct {
	Sink         string
	ValidThrough *time.Time
	SourceLSN    *string
	Incomplete   []string
	UpdatedAt    *time.Time
}

// readProgress is of all sinks; the sales database's own comes first and is always there.
func readProgress(ctx context.Context, tx pgx.Tx) ([]progress, error) {
	rows, err := tx.Query(ctx, "SELECT sink, valid_through, source_lsn::text, incomplete, updated_at FROM millrace.sales_progress ORDER BY sink <> $1, sink", sink)
	if err != nil {
		return nil, err
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[progress])
	if err != nil {
		return nil, err
	}
	if len(all) == 0 || all[0].Sink != sink {
		all = append([]progress{{Sink: sink}}, all...)
	}
	for i := range all {
		if all[i].Incomplete == nil {
			all[i].Incomplete = []string{}
		}
	}
	return all, nil
}

// measures are the sums of some sales in one currency. Amounts are decimal numbers in major units.
type measures struct {
	Currency        string `json:"currency" doc:"ISO 4217 code; amounts of different currencies are never added" example:"EUR"`
	Lines           int64  `json:"lines" doc:"Order lines, those of cancelled orders and returns included"`
	Units           int64  `json:"units" doc:"Units of these lines; returns are negative"`
	Gross           string `json:"gross" doc:"Amount of all lines" example:"1204.50"`
	Net             string `json:"net" doc:"gross - cancelled" example:"1180.00"`
	Cancelled       string `json:"cancelled" doc:"The part of gross whose order is cancelled" example:"24.50"`
	Orders          *int64 `json:"orders,omitempty" doc:"Orders, cancelled ones included; left out when grouped or filtered by category or product, since one order has lines of several products"`
	CancelledOrders *int64 `json:"cancelled_orders,omitempty" doc:"The part of orders that is cancelled; left out as orders"`
}

// group is what a row is about, besides its period. Only what was grouped by is set.
type group struct {
	Region      *string `json:"region,omitempty"`
	Country     *string `json:"country,omitempty"`
	Category    *string `json:"category,omitempty"`
	ProductCode *string `json:"product_code,omitempty"`
	ProductName *string `json:"product_name,omitempty" doc:"The name that the product has now"`
}

// cell is one row of sums; period counts from 0 and is -1 for the total of a currency.
type cell struct {
	period int
	group
	measures
}

// columns are the columns of the views that a dimension reads.
func (d dimension) columns() []string {
	if d == product {
		return []string{"product_code", "product_name"}
	}
	return []string{d.String()}
}

// The parts of a statement. It reads the tables below the views sales_quarter_hourly and sales_orders_quarter_hourly,
// and gives what a sum over them gives: the views first put the shards of every cell together, which no sum needs and
// which takes several times as long over weeks.
const (
	lines = `(SELECT cell AS quarter, region, country, coalesce(p.category, 'unknown') AS category, product_code, coalesce(p.name, 'unknown') AS product_name,
 currency, lines, units, gross_minor, cancelled_minor FROM millrace.cells LEFT JOIN millrace.products AS p USING (product_code)) AS c`
	lineSums = "sum(lines)::bigint AS lines, sum(units)::bigint AS units, sum(gross_minor) AS gross, sum(cancelled_minor) AS cancelled"
	placed   = "(SELECT cell AS quarter, region, country, currency, orders, cancelled_orders FROM millrace.order_cells) AS o"
	// placedSums and noOrders end a row; orders cannot always be counted.
	placedSums = "sum(orders)::bigint AS orders, sum(cancelled_orders)::bigint AS cancelled_orders"
	noOrders   = "NULL::bigint AS orders, NULL::bigint AS cancelled_orders"
	// amounts are in major units, with the decimals of the currency; there are orders without a line.
	amounts = "coalesce(lines, 0) AS lines, coalesce(units, 0) AS units, coalesce(gross, 0) * unit AS gross," +
		" (coalesce(gross, 0) - coalesce(cancelled, 0)) * unit AS net, coalesce(cancelled, 0) * unit AS cancelled"
	unit   = "CROSS JOIN LATERAL (SELECT coalesce((SELECT factor FROM millrace.currencies WHERE code = currency), 0.01)) AS f(unit)"
	values = "lines, units, gross::text, net::text, cancelled::text, orders, cancelled_orders"
	totals = "sum(lines)::bigint, sum(units)::bigint, sum(gross)::text, sum(net)::text, sum(cancelled)::text, sum(orders)::bigint, sum(cancelled_orders)::bigint"
)

// statement is the SQL for a question. Only names of ours are written into it; $1 and $2 are the range, $3 the starts
// of its periods, $4 the number of rows (per currency for q.top, whose rows have their place instead of a period), then
// one array for each filter, that of the currencies last.
func statement(q query) string {
	var columns []string
	for _, d := range q.by {
		columns = append(columns, d.columns()...)
	}
	nulls := strings.Repeat("NULL::text, ", len(columns))
	columns = append(columns, "currency")
	names := strings.Join(columns, ", ")
	where, n := "quarter >= $1 AND quarter < $2", 4
	for d := range dimensions {
		if len(q.filters[d]) > 0 {
			n++
			where += fmt.Sprintf(" AND %s = ANY($%d)", d.columns()[0], n)
		}
	}
	if len(q.currencies) > 0 {
		n++
		where += fmt.Sprintf(" AND currency = ANY($%d)", n)
	}
	sums := func(from, what, counted string) string {
		return fmt.Sprintf("(SELECT width_bucket(quarter, $3::timestamptz[]) - 1 AS period, %s, %s FROM %s WHERE %s GROUP BY period, %s HAVING sum(%s) <> 0)",
			names, what, from, where, names, counted)
	}
	with := "WITH line AS " + sums(lines, lineSums, "lines")
	if q.countsOrders() {
		with += ", placed AS " + sums(placed, placedSums, "orders") + fmt.Sprintf(
			", cell AS (SELECT period, %s, %s, coalesce(orders, 0) AS orders, coalesce(cancelled_orders, 0) AS cancelled_orders FROM line FULL JOIN placed USING (period, %s) %s)",
			names, amounts, names, unit)
	} else {
		with += fmt.Sprintf(", cell AS (SELECT period, %s, %s, %s FROM line %s)", names, amounts, noOrders, unit)
	}
	rows := fmt.Sprintf("(SELECT period, %s, %s FROM cell LIMIT $4)", names, values)
	if q.top > 0 {
		with += fmt.Sprintf(", best AS (SELECT *, row_number() OVER (PARTITION BY currency ORDER BY net DESC, %s) AS place FROM cell)", names)
		rows = fmt.Sprintf("(SELECT place::int, %s, %s FROM best WHERE place <= $4)", names, values)
	}
	return fmt.Sprintf("%s %s UNION ALL (SELECT -1, %scurrency, %s FROM cell GROUP BY currency)", with, rows, nulls, totals)
}

// answer is what one statement gives.
type answer struct {
	cells  []cell // in order
	totals []cell // one for each currency, in order
}

// readCells gives the rows of q over the periods that begin at starts and end at end, and the total of each currency.
// At most limit rows are read; for q.top it is the number of rows per currency.
func readCells(ctx context.Context, tx pgx.Tx, q query, starts []time.Time, end time.Time, limit int) (answer, error) {
	args := []any{starts[0], end, starts, limit}
	for d := range dimensions {
		if len(q.filters[d]) > 0 {
			args = append(args, q.filters[d])
		}
	}
	if len(q.currencies) > 0 {
		args = append(args, q.currencies)
	}
	var out answer
	rows, err := tx.Query(ctx, statement(q), args...)
	if err != nil {
		return out, err
	}
	defer rows.Close()
	for rows.Next() {
		var c cell
		if err := rows.Scan(c.targets(q.by)...); err != nil {
			return out, err
		}
		if c.period < 0 {
			out.totals = append(out.totals, c)
		} else {
			out.cells = append(out.cells, c)
		}
	}
	slices.SortFunc(out.cells, cell.compare)
	slices.SortFunc(out.totals, cell.compare)
	return out, rows.Err()
}

// compare orders rows by period, then by what they are about, then by currency, byte by byte: every database gives the
// same order.
func (c cell) compare(d cell) int {
	order := cmp.Compare(c.period, d.period)
	for i, value := range c.fields() {
		order = cmp.Or(order, cmp.Compare(*value, *d.fields()[i]))
	}
	return cmp.Or(order, cmp.Compare(c.Currency, d.Currency))
}

// fields are the values that are set, in the order of columns.
func (g group) fields() []*string {
	return slices.DeleteFunc([]*string{g.Region, g.Country, g.Category, g.ProductCode, g.ProductName}, func(v *string) bool { return v == nil })
}

// targets are where a row of the statement is scanned to.
func (c *cell) targets(by []dimension) []any {
	to := []any{&c.period}
	for _, d := range by {
		switch d {
		case region:
			to = append(to, &c.Region)
		case country:
			to = append(to, &c.Country)
		case category:
			to = append(to, &c.Category)
		case product:
			to = append(to, &c.ProductCode, &c.ProductName)
		}
	}
	return append(to, &c.Currency, &c.Lines, &c.Units, &c.Gross, &c.Net, &c.Cancelled, &c.Orders, &c.CancelledOrders)
}
