package enrich

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
)

// outputEnds are the offsets after the last data record of every sales partition, as far as it matters to the
// partitions we own: our own records, and those that were there when we got a partition. Control records do not count:
// readers compare with the offset after the last record they saw. It is safe for concurrent use.
type outputEnds struct {
	mu         sync.Mutex
	ends       map[schemas.Partition]int64
	generation int // of the assignment whose predecessors' output is in
}

func (o *outputEnds) raise(ends map[schemas.Partition]int64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ends == nil {
		o.ends = map[schemas.Partition]int64{}
	}
	for p, end := range ends {
		o.ends[p] = max(o.ends[p], end)
	}
}

func (o *outputEnds) complete(generation int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.generation = max(o.generation, generation)
}

// list is in a fixed order; ok is false while the output of earlier owners is still being looked for.
func (o *outputEnds) list(generation int) (out []schemas.PartitionOffset, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.generation < generation {
		return nil, false
	}
	for p, end := range o.ends {
		out = append(out, schemas.PartitionOffset{Topic: p.Topic, Partition: p.Partition, Offset: end})
	}
	slices.SortFunc(out, func(a, b schemas.PartitionOffset) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition - b.Partition)
	})
	return out, true
}

// Steps back from a partition's end in search of its last data record.
const (
	firstStepBack = 64
	stepFactor    = 32
)

// dataEnds finds the offset after the last committed data record of every partition of the topics, of what is there
// when it is called. Open transactions are waited for.
func (s *session) dataEnds(ctx context.Context, topics []string) (map[schemas.Partition]int64, error) {
	starts, err := s.admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the start of the output topics: %w", err)
	}
	highs, err := s.admin.ListEndOffsets(ctx, topics...)
	if err == nil {
		err = highs.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list the end of the output topics: %w", err)
	}
	out, left := map[schemas.Partition]int64{}, map[schemas.Partition]int64{} // left: until which offset to read
	highs.Each(func(o kadm.ListedOffset) {
		p := schemas.Partition{Topic: o.Topic, Partition: o.Partition}
		out[p] = 0
		if start, _ := starts.Lookup(o.Topic, o.Partition); o.Offset > start.Offset {
			left[p] = o.Offset
		}
	})
	for back := int64(firstStepBack); len(left) > 0; back *= stepFactor {
		from := map[string]map[int32]kgo.Offset{}
		for p, high := range left {
			start, _ := starts.Lookup(p.Topic, p.Partition)
			if from[p.Topic] == nil {
				from[p.Topic] = map[int32]kgo.Offset{}
			}
			from[p.Topic][p.Partition] = kgo.NewOffset().At(max(start.Offset, high-back))
		}
		found, err := s.lastData(ctx, from, left)
		if err != nil {
			return nil, err
		}
		maps.DeleteFunc(left, func(p schemas.Partition, high int64) bool {
			out[p] = found[p]
			start, _ := starts.Lookup(p.Topic, p.Partition)
			return found[p] > 0 || high-back <= start.Offset
		})
	}
	return out, nil
}

// lastData reads the partitions from the offsets given until each is past its high and tells the last data record's
// next offset.
func (s *session) lastData(ctx context.Context, from map[string]map[int32]kgo.Offset, highs map[schemas.Partition]int64) (map[schemas.Partition]int64, error) {
	cl, err := s.deps.Kafka.Client("enrich-ends", s.log, nil, kgo.ConsumePartitions(from), kgo.KeepControlRecords(), kgo.FetchMaxWait(fetchWait))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	found, open := map[schemas.Partition]int64{}, maps.Clone(highs)
	for len(open) > 0 {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fetches.EachRecord(func(r *kgo.Record) {
			p := schemas.Partition{Topic: r.Topic, Partition: r.Partition}
			if !r.Attrs.IsControl() {
				found[p] = r.Offset + 1
			}
			if r.Offset+1 >= open[p] {
				delete(open, p)
			}
		})
	}
	return found, nil
}
