package gen

import "math"

// Hundredths is an amount as the source stores it in a numeric(10,2) column:
// hundredths of the currency's main unit, also for currencies that have no
// decimals in practice.
type Hundredths int64

// currency says how list prices, which are kept in US dollars, are shown in
// another currency.
type currency struct {
	perUSD float64    // units of the currency for one dollar
	step   Hundredths // prices are multiples of this ...
	minus  Hundredths // ... less this, so that 20.00 becomes 19.99
}

func currencies() map[string]currency {
	return map[string]currency{
		"USD": {1, 100, 1},
		"CAD": {1.37, 100, 1},
		"MXN": {18.5, 1000, 0},
		"BRL": {5.4, 100, 10},
		"CLP": {940, 10000, 1000},
		"EUR": {0.92, 100, 1},
		"GBP": {0.79, 100, 1},
		"CHF": {0.88, 100, 5},
		"SEK": {10.5, 1000, 100},
		"NOK": {10.8, 1000, 100},
		"PLN": {3.95, 100, 1},
		"ZAR": {18.2, 1000, 100},
		"AED": {3.67, 100, 0},
		"JPY": {150, 1000, 0},
		"AUD": {1.52, 100, 5},
		"NZD": {1.65, 100, 10},
		"SGD": {1.34, 100, 10},
		"INR": {84, 1000, 100},
	}
}

// Prices converts list prices in US dollars to the currencies of the markets.
// It is immutable and safe for concurrent use.
type Prices struct{ table map[string]currency }

// NewPrices returns the store's price converter.
func NewPrices() Prices { return Prices{table: currencies()} }

// In returns the price in the given ISO 4217 currency of something that is
// listed at usd. A currency the store does not sell in is treated as US dollars.
// The result is never below one step of the currency.
func (p Prices) In(code string, usd Hundredths) Hundredths {
	c, known := p.table[code]
	if !known || code == "USD" {
		return usd
	}
	steps := Hundredths(math.Round(float64(usd) * c.perUSD / float64(c.step)))
	if steps < 1 {
		steps = 1
	}
	if steps == 1 && c.minus >= c.step {
		return c.step
	}
	return steps*c.step - c.minus
}
