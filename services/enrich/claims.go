package enrich

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
)

// cdcStage is the stage whose claims ours are made from.
const cdcStage = "cdc"

// maxOpenClaims is how many of cdc's claims are kept until they are met. While we are far behind, older ones are met
// first; when there are too many, every other one is dropped: that makes progress coarser, not wrong.
const maxOpenClaims = 128

// openClaims are cdc's claims that we have not met yet, oldest first: the newest always, of the others every stride-th.
// It is safe for concurrent use.
type openClaims struct {
	mu     sync.Mutex
	list   []schemas.Claim
	stride int // 1 or more; 0 counts as 1
	since  int // claims since the last one that stays; above 0, the newest gives way to the next
}

func (o *openClaims) add(c schemas.Claim) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since > 0 && len(o.list) > 0 {
		o.list = o.list[:len(o.list)-1]
	}
	if len(o.list) == maxOpenClaims {
		for i := range maxOpenClaims / 2 {
			o.list[i] = o.list[2*i]
		}
		o.list = o.list[:maxOpenClaims/2]
		o.stride = 2 * max(1, o.stride)
	}
	o.list = append(o.list, c)
	if o.since++; o.since >= o.stride {
		o.since = 0
	}
}

// newest is the newest claim that is met; forget is for when it has been made.
func (o *openClaims) newest(met func(*schemas.Claim) bool) (schemas.Claim, bool) {
	o.mu.Lock()
	list := slices.Clone(o.list)
	o.mu.Unlock()
	for i := range slices.Backward(list) {
		if met(&list[i]) {
			return list[i], true
		}
	}
	return schemas.Claim{}, false
}

func (o *openClaims) forget(upTo time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = slices.DeleteFunc(o.list, func(c schemas.Claim) bool { return !c.ReportedAt.After(upTo) })
	if len(o.list) == 0 {
		o.stride, o.since = 1, 0
	}
}

// captures are the open claims of each cdc instance: an installation may read a source through several slots, and what
// one of them claims says nothing about the tables of another. It is safe for concurrent use.
type captures struct {
	mu sync.Mutex
	by map[string]*openClaims
}

func (c *captures) add(claim schemas.Claim) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]*openClaims{}
	}
	if c.by[claim.Instance] == nil {
		c.by[claim.Instance] = &openClaims{}
	}
	c.by[claim.Instance].add(claim)
}

// all are the open claims by instance; the map is a copy.
func (c *captures) all() map[string]*openClaims {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.by)
}

// met tells whether everything before the claim's ends has been read and committed in the partitions we own, has come
// into the reference data, and has mended what waited for it.
func (s *session) met(c *schemas.Claim, committed map[schemas.Partition]int64) bool {
	owned := make([]schemas.Partition, 0, len(committed))
	for _, e := range c.Ends {
		p := schemas.Partition{Topic: e.Topic, Partition: e.Partition}
		if at, ok := committed[p]; ok && at < e.Offset {
			return false
		}
		if !s.followed(e) {
			return false
		}
	}
	for p := range committed {
		owned = append(owned, p)
	}
	// Asked last: a row is told to those who wait for it before the follower says that it has been reached.
	return !s.waiting.pending(owned)
}

// followed tells whether everything before the end is in the reference data, if it belongs there.
func (s *session) followed(e schemas.PartitionOffset) bool {
	t := s.tables[e.Topic]
	return t == nil || t.Reference < 0 || s.refFollower.Reached(e.Topic, e.Partition, e.Offset)
}

// claim makes the claims that can be made now, one for each cdc instance that has said something new.
func (s *session) claim(ctx context.Context) error {
	committed, generation := s.inputs.snapshot()
	if len(committed) == 0 || generation != s.gated || s.deps.Now().Sub(s.claimedAt) < claimInterval {
		return nil
	}
	ends, ok := s.outputs.list(generation)
	if !ok {
		return nil
	}
	b := newBatch()
	from := map[*openClaims]schemas.Claim{}
	valid := time.Time{} // of the instance that is furthest behind
	instances := s.claims.all()
	for _, instance := range slices.Sorted(maps.Keys(instances)) {
		open := instances[instance]
		c, ok := open.newest(func(c *schemas.Claim) bool { return s.met(c, committed) })
		if !ok {
			continue
		}
		out := schemas.Claim{Stage: stage, Instance: s.deps.Kafka.Instance(), ValidThrough: c.ValidThrough, SourceLSN: c.SourceLSN,
			ReportedAt: s.deps.Now().UTC().Truncate(time.Microsecond), Fresh: c.Fresh, Covers: s.covers(&c, committed),
			Ends: ends, Incomplete: c.Incomplete}
		if len(instances) > 1 { // they are claims of their own, for what reads them keeps the newest of each
			out.Instance += "/" + instance
		}
		value, err := s.encoders[schemas.Progress].Append(nil, &out)
		if err != nil {
			return fmt.Errorf("encode a claim: %w", err)
		}
		b.out = append(b.out, &kgo.Record{Topic: s.deps.Kafka.Name(schemas.Progress), Key: []byte(stage + "/" + out.Instance), Value: value})
		from[open] = c
		if valid.IsZero() || out.ValidThrough.Before(valid) {
			valid = out.ValidThrough
		}
	}
	if len(from) == 0 {
		return nil
	}
	if err := s.commit(ctx, b); err != nil {
		return err
	}
	s.claimedAt = s.deps.Now()
	for open, c := range from {
		open.forget(c.ReportedAt)
	}
	s.metrics.claims.Add(float64(len(from)))
	s.metrics.valid.Set(float64(valid.UnixMicro()) / 1e6)
	return nil
}

// covers are the partitions of store.* that a claim is about: those we own, and those that nobody reads as input,
// from which nothing has to come; of the claim's own topics only, for another slot's capture may be behind.
func (s *session) covers(c *schemas.Claim, committed map[schemas.Partition]int64) []schemas.Partition {
	theirs := map[string]bool{}
	for _, e := range c.Ends {
		theirs[e.Topic] = true
	}
	var out []schemas.Partition
	for p := range committed {
		if s.tables[p.Topic] != nil && theirs[p.Topic] {
			out = append(out, p)
		}
	}
	for _, e := range c.Ends {
		if s.tables[e.Topic] == nil {
			out = append(out, schemas.Partition{Topic: e.Topic, Partition: e.Partition})
		}
	}
	slices.SortFunc(out, func(a, b schemas.Partition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	return out
}
