package sales

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// Cell is the sums of a cell, or a difference of them. Amounts are minor units.
type Cell struct {
	Lines, CancelledLines int64
	Units, CancelledUnits int64
	Gross, Cancelled      int64
}

// OrderCell is the sums of an order cell, or a difference of them.
type OrderCell struct{ Orders, CancelledOrders int64 }

// Deltas are what a batch adds to the cells.
type Deltas struct {
	cells  map[CellKey]Cell
	orders map[OrderCellKey]OrderCell
	over   bool
}

// NewDeltas adds nothing.
func NewDeltas() *Deltas {
	return &Deltas{cells: map[CellKey]Cell{}, orders: map[OrderCellKey]OrderCell{}}
}

// Line replaces what a line added by what it adds now.
func (d *Deltas) Line(before, after LinePart) {
	if before == after {
		return
	}
	d.line(before, -1)
	d.line(after, 1)
}

func (d *Deltas) line(p LinePart, sign int64) {
	if !p.Counts {
		return
	}
	c := d.cells[p.Key]
	d.add(&c.Lines, sign)
	d.add(&c.Units, sign*p.Units)
	d.add(&c.Gross, sign*p.Gross)
	if p.Cancelled {
		d.add(&c.CancelledLines, sign)
		d.add(&c.CancelledUnits, sign*p.Units)
		d.add(&c.Cancelled, sign*p.Gross)
	}
	d.cells[p.Key] = c
}

// Order replaces what an order added by what it adds now.
func (d *Deltas) Order(before, after OrderPart) {
	if before == after {
		return
	}
	d.order(before, -1)
	d.order(after, 1)
}

func (d *Deltas) order(p OrderPart, sign int64) {
	if !p.Counts {
		return
	}
	c := d.orders[p.Key]
	c.Orders += sign
	if p.Cancelled {
		c.CancelledOrders += sign
	}
	d.orders[p.Key] = c
}

// add notes an overflow instead of wrapping round.
func (d *Deltas) add(sum *int64, n int64) {
	s := *sum + n
	if (s > *sum) != (n > 0) && n != 0 {
		d.over = true
	}
	*sum = s
}

// Hours are the hours of the cells that change, UTC, sorted.
func (d *Deltas) Hours() []time.Time {
	const hour = int64(time.Hour / time.Second) // a multiple of the cells' size
	seen := map[int64]bool{}
	for k, c := range d.cells {
		if c != (Cell{}) {
			seen[floor(k.Cell, hour)] = true
		}
	}
	for k, c := range d.orders {
		if c != (OrderCell{}) {
			seen[floor(k.Cell, hour)] = true
		}
	}
	out := make([]time.Time, 0, len(seen))
	for _, h := range slices.Sorted(maps.Keys(seen)) {
		out = append(out, time.Unix(h, 0).UTC())
	}
	return out
}

// Err is [ErrRange] if a sum did not fit into an int64.
func (d *Deltas) Err() error {
	if d.over {
		return ErrRange
	}
	return nil
}

// Cells are the differences that are not zero, in the order in which every writer must take them.
func (d *Deltas) Cells() ([]CellKey, []Cell) {
	keys := slices.SortedFunc(maps.Keys(d.cells), func(a, b CellKey) int {
		return cmp.Or(cmp.Compare(a.Cell, b.Cell), strings.Compare(a.Region, b.Region), strings.Compare(a.Country, b.Country),
			strings.Compare(a.Product, b.Product), strings.Compare(a.Currency, b.Currency))
	})
	return nonZero(keys, d.cells)
}

// OrderCells are the differences that are not zero, in the order in which every writer must take them.
func (d *Deltas) OrderCells() ([]OrderCellKey, []OrderCell) {
	keys := slices.SortedFunc(maps.Keys(d.orders), func(a, b OrderCellKey) int {
		return cmp.Or(cmp.Compare(a.Cell, b.Cell), strings.Compare(a.Region, b.Region), strings.Compare(a.Country, b.Country),
			strings.Compare(a.Currency, b.Currency))
	})
	return nonZero(keys, d.orders)
}

func nonZero[K comparable, V comparable](keys []K, m map[K]V) ([]K, []V) {
	var zero V
	keys = slices.DeleteFunc(keys, func(k K) bool { return m[k] == zero })
	values := make([]V, len(keys))
	for i, k := range keys {
		values[i] = m[k]
	}
	return keys, values
}
