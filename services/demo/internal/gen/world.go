package gen

import "time"

// customerCount is how many customers a fresh store has, without the guest.
const customerCount = 2000

// World is everything a fresh store holds.
type World struct {
	Offices   []Office
	Employees []Employee
	Customers []Customer
	Lines     []Line
	Products  []Product
	Orders    []Order // oldest first
	Ratings   []Rating
}

// Rows is the number of rows of all tables together.
func (w *World) Rows() int64 {
	n := len(w.Offices) + len(w.Employees) + len(w.Customers) + len(w.Lines) + len(w.Products) + len(w.Orders) + len(w.Ratings)
	return int64(n + w.OrderLines())
}

// OrderLines is the number of rows of order_details.
func (w *World) OrderLines() int {
	var n int
	for _, o := range w.Orders {
		n += len(o.Lines)
	}
	return n
}

// New makes the world of a store with the given seed as it stands at now, with
// orders going back the given number of days. They are few at first and grow in
// the last three days, until there are about rate orders per second, but not so
// many that the history gets much larger than 30,000 orders. With a rate of 0 they stay few.
func New(seed uint64, now time.Time, days int, rate float64) *World {
	now = now.UTC().Truncate(time.Microsecond)
	people, markets := newRand(seed, streamPeople), Markets()
	w := &World{Offices: Offices(), Lines: Lines(), Products: Catalogue(seed)}
	w.Employees = employees(people, w.Offices)
	w.Customers = customers(people, customerCount, markets, w.Employees)
	w.Orders = history(seed, now, days, rate, markets, w.Customers, NewPicker(seed, w.Products))
	w.Ratings = ratings(seed, now, w.Orders, w.Products)
	return w
}
