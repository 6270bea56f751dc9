package ledger

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

// lines folds the batch's lines, counts them and those of changed orders again, and writes what changed. Their orders
// are locked. New lines are copied straight into the table: nobody else can insert them, for they come by a partition
// that is ours. known are the ids of the batch's lines that the table has.
func (t transaction) lines(ctx context.Context, b *sales.Batch, known []string) error {
	stored, err := t.loadLines(ctx, known, b.Recount())
	if err != nil {
		return fmt.Errorf("read the lines: %w", err)
	}
	insert, update, err := b.FoldLines(stored, t.ledger.exponents)
	if err != nil {
		return err
	}
	if len(insert) > 0 {
		if _, err := t.CopyFrom(ctx, pgx.Identifier{"millrace", "ledger_lines"}, lineNames(), pgx.CopyFromSlice(len(insert), func(i int) ([]any, error) {
			return lineRow(insert[i]), nil
		})); err != nil {
			return fmt.Errorf("insert lines: %w", err)
		}
	}
	if len(update) > 0 {
		if err := t.updateLines(ctx, update); err != nil {
			return fmt.Errorf("write the lines: %w", err)
		}
	}
	return nil
}

const lineList = `line_id, order_id, seq, ref_seq, gone, product_code, units, unit_price, waiting,
	c_cell, c_region, c_country, c_product, c_currency, c_units, c_gross, c_cancelled`

func lineNames() []string {
	return []string{"line_id", "order_id", "seq", "ref_seq", "gone", "product_code", "units", "unit_price", "waiting",
		"c_cell", "c_region", "c_country", "c_product", "c_currency", "c_units", "c_gross", "c_cancelled"}
}

func lineRow(l *sales.Line) []any {
	p := l.Counted
	row := []any{l.ID, l.OrderID, l.Version.Seq, l.Version.RefSeq, l.Gone, l.Product, l.Units, numeric(l.Price), l.Waiting,
		nil, nil, nil, nil, nil, p.Units, p.Gross, p.Cancelled}
	if p.Counts {
		row[9], row[10], row[11], row[12], row[13] = time.Unix(p.Key.Cell, 0).UTC(), p.Key.Region, p.Key.Country, p.Key.Product, p.Key.Currency
	}
	return row
}

func numeric(p sales.Price) pgtype.Numeric {
	coef, scale := p.Parts()
	return pgtype.Numeric{Int: coef, Exp: -scale, Valid: true}
}

// loadLines loads lines by their ids and by their orders.
func (t transaction) loadLines(ctx context.Context, lines, orders []string) (map[string]*sales.Line, error) {
	out := map[string]*sales.Line{}
	for _, q := range []struct {
		column string
		values []string
	}{{"line_id", lines}, {"order_id", orders}} {
		if len(q.values) == 0 {
			continue
		}
		rows, err := t.Query(ctx, `SELECT `+lineList+` FROM millrace.ledger_lines WHERE `+q.column+` = ANY($1)`, q.values)
		if err != nil {
			return nil, err
		}
		for rows.Next() {
			l, err := scanLine(rows)
			if err != nil {
				rows.Close()
				return nil, err
			}
			out[l.ID] = l
		}
		if err := rows.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func scanLine(rows pgx.Rows) (*sales.Line, error) {
	l := &sales.Line{Known: true}
	var price pgtype.Numeric
	var cell *time.Time
	var region, country, product, currency *string
	p := &l.Counted
	if err := rows.Scan(&l.ID, &l.OrderID, &l.Version.Seq, &l.Version.RefSeq, &l.Gone, &l.Product, &l.Units, &price, &l.Waiting,
		&cell, &region, &country, &product, &currency, &p.Units, &p.Gross, &p.Cancelled); err != nil {
		return nil, err
	}
	l.Price = sales.NewPrice(price.Int, -price.Exp)
	if cell != nil {
		p.Counts = true
		p.Key = sales.CellKey{Cell: cell.Unix(), Region: *region, Country: *country, Product: *product, Currency: *currency}
	}
	return l, nil
}

func (t transaction) updateLines(ctx context.Context, lines []*sales.Line) error {
	var c lineColumns
	for _, l := range lines {
		c.add(l)
	}
	_, err := t.Exec(ctx, `UPDATE millrace.ledger_lines AS l SET order_id = n.order_id, seq = n.seq, ref_seq = n.ref_seq, gone = n.gone,
		    product_code = n.product_code, units = n.units, unit_price = n.unit_price, waiting = n.waiting, c_cell = n.c_cell,
		    c_region = n.c_region, c_country = n.c_country, c_product = n.c_product, c_currency = n.c_currency, c_units = n.c_units,
		    c_gross = n.c_gross, c_cancelled = n.c_cancelled
		FROM unnest($1::text[], $2::text[], $3::bigint[], $4::bigint[], $5::boolean[], $6::text[], $7::bigint[], $8::numeric[],
		    $9::boolean[], $10::timestamptz[], $11::text[], $12::text[], $13::text[], $14::text[], $15::bigint[], $16::bigint[], $17::boolean[])
		  AS n(`+lineList+`) WHERE l.line_id = n.line_id`,
		c.id, c.order, c.seq, c.ref, c.gone, c.product, c.units, c.price, c.waiting, c.cell, c.cellRegion, c.cellCountry, c.cellProduct,
		c.cellCurrency, c.cellUnits, c.cellGross, c.cellCancelled)
	return err
}

// lineColumns are lines as the arrays of one statement.
type lineColumns struct {
	id, order, product                                 []string
	seq, ref, units, cellUnits, cellGross              []int64
	gone, waiting, cellCancelled                       []bool
	price                                              []pgtype.Numeric
	cell                                               []*time.Time
	cellRegion, cellCountry, cellProduct, cellCurrency []*string
}

func (c *lineColumns) add(l *sales.Line) {
	c.id, c.order, c.product = append(c.id, l.ID), append(c.order, l.OrderID), append(c.product, l.Product)
	c.seq, c.ref, c.units = append(c.seq, l.Version.Seq), append(c.ref, l.Version.RefSeq), append(c.units, l.Units)
	c.gone, c.waiting, c.price = append(c.gone, l.Gone), append(c.waiting, l.Waiting), append(c.price, numeric(l.Price))
	p := l.Counted
	c.cell = append(c.cell, optional(p.Counts, time.Unix(p.Key.Cell, 0).UTC()))
	c.cellRegion, c.cellCountry = append(c.cellRegion, optional(p.Counts, p.Key.Region)), append(c.cellCountry, optional(p.Counts, p.Key.Country))
	c.cellProduct, c.cellCurrency = append(c.cellProduct, optional(p.Counts, p.Key.Product)), append(c.cellCurrency, optional(p.Counts, p.Key.Currency))
	c.cellUnits, c.cellGross, c.cellCancelled = append(c.cellUnits, p.Units), append(c.cellGross, p.Gross), append(c.cellCancelled, p.Cancelled)
}
