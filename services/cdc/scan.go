package cdc

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/kafka"
)

type partition struct {
	topic string
	id    int32
}

// extent says where a scan ends.
type extent bool

const (
	settled    extent = false // before the first transaction that is open
	everything extent = true  // at the end: transactions that are open, whose ever they are, are waited for
)

// scan reads committed records of whole topics up to their present, settled ends. tail > 0 reads only about that many
// offsets before each end. Records of one partition come in order; ends of transactions are passed too (IsControl).
func scan(ctx context.Context, cfg kafka.Config, log *slog.Logger, tail int64, each func(*kgo.Record), topics ...string) (start, end map[partition]int64, err error) {
	return scanTo(ctx, cfg, log, settled, tail, func(r *kgo.Record) error { each(r); return nil }, topics...)
}

// How far before its end a topic is searched for its last data at first, and how much farther each time nothing was
// found.
const (
	firstTail = 64
	nextTail  = 64
)

// What a scan's client fetches at a time: compressed, so that a fetch is several times as much in memory.
const (
	scanBytes          = 2 << 20
	scanPartitionBytes = 512 << 10
)

// scanTo is scan with a choice of the end; an error of each ends it.
func scanTo(ctx context.Context, cfg kafka.Config, log *slog.Logger, upTo extent, tail int64, each func(*kgo.Record) error, topics ...string) (start, end map[partition]int64, err error) {
	return scanFrom(ctx, cfg, log, upTo, func(_ partition, start, end int64) int64 {
		if tail > 0 {
			return max(start, end-tail)
		}
		return start
	}, each, topics...)
}

// scanFrom is scanTo from where first says, given a partition's start and end.
func scanFrom(ctx context.Context, cfg kafka.Config, log *slog.Logger, upTo extent, first func(p partition, start, end int64) int64,
	each func(*kgo.Record) error, topics ...string) (start, end map[partition]int64, err error) {
	if len(topics) == 0 { // to Kafka none would be all
		return nil, nil, nil
	}
	cl, err := cfg.Client("cdc-scan", log, nil, kgo.KeepControlRecords(), kgo.FetchMaxBytes(scanBytes), kgo.FetchMaxPartitionBytes(scanPartitionBytes))
	if err != nil {
		return nil, nil, err
	}
	defer cl.Close()
	if start, end, err = bounds(ctx, cl, upTo, topics); err != nil {
		return nil, nil, err
	}
	assign := map[string]map[int32]kgo.Offset{}
	left := map[partition]int64{}
	for p, e := range end {
		if start[p] = first(p, start[p], e); e <= start[p] {
			continue
		}
		if assign[p.topic] == nil {
			assign[p.topic] = map[int32]kgo.Offset{}
		}
		assign[p.topic][p.id] = kgo.NewOffset().At(start[p])
		left[p] = e
	}
	cl.AddConsumePartitions(assign)
	for len(left) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, nil, fmt.Errorf("read %v: %w", topics, err)
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return nil, nil, fmt.Errorf("read topic %s: %w", errs[0].Topic, errs[0].Err)
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			p := partition{r.Topic, r.Partition}
			if e, ok := left[p]; ok && r.Offset+1 >= e {
				delete(left, p)
			}
			if err := each(r); err != nil {
				return nil, nil, err
			}
		}
	}
	return start, end, nil
}

func bounds(ctx context.Context, cl *kgo.Client, upTo extent, topics []string) (start, end map[partition]int64, err error) {
	adm := kadm.NewClient(cl)
	first, err := adm.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = first.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the starts of %v: %w", topics, err)
	}
	list := adm.ListCommittedOffsets
	if upTo == everything {
		list = adm.ListEndOffsets
	}
	last, err := list(ctx, topics...)
	if err == nil {
		err = last.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("find the ends of %v: %w", topics, err)
	}
	start, end = map[partition]int64{}, map[partition]int64{}
	first.Each(func(o kadm.ListedOffset) { start[partition{o.Topic, o.Partition}] = o.Offset })
	last.Each(func(o kadm.ListedOffset) { end[partition{o.Topic, o.Partition}] = o.Offset })
	return start, end, nil
}

// liveKeys folds topics and gives the keys that have a value, by topic.
func liveKeys(ctx context.Context, cfg kafka.Config, log *slog.Logger, topics ...string) (map[string]map[string]struct{}, error) {
	out := map[string]map[string]struct{}{}
	for _, t := range topics {
		out[t] = map[string]struct{}{}
	}
	_, _, err := scan(ctx, cfg, log, 0, func(r *kgo.Record) {
		switch {
		case r.Attrs.IsControl():
		case r.Value == nil:
			delete(out[r.Topic], string(r.Key))
		default:
			out[r.Topic][string(r.Key)] = struct{}{}
		}
	}, topics...)
	return out, err
}

// dataEnds are the offsets after the last record of data in each partition: the ends of transactions do not count,
// for a reader's stored offset does not pass them.
func dataEnds(ctx context.Context, cfg kafka.Config, log *slog.Logger, topics ...string) (map[string][]int64, error) {
	found := map[partition]int64{}
	pending := topics
	var all map[partition]int64
	for tail := int64(firstTail); len(pending) > 0; tail *= nextTail {
		start, end, err := scan(ctx, cfg, log, tail, func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				found[partition{r.Topic, r.Partition}] = r.Offset + 1
			}
		}, pending...)
		if err != nil {
			return nil, err
		}
		if all == nil {
			all = end
		}
		again := map[string]bool{}
		for p, e := range end {
			if _, ok := found[p]; !ok && e > start[p] && e-start[p] >= tail {
				again[p.topic] = true
			}
		}
		pending = pending[:0:0]
		for t := range again {
			pending = append(pending, t)
		}
	}
	out := map[string][]int64{}
	for p := range all {
		for len(out[p.topic]) <= int(p.id) {
			out[p.topic] = append(out[p.topic], 0)
		}
	}
	for p, e := range found {
		out[p.topic][p.id] = e
	}
	return out, nil
}
