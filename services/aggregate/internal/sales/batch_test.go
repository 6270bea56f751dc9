package sales

import (
	"fmt"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// memory is the ledger as maps: what the database does, without one.
type memory struct {
	orders   map[string]*Order
	lines    map[string]*Line
	products map[string]Product
	cells    map[CellKey]Cell
	ocells   map[OrderCellKey]OrderCell
}

func newMemory() *memory {
	return &memory{map[string]*Order{}, map[string]*Line{}, map[string]Product{}, map[CellKey]Cell{}, map[OrderCellKey]OrderCell{}}
}

var decimals = Exponents{"JPY": 0, "KWD": 3}

func (m *memory) apply(t *testing.T, images []Image) []Outcome {
	t.Helper()
	b := NewBatch(images)
	for _, p := range b.FoldProducts(m.products) {
		m.products[p.Code] = p
	}
	ids := map[string]string{}
	load := map[string]*Line{}
	for _, id := range b.Lines() {
		if l, ok := m.lines[id]; ok {
			ids[id], load[id] = l.OrderID, l
		}
	}
	for _, id := range b.Orders(ids) {
		if o, ok := m.orders[id]; ok {
			b.FoldOrder(o)
			continue
		}
		o := b.Fresh(id)
		m.orders[id] = o
		b.Inserted(o)
	}
	for _, id := range b.Recount() {
		for _, l := range m.lines {
			if l.OrderID == id {
				load[l.ID] = l
			}
		}
	}
	insert, _, err := b.FoldLines(load, decimals)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range insert {
		m.lines[l.ID] = l
	}
	m.add(b.Deltas())
	return b.Outcomes()
}

func (m *memory) add(d *Deltas) {
	keys, cells := d.Cells()
	for i, k := range keys {
		a, c := m.cells[k], cells[i]
		m.cells[k] = Cell{a.Lines + c.Lines, a.CancelledLines + c.CancelledLines, a.Units + c.Units, a.CancelledUnits + c.CancelledUnits, a.Gross + c.Gross, a.Cancelled + c.Cancelled}
		if m.cells[k] == (Cell{}) {
			delete(m.cells, k)
		}
	}
	okeys, ocells := d.OrderCells()
	for i, k := range okeys {
		a, c := m.ocells[k], ocells[i]
		m.ocells[k] = OrderCell{a.Orders + c.Orders, a.CancelledOrders + c.CancelledOrders}
		if m.ocells[k] == (OrderCell{}) {
			delete(m.ocells, k)
		}
	}
}

func TestTotalsEqualTheModel(t *testing.T) {
	for seed := range uint64(400) {
		records := salestest.History(seed, 150)
		m, model := newMemory(), salestest.NewModel()
		rng := rand.New(rand.NewPCG(seed, 7))
		for images := images(t, records); len(images) > 0; {
			n := min(len(images), 1+rng.IntN(40))
			m.apply(t, images[:n])
			images = images[n:]
		}
		model.See(records...)
		if err := sameMap(m.totals(), model.Totals(decimals)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := m.waiting(); got != model.Waiting() {
			t.Fatalf("seed %d: %d lines wait, want %d", seed, got, model.Waiting())
		}
	}
}

func images(t *testing.T, records []salestest.Record) []Image {
	t.Helper()
	out := make([]Image, len(records))
	for i, r := range records {
		switch {
		case r.Order != nil:
			o, err := OrderImage(*r.Order)
			if err != nil {
				t.Fatal(err)
			}
			out[i].Order = &o
		case r.Line != nil:
			l, err := LineImage(*r.Line)
			if err != nil {
				t.Fatal(err)
			}
			out[i].Line = &l
		case r.Product != nil:
			p, err := ProductImage(*r.Product)
			if err != nil {
				t.Fatal(err)
			}
			out[i].Product = &p
		}
	}
	return out
}

func (m *memory) totals() map[salestest.Key]salestest.Totals {
	out := map[salestest.Key]salestest.Totals{}
	for k, c := range m.cells {
		out[salestest.Key{Quarter: k.Cell, Region: k.Region, Country: k.Country, Product: k.Product, Currency: k.Currency}] = salestest.Totals{
			Lines: c.Lines, CancelledLines: c.CancelledLines, Units: c.Units, CancelledUnits: c.CancelledUnits, Gross: c.Gross, Cancelled: c.Cancelled}
	}
	for k, c := range m.ocells {
		out[salestest.Key{Quarter: k.Cell, Region: k.Region, Country: k.Country, Product: salestest.OrdersRow, Currency: k.Currency}] = salestest.Totals{
			Orders: c.Orders, CancelledOrders: c.CancelledOrders}
	}
	return out
}

func (m *memory) waiting() (n int64) {
	for _, l := range m.lines {
		if l.Waiting {
			n++
		}
	}
	return n
}

func sameMap[K comparable, V comparable](got, want map[K]V) error {
	for k, v := range want {
		if got[k] != v {
			return fmt.Errorf("%v: got %v, want %v", k, got[k], v)
		}
	}
	for k, v := range got {
		if _, ok := want[k]; !ok {
			return fmt.Errorf("%v: got %v, want nothing", k, v)
		}
	}
	return nil
}

func TestResultDoesNotDependOnBatches(t *testing.T) {
	for seed := range uint64(100) {
		h := images(t, salestest.History(seed, 100))
		one, all := newMemory(), newMemory()
		var single []Outcome
		for i := range h {
			single = append(single, one.apply(t, h[i:i+1])...)
		}
		whole := all.apply(t, h)
		if !slices.Equal(single, whole) {
			t.Fatalf("seed %d: outcomes differ:\n%v\n%v", seed, single, whole)
		}
		if err := sameMap(all.cells, one.cells); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestReplayIsHarmless(t *testing.T) {
	for seed := range uint64(50) {
		h := images(t, salestest.History(seed, 100))
		m := newMemory()
		m.apply(t, h)
		before := maps.Clone(m.cells)
		for i, o := range m.apply(t, h) {
			if o == Applied {
				t.Fatalf("seed %d: image %d was applied again", seed, i)
			}
		}
		if err := sameMap(m.cells, before); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestDimensionsAreFixedForACustomer(t *testing.T) {
	image := func(seq, ref int64, customer, country, region string) Order {
		o := Order{ID: "1", Known: true, Version: schemas.Version{Seq: seq, RefSeq: ref}, Country: country, Region: region}
		if customer != "" {
			o.HasCustomer, o.Customer = true, customer
		}
		return o
	}
	gone := Order{ID: "1", Known: true, Version: schemas.Version{Seq: 9}, Gone: true, Country: schemas.Unknown, Region: schemas.Unknown}
	for name, c := range map[string]struct {
		images []Order
		want   string
	}{
		"the customer moves":       {[]Order{image(1, 1, "c", "FR", "EMEA"), image(2, 2, "c", "US", "NA")}, "FR EMEA"},
		"unknown is filled":        {[]Order{image(1, 0, "c", "unknown", "unknown"), image(1, 2, "c", "US", "NA"), image(3, 4, "c", "FR", "EMEA")}, "US NA"},
		"one of two is filled":     {[]Order{image(1, 1, "c", "FR", "unknown"), image(2, 2, "c", "US", "NA")}, "FR NA"},
		"another customer":         {[]Order{image(1, 1, "c", "FR", "EMEA"), image(2, 2, "d", "US", "NA")}, "US NA"},
		"the customer is taken":    {[]Order{image(1, 1, "c", "FR", "EMEA"), image(2, 2, "", "unknown", "unknown")}, "unknown unknown"},
		"it becomes unknown":       {[]Order{image(1, 1, "c", "FR", "EMEA"), image(2, 0, "c", "unknown", "unknown")}, "FR EMEA"},
		"gone and back":            {[]Order{image(1, 1, "c", "FR", "EMEA"), gone, image(10, 2, "c", "US", "NA")}, "FR EMEA"},
		"an older image says more": {[]Order{image(2, 0, "c", "unknown", "unknown"), image(1, 1, "c", "FR", "EMEA")}, "unknown unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			o := Order{ID: "1"}
			for _, img := range c.images {
				o.Fold(img)
			}
			if got := o.Country + " " + o.Region; got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestOutcomes(t *testing.T) {
	at := time.Date(2026, 3, 1, 10, 20, 0, 0, time.UTC)
	order := func(seq int64, status string) Image {
		return Image{Order: &Order{ID: "1", Known: true, Version: schemas.Version{Seq: seq}, PlacedAt: at, Status: status, Country: "FR", Region: "EMEA"}}
	}
	m := newMemory()
	got := m.apply(t, []Image{order(2, "a"), order(2, "a"), order(1, "b"), order(3, "a"), order(4, "c"), {}})
	want := []Outcome{Applied, Duplicate, Superseded, Unchanged, Applied, Unchanged}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCellOf(t *testing.T) {
	for in, want := range map[string]string{
		"2026-03-01T10:14:59.999999Z": "2026-03-01T10:00:00Z",
		"2026-03-01T10:15:00Z":        "2026-03-01T10:15:00Z",
		"1969-12-31T23:59:59.5Z":      "1969-12-31T23:45:00Z",
		"1969-12-31T23:45:00Z":        "1969-12-31T23:45:00Z",
	} {
		at, err := time.Parse(time.RFC3339Nano, in)
		if err != nil {
			t.Fatal(err)
		}
		if got := time.Unix(cellOf(at), 0).UTC().Format(time.RFC3339); got != want {
			t.Errorf("cell of %s is %s, want %s", in, got, want)
		}
	}
}

func TestAmount(t *testing.T) {
	for _, c := range []struct {
		units    int64
		price    string
		exponent int
		want     int64
	}{
		{1, "12.34", 2, 1234}, {3, "0.005", 2, 2}, {1, "0.005", 2, 1}, {-1, "0.005", 2, -1}, {1, "0.0049999", 2, 0},
		{3, "0.001", 2, 0}, {5, "0.001", 2, 1}, {2, "100", 0, 200}, {1, "99.5", 0, 100}, {-1, "99.5", 0, -100}, {1, "1.2345", 3, 1235},
		{1, "1.2344", 3, 1234}, {0, "9999999999999999999999", 2, 0}, {7, "0.33333333333333333333333333", 2, 233},
		{1000000000, "10000000", 2, 1000000000000000000}, {1, "-0.5", 0, -1}, {1, ".5", 0, 1},
	} {
		p, err := ParsePrice(c.price)
		if err != nil {
			t.Fatalf("%s: %v", c.price, err)
		}
		if got, ok := Amount(c.units, p, c.exponent); !ok || got != c.want {
			t.Errorf("%d × %s at %d: got %d %v, want %d", c.units, c.price, c.exponent, got, ok, c.want)
		}
	}
	p, _ := ParsePrice("9223372036854775807")
	if _, ok := Amount(1, p, 2); ok {
		t.Error("an amount beyond int64 was taken")
	}
}

func TestAmountEqualsRationals(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20000 {
		coef := rng.Int64N(1 << (1 + rng.IntN(62)))
		if rng.IntN(2) == 0 {
			coef = -coef
		}
		units, scale, exponent := rng.Int64N(2000)-1000, int32(rng.IntN(24)), rng.IntN(5)
		got, ok := Amount(units, NewPrice(big.NewInt(coef), scale), exponent)
		r := new(big.Rat).SetFrac(big.NewInt(coef), bigPow10(int(scale)))
		r.Mul(r, new(big.Rat).SetInt64(units)).Mul(r, new(big.Rat).SetInt(bigPow10(exponent)))
		want, _ := new(big.Int).SetString(r.FloatString(0), 10) // rounds half away from zero
		if ok != want.IsInt64() || ok && got != want.Int64() {
			t.Fatalf("%d × %de-%d at %d: got %d %v, want %s", units, coef, scale, exponent, got, ok, want)
		}
	}
}

func TestParsePriceRefuses(t *testing.T) {
	for _, s := range []string{"", ".", "-", "NaN", "Infinity", "1e5", "1,5", "1.", "--1", "1-", "+-1", "1.2.3", " 1", "0x10", "١", strings.Repeat("1", 300)} {
		if _, err := ParsePrice(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

func TestPricesCompareByValue(t *testing.T) {
	for _, pair := range [][2]string{{"1.50", "1.5"}, {"100", "1e2"}, {"0.00", "0"}, {"123456789012345678901234567890.0", "123456789012345678901234567890"}, {"-2.0", "-2"}} {
		a, err := ParsePrice(pair[0])
		if err != nil {
			t.Fatal(err)
		}
		b, err := ParsePrice(pair[1])
		if pair[1] == "1e2" {
			b, err = NewPrice(big.NewInt(1), -2), nil
		}
		if err != nil || !a.Equal(b) {
			t.Errorf("%s and %s differ", pair[0], pair[1])
		}
	}
}

func TestImagesThatCannotBeTaken(t *testing.T) {
	for name, got := range map[string]error{
		"order without key":   second(OrderImage(schemas.Order{})),
		"order of no year":    second(OrderImage(schemas.Order{OrderID: "1", PlacedAt: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})),
		"line without key":    second(LineImage(schemas.Line{})),
		"line without order":  second(LineImage(schemas.Line{LineID: "1", UnitPrice: "1"})),
		"line with no price":  second(LineImage(schemas.Line{LineID: "1", OrderID: "1", UnitPrice: "NaN"})),
		"line too expensive":  second(LineImage(schemas.Line{LineID: "1", OrderID: "1", Units: 1, UnitPrice: "900000000000000"})),
		"product without key": second(ProductImage(schemas.Product{})),
	} {
		if got == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if _, err := LineImage(schemas.Line{LineID: "1", Gone: true}); err != nil {
		t.Errorf("a line that is gone needs its key only: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
