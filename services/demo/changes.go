package demo

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

// errNothing says that there was nothing to change; it undoes the transaction.
var errNothing = errors.New("nothing to change")

// change is one kind of correction the trickle makes.
type change struct {
	kind   string
	chance float64 // for each arrival
	do     func(ctx context.Context, tx pgx.Tx) error
}

func (t *trickler) changes() []change {
	return []change{
		{"ship", 1, t.ship},
		{"settle", 0.05, t.settle},
		{"quantity", 0.06, t.editQuantity},
		{"cancel", 0.04, t.cancel},
		{"return", 0.03, t.takeBack},
		{"hold", 0.01, t.hold},
		{"dispute", 0.01, t.dispute},
		{"price", 0.02, t.reprice},
		{"restock", 0.05, t.restock},
		{"customer", 0.03, t.newCustomer},
		{"rating", 0.15, t.rate},
	}
}

// change makes one change in a transaction of its own; finding nothing to change is
// no failure.
func (t *trickler) change(ctx context.Context, c change) {
	nothing := false
	ok := t.try(ctx, c.kind, func(ctx context.Context) error {
		err := pgx.BeginFunc(ctx, t.db, func(tx pgx.Tx) error { return c.do(ctx, tx) })
		nothing = errors.Is(err, errNothing) || errors.Is(err, pgx.ErrNoRows)
		if nothing {
			return nil
		}
		return err
	})
	if ok && !nothing {
		t.metrics.changes.WithLabelValues(c.kind).Inc()
	}
}

func (t *trickler) now() time.Time { return t.deps.Now().UTC().Truncate(time.Microsecond) }

// ship sends off the oldest order that has waited for a while.
func (t *trickler) ship(ctx context.Context, tx pgx.Tx) error {
	now := t.now()
	return one(ctx, tx, `UPDATE orders SET status = 'Shipped', shipped_date = $1 WHERE order_number = (
		SELECT order_number FROM orders WHERE status = 'In Process' AND ordered_at < $2
		ORDER BY order_number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)`, now, now.Add(-10*time.Minute))
}

// settle releases the oldest order on hold, or resolves the oldest dispute.
func (t *trickler) settle(ctx context.Context, tx pgx.Tx) error {
	return one(ctx, tx, `UPDATE orders SET
			status   = CASE status WHEN 'On Hold' THEN 'In Process' ELSE 'Resolved' END,
			comments = CASE status WHEN 'On Hold' THEN NULL ELSE 'A spare part was sent' END
		WHERE order_number = (SELECT order_number FROM orders WHERE status IN ('On Hold', 'Disputed')
		ORDER BY order_number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED)`)
}

func (t *trickler) hold(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 300, gen.InProcess)
	if err != nil {
		return err
	}
	return one(ctx, tx, "UPDATE orders SET status = 'On Hold', comments = 'Waiting for payment' WHERE order_number = $1", number)
}

func (t *trickler) dispute(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 5000, gen.Shipped)
	if err != nil {
		return err
	}
	return one(ctx, tx, "UPDATE orders SET status = 'Disputed', comments = 'Customer says that a part is missing' WHERE order_number = $1", number)
}

// editQuantity corrects one line of a recent order and the stock with it.
func (t *trickler) editQuantity(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 300, gen.InProcess)
	if err != nil {
		return err
	}
	var code string
	var quantity int
	err = tx.QueryRow(ctx, "SELECT product_code, quantity_ordered FROM order_details WHERE order_number = $1 ORDER BY random() LIMIT 1", number).Scan(&code, &quantity)
	if err != nil {
		return err
	}
	next := quantity + 1 + t.r.IntN(3)
	if quantity > 1 && t.r.Float64() < 0.5 {
		next = 1 + t.r.IntN(quantity-1)
	}
	err = one(ctx, tx, `UPDATE products SET quantity_in_stock = quantity_in_stock - $2
		WHERE product_code = $1 AND quantity_in_stock >= $2`, code, next-quantity)
	if err != nil {
		return err
	}
	return one(ctx, tx, "UPDATE order_details SET quantity_ordered = $3 WHERE order_number = $1 AND product_code = $2", number, code, next)
}

// cancel gives up a recent order and puts its products back.
func (t *trickler) cancel(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 300, gen.InProcess)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `SELECT 1 FROM products WHERE product_code IN (SELECT product_code FROM order_details WHERE order_number = $1)
		ORDER BY product_code FOR NO KEY UPDATE`, number); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE products p SET quantity_in_stock = p.quantity_in_stock + d.quantity_ordered
		FROM order_details d WHERE d.order_number = $1 AND d.product_code = p.product_code`, number); err != nil {
		return err
	}
	return one(ctx, tx, "UPDATE orders SET status = 'Cancelled', comments = 'Cancelled at the customer''s request' WHERE order_number = $1", number)
}

// takeBack books the return of some lines of a shipped order: a new order with
// negative quantities. The comment on the old one keeps it from being returned twice.
func (t *trickler) takeBack(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 5000, gen.Shipped)
	if err != nil {
		return err
	}
	old := gen.Order{}
	err = tx.QueryRow(ctx, "SELECT customer_number, currency FROM orders WHERE order_number = $1 AND comments IS NULL", number).Scan(&old.Customer, &old.Currency)
	if err != nil {
		return err
	}
	rows, err := tx.Query(ctx, `SELECT d.product_code, d.quantity_ordered, d.price_each FROM order_details d JOIN products p USING (product_code)
		WHERE d.order_number = $1 ORDER BY d.product_code FOR NO KEY UPDATE OF p`, number)
	if err != nil {
		return err
	}
	var l gen.OrderLine
	var price pgtype.Numeric
	_, err = pgx.ForEachRow(rows, []any{&l.Code, &l.Quantity, &price}, func() error {
		var err error
		l.Price, err = hundredths(price)
		old.Lines = append(old.Lines, l)
		return err
	})
	if err != nil {
		return err
	}
	if len(old.Lines) == 0 {
		return errNothing
	}
	if err := one(ctx, tx, "UPDATE orders SET comments = 'Return accepted' WHERE order_number = $1", number); err != nil {
		return err
	}
	return t.insertReturn(ctx, tx, gen.ReturnOf(t.r, old, t.now()))
}

func (t *trickler) insertReturn(ctx context.Context, tx pgx.Tx, back gen.Order) error {
	var codes []string
	var quantities []int32
	var prices []pgtype.Numeric
	for _, l := range back.Lines {
		codes, quantities, prices = append(codes, l.Code), append(quantities, int32(l.Quantity)), append(prices, amount(l.Price))
	}
	o := order{back.At, back.Required, &back.Shipped, back.Status, &back.Comments, back.Customer, back.Currency}
	_, err := insertOrder(ctx, tx, o, codes, quantities, prices)
	return err
}

// reprice moves a list price a little, but never far from what the product costs.
func (t *trickler) reprice(ctx context.Context, tx pgx.Tx) error {
	products := t.picker.Products()
	return one(ctx, tx, `UPDATE products
		SET msrp = greatest(ceil(buy_price * 1.3), least(ceil(buy_price * 3), round(msrp * $2))) - 0.01
		WHERE product_code = $1`, products[t.r.IntN(len(products))].Code, 0.92+0.17*t.r.Float64())
}

// restock fills up the scarcest product.
func (t *trickler) restock(ctx context.Context, tx pgx.Tx) error {
	return one(ctx, tx, `UPDATE products SET quantity_in_stock = quantity_in_stock + $1 WHERE product_code = (
		SELECT product_code FROM products WHERE quantity_in_stock < 1000 ORDER BY quantity_in_stock, product_code LIMIT 1)`, 300+t.r.IntN(900))
}

// maxPeople bounds how many customers the trickle knows by heart.
const maxPeople = 100_000

func (t *trickler) newCustomer(ctx context.Context, tx pgx.Tx) error {
	var number int
	if err := tx.QueryRow(ctx, "SELECT nextval(pg_get_serial_sequence('public.customers', 'customer_number'))").Scan(&number); err != nil {
		return err
	}
	market := t.r.IntN(len(t.markets))
	c := gen.NewCustomer(t.r, t.markets[market], number)
	err := tx.QueryRow(ctx, `SELECT employee_number FROM employees WHERE office_code = $1 AND job_title = 'Sales Rep'
		ORDER BY employee_number OFFSET $2 LIMIT 1`, t.markets[market].Office, number%2).Scan(&c.SalesRep)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO customers (customer_number, customer_name, contact_last_name, contact_first_name, phone, email,
		address_line1, address_line2, city, state, postal_code, country, sales_rep_employee_number, credit_limit)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`, customerValues(c)...)
	if err == nil && len(t.people) < maxPeople {
		t.people = append(t.people, person{number, market})
	}
	return err
}

// rate lets a recent buyer rate a product, or change their mind about it.
func (t *trickler) rate(ctx context.Context, tx pgx.Tx) error {
	number, err := t.lockRecent(ctx, tx, 5000, gen.Shipped)
	if err != nil {
		return err
	}
	var customer int
	var code string
	err = tx.QueryRow(ctx, `SELECT o.customer_number, d.product_code FROM orders o JOIN order_details d USING (order_number)
		WHERE o.order_number = $1 ORDER BY random() LIMIT 1`, number).Scan(&customer, &code)
	if err != nil {
		return err
	}
	cluster := 0
	for _, p := range t.picker.Products() {
		if p.Code == code {
			cluster = p.Cluster
		}
	}
	return one(ctx, tx, `INSERT INTO ratings (customer_number, product_code, rating, rated_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (customer_number, product_code) DO UPDATE SET rating = excluded.rating, rated_at = excluded.rated_at`,
		customer, code, gen.Stars(t.r, gen.Taste(customer), cluster), t.now())
}

// lockRecent locks an order of the given status, drawn from about the last so many.
func (t *trickler) lockRecent(ctx context.Context, tx pgx.Tx, last int, status string) (int64, error) {
	var number int64
	err := tx.QueryRow(ctx, `SELECT order_number FROM orders
		WHERE order_number >= (SELECT max(order_number) FROM orders) - $1 AND status = $2
		ORDER BY order_number LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED`, 1+t.r.IntN(last), status).Scan(&number)
	return number, err
}

// one runs a statement that must touch one row; none at all is errNothing.
func one(ctx context.Context, tx pgx.Tx, sql string, args ...any) error {
	tag, err := tx.Exec(ctx, sql, args...)
	if err == nil && tag.RowsAffected() == 0 {
		return errNothing
	}
	return err
}
