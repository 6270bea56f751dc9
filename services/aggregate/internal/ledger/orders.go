package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// orders locks the touched orders, in the order of their ids, and folds and writes their headers. An order that the
// ledger does not hold is inserted as it will be, with its header or bare: that row is the lock for its lines.
func (t transaction) orders(ctx context.Context, b *sales.Batch, ids []string) error {
	if len(ids) == 0 {
		return nil
	}
	there, err := t.insertOrders(ctx, b, ids)
	if err != nil {
		return fmt.Errorf("insert the new orders: %w", err)
	}
	if len(there) == 0 {
		return nil
	}
	if err := t.lockOrders(ctx, b, there); err != nil {
		return fmt.Errorf("lock the orders: %w", err)
	}
	if changed := b.ChangedOrders(); len(changed) > 0 {
		if err := t.updateOrders(ctx, changed); err != nil {
			return fmt.Errorf("write the orders: %w", err)
		}
	}
	return nil
}

// ordersOfLines are the orders that the stored lines belong to. A line moves only with its partition's owner, which is
// this process, so that they stay true until the orders are locked.
func (t transaction) ordersOfLines(ctx context.Context, lines []string) (map[string]string, error) {
	out := map[string]string{}
	if len(lines) == 0 {
		return out, nil
	}
	rows, err := t.Query(ctx, `SELECT line_id, order_id FROM millrace.ledger_lines WHERE line_id = ANY($1)`, lines)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var line, order string
		if err := rows.Scan(&line, &order); err != nil {
			return nil, err
		}
		out[line] = order
	}
	return out, rows.Err()
}

// insertOrders inserts those of the orders that are new, and returns the ids of the others.
func (t transaction) insertOrders(ctx context.Context, b *sales.Batch, ids []string) ([]string, error) {
	fresh := make([]*sales.Order, len(ids))
	byID := make(map[string]*sales.Order, len(ids))
	for i, id := range ids {
		fresh[i] = b.Fresh(id)
		byID[id] = fresh[i]
	}
	rows, err := t.Query(ctx, `INSERT INTO millrace.ledger_orders (`+orderList+`)
		SELECT * FROM unnest(`+orderTypes+`) ON CONFLICT (order_id) DO NOTHING RETURNING order_id`, newOrderColumns(fresh).args()...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		b.Inserted(byID[id])
		delete(byID, id)
	}
	var there []string
	for _, id := range ids {
		if _, ok := byID[id]; ok {
			there = append(there, id)
		}
	}
	return there, rows.Err()
}

func (t transaction) lockOrders(ctx context.Context, b *sales.Batch, ids []string) error {
	rows, err := t.Query(ctx, `SELECT `+orderList+` FROM millrace.ledger_orders WHERE order_id = ANY($1) ORDER BY order_id FOR UPDATE`, ids)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		o, err := scanOrder(rows)
		if err != nil {
			return err
		}
		b.FoldOrder(o)
	}
	return rows.Err()
}

func (t transaction) updateOrders(ctx context.Context, orders []*sales.Order) error {
	_, err := t.Exec(ctx, `UPDATE millrace.ledger_orders AS o SET known = n.known, seq = n.seq, ref_seq = n.ref_seq, gone = n.gone,
		    placed_at = n.placed_at, status = n.status, cancelled = n.cancelled, customer_key = n.customer_key, country = n.country,
		    region = n.region, currency = n.currency, c_cell = n.c_cell, c_region = n.c_region, c_country = n.c_country,
		    c_currency = n.c_currency, c_cancelled = n.c_cancelled
		FROM unnest(`+orderTypes+`) AS n(`+orderList+`) WHERE o.order_id = n.order_id`, newOrderColumns(orders).args()...)
	return err
}

// The columns of ledger_orders, in the order of orderColumns.args.
const (
	orderList = `order_id, known, seq, ref_seq, gone, placed_at, status, cancelled, customer_key, country, region, currency,
		c_cell, c_region, c_country, c_currency, c_cancelled`
	orderTypes = `$1::text[], $2::boolean[], $3::bigint[], $4::bigint[], $5::boolean[], $6::timestamptz[], $7::text[], $8::boolean[],
		$9::text[], $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::text[], $15::text[], $16::text[], $17::boolean[]`
)

// orderColumns are orders as the arrays of one statement.
type orderColumns struct {
	id, status, country, region, currency    []string
	known, gone, cancelled, countedCancelled []bool
	seq, ref                                 []int64
	placed, cell                             []*time.Time
	customer                                 []*string
	cellRegion, cellCountry, cellCurrency    []*string
}

func newOrderColumns(orders []*sales.Order) orderColumns {
	var c orderColumns
	for _, o := range orders {
		c.id, c.known, c.gone = append(c.id, o.ID), append(c.known, o.Known), append(c.gone, o.Gone)
		c.seq, c.ref = append(c.seq, o.Version.Seq), append(c.ref, o.Version.RefSeq)
		c.placed = append(c.placed, optional(!o.PlacedAt.IsZero(), o.PlacedAt))
		c.status, c.cancelled = append(c.status, o.Status), append(c.cancelled, o.Cancelled)
		c.customer = append(c.customer, optional(o.HasCustomer, o.Customer))
		c.country, c.region, c.currency = append(c.country, o.Country), append(c.region, o.Region), append(c.currency, o.Currency)
		p := o.Counted
		c.cell = append(c.cell, optional(p.Counts, time.Unix(p.Key.Cell, 0).UTC()))
		c.cellRegion = append(c.cellRegion, optional(p.Counts, p.Key.Region))
		c.cellCountry = append(c.cellCountry, optional(p.Counts, p.Key.Country))
		c.cellCurrency = append(c.cellCurrency, optional(p.Counts, p.Key.Currency))
		c.countedCancelled = append(c.countedCancelled, p.Cancelled)
	}
	return c
}

func (c orderColumns) args() []any {
	return []any{c.id, c.known, c.seq, c.ref, c.gone, c.placed, c.status, c.cancelled, c.customer, c.country, c.region, c.currency,
		c.cell, c.cellRegion, c.cellCountry, c.cellCurrency, c.countedCancelled}
}

func scanOrder(rows pgx.Rows) (*sales.Order, error) {
	o := &sales.Order{}
	var placed, cell *time.Time
	var customer, region, country, currency *string
	if err := rows.Scan(&o.ID, &o.Known, &o.Version.Seq, &o.Version.RefSeq, &o.Gone, &placed, &o.Status, &o.Cancelled, &customer,
		&o.Country, &o.Region, &o.Currency, &cell, &region, &country, &currency, &o.Counted.Cancelled); err != nil {
		return nil, err
	}
	if placed != nil {
		o.PlacedAt = placed.UTC()
	}
	if customer != nil {
		o.HasCustomer, o.Customer = true, *customer
	}
	if cell != nil {
		o.Counted.Counts = true
		o.Counted.Key = sales.OrderCellKey{Cell: cell.Unix(), Region: *region, Country: *country, Currency: *currency}
	}
	return o, nil
}
