// Package model is what recommend knows: the catalogue, what sells, what is bought together and who bought what. A
// [Builder] takes the images of products, orders and lines in any number and order and publishes an immutable
// [Snapshot], from which recommendations are ranked without locks.
//
// The Builder keeps exact integer state (units per day, the basket of each order), so taking a change in, or back,
// leaves the same state as if it had never been otherwise. It does no I/O and knows no clock.
package model

import (
	"hash/fnv"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Config bounds and tunes a Builder.
type Config struct {
	HalfLife   time.Duration // an order's weight in popularity halves with this age
	Neighbours int           // products kept for each product that are bought with it
	MaxLines   int           // order lines kept; the oldest orders are forgotten first
}

const (
	// maxBasket bounds how many products of one order count as bought together: more tell little of taste, and
	// pairs grow with the square.
	maxBasket = 100
	// maxHistory bounds how many products are kept of a customer's purchases.
	maxHistory = 100
	// shrink damps the similarity of products that were seen together only a few times.
	shrink = 5
)

// Builder takes images in. It is not safe for concurrent use.
type Builder struct {
	cfg       Config
	items     []item
	byCode    map[string]int32
	orders    map[string]*order
	lines     map[string]*line
	customers map[string][]*order
	countries map[string]map[int32][]dayUnits
	horizon   int64 // placed_at, in microseconds, of the newest order that was forgotten for MaxLines
	dirty     dirt
	pub       published
}

// dirt is what has changed since the last publication.
type dirt struct {
	catalogue bool
	orders    map[*order]struct{}
	rows      map[int32]struct{} // products whose neighbours may have changed
	stale     map[int32]struct{} // products whose neighbours' counts have changed
	pop       map[int32]struct{}
	countries map[string]struct{}
	customers map[string]struct{}
}

type item struct {
	code     string
	hash     uint64
	version  schemas.Version
	known    bool // in the catalogue
	hidden   bool
	stock    *int64
	category string
	days     []dayUnits
	orders   []*order // whose basket it is in
}

// eligible tells whether the product may be recommended.
func (i *item) eligible() bool { return i.known && !i.hidden && (i.stock == nil || *i.stock > 0) }

type order struct {
	id        string
	born      int // publication after which it was first heard of
	version   schemas.Version
	known     bool // its header has been seen
	gone      bool
	cancelled bool
	placed    int64 // microseconds
	customer  string
	country   string
	lines     []*line
	applied   contribution
}

type line struct {
	version schemas.Version
	gone    bool
	order   *order // nil when gone
	item    int32
	units   int64
}

// contribution is what an order adds to the model.
type contribution struct {
	day      int32
	customer string
	country  string
	units    []itemUnits // net units by product, sorted by product
	basket   []int32     // products bought
}

type itemUnits struct {
	item  int32
	units int64
}

type dayUnits struct {
	day   int32
	units int64
}

// NewBuilder makes an empty builder.
func NewBuilder(cfg Config) *Builder {
	b := &Builder{cfg: cfg, byCode: map[string]int32{}, orders: map[string]*order{}, lines: map[string]*line{},
		customers: map[string][]*order{}, countries: map[string]map[int32][]dayUnits{}, horizon: -1 << 63}
	b.dirty = dirt{orders: map[*order]struct{}{}, rows: map[int32]struct{}{}, stale: map[int32]struct{}{}, pop: map[int32]struct{}{},
		countries: map[string]struct{}{}, customers: map[string]struct{}{}}
	return b
}

// Size tells how much is kept.
type Size struct{ Items, Orders, Lines, Customers int }

// Size tells how much is kept.
func (b *Builder) Size() Size {
	return Size{len(b.items), len(b.orders), len(b.lines), len(b.customers)}
}

// Bytes is about what the builder and its snapshot take: it is counted from sizes and not measured.
func (s Size) Bytes() int64 {
	return int64(s.Items)*1500 + int64(s.Orders)*400 + int64(s.Lines)*220 + int64(s.Customers)*300
}

// Product takes an image of a product.
func (b *Builder) Product(p *schemas.Product) {
	i := b.item(p.ProductCode)
	it := &b.items[i]
	v := schemas.Version{Seq: p.Seq, RefSeq: p.RefSeq}
	if it.version != (schemas.Version{}) && !v.Newer(it.version) {
		return
	}
	it.version, it.known, it.hidden, it.stock, it.category = v, !p.Gone, p.Hidden, p.Stock, p.Category
	b.dirty.catalogue = true
}

// ProductGone takes the tombstone of a product.
func (b *Builder) ProductGone(code string) {
	if i, ok := b.byCode[code]; ok {
		b.items[i].known, b.items[i].version = false, schemas.Version{}
		b.dirty.catalogue = true
	}
}

// item is the number of a product; it never changes and is never used again.
func (b *Builder) item(code string) int32 {
	if i, ok := b.byCode[code]; ok {
		return i
	}
	h := fnv.New64a()
	h.Write([]byte(code))
	i := int32(len(b.items))
	b.items = append(b.items, item{code: code, hash: h.Sum64()})
	b.byCode[code] = i
	b.dirty.catalogue = true
	return i
}
