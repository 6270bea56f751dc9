package sales

import (
	"maps"
	"slices"
)

// Image is the content of one input record: one of the three, or none for a tombstone, which says nothing new.
type Image struct {
	Order   *Order
	Line    *Line
	Product *Product
}

// Batch folds images into what the ledger holds. Its methods are called in the order in which they are declared: what
// each returns is what the ledger must load, lock or write next.
type Batch struct {
	images   []Image
	outcomes []Outcome

	orders   map[string][]int // images of each order, by index, in order of arrival
	lines    map[string][]int
	products map[string][]int

	headers map[string]*Order // the touched orders, after the batch
	dirty   []*Order
	recount map[string]bool // orders whose every line must be counted again
	deltas  *Deltas
}

// NewBatch begins with the images in the order of their arrival.
func NewBatch(images []Image) *Batch {
	b := &Batch{images: images, outcomes: make([]Outcome, len(images)), orders: map[string][]int{}, lines: map[string][]int{},
		products: map[string][]int{}, headers: map[string]*Order{}, recount: map[string]bool{}, deltas: NewDeltas()}
	for i, img := range images {
		switch {
		case img.Order != nil:
			b.orders[img.Order.ID] = append(b.orders[img.Order.ID], i)
		case img.Line != nil:
			b.lines[img.Line.ID] = append(b.lines[img.Line.ID], i)
		case img.Product != nil:
			b.products[img.Product.Code] = append(b.products[img.Product.Code], i)
		default:
			b.outcomes[i] = Unchanged
		}
	}
	return b
}

// Products are the codes of the products in the batch, sorted.
func (b *Batch) Products() []string { return sortedKeys(b.products) }

// FoldProducts folds the products' images into what is stored and returns those to write, sorted.
func (b *Batch) FoldProducts(stored map[string]Product) []Product {
	var out []Product
	for _, code := range b.Products() {
		p := stored[code]
		version := p.Version
		known := p.Known
		for _, i := range b.products[code] {
			b.outcomes[i] = p.Fold(*b.images[i].Product)
		}
		if !known || p.Version != version {
			out = append(out, p)
		}
	}
	return out
}

// Lines are the ids of the lines in the batch, sorted.
func (b *Batch) Lines() []string { return sortedKeys(b.lines) }

// Orders are the ids of the orders that must be locked, sorted: those of the headers, those that lines name and those
// that the stored lines (by id) belong to.
func (b *Batch) Orders(stored map[string]string) []string {
	touched := make(map[string]bool, len(b.orders))
	for id := range b.orders {
		touched[id] = true
	}
	for _, img := range b.images {
		if img.Line != nil {
			touched[img.Line.OrderID] = true
		}
	}
	for _, id := range stored {
		touched[id] = true
	}
	delete(touched, "")
	return sortedKeys(touched)
}

// Fresh is the row of an order that the ledger does not hold yet: its header from the batch, or the bare id.
func (b *Batch) Fresh(id string) *Order {
	o := &Order{ID: id}
	b.foldOrder(o)
	o.Counted = o.Part()
	return o
}

func (b *Batch) foldOrder(o *Order) {
	for _, i := range b.orders[o.ID] {
		b.outcomes[i] = o.Fold(*b.images[i].Order)
	}
}

// Inserted notes that the row made by Fresh is new to the ledger, so that no stored line belongs to it.
func (b *Batch) Inserted(o *Order) {
	b.headers[o.ID] = o
	b.deltas.Order(OrderPart{}, o.Counted)
}

// FoldOrder folds the headers of the batch into the stored and locked order, which it changes.
func (b *Batch) FoldOrder(o *Order) {
	known, version, before := o.Known, o.Version, o.Counted
	b.foldOrder(o)
	b.headers[o.ID] = o
	if o.Known == known && o.Version == version {
		return
	}
	o.Counted = o.Part()
	b.dirty = append(b.dirty, o)
	b.deltas.Order(before, o.Counted)
	if !known || before != o.Counted {
		b.recount[o.ID] = true
	}
}

// ChangedOrders are the stored orders to write.
func (b *Batch) ChangedOrders() []*Order { return b.dirty }

// Recount are the ids of the orders whose stored lines must be loaded, sorted.
func (b *Batch) Recount() []string { return sortedKeys(b.recount) }

// FoldLines folds the lines' images into the stored lines (those in the batch and those of the orders to recount) and
// counts them again. It returns the lines to insert and those to update, each sorted. It fails with [ErrRange] if a sum
// does not fit.
func (b *Batch) FoldLines(stored map[string]*Line, e Exponents) (insert, update []*Line, err error) {
	for _, id := range b.Lines() {
		l, have := stored[id]
		if !have {
			l = &Line{ID: id}
		}
		version := l.Version
		for _, i := range b.lines[id] {
			b.outcomes[i] = l.Fold(*b.images[i].Line)
		}
		changed, err := b.count(l, e)
		switch {
		case err != nil:
			return nil, nil, err
		case !have:
			insert = append(insert, l)
		case changed || l.Version != version:
			update = append(update, l)
		}
	}
	for _, id := range sortedKeys(stored) {
		l := stored[id]
		if _, in := b.lines[id]; in || !b.recount[l.OrderID] {
			continue
		}
		changed, err := b.count(l, e)
		if err != nil {
			return nil, nil, err
		}
		if changed {
			update = append(update, l)
		}
	}
	return insert, update, b.deltas.Err()
}

func (b *Batch) count(l *Line, e Exponents) (changed bool, err error) {
	part, waiting, err := l.Part(b.headers[l.OrderID], e)
	if err != nil {
		return false, err
	}
	changed = part != l.Counted || waiting != l.Waiting
	b.deltas.Line(l.Counted, part)
	l.Counted, l.Waiting = part, waiting
	return changed, nil
}

// Deltas are what the batch adds to the cells.
func (b *Batch) Deltas() *Deltas { return b.deltas }

// Outcomes are how the images ended, by index.
func (b *Batch) Outcomes() []Outcome { return b.outcomes }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
