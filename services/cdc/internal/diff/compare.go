package diff

import (
	"bytes"
	"context"
	"errors"
)

// Kind of a difference.
type Kind uint8

// Kinds.
const (
	Missing   Kind = iota + 1 // the target has not what the source has
	Extra                     // the target has what the source has not
	Different                 // both have the key, and their contents differ
)

// String is the kind in words.
func (k Kind) String() string {
	switch k {
	case Missing:
		return "missing"
	case Extra:
		return "extra"
	}
	return "different"
}

// Difference is one key on which the sides do not agree. The entry of a side that has not the key is empty but for it.
type Difference struct {
	Kind           Kind
	Source, Target Entry
}

// Key is the key that it is about.
func (d Difference) Key() []byte { return d.Source.Key }

// Counts are what a comparison found, in keys.
type Counts struct {
	Source    int64 `json:"source"`
	Target    int64 `json:"target"`
	Equal     int64 `json:"equal"`
	Missing   int64 `json:"missing"`
	Extra     int64 `json:"extra"`
	Different int64 `json:"different"`
}

// Differences is how many keys are not equal.
func (c Counts) Differences() int64 { return c.Missing + c.Extra + c.Different }

func (c *Counts) add(k Kind) {
	switch k {
	case Missing:
		c.Missing++
	case Extra:
		c.Extra++
	case Different:
		c.Different++
	}
}

// SameSum is the equality of rows whose sums are equal.
func SameSum(source, target Entry) bool { return source.Sum == target.Sum }

// SameAll is the equality of rows whose sums and extras are equal.
func SameAll(source, target Entry) bool {
	return source.Sum == target.Sum && bytes.Equal(source.Extra, target.Extra)
}

// Compare finds the differences of two sets of one space and hands each to visit, in no order; what visit is handed is its
// own. An error of visit ends it. Both sets stay as they are.
func Compare(ctx context.Context, source, target *Set, same func(source, target Entry) bool, visit func(Difference) error) (Counts, error) {
	var counts Counts
	if source.space != target.space {
		return counts, errors.New("compare rows: the sides are of different spaces")
	}
	piece := func(want, have held) error {
		for k, w := range want {
			counts.Source++
			h, ok := have[k]
			d := Difference{Kind: Missing, Source: w.entry(k), Target: Entry{Key: []byte(k)}}
			if ok {
				d.Kind, d.Target = Different, h.entry(k)
				if same(d.Source, d.Target) {
					counts.Equal++
					continue
				}
			}
			counts.add(d.Kind)
			if err := visit(d); err != nil {
				return err
			}
		}
		for k, h := range have {
			counts.Target++
			if _, ok := want[k]; ok {
				continue
			}
			counts.Extra++
			if err := visit(Difference{Kind: Extra, Source: Entry{Key: []byte(k)}, Target: h.entry(k)}); err != nil {
				return err
			}
		}
		return nil
	}
	for i := range source.parts {
		err := source.space.walk(ctx, side{&source.parts[i], source.merge}, side{&target.parts[i], target.merge}, 0, piece)
		if err != nil {
			return counts, err
		}
	}
	return counts, nil
}
