// Package claims turns the claims of the progress topic, and how far a sink has read, into what the sink is complete
// through. It knows no transport.
package claims

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Stages that make claims.
const (
	stageCapture = "cdc"
	stageEnrich  = "enrich"
)

// maxPending bounds the claims kept of an instance while the sink is behind.
const maxPending = 512

// Book holds claims. It is not safe for concurrent use.
type Book struct {
	captured map[string]schemas.Claim         // the newest of each cdc instance
	pending  map[string][]schemas.Claim       // those of each enrich instance that the sink has not reached, oldest first
	reached  map[schemas.Partition]completion // the newest that the sink has reached, for each input partition
}

type completion struct {
	through    time.Time
	lsn        int64
	incomplete []string
}

// NewBook is an empty one.
func NewBook() *Book {
	return &Book{captured: map[string]schemas.Claim{}, pending: map[string][]schemas.Claim{}, reached: map[schemas.Partition]completion{}}
}

// Take adds a claim. Claims of other stages are ignored.
func (b *Book) Take(c schemas.Claim) {
	switch c.Stage {
	case stageCapture:
		b.captured[c.Instance] = c
	case stageEnrich:
		p := append(b.pending[c.Instance], c)
		if len(p) > maxPending {
			p = thin(p)
		}
		b.pending[c.Instance] = p
	}
}

// thin drops every second claim but the newest: a sink that is far behind advances in larger steps.
func thin(p []schemas.Claim) []schemas.Claim {
	var out []schemas.Claim
	for i := range p {
		if i%2 == 0 || i == len(p)-1 {
			out = append(out, p[i])
		}
	}
	return out
}

// State is what a sink is complete through.
type State struct {
	ValidThrough time.Time
	SourceLSN    int64
	Incomplete   []string // tables that the claims leave out, sorted
}

// At is the state of a sink that has everything before the positions. It is false, with the input partitions that no
// reached claim covers, as long as there are any, and before cdc has claimed anything.
func (b *Book) At(positions map[schemas.Partition]int64) (State, []schemas.Partition, bool) {
	for instance, p := range b.pending {
		b.pending[instance] = b.settle(p, positions)
	}
	inputs := map[schemas.Partition]bool{}
	incomplete := map[string]bool{}
	for _, c := range b.captured {
		for _, e := range c.Ends {
			inputs[schemas.Partition{Topic: e.Topic, Partition: e.Partition}] = true
		}
		for _, table := range c.Incomplete {
			incomplete[table] = true
		}
	}
	var missing []schemas.Partition
	var out State
	first := true
	for in := range inputs {
		c, ok := b.reached[in]
		if !ok {
			missing = append(missing, in)
			continue
		}
		if first || c.through.Before(out.ValidThrough) {
			out.ValidThrough = c.through
		}
		if first || c.lsn < out.SourceLSN {
			out.SourceLSN = c.lsn
		}
		first = false
		for _, table := range c.incomplete {
			incomplete[table] = true
		}
	}
	slices.SortFunc(missing, func(a, b schemas.Partition) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	out.Incomplete = slices.Sorted(maps.Keys(incomplete))
	return out, missing, len(inputs) > 0 && len(missing) == 0
}

// settle moves the newest claim that is reached into reached, and forgets it and those before it.
func (b *Book) settle(p []schemas.Claim, positions map[schemas.Partition]int64) []schemas.Claim {
	for i, c := range slices.Backward(p) {
		if !within(c.Ends, positions) {
			continue
		}
		for _, in := range c.Covers {
			if old, ok := b.reached[in]; !ok || !c.ValidThrough.Before(old.through) {
				b.reached[in] = completion{c.ValidThrough, c.SourceLSN, c.Incomplete}
			}
		}
		return slices.Clone(p[i+1:])
	}
	return p
}

func within(ends []schemas.PartitionOffset, positions map[schemas.Partition]int64) bool {
	for _, e := range ends {
		if positions[schemas.Partition{Topic: e.Topic, Partition: e.Partition}] < e.Offset {
			return false
		}
	}
	return true
}
