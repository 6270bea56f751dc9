package gen

import (
	"math"
	"math/rand/v2"
	"sort"
	"time"
)

// The statuses an order can have.
const (
	InProcess = "In Process"
	Shipped   = "Shipped"
	Resolved  = "Resolved"
	Cancelled = "Cancelled"
	OnHold    = "On Hold"
	Disputed  = "Disputed"
	Returned  = "Returned"
)

// OrderLine is a row of order_details. Returns have a negative quantity.
type OrderLine struct {
	Code     string
	Quantity int
	Price    Hundredths // in the currency of the order
}

// Order is a row of orders with its order_details, in line number order.
type Order struct {
	Number            int64
	At                time.Time // UTC, microseconds
	Required, Shipped time.Time // dates; Shipped is zero when it has not left yet
	Status, Comments  string
	Customer          int
	Currency          string
	Lines             []OrderLine
}

// Rating is a row of ratings.
type Rating struct {
	Customer int
	Code     string
	Stars    int
	At       time.Time
}

// firstOrder is the number of the oldest order.
const firstOrder = 500001

// ordersPerDay is the average of the quiet time, before the ramp.
const ordersPerDay = 185

// Spike is a jump of a product line's sales in a territory for some hours.
type Spike struct {
	Territory, Line string
	From, To        time.Time
	orders          int
}

type historian struct {
	r       *rand.Rand
	now     time.Time
	markets []Market
	picker  *Picker
	prices  Prices
	// byMarket holds indexes into customers, by index of market.
	byMarket  [][]int
	customers []Customer
	orders    []Order
	// hurry is set while the ramp's orders are made: a busy store ships within two hours or so.
	hurry bool
}

// history returns the orders of the days before now, oldest first and numbered.
// They end with a ramp to rate orders per second; see ramp.
func history(seed uint64, now time.Time, days int, rate float64, markets []Market, customers []Customer, picker *Picker) []Order {
	h := &historian{
		r: newRand(seed, streamHistory), now: now, markets: markets, picker: picker, prices: NewPrices(),
		byMarket: make([][]int, len(markets)), customers: customers,
	}
	index := map[string]int{}
	for i, m := range markets {
		index[m.Country] = i
	}
	for i, c := range customers {
		if c.Number != GuestNumber {
			h.byMarket[index[c.Country]] = append(h.byMarket[index[c.Country]], i)
		}
	}
	from := now.Add(-time.Duration(days) * 24 * time.Hour)
	h.flow(from, ordersPerDay, func(time.Time) bool { return true })
	spikes := Spikes(seed, now, days)
	for _, s := range spikes {
		h.spike(s, s.orders)
	}
	h.ramp(seed, newRamp(now, rate, markets), from, spikes)
	sort.SliceStable(h.orders, func(i, j int) bool { return h.orders[i].At.Before(h.orders[j].At) })
	for i := range h.orders {
		h.orders[i].Number = firstOrder + int64(i)
	}
	return h.orders
}

// flow adds orders from then on until now, in the rhythm of each market and so
// many a day on average, of which only those at times that keep accepts are made.
func (h *historian) flow(from time.Time, perDay float64, keep func(time.Time) bool) {
	total := totalWeight(h.markets)
	for i, m := range h.markets {
		if len(h.byMarket[i]) == 0 {
			continue
		}
		for day := from.Add(-24 * time.Hour); day.Before(h.now.Add(24 * time.Hour)); day = day.Add(24 * time.Hour) {
			h.day(i, day, perDay*m.Weight/total, func(at time.Time) bool {
				return !at.Before(from) && at.Before(h.now) && keep(at)
			})
		}
	}
}

// day adds the orders of one local calendar day of a market.
func (h *historian) day(market int, anyTime time.Time, mean float64, keep func(time.Time) bool) {
	m := h.markets[market]
	local := anyTime.Add(m.Offset)
	midnight := local.Truncate(24 * time.Hour).Add(-m.Offset)
	var profile weighted
	for hour, w := range hourWeights() {
		profile.add(hour, w)
	}
	for range Poisson(h.r, mean*weekdayFactor(local.Weekday())) {
		at := midnight.Add(time.Duration(profile.draw(h.r))*time.Hour + time.Duration(h.r.Int64N(int64(time.Hour))))
		if !keep(at) {
			continue
		}
		customer := h.customers[h.customerIn(market)]
		basket := h.picker.Basket(h.r, Taste(customer.Number), "")
		h.add(at, customer, m.Currency, basket)
	}
}

// customerIn draws a customer of a market; some buy far more often than others.
func (h *historian) customerIn(market int) int {
	list := h.byMarket[market]
	return list[int(float64(len(list))*math.Pow(h.r.Float64(), 1.7))]
}

// Spikes returns when which product line jumped where. One of them lies in the
// last day, so that there is something to see on a fresh dashboard.
func Spikes(seed uint64, now time.Time, days int) []Spike {
	r := newRand(seed, streamSpikes)
	lines, territories := Lines(), words("NA EMEA APAC Japan LATAM")
	var list []Spike
	for i := range days/5 + 1 {
		ago := time.Duration(r.Float64() * float64(days) * 24 * float64(time.Hour))
		if i == 0 {
			ago = hours(9 + 8*r.Float64())
		}
		from := now.Add(-ago).Truncate(15 * time.Minute)
		list = append(list, Spike{
			Territory: pick(r, territories), Line: pick(r, lines).Name,
			From: from, To: from.Add(time.Duration(3+r.IntN(5)) * time.Hour), orders: 40 + r.IntN(40),
		})
	}
	return list
}

// spike adds so many orders for the product line of a spike.
func (h *historian) spike(s Spike, orders int) {
	var markets []int
	for i, m := range h.markets {
		if m.Territory == s.Territory && len(h.byMarket[i]) > 0 {
			markets = append(markets, i)
		}
	}
	if len(markets) == 0 {
		return
	}
	for range orders {
		at := s.From.Add(time.Duration(h.r.Int64N(int64(s.To.Sub(s.From)))))
		market := pick(h.r, markets)
		customer := h.customers[h.customerIn(market)]
		basket := h.picker.Basket(h.r, Taste(customer.Number), s.Line)
		if at.Before(h.now) {
			h.add(at, customer, h.markets[market].Currency, basket)
		}
	}
}

// add books an order and, for a few, the return that followed.
func (h *historian) add(at time.Time, c Customer, currency string, basket []int) {
	at = at.UTC().Truncate(time.Microsecond)
	o := Order{At: at, Required: date(at.Add(hours(24 * float64(6+h.r.IntN(8))))), Customer: c.Number, Currency: currency}
	for _, i := range basket {
		p := h.picker.products[i]
		price := h.prices.In(currency, p.MSRP)
		if h.r.Float64() < 0.12 { // on offer
			price = h.prices.In(currency, p.MSRP*9/10)
		}
		o.Lines = append(o.Lines, OrderLine{p.Code, Quantity(h.r), price})
	}
	h.settle(&o)
	h.orders = append(h.orders, o)
	if back := o.Shipped.Add(hours(24 * (2 + 6*h.r.Float64()))); o.Status == Shipped && h.r.Float64() < 0.025 && back.Before(h.now) {
		h.orders = append(h.orders, ReturnOf(h.r, o, back.Truncate(time.Microsecond)))
	}
}

// settle gives an order the status its age suggests.
func (h *historian) settle(o *Order) {
	leaves := o.At.Add(hours(8 + 60*h.r.Float64()))
	if h.hurry {
		leaves = o.At.Add(leaves.Sub(o.At) / 30)
	}
	x := h.r.Float64()
	switch {
	case x < 0.03:
		o.Status, o.Comments = Cancelled, "Cancelled at the customer's request"
	case x < 0.04:
		o.Status = OnHold
		if o.At.Before(h.now.Add(-hours(24 * 7))) {
			o.Status, o.Shipped = Shipped, date(leaves.Add(hours(72)))
		}
	case leaves.After(h.now):
		o.Status = InProcess
	case x < 0.05:
		o.Status, o.Shipped, o.Comments = Disputed, date(leaves), "Customer says that a part is missing"
	case x < 0.065:
		o.Status, o.Shipped, o.Comments = Resolved, date(leaves), "A spare part was sent"
	default:
		o.Status, o.Shipped = Shipped, date(leaves)
	}
}

// ReturnOf makes the order that takes some lines of o back at the given time: it
// has a number of its own (0 here) and negative quantities.
func ReturnOf(r *rand.Rand, o Order, at time.Time) Order {
	back := Order{At: at, Required: date(at), Shipped: date(at), Status: Returned, Comments: "Return", Customer: o.Customer, Currency: o.Currency}
	for i, l := range o.Lines {
		if i == 0 || r.Float64() < 0.4 {
			back.Lines = append(back.Lines, OrderLine{l.Code, -(1 + r.IntN(l.Quantity)), l.Price})
		}
	}
	return back
}

func date(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// ratings lets some buyers rate what they bought; they like what suits their taste.
func ratings(seed uint64, now time.Time, orders []Order, products []Product) []Rating {
	r := newRand(seed, streamRatings)
	cluster := make(map[string]int, len(products))
	for _, p := range products {
		cluster[p.Code] = p.Cluster
	}
	type key struct {
		customer int
		code     string
	}
	seen := map[key]bool{}
	var list []Rating
	for _, o := range orders {
		for _, l := range o.Lines {
			at := o.At.Add(hours(48 + 200*r.Float64())).Truncate(time.Microsecond)
			stars := Stars(r, Taste(o.Customer), cluster[l.Code])
			k := key{o.Customer, l.Code}
			if r.Float64() > 0.22 || l.Quantity < 0 || o.Status == Cancelled || seen[k] || !at.Before(now) {
				continue
			}
			seen[k] = true
			list = append(list, Rating{o.Customer, l.Code, stars, at})
		}
	}
	return list
}

// Stars draws a rating from 1 to 5 for a product of the given cluster.
func Stars(r *rand.Rand, taste []int, cluster int) int {
	mean := 3.4
	for _, t := range taste {
		if t == cluster {
			mean = 4.4
		}
	}
	return max(1, min(5, int(math.Round(mean+r.NormFloat64()*0.9))))
}

// Poisson draws a count with the given mean.
func Poisson(r *rand.Rand, mean float64) int {
	if mean > 40 {
		return max(0, int(math.Round(mean+math.Sqrt(mean)*r.NormFloat64())))
	}
	limit, n := math.Exp(-mean), 0
	for x := r.Float64(); x > limit; x *= r.Float64() {
		n++
	}
	return n
}
