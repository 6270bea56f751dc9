package model

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// shards of the customers: a publication copies only those that changed.
const shards = 1024

// countryTop is how many products are kept as the most popular of a country.
const countryTop = 200

// published is what the last snapshot was made of; it is shared with snapshots and therefore replaced, never changed.
type published struct {
	n         int
	base      int32 // day that pop refers to
	codes     []string
	byCode    map[string]int32
	category  []string
	eligible  []bool
	rows      [][]Neighbour
	pop       []float64
	popular   []int32
	byCat     map[string][]int32
	byCountry map[string][]Popular
	customers [shards]map[string]*History
	counts    []int32
	touched   []int32
}

// Neighbour is a product that is bought together with another one.
type Neighbour struct {
	Item  int32
	Score float32
}

// Popular is a product with its popularity, of which the best has 1.
type Popular struct {
	Item  int32
	Score float32
}

// History is what a customer bought.
type History struct {
	Items   []Bought // the latest first
	Country string   // of the latest order
}

// Bought is a product that a customer bought.
type Bought struct {
	Item   int32
	Orders int32
	Day    int32 // of the latest order, since 1970
}

// Changed tells whether a publication would show anything new.
func (b *Builder) Changed() bool {
	d := &b.dirty
	return d.catalogue || len(d.orders)+len(d.rows)+len(d.stale)+len(d.pop)+len(d.countries)+len(d.customers) > 0
}

// Publish makes a snapshot of everything taken in so far. maxWork bounds what is spent on neighbours, in pairs of
// products; what is left is done by the next publications (Changed stays true). A negative maxWork is no bound.
func (b *Builder) Publish(now time.Time, maxWork int) *Snapshot {
	b.settleOrders()
	day := int32(now.UnixMicro() / dayMicros)
	if day != b.pub.base {
		for c := range b.countries { // orders from the future count as today's: their day may have come
			b.dirty.countries[c] = struct{}{}
		}
	}
	b.publishCatalogue()
	b.settleRows(maxWork)
	b.settlePopularity(day)
	b.settleCountries(day)
	b.settleCustomers()
	b.pub.n++
	s := &Snapshot{Version: fmt.Sprintf("live-%s-%d", now.UTC().Format("20060102T150405Z"), b.pub.n), Built: now, day: day,
		codes: b.pub.codes, byCode: b.pub.byCode, category: b.pub.category, eligible: b.pub.eligible, rows: slices.Clone(b.pub.rows), pop: b.pub.pop,
		popular: b.pub.popular, byCategory: b.pub.byCat, byCountry: b.pub.byCountry, customers: b.pub.customers}
	return s
}

func (b *Builder) publishCatalogue() {
	if !b.dirty.catalogue {
		return
	}
	n := len(b.items)
	b.pub.codes, b.pub.category, b.pub.eligible = make([]string, n), make([]string, n), make([]bool, n)
	for i := range b.items {
		it := &b.items[i]
		b.pub.codes[i], b.pub.category[i], b.pub.eligible[i] = it.code, it.category, it.eligible()
	}
	if len(b.pub.byCode) != n {
		b.pub.byCode = maps.Clone(b.byCode)
	}
	for len(b.pub.rows) < n {
		b.pub.rows = append(b.pub.rows, nil)
	}
}

// settleRows brings the neighbours of products up to date: first of those whose baskets changed, then of those whose
// neighbours sell more or less than before.
func (b *Builder) settleRows(maxWork int) {
	for len(b.pub.counts) < len(b.items) {
		b.pub.counts = append(b.pub.counts, 0)
	}
	for i := range b.dirty.rows {
		if maxWork == 0 {
			return
		}
		maxWork = spend(maxWork, b.row(i))
		for _, j := range b.pub.touched {
			b.dirty.stale[j] = struct{}{}
		}
		delete(b.dirty.rows, i)
		delete(b.dirty.stale, i)
	}
	for i := range b.dirty.stale {
		if maxWork == 0 {
			return
		}
		maxWork = spend(maxWork, b.row(i))
		delete(b.dirty.stale, i)
	}
}

func spend(left, work int) int {
	if left < 0 {
		return left
	}
	return max(0, left-work)
}

// row computes the neighbours of one product from the baskets it is in, leaves the products it met in b.pub.touched, and
// returns the pairs looked at.
func (b *Builder) row(i int32) int {
	b.pub.touched = b.pub.touched[:0]
	work := 1
	for _, o := range b.items[i].orders {
		work += len(o.applied.basket)
		for _, j := range o.applied.basket {
			if j == i {
				continue
			}
			if b.pub.counts[j] == 0 {
				b.pub.touched = append(b.pub.touched, j)
			}
			b.pub.counts[j]++
		}
	}
	best := make([]Neighbour, 0, min(b.cfg.Neighbours, len(b.pub.touched)))
	worse := func(x, y Neighbour) bool {
		return x.Score < y.Score || x.Score == y.Score && b.items[x.Item].code > b.items[y.Item].code
	}
	mine := float64(len(b.items[i].orders))
	for _, j := range b.pub.touched {
		s := float64(b.pub.counts[j]) / (math.Sqrt(mine*float64(len(b.items[j].orders))) + shrink)
		best = keep(best, b.cfg.Neighbours, Neighbour{j, float32(s)}, worse)
		b.pub.counts[j] = 0
	}
	slices.SortFunc(best, func(x, y Neighbour) int {
		if worse(y, x) {
			return -1
		}
		return 1
	})
	b.pub.rows[i] = best
	return work
}

// keep holds the best k in a heap whose root is the worst of them.
func keep[T any](heap []T, k int, x T, worse func(x, y T) bool) []T {
	if k <= 0 {
		return heap
	}
	if len(heap) < k {
		heap = append(heap, x)
		for i := len(heap) - 1; i > 0; {
			up := (i - 1) / 2
			if !worse(heap[i], heap[up]) {
				break
			}
			heap[i], heap[up] = heap[up], heap[i]
			i = up
		}
		return heap
	}
	if !worse(heap[0], x) {
		return heap
	}
	heap[0] = x
	for i := 0; ; {
		least := i
		for _, down := range [2]int{2*i + 1, 2*i + 2} {
			if down < k && worse(heap[down], heap[least]) {
				least = down
			}
		}
		if least == i {
			return heap
		}
		heap[i], heap[least] = heap[least], heap[i]
		i = least
	}
}

// weight is what units of a day count for on the day base.
func (b *Builder) weight(days []dayUnits, base int32) (sum float64) {
	half := b.cfg.HalfLife.Hours() / 24
	for _, d := range days {
		age := max(0, float64(base)-float64(d.day)) // an order from the future is one of today
		sum += float64(d.units) * math.Exp2(-age/half)
	}
	return sum
}

func (b *Builder) settlePopularity(day int32) {
	if !b.dirty.catalogue && len(b.dirty.pop) == 0 && day == b.pub.base {
		return
	}
	pop := slices.Clone(b.pub.pop)
	for len(pop) < len(b.items) {
		pop = append(pop, 0)
	}
	if day != b.pub.base {
		b.pub.base = day
		for i := range pop {
			pop[i] = b.weight(b.items[i].days, day)
		}
	}
	for i := range b.dirty.pop {
		pop[i] = b.weight(b.items[i].days, day)
	}
	clear(b.dirty.pop)
	b.dirty.catalogue = false
	b.pub.pop = pop
	b.pub.popular = make([]int32, 0, len(pop))
	for i := range pop {
		if b.pub.eligible[i] {
			b.pub.popular = append(b.pub.popular, int32(i))
		}
	}
	slices.SortFunc(b.pub.popular, func(x, y int32) int {
		return cmp.Or(cmp.Compare(pop[y], pop[x]), cmp.Compare(b.pub.codes[x], b.pub.codes[y]))
	})
	b.pub.byCat = map[string][]int32{}
	for _, i := range b.pub.popular {
		b.pub.byCat[b.pub.category[i]] = append(b.pub.byCat[b.pub.category[i]], i)
	}
}

func (b *Builder) settleCountries(day int32) {
	if len(b.dirty.countries) == 0 {
		return
	}
	next := maps.Clone(b.pub.byCountry)
	if next == nil {
		next = map[string][]Popular{}
	}
	type scored struct {
		item  int32
		score float64
	}
	worse := func(x, y scored) bool {
		return x.score < y.score || x.score == y.score && b.items[x.item].code > b.items[y.item].code
	}
	for c := range b.dirty.countries {
		var best []scored
		for i, days := range b.countries[c] {
			if w := b.weight(days, day); w > 0 {
				best = keep(best, countryTop, scored{i, w}, worse)
			}
		}
		if len(best) == 0 {
			delete(next, c)
			continue
		}
		slices.SortFunc(best, func(x, y scored) int {
			if worse(y, x) {
				return -1
			}
			return 1
		})
		list := make([]Popular, len(best))
		for i, s := range best {
			list[i] = Popular{s.item, float32(s.score / best[0].score)}
		}
		next[c] = list
	}
	clear(b.dirty.countries)
	b.pub.byCountry = next
}

func (b *Builder) settleCustomers() {
	copied := map[uint32]bool{}
	for c := range b.dirty.customers {
		at := shard(c)
		if !copied[at] {
			copied[at] = true
			b.pub.customers[at] = maps.Clone(b.pub.customers[at])
			if b.pub.customers[at] == nil {
				b.pub.customers[at] = map[string]*History{}
			}
		}
		if orders := b.customers[c]; len(orders) > 0 {
			b.pub.customers[at][c] = b.history(orders)
		} else {
			delete(b.pub.customers[at], c)
		}
	}
	clear(b.dirty.customers)
}

func (b *Builder) history(orders []*order) *History {
	h := &History{}
	at := map[int32]int{}
	var latest *order
	for _, o := range orders {
		if latest == nil || o.placed > latest.placed || o.placed == latest.placed && o.id > latest.id {
			latest = o
		}
		for _, i := range o.applied.basket {
			k, ok := at[i]
			if !ok {
				k = len(h.Items)
				at[i] = k
				h.Items = append(h.Items, Bought{Item: i, Day: o.applied.day})
			}
			h.Items[k].Orders++
			h.Items[k].Day = max(h.Items[k].Day, o.applied.day)
		}
	}
	h.Country = latest.applied.country
	slices.SortFunc(h.Items, func(x, y Bought) int {
		return cmp.Or(cmp.Compare(y.Day, x.Day), cmp.Compare(y.Orders, x.Orders), cmp.Compare(b.items[x.Item].code, b.items[y.Item].code))
	})
	if len(h.Items) > maxHistory {
		h.Items = slices.Clone(h.Items[:maxHistory])
	}
	return h
}

func shard(customer string) uint32 {
	h := uint32(2166136261)
	for i := range len(customer) {
		h = (h ^ uint32(customer[i])) * 16777619
	}
	return h % shards
}
