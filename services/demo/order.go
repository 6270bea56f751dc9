package demo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

// item is one product of an order to be placed. Quantities are positive.
type item struct {
	code     string
	quantity int
}

// placement is an order to be placed.
type placement struct {
	customer int
	items    []item // distinct products
	// partial lets an order through without the items that are not for sale or
	// out of stock, as long as one is left.
	partial bool
}

// placed is the order as it was written.
type placed struct {
	number   int64
	currency string
	total    gen.Hundredths
	lines    int
	short    []string // products left out of a partial order for want of stock
}

var (
	errNoCustomer = errors.New("no such customer")
	errNoItems    = errors.New("nothing of the order is in stock")
)

// itemError says which item of a placement could not be sold, and why.
type itemError struct {
	index int
	stock bool // out of stock; otherwise not for sale
}

func (e *itemError) Error() string {
	if e.stock {
		return fmt.Sprintf("item %d is out of stock", e.index)
	}
	return fmt.Sprintf("item %d is not for sale", e.index)
}

// place writes the order, its lines and the new stock in one transaction. Prices,
// currency and stock are the database's, whatever the caller believes. It fails
// with errNoCustomer, errNoItems, an *itemError, or the database's error.
func (s *Service) place(ctx context.Context, db *pgxpool.Pool, p placement) (placed, error) {
	var out placed
	err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error {
		var err error
		out, err = s.placeIn(ctx, tx, p)
		return err
	})
	return out, err
}

type offer struct {
	stock  int
	msrp   pgtype.Numeric
	hidden bool
}

func (s *Service) placeIn(ctx context.Context, tx pgx.Tx, p placement) (placed, error) {
	country, offers, err := lockOffers(ctx, tx, p)
	if err != nil {
		return placed{}, err
	}
	out := placed{currency: "USD"}
	if m, ok := gen.MarketOf(s.markets, country); ok {
		out.currency = m.Currency
	}
	var codes []string
	var quantities []int32
	var prices []pgtype.Numeric
	for i, it := range p.items {
		o, known := offers[it.code]
		short := known && !o.hidden && o.stock < it.quantity
		if !known || o.hidden || short {
			if !p.partial {
				return placed{}, &itemError{index: i, stock: short}
			}
			if short {
				out.short = append(out.short, it.code)
			}
			continue
		}
		usd, err := hundredths(o.msrp)
		if err != nil {
			return placed{}, fmt.Errorf("read a product's price: %w", err)
		}
		price := s.prices.In(out.currency, usd)
		out.total += price * gen.Hundredths(it.quantity)
		codes, quantities, prices = append(codes, it.code), append(quantities, int32(it.quantity)), append(prices, amount(price))
	}
	if len(codes) == 0 {
		return out, errNoItems
	}
	out.lines = len(codes)
	now := s.deps.Now().UTC().Truncate(time.Microsecond)
	out.number, err = insertOrder(ctx, tx, order{now, now.AddDate(0, 0, 9), nil, gen.InProcess, nil, p.customer, out.currency}, codes, quantities, prices)
	return out, err
}

// lockOffers reads the customer's country and the products, locked in the order of
// their codes so that two orders never wait for each other in a circle.
func lockOffers(ctx context.Context, tx pgx.Tx, p placement) (country string, offers map[string]offer, err error) {
	codes := make([]string, len(p.items))
	for i, it := range p.items {
		codes[i] = it.code
	}
	slices.Sort(codes)
	offers = make(map[string]offer, len(codes))
	batch := &pgx.Batch{}
	batch.Queue("SELECT country FROM customers WHERE customer_number = $1", p.customer).QueryRow(func(row pgx.Row) error {
		return row.Scan(&country)
	})
	batch.Queue(`SELECT product_code, quantity_in_stock, msrp, hidden FROM products
		WHERE product_code = ANY($1) ORDER BY product_code FOR NO KEY UPDATE`, codes).Query(func(rows pgx.Rows) error {
		var code string
		var o offer
		_, err := pgx.ForEachRow(rows, []any{&code, &o.stock, &o.msrp, &o.hidden}, func() error {
			offers[code] = o
			return nil
		})
		return err
	})
	err = tx.SendBatch(ctx, batch).Close()
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil, errNoCustomer
	}
	if err != nil {
		return "", nil, fmt.Errorf("read customer and products: %w", err)
	}
	return country, offers, nil
}

// order is a row of orders without its number.
type order struct {
	at, required time.Time
	shipped      *time.Time
	status       string
	comments     *string
	customer     int
	currency     string
}

// insertOrder writes an order with its lines and takes the quantities (negative
// for a return) out of stock. The products are locked by the caller.
func insertOrder(ctx context.Context, tx pgx.Tx, o order, codes []string, quantities []int32, prices []pgtype.Numeric) (int64, error) {
	var number int64
	batch := &pgx.Batch{}
	batch.Queue(`UPDATE products p SET quantity_in_stock = p.quantity_in_stock - i.quantity
		FROM unnest($1::text[], $2::int[]) i(code, quantity) WHERE p.product_code = i.code`, codes, quantities)
	batch.Queue(`WITH o AS (
			INSERT INTO orders (ordered_at, required_date, shipped_date, status, comments, customer_number, currency)
			VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING order_number)
		INSERT INTO order_details (order_number, product_code, quantity_ordered, price_each, order_line_number)
		SELECT o.order_number, i.code, i.quantity, i.price, i.line
		FROM o, unnest($8::text[], $9::int[], $10::numeric[]) WITH ORDINALITY i(code, quantity, price, line)
		RETURNING order_number`,
		o.at, o.required, o.shipped, o.status, o.comments, o.customer, o.currency, codes, quantities, prices).Query(func(rows pgx.Rows) error {
		_, err := pgx.ForEachRow(rows, []any{&number}, func() error { return nil })
		return err
	})
	if err := tx.SendBatch(ctx, batch).Close(); err != nil {
		return 0, fmt.Errorf("write the order: %w", err)
	}
	return number, nil
}
