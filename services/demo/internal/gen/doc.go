// Package gen makes the demo store's world from a seed: markets, people,
// catalogue, sixty days of orders and the ratings that go with them.
//
// It is pure: no clock, no database, no global random source. The same seed and
// the same "now" give the same rows on every machine, which is what makes a
// demonstration repeatable and the set-up safe to do again.
//
// The rows are invented. Addresses use reserved mail domains and telephone
// numbers are not meant to be dialled.
package gen

import "math/rand/v2"

// Streams of the random source. Each part of the world draws from its own, so
// that a longer history does not change who the customers are.
const (
	streamPeople uint64 = iota + 1
	streamCatalogue
	streamHistory
	streamSpikes
	streamRatings
	streamRamp
)

func newRand(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream*0x9E3779B97F4A7C15))
}

// pick returns one element of list, all equally likely. The list is not empty.
func pick[T any](r *rand.Rand, list []T) T {
	return list[r.IntN(len(list))]
}
