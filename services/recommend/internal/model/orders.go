package model

import (
	"cmp"
	"maps"
	"slices"

	"github.com/millrace-io/millrace/schemas"
)

const dayMicros = 24 * 3600 * 1_000_000

// Order takes an image of an order's header.
func (b *Builder) Order(o *schemas.Order) {
	v := schemas.Version{Seq: o.Seq, RefSeq: o.RefSeq}
	placed := o.PlacedAt.UnixMicro()
	if !o.Gone && placed <= b.horizon {
		b.OrderGone(o.OrderID)
		return
	}
	have := b.order(o.OrderID)
	if have.known && !v.Newer(have.version) {
		return
	}
	have.version, have.known, have.gone, have.cancelled = v, true, o.Gone, o.Cancelled
	have.placed, have.country, have.customer = placed, o.Country, ""
	if o.CustomerKey != nil {
		have.customer = *o.CustomerKey
	}
	b.dirty.orders[have] = struct{}{}
}

// OrderGone takes the tombstone of an order's header; its lines wait for another one.
func (b *Builder) OrderGone(id string) {
	o, ok := b.orders[id]
	if !ok {
		return
	}
	*o = order{id: id, born: o.born, lines: o.lines, applied: o.applied}
	b.dirty.orders[o] = struct{}{}
}

func (b *Builder) order(id string) *order {
	o, ok := b.orders[id]
	if !ok {
		o = &order{id: id, born: b.pub.n}
		b.orders[id] = o
	}
	return o
}

// Line takes an image of a line. It may name another order than before.
func (b *Builder) Line(l *schemas.Line) {
	v := schemas.Version{Seq: l.Seq, RefSeq: l.RefSeq}
	have, ok := b.lines[l.LineID]
	if ok && !v.Newer(have.version) {
		return
	}
	if !ok {
		have = &line{}
		b.lines[l.LineID] = have
	}
	b.detach(have)
	have.version, have.gone = v, l.Gone
	if l.Gone || l.ProductCode == "" {
		return
	}
	have.item, have.units, have.order = b.item(l.ProductCode), l.Units, b.order(l.OrderID)
	have.order.lines = append(have.order.lines, have)
	b.dirty.orders[have.order] = struct{}{}
}

// LineGone takes the tombstone of a line.
func (b *Builder) LineGone(id string) {
	if l, ok := b.lines[id]; ok {
		b.detach(l)
		delete(b.lines, id)
	}
}

func (b *Builder) detach(l *line) {
	if o := l.order; o != nil {
		if i := slices.Index(o.lines, l); i >= 0 {
			o.lines = slices.Delete(o.lines, i, i+1)
		}
		b.dirty.orders[o] = struct{}{}
		l.order = nil
	}
}

// settleOrders brings what the changed orders contribute up to date.
func (b *Builder) settleOrders() {
	for o := range b.dirty.orders {
		next := b.contribution(o)
		if !equal(&next, &o.applied) {
			b.count(o, -1)
			o.applied = next
			b.count(o, +1)
		}
		if len(o.lines) == 0 && !o.known {
			delete(b.orders, o.id) // nothing is known of it any more
		}
	}
	clear(b.dirty.orders)
}

// contribution is what an order counts for now: nothing if it was cancelled or deleted, or as long as its header is
// not known.
func (b *Builder) contribution(o *order) contribution {
	if !o.known || o.gone || o.cancelled || len(o.lines) == 0 {
		return contribution{}
	}
	day := o.placed / dayMicros
	if o.placed < 0 && o.placed%dayMicros != 0 {
		day--
	}
	c := contribution{day: int32(min(max(day, -1<<31), 1<<31-1)), customer: o.customer, country: o.country}
	for _, l := range o.lines {
		c.units = append(c.units, itemUnits{l.item, l.units})
	}
	slices.SortFunc(c.units, func(x, y itemUnits) int { return cmp.Compare(x.item, y.item) })
	n := 0
	for _, u := range c.units[1:] {
		if u.item == c.units[n].item {
			c.units[n].units += u.units
		} else {
			n++
			c.units[n] = u
		}
	}
	c.units = c.units[:n+1]
	for _, u := range c.units {
		if u.units > 0 {
			c.basket = append(c.basket, u.item)
		}
	}
	if len(c.basket) > maxBasket {
		// Which products stay must depend on the order alone and favour none: the lowest hashes.
		slices.SortFunc(c.basket, func(x, y int32) int { return cmp.Compare(b.items[x].hash, b.items[y].hash) })
		c.basket = c.basket[:maxBasket]
		slices.Sort(c.basket)
	}
	return c
}

func equal(x, y *contribution) bool {
	return x.day == y.day && x.customer == y.customer && x.country == y.country && slices.Equal(x.units, y.units)
}

// count adds (+1) or takes back (-1) what an order contributes.
func (b *Builder) count(o *order, sign int64) {
	c := &o.applied
	for _, u := range c.units {
		it := &b.items[u.item]
		it.days = addDay(it.days, c.day, sign*u.units)
		b.dirty.pop[u.item] = struct{}{}
		if c.country != "" && c.country != schemas.Unknown {
			b.countCountry(c.country, u.item, c.day, sign*u.units)
		}
	}
	for _, i := range c.basket {
		it := &b.items[i]
		it.orders = change(it.orders, o, sign)
		b.dirty.rows[i] = struct{}{}
	}
	if c.customer != "" && len(c.units) > 0 {
		list := change(b.customers[c.customer], o, sign)
		if len(list) == 0 {
			delete(b.customers, c.customer)
		} else {
			b.customers[c.customer] = list
		}
		b.dirty.customers[c.customer] = struct{}{}
	}
}

func (b *Builder) countCountry(country string, item, day int32, units int64) {
	m := b.countries[country]
	if m == nil {
		m = map[int32][]dayUnits{}
		b.countries[country] = m
	}
	if days := addDay(m[item], day, units); len(days) > 0 {
		m[item] = days
	} else {
		delete(m, item)
	}
	if len(m) == 0 {
		delete(b.countries, country)
	}
	b.dirty.countries[country] = struct{}{}
}

func change(list []*order, o *order, sign int64) []*order {
	if sign > 0 {
		return append(list, o)
	}
	i := slices.Index(list, o)
	last := len(list) - 1
	list[i], list[last] = list[last], nil
	return list[:last]
}

// addDay keeps days sorted and free of zeros.
func addDay(days []dayUnits, day int32, units int64) []dayUnits {
	i, found := slices.BinarySearchFunc(days, day, func(d dayUnits, day int32) int { return cmp.Compare(d.day, day) })
	if !found {
		if units == 0 {
			return days
		}
		return slices.Insert(days, i, dayUnits{day, units})
	}
	if days[i].units += units; days[i].units == 0 {
		return slices.Delete(days, i, i+1)
	}
	return days
}

// orphaned is after how many publications lines without a header are taken for those of a forgotten order.
const orphaned = 60

// Trim forgets orders when there are more lines than Config.MaxLines: first what has been without a header for long,
// then the oldest, at last lines whose header may still come. Call it when what has been read is whole: before, every
// line's order may still be unknown.
func (b *Builder) Trim() {
	if len(b.lines) <= b.cfg.MaxLines {
		return
	}
	aim := b.cfg.MaxLines / 10 * 9
	keys := make(map[*order][]string, len(b.orders))
	for id, l := range b.lines {
		keys[l.order] = append(keys[l.order], id)
	}
	for _, id := range keys[nil] {
		delete(b.lines, id)
	}
	for _, o := range b.byWorth() {
		if len(b.lines) <= aim {
			return
		}
		if o.known && !o.gone {
			b.horizon = max(b.horizon, o.placed)
		}
		for _, id := range keys[o] {
			b.LineGone(id)
		}
		b.OrderGone(o.id)
	}
}

// byWorth are all orders, those to be forgotten first in front.
func (b *Builder) byWorth() []*order {
	rank := func(o *order) int {
		switch {
		case o.known:
			return 1
		case b.pub.n-o.born > orphaned:
			return 0
		default:
			return 2
		}
	}
	orders := slices.Collect(maps.Values(b.orders))
	slices.SortFunc(orders, func(x, y *order) int {
		return cmp.Or(cmp.Compare(rank(x), rank(y)), cmp.Compare(x.placed, y.placed), cmp.Compare(x.id, y.id))
	})
	return orders
}
