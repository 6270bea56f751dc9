package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

//go:embed schema.sql
var schema string

// storeVersion is written into demo.store; it goes up when schema.sql changes.
const storeVersion = 1

// setupLock keeps two set-ups apart (pg_advisory_xact_lock).
const setupLock = 0x64656d6f

// Options say what store Setup makes.
type Options struct {
	Seed        uint64
	HistoryDays int       // days of past orders; 0 means 60
	Rate        float64   // orders per second that the last days grow to, within bounds; 0 for no growth
	Now         time.Time // the history ends here
	// Progress, if set, is called with the rows written so far and in all. It is
	// called from Setup's goroutine and should return quickly.
	Progress func(done, total int64)
}

// Setup makes the demo store in the database at dsn: tables, publication
// "millrace", role "cdc" and a generated history. It works in one transaction, so
// a store is either complete or not there: after a kill, call it again. A complete
// store is left alone, whatever the options. The same Seed, HistoryDays,
// Rate and Now give the same rows. Safe to call from several processes at once.
func Setup(ctx context.Context, dsn string, o Options) error {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return errors.New("the address of the demo store's database is not a PostgreSQL connection URL: write postgres://user@host:5432/database")
	}
	cfg.RuntimeParams["application_name"] = "millrace-demo-setup"
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return fmt.Errorf("connect to the demo store's database at %s:%d: %w", cfg.Host, cfg.Port, postgres.Cause(err))
	}
	defer conn.Close(context.WithoutCancel(ctx)) // nothing to save: all was committed or is undone
	if o.HistoryDays == 0 {
		o.HistoryDays = DefaultConfig().HistoryDays
	}
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return create(ctx, tx, o) })
	if err != nil {
		return fmt.Errorf("set up the demo store: %w", err)
	}
	return nil
}

func create(ctx context.Context, tx pgx.Tx, o Options) error {
	if _, err := tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(setupLock)); err != nil {
		return fmt.Errorf("wait for another set-up: %w", err)
	}
	var exists bool
	if err := tx.QueryRow(ctx, "SELECT to_regclass('demo.store') IS NOT NULL").Scan(&exists); err != nil {
		return fmt.Errorf("look for an existing store: %w", err)
	}
	if exists {
		return checkVersion(ctx, tx)
	}
	if _, err := tx.Exec(ctx, schema); err != nil {
		return explain(err)
	}
	f := &filler{tx: tx, world: gen.New(o.Seed, o.Now, o.HistoryDays, o.Rate), progress: o.Progress}
	f.total = f.world.Rows()
	if err := f.fill(ctx); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "INSERT INTO demo.store (version, seed, history_days, created_at) VALUES ($1, $2, $3, $4)",
		storeVersion, int64(o.Seed), o.HistoryDays, o.Now) // the bits of the seed; read back the same way
	if err != nil {
		return fmt.Errorf("mark the store as complete: %w", err)
	}
	return nil
}

func checkVersion(ctx context.Context, tx pgx.Tx) error {
	var version int
	if err := tx.QueryRow(ctx, "SELECT version FROM demo.store").Scan(&version); err != nil {
		return fmt.Errorf("read the version of the existing store: %w", err)
	}
	if version != storeVersion {
		return fmt.Errorf("the store in this database has version %d, this program knows version %d; give demo.url an empty database", version, storeVersion)
	}
	return nil
}

// explain tells a person what to do about the likeliest failures of schema.sql.
func explain(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "42P06", "42P07", "42710": // duplicate schema, table, object
			return fmt.Errorf("the database is not empty and holds no complete demo store; give demo.url an empty database: %w", err)
		case "42501": // insufficient privilege
			return fmt.Errorf("the user of demo.url may not create the tables, the publication or the role; use the database's owner with CREATEROLE: %w", err)
		}
	}
	return fmt.Errorf("create the tables: %w", err)
}

// filler copies a generated world into the empty tables.
type filler struct {
	tx          pgx.Tx
	world       *gen.World
	progress    func(done, total int64)
	done, total int64
}

// copyRows copies n rows into a table; row returns the values of the i-th.
func (f *filler) copyRows(ctx context.Context, table string, columns []string, n int, row func(i int) []any) error {
	const every = 2000
	if n == 0 {
		return nil
	}
	_, err := f.tx.CopyFrom(ctx, pgx.Identifier{"public", table}, columns, pgx.CopyFromSlice(n, func(i int) ([]any, error) {
		f.done++
		if f.progress != nil && (f.done%every == 0 || f.done == f.total) {
			f.progress(f.done, f.total)
		}
		return row(i), nil
	}))
	if err != nil {
		return fmt.Errorf("fill the table %s: %w", table, err)
	}
	return nil
}

func (f *filler) fill(ctx context.Context) error {
	for _, step := range []func(context.Context) error{f.staff, f.customers, f.catalogue, f.orders, f.orderDetails, f.ratings, f.sequences} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *filler) staff(ctx context.Context) error {
	offices, employees := f.world.Offices, f.world.Employees
	err := f.copyRows(ctx, "offices",
		[]string{"office_code", "city", "phone", "address_line1", "address_line2", "state", "country", "postal_code", "territory"},
		len(offices), func(i int) []any {
			o := offices[i]
			return []any{o.Code, o.City, o.Phone, o.Address1, text(o.Address2), text(o.State), o.Country, o.Postal, o.Territory}
		})
	if err != nil {
		return err
	}
	return f.copyRows(ctx, "employees",
		[]string{"employee_number", "last_name", "first_name", "extension", "email", "office_code", "reports_to", "job_title"},
		len(employees), func(i int) []any {
			e := employees[i]
			return []any{e.Number, e.Last, e.First, e.Extension, e.Email, e.Office, number(e.ReportsTo), e.Title}
		})
}

// customerColumns are the columns of customerValues, in its order.
func customerColumns() []string {
	return []string{"customer_number", "customer_name", "contact_last_name", "contact_first_name", "phone", "email",
		"address_line1", "address_line2", "city", "state", "postal_code", "country", "sales_rep_employee_number", "credit_limit"}
}

func customerValues(c gen.Customer) []any {
	return []any{c.Number, c.Name, c.ContactLast, c.ContactFirst, c.Phone, c.Email,
		c.Address1, text(c.Address2), c.City, text(c.State), text(c.Postal), c.Country, number(c.SalesRep), amount(c.CreditLimit)}
}

func (f *filler) customers(ctx context.Context) error {
	list := f.world.Customers
	return f.copyRows(ctx, "customers", customerColumns(), len(list), func(i int) []any { return customerValues(list[i]) })
}

func (f *filler) catalogue(ctx context.Context) error {
	lines, products := f.world.Lines, f.world.Products
	err := f.copyRows(ctx, "product_lines", []string{"product_line", "text_description"},
		len(lines), func(i int) []any { return []any{lines[i].Name, lines[i].Description} })
	if err != nil {
		return err
	}
	return f.copyRows(ctx, "products",
		[]string{"product_code", "product_name", "product_line", "product_scale", "product_vendor", "product_description",
			"quantity_in_stock", "buy_price", "msrp", "hidden"},
		len(products), func(i int) []any {
			p := products[i]
			return []any{p.Code, p.Name, p.Line, p.Scale, p.Vendor, p.Description, p.Stock, amount(p.Buy), amount(p.MSRP), p.Hidden}
		})
}

func (f *filler) orders(ctx context.Context) error {
	list := f.world.Orders
	return f.copyRows(ctx, "orders",
		[]string{"order_number", "ordered_at", "required_date", "shipped_date", "status", "comments", "customer_number", "currency"},
		len(list), func(i int) []any {
			o := list[i]
			return []any{o.Number, o.At, o.Required, day(o.Shipped), o.Status, text(o.Comments), o.Customer, o.Currency}
		})
}

func (f *filler) orderDetails(ctx context.Context) error {
	type detail struct{ order, line int }
	var index []detail
	for i, o := range f.world.Orders {
		for n := range o.Lines {
			index = append(index, detail{i, n})
		}
	}
	return f.copyRows(ctx, "order_details",
		[]string{"order_number", "product_code", "quantity_ordered", "price_each", "order_line_number"},
		len(index), func(i int) []any {
			o := f.world.Orders[index[i].order]
			l := o.Lines[index[i].line]
			return []any{o.Number, l.Code, l.Quantity, amount(l.Price), index[i].line + 1}
		})
}

func (f *filler) ratings(ctx context.Context) error {
	list := f.world.Ratings
	return f.copyRows(ctx, "ratings", []string{"customer_number", "product_code", "rating", "rated_at"},
		len(list), func(i int) []any { return []any{list[i].Customer, list[i].Code, list[i].Stars, list[i].At} })
}

// sequences lets new orders and customers continue after the generated ones.
func (f *filler) sequences(ctx context.Context) error {
	_, err := f.tx.Exec(ctx, `
		SELECT setval(pg_get_serial_sequence('public.orders', 'order_number'), coalesce((SELECT max(order_number) FROM public.orders), 500000)),
		       setval(pg_get_serial_sequence('public.customers', 'customer_number'), (SELECT max(customer_number) FROM public.customers))`)
	if err != nil {
		return fmt.Errorf("set the sequences: %w", err)
	}
	return nil
}

// text is NULL for the empty string.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// number is NULL for 0.
func number(n int) any {
	if n == 0 {
		return nil
	}
	return n
}

// day is NULL for the zero time.
func day(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// amount is a numeric(10,2).
func amount(h gen.Hundredths) pgtype.Numeric {
	return pgtype.Numeric{Int: big.NewInt(int64(h)), Exp: -2, Valid: true}
}

// hundredths is the inverse of amount for values read from numeric(10,2) columns.
func hundredths(n pgtype.Numeric) (gen.Hundredths, error) {
	if !n.Valid || n.NaN || n.InfinityModifier != pgtype.Finite || n.Int == nil {
		return 0, errors.New("not an amount of money")
	}
	v := new(big.Int).Set(n.Int)
	ten := big.NewInt(10)
	for e := n.Exp; e > -2; e-- {
		v.Mul(v, ten)
	}
	for e := n.Exp; e < -2; e++ {
		v.Quo(v, ten)
	}
	return gen.Hundredths(v.Int64()), nil
}
