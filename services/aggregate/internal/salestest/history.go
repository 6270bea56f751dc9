// Package salestest makes random histories of a store and says what the totals must be after each of them, by a model
// that is as plain as can be and shares no code with what it judges. For tests only.
package salestest

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Record is one input record: one of the three images, or none for a tombstone.
type Record struct {
	Order   *schemas.Order
	Line    *schemas.Line
	Product *schemas.Product
}

// Key is the key that the record has in its topic.
func (r Record) Key() string {
	switch {
	case r.Order != nil:
		return r.Order.OrderID
	case r.Line != nil:
		return r.Line.LineID
	case r.Product != nil:
		return r.Product.ProductCode
	default:
		return ""
	}
}

// History makes n records of a small store: orders, lines and products that are made, corrected, moved, cancelled and
// deleted, seen late, twice, reordered and replayed.
func History(seed uint64, n int) []Record {
	g := generator{rng: rand.New(rand.NewPCG(seed, 1)), lines: map[string]string{}}
	var out []Record
	for len(out) < n {
		r := g.next()
		out = append(out, r)
		switch g.rng.IntN(12) {
		case 0: // seen twice
			out = append(out, r)
		case 1: // an old record again
			out = append(out, out[g.rng.IntN(len(out))])
		case 2: // a replay of what came last
			out = append(out, out[max(0, len(out)-10):]...)
		case 3: // late
			i := g.rng.IntN(len(out))
			out[i], out[len(out)-1] = out[len(out)-1], out[i]
		case 4:
			out = append(out, Record{})
		}
	}
	return out[:n]
}

type generator struct {
	rng   *rand.Rand
	seq   int64
	lines map[string]string // the order of each line
}

func (g *generator) next() Record {
	g.seq++
	ref := int64(0)
	if g.rng.IntN(3) > 0 {
		ref = g.seq + int64(g.rng.IntN(3))
	}
	if g.rng.IntN(5) == 0 {
		g.seq-- // the same source row, enriched again
	}
	switch k := g.rng.IntN(20); {
	case k < 7:
		return Record{Order: g.order(ref)}
	case k < 18:
		return Record{Line: g.line(ref)}
	default:
		return Record{Product: g.product(ref)}
	}
}

func (g *generator) pick(of ...string) string { return of[g.rng.IntN(len(of))] }

func (g *generator) order(ref int64) *schemas.Order {
	id := fmt.Sprintf("o%d", g.rng.IntN(9))
	if g.rng.IntN(9) == 0 {
		return &schemas.Order{OrderID: id, Seq: g.seq, RefSeq: ref, Gone: true, PlacedAt: time.Unix(0, 0), Country: schemas.Unknown, Region: schemas.Unknown}
	}
	o := &schemas.Order{OrderID: id, Seq: g.seq, RefSeq: ref, Status: g.pick("new", "paid"), Cancelled: g.rng.IntN(4) == 0,
		PlacedAt: time.Date(2026, 3, 1, 0, 7*g.rng.IntN(20), 0, 0, time.UTC),
		Country:  g.pick("FR", "US", schemas.Unknown), Region: g.pick("EMEA", "NA", schemas.Unknown), Currency: g.pick("EUR", "EUR", "USD", "JPY", "KWD")}
	if c := g.pick("", "c1", "c1", "c2"); c != "" {
		o.CustomerKey = &c
	}
	return o
}

func (g *generator) line(ref int64) *schemas.Line {
	id := fmt.Sprintf("l%d", g.rng.IntN(25))
	if g.rng.IntN(9) == 0 {
		l := &schemas.Line{LineID: id, Seq: g.seq, RefSeq: ref, Gone: true, UnitPrice: "0"}
		if g.rng.IntN(2) == 0 {
			l.OrderID = g.lines[id]
		}
		return l
	}
	if g.lines[id] == "" || g.rng.IntN(6) == 0 { // moved
		g.lines[id] = fmt.Sprintf("o%d", g.rng.IntN(10)) // o9 has no header, ever
	}
	return &schemas.Line{LineID: id, Seq: g.seq, RefSeq: ref, OrderID: g.lines[id], ProductCode: g.pick("p0", "p1", "p2", "p9", ""),
		Units: int64(g.rng.IntN(12) - 3), UnitPrice: g.pick("0.001", "0.005", "1.5", "1.50", "19.995", "100", "33.333333", "-2.5", "12345.6789")}
}

func (g *generator) product(ref int64) *schemas.Product {
	return &schemas.Product{ProductCode: fmt.Sprintf("p%d", g.rng.IntN(4)), Seq: g.seq, RefSeq: ref, Gone: g.rng.IntN(6) == 0,
		Name: g.pick("A", "B", "C"), Category: g.pick("Cars", "Ships")}
}

// Key names a row of the totals: a quarter of an hour in Unix seconds and the dimensions.
type Key struct {
	Quarter                            int64
	Region, Country, Product, Currency string
}

// Totals are the measures of a row, amounts in minor units. Orders are in a row of their own, without product.
type Totals struct {
	Orders, CancelledOrders int64
	Lines, CancelledLines   int64
	Units, CancelledUnits   int64
	Gross, Cancelled        int64
}

// Model is what the source's tables hold, with the dimensions as the rule has fixed them.
type Model struct {
	Orders   map[string]schemas.Order
	Lines    map[string]schemas.Line
	Products map[string]schemas.Product
}

// NewModel is an empty one.
func NewModel() *Model {
	return &Model{map[string]schemas.Order{}, map[string]schemas.Line{}, map[string]schemas.Product{}}
}

// See takes records in their order.
func (m *Model) See(records ...Record) {
	for _, r := range records {
		switch {
		case r.Order != nil:
			m.order(*r.Order)
		case r.Line != nil:
			if old, ok := m.Lines[r.Line.LineID]; !ok || newer(r.Line.Seq, r.Line.RefSeq, old.Seq, old.RefSeq) {
				m.Lines[r.Line.LineID] = *r.Line
			}
		case r.Product != nil:
			old, ok := m.Products[r.Product.ProductCode]
			if ok && !newer(r.Product.Seq, r.Product.RefSeq, old.Seq, old.RefSeq) {
				continue
			}
			p := *r.Product
			if ok && p.Gone {
				p.Name, p.Category = old.Name, old.Category
			}
			m.Products[p.ProductCode] = p
		}
	}
}

func newer(seq, ref, oldSeq, oldRef int64) bool { return seq > oldSeq || seq == oldSeq && ref > oldRef }

func (m *Model) order(o schemas.Order) {
	old, ok := m.Orders[o.OrderID]
	if ok && !newer(o.Seq, o.RefSeq, old.Seq, old.RefSeq) {
		return
	}
	if ok && o.Gone {
		old.Seq, old.RefSeq, old.Gone = o.Seq, o.RefSeq, true
		m.Orders[o.OrderID] = old
		return
	}
	if ok && customer(o) == customer(old) {
		if old.Country != schemas.Unknown {
			o.Country = old.Country
		}
		if old.Region != schemas.Unknown {
			o.Region = old.Region
		}
	}
	m.Orders[o.OrderID] = o
}

func customer(o schemas.Order) string {
	if o.CustomerKey == nil {
		return "none"
	}
	return "key " + *o.CustomerKey
}

// Totals groups what the tables hold.
func (m *Model) Totals(exponents map[string]int) map[Key]Totals {
	out := map[Key]Totals{}
	for _, o := range m.Orders {
		if o.Gone {
			continue
		}
		k := Key{quarter(o.PlacedAt), o.Region, o.Country, "", o.Currency}
		k.Product = OrdersRow
		t := out[k]
		t.Orders++
		if o.Cancelled {
			t.CancelledOrders++
		}
		out[k] = t
	}
	for _, l := range m.Lines {
		o, ok := m.Orders[l.OrderID]
		if !ok || o.Gone || l.Gone {
			continue
		}
		k := Key{quarter(o.PlacedAt), o.Region, o.Country, l.ProductCode, o.Currency}
		t := out[k]
		gross := amount(l, o.Currency, exponents)
		t.Lines, t.Units, t.Gross = t.Lines+1, t.Units+l.Units, t.Gross+gross
		if o.Cancelled {
			t.CancelledLines, t.CancelledUnits, t.Cancelled = t.CancelledLines+1, t.CancelledUnits+l.Units, t.Cancelled+gross
		}
		out[k] = t
	}
	return out
}

// OrdersRow stands for the product in the rows that count orders.
const OrdersRow = "(orders)"

// Waiting counts the lines whose header has not been seen.
func (m *Model) Waiting() int64 {
	var n int64
	for _, l := range m.Lines {
		if _, ok := m.Orders[l.OrderID]; !ok && !l.Gone {
			n++
		}
	}
	return n
}

func quarter(t time.Time) int64 { return t.Truncate(15 * time.Minute).Unix() }

func amount(l schemas.Line, currency string, exponents map[string]int) int64 {
	exponent, ok := exponents[currency]
	if !ok {
		exponent = 2
	}
	r, ok := new(big.Rat).SetString(l.UnitPrice)
	if !ok {
		panic("salestest: the generator wrote no decimal")
	}
	r.Mul(r, new(big.Rat).SetInt64(l.Units))
	for range exponent {
		r.Mul(r, big.NewRat(10, 1))
	}
	n, _ := new(big.Int).SetString(r.FloatString(0), 10) // FloatString rounds half away from zero
	return n.Int64()
}
