package enrich

import (
	"fmt"
	"slices"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/images"
)

// maxWaiting is how much memory images may take that wait for reference rows until orders and lines are held back.
const maxWaiting = 64 << 20

// hold stops to read orders and lines while the images that wait take too much memory, up to where it is certain that
// reference rows are not merely late: before a claim's ends, every row that the source has is in the reference data once
// that has reached the claim's ends too. So while a first snapshot runs, orders wait in their topic for their customers;
// and images whose rows do not exist at the source, which must be remembered, stop nothing for longer than until the
// next claim. The reference data is followed all the time, and claims do not depend on us, so that every hold ends.
func (s *session) hold() {
	held := map[schemas.Partition]struct{}{}
	if s.waiting.size() > s.maxWaiting {
		ends := s.certain()
		committed, _ := s.inputs.snapshot()
		for p, at := range committed {
			if t := s.tables[p.Topic]; t != nil && (t.Role == images.Orders || t.Role == images.Lines) && at >= ends[p] {
				held[p] = struct{}{}
			}
		}
	}
	client := s.group.Client()
	if more := difference(held, s.held); len(more) > 0 {
		client.PauseFetchPartitions(more)
	}
	if less := difference(s.held, held); len(less) > 0 {
		client.ResumeFetchPartitions(less)
	}
	s.held = held
	if len(held) == 0 {
		s.status.clear(partWaiting)
		return
	}
	s.status.stall(partWaiting, fmt.Errorf("images that wait for their customer or product take more than %d MiB: orders and lines are read on when cdc has brought these rows, or has claimed that there are none; see cdc status",
		s.maxWaiting>>20))
}

// certain are the ends of the newest claim of each cdc instance whose reference rows are all here. A claim that misses a
// reference table is not one.
func (s *session) certain() map[schemas.Partition]int64 {
	ends := map[schemas.Partition]int64{}
	for _, open := range s.claims.all() {
		claim, _ := open.newest(func(c *schemas.Claim) bool {
			for _, t := range s.set.Tables {
				if t.Reference >= 0 && slices.Contains(c.Incomplete, t.Name) {
					return false
				}
			}
			return !slices.ContainsFunc(c.Ends, func(e schemas.PartitionOffset) bool { return !s.followed(e) })
		})
		for _, e := range claim.Ends {
			p := schemas.Partition{Topic: e.Topic, Partition: e.Partition}
			ends[p] = max(ends[p], e.Offset)
		}
	}
	return ends
}

// difference is what a has and b has not.
func difference(a, b map[schemas.Partition]struct{}) map[string][]int32 {
	out := map[string][]int32{}
	for p := range a {
		if _, ok := b[p]; !ok {
			out[p.Topic] = append(out[p.Topic], p.Partition)
		}
	}
	return out
}
