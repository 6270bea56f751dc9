package sales

import "time"

// CellSize is the grain of the totals: every time zone's hours and days are made of whole quarters.
const CellSize = 15 * time.Minute

// Exponents gives the number of decimals of a currency's minor unit.
type Exponents map[string]int

// Of is the currency's exponent; 2 where nothing else is known.
func (e Exponents) Of(currency string) int {
	if n, ok := e[currency]; ok {
		return n
	}
	return 2
}

// LinePart is what a line adds to a cell. The zero value adds nothing.
type LinePart struct {
	Counts    bool
	Key       CellKey
	Units     int64
	Gross     int64 // minor units
	Cancelled bool
}

// OrderPart is what an order adds to an order cell. The zero value adds nothing.
type OrderPart struct {
	Counts    bool
	Key       OrderCellKey
	Cancelled bool
}

// CellKey names a cell. Cell is its start in seconds of Unix time.
type CellKey struct {
	Cell                               int64
	Region, Country, Product, Currency string
}

// OrderCellKey names an order cell. Cell is its start in seconds of Unix time.
type OrderCellKey struct {
	Cell                      int64
	Region, Country, Currency string
}

// cellOf is the start of the cell that t is in.
func cellOf(t time.Time) int64 {
	return floor(t.Unix(), int64(CellSize/time.Second)) // Unix rounds towards the past
}

// floor is the largest multiple of size that is not above s.
func floor(s, size int64) int64 {
	f := s - s%size
	if s%size < 0 {
		f -= size
	}
	return f
}

// Part is what the order adds now.
func (o *Order) Part() OrderPart {
	if !o.Known || o.Gone {
		return OrderPart{}
	}
	return OrderPart{Counts: true, Key: OrderCellKey{cellOf(o.PlacedAt), o.Region, o.Country, o.Currency}, Cancelled: o.Cancelled}
}

// Part is what the line adds now, as a line of order o, which is nil if the line has none; waiting tells that it is
// the header that it misses. It fails with [ErrRange] if the amount is beyond what an image may hold.
func (l *Line) Part(o *Order, e Exponents) (part LinePart, waiting bool, err error) {
	if l.Gone || !l.Known {
		return LinePart{}, false, nil
	}
	if o == nil || !o.Known {
		return LinePart{}, true, nil
	}
	if o.Gone {
		return LinePart{}, false, nil
	}
	gross, ok := Amount(l.Units, l.Price, e.Of(o.Currency))
	if !ok {
		return LinePart{}, false, ErrRange
	}
	return LinePart{Counts: true, Key: CellKey{cellOf(o.PlacedAt), o.Region, o.Country, l.Product, o.Currency},
		Units: l.Units, Gross: gross, Cancelled: o.Cancelled}, false, nil
}
