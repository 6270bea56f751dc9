package sales

import (
	"errors"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Order is the header of an order as last seen, and what it adds to the order cells.
type Order struct {
	ID          string
	Known       bool // false: only lines have named it
	Version     schemas.Version
	Gone        bool
	PlacedAt    time.Time
	Status      string
	Cancelled   bool
	HasCustomer bool
	Customer    string
	Country     string
	Region      string
	Currency    string
	Counted     OrderPart
}

// Line is a line as last seen, and what it adds to the cells.
type Line struct {
	ID      string
	Known   bool // false: never seen
	OrderID string
	Version schemas.Version
	Gone    bool
	Product string
	Units   int64
	Price   Price
	Waiting bool // for the header of its order
	Counted LinePart
}

// Product is a product as last seen.
type Product struct {
	Code     string
	Known    bool
	Version  schemas.Version
	Gone     bool
	Name     string
	Category string
}

// Reasons why an image cannot be taken, whatever the ledger holds. They repeat no value.
var (
	ErrNoKey   = errors.New("no_key")
	ErrNoOrder = errors.New("no_order")
	ErrDecimal = errors.New("not_a_decimal")
	ErrRange   = errors.New("out_of_range")
)

// Limits that keep every amount, and every sum of a batch's amounts, in an int64, and every time in PostgreSQL's range.
const (
	maxAmount = 900_000_000_000_000_000
	maxUnits  = 900_000_000_000_000_000
	minYear   = 1
	maxYear   = 9999
	// maxExponent is the most decimals that a currency has.
	maxExponent = 4
)

// OrderImage checks and converts a value of sales.orders. Errors are those above.
func OrderImage(o schemas.Order) (Order, error) {
	if o.OrderID == "" {
		return Order{}, ErrNoKey
	}
	img := Order{ID: o.OrderID, Known: true, Version: schemas.Version{Seq: o.Seq, RefSeq: o.RefSeq}, Gone: o.Gone,
		Country: schemas.Unknown, Region: schemas.Unknown}
	if o.Gone {
		return img, nil
	}
	if y := o.PlacedAt.UTC().Year(); y < minYear || y > maxYear {
		return Order{}, ErrRange
	}
	img.PlacedAt, img.Status, img.Cancelled, img.Currency = o.PlacedAt.UTC(), o.Status, o.Cancelled, o.Currency
	img.Country, img.Region = orUnknown(o.Country), orUnknown(o.Region)
	if o.CustomerKey != nil {
		img.HasCustomer, img.Customer = true, *o.CustomerKey
	}
	return img, nil
}

// LineImage checks and converts a value of sales.lines. Errors are those above. Its amount fits whatever the currency
// of its order will be.
func LineImage(l schemas.Line) (Line, error) {
	if l.LineID == "" {
		return Line{}, ErrNoKey
	}
	img := Line{ID: l.LineID, Known: true, OrderID: l.OrderID, Version: schemas.Version{Seq: l.Seq, RefSeq: l.RefSeq}, Gone: l.Gone}
	if l.Gone {
		return img, nil
	}
	if l.OrderID == "" {
		return Line{}, ErrNoOrder
	}
	price, err := ParsePrice(l.UnitPrice)
	if err != nil {
		return Line{}, ErrDecimal
	}
	if a, ok := Amount(l.Units, price, maxExponent); !ok || a > maxAmount || a < -maxAmount || l.Units > maxUnits || l.Units < -maxUnits {
		return Line{}, ErrRange
	}
	img.Product, img.Units, img.Price = l.ProductCode, l.Units, price
	return img, nil
}

// ProductImage checks and converts a value of sales.products.
func ProductImage(p schemas.Product) (Product, error) {
	if p.ProductCode == "" {
		return Product{}, ErrNoKey
	}
	return Product{Code: p.ProductCode, Known: true, Version: schemas.Version{Seq: p.Seq, RefSeq: p.RefSeq}, Gone: p.Gone,
		Name: p.Name, Category: orUnknown(p.Category)}, nil
}

func orUnknown(s string) string {
	if s == "" {
		return schemas.Unknown
	}
	return s
}
