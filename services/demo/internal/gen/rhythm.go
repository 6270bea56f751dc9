package gen

import "time"

// weekdayFactor is how busy a local day of the week is, 1 being the average.
func weekdayFactor(d time.Weekday) float64 {
	return [...]float64{1.25, 0.85, 0.85, 0.9, 0.95, 1.0, 1.2}[d]
}

// hourWeights is how busy each local hour of a day is, relative.
func hourWeights() [24]float64 {
	return [...]float64{2, 1, 0.6, 0.5, 0.5, 1, 2, 4, 6, 7, 8, 8, 9, 8, 7, 6, 6, 7, 8, 10, 12, 11, 8, 4}
}

// MostBusy is the largest value that Busy can have, rounded up.
const MostBusy = 2.7

// Busy is how busy a market is at a time, by its local hour and day of the week;
// 1 is the average of a week.
func Busy(m Market, at time.Time) float64 {
	local := at.UTC().Add(m.Offset)
	weights := hourWeights()
	var sum float64
	for _, w := range weights {
		sum += w
	}
	return weekdayFactor(local.Weekday()) * weights[local.Hour()] * float64(len(weights)) / sum
}

// Rhythm is how busy the store is at a time, all markets together by their
// weights; 1 is the average of a week.
func Rhythm(markets []Market, at time.Time) float64 {
	var busy float64
	for _, m := range markets {
		busy += m.Weight * Busy(m, at)
	}
	return busy / totalWeight(markets)
}

func totalWeight(markets []Market) float64 {
	var total float64
	for _, m := range markets {
		total += m.Weight
	}
	return total
}
