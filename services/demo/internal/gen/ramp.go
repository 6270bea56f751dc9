package gen

import (
	"math"
	"time"
)

const (
	// rampFor is how long before now the ramp begins.
	rampFor = 72 * time.Hour
	// rampMiddle is how long before now the ramp is half-way up, rampPace how
	// quickly it goes there.
	rampMiddle, rampPace = 24 * time.Hour, 4 * time.Hour
	// rampOrders is the most that the ramp adds on average, so that sixty days stay
	// below 90,000 order lines, whatever the rate.
	rampOrders = 16_200
)

// ramp is the end of the history: the store was featured somewhere, and within two
// days it came to sell as much as it will from now on. Without it, the first live
// orders would stand beside a nearly empty chart.
type ramp struct {
	now    time.Time
	perDay float64 // orders that are added per day of average business at the top; 0 for no ramp
}

// newRamp makes the ramp up to rate orders per second, or as high as rampOrders allows.
func newRamp(now time.Time, rate float64, markets []Market) ramp {
	p := ramp{now: now, perDay: max(0, rate*24*60*60-ordersPerDay)}
	if n := p.expected(markets, totalWeight(markets), now.Add(-rampFor), now); n > rampOrders {
		p.perDay *= rampOrders / n
	}
	return p
}

// level is how far up the ramp is at a time, 0 to 1: the curve of something that
// spreads from person to person.
func (p ramp) level(at time.Time) float64 {
	ago := p.now.Sub(at)
	if ago > rampFor {
		return 0
	}
	return 1 / (1 + math.Exp(float64(ago-rampMiddle)/float64(rampPace)))
}

// expected is how many orders the ramp adds on average in some of the markets,
// whose weights are parts of total.
func (p ramp) expected(markets []Market, total float64, from, to time.Time) float64 {
	const step = 15 * time.Minute
	var n float64
	for at := from.Add(step / 2); at.Before(to); at = at.Add(step) {
		for _, m := range markets {
			n += p.perDay * step.Hours() / 24 * m.Weight / total * Busy(m, at) * p.level(at)
		}
	}
	return n
}

// ramp adds the orders of the ramp, from a random source of its own: what was
// before does not depend on it. A spike grows with the store, so that it can
// still be seen.
func (h *historian) ramp(seed uint64, p ramp, from time.Time, spikes []Spike) {
	if p.perDay == 0 {
		return
	}
	h.r, h.hurry = newRand(seed, streamRamp), true
	if begin := h.now.Add(-rampFor); from.Before(begin) {
		from = begin
	}
	h.flow(from, p.perDay, func(at time.Time) bool { return h.r.Float64() < p.level(at) })
	lines := float64(len(Lines()))
	for _, s := range spikes {
		var markets []Market
		for _, m := range h.markets {
			if m.Territory == s.Territory {
				markets = append(markets, m)
			}
		}
		h.spike(s, int(2*p.expected(markets, totalWeight(h.markets), s.From, s.To)/lines))
	}
}
