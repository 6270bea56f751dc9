package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Follower reads whole topics from their start and keeps following them, outside any consumer group: how a
// service holds a compacted topic in memory. It reads committed records only.
type Follower struct {
	cfg    Config
	role   string
	topics []string
	log    *slog.Logger
	apply  func(context.Context, []*kgo.Record) error

	mu       sync.Mutex
	position map[string]map[int32]int64
	target   map[string]map[int32]int64
	caughtUp chan struct{}
}

// NewFollower follows topics (full names). apply is called from one goroutine with the records of one poll, in order
// within each partition; its error ends the follower.
func NewFollower(cfg Config, role string, log *slog.Logger, apply func(context.Context, []*kgo.Record) error, topics ...string) *Follower {
	return &Follower{cfg: cfg, role: role, topics: topics, log: log, apply: apply, caughtUp: make(chan struct{}),
		position: map[string]map[int32]int64{}}
}

// CaughtUp is closed when everything that the topics held at the start has been applied: the bootstrap gate.
func (f *Follower) CaughtUp() <-chan struct{} { return f.caughtUp }

// Ready is nil once the follower has caught up.
func (f *Follower) Ready() error {
	select {
	case <-f.caughtUp:
		return nil
	default:
		return fmt.Errorf("still reading %v", f.topics)
	}
}

// Reached tells whether everything before the offset (exclusive) has been applied.
func (f *Follower) Reached(topic string, partition int32, offset int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.position[topic][partition] >= offset
}

// Run follows until ctx ends.
func (f *Follower) Run(ctx context.Context) error {
	cl, err := f.cfg.Client(f.role, f.log, nil, kgo.ConsumeTopics(f.topics...), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(2<<20), kgo.FetchMaxPartitionBytes(1<<20)) // packed; opened they are several times that
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := f.aim(ctx, cl); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for ctx.Err() == nil {
		fetches := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			f.log.Warn("cannot follow a topic, trying again", "topic", topic, "partition", partition, "error", err)
		})
		if err := f.take(ctx, fetches); err != nil && ctx.Err() == nil { // what is cut short by the end is no failure
			return err
		}
	}
	return nil
}

// aim remembers the end of each partition: reaching all of them is having caught up.
func (f *Follower) aim(ctx context.Context, cl *kgo.Client) error {
	adm := kadm.NewClient(cl)
	for {
		start, err := adm.ListStartOffsets(ctx, f.topics...)
		var end kadm.ListedOffsets
		if err == nil {
			end, err = adm.ListCommittedOffsets(ctx, f.topics...)
		}
		if err == nil {
			err = end.Error()
		}
		if err == nil {
			err = start.Error()
		}
		if err == nil {
			f.set(start, end)
			return nil
		}
		f.log.Info("waiting for the topics to follow", "topics", f.topics, "error", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("follow %v: %w", f.topics, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (f *Follower) set(start, end kadm.ListedOffsets) {
	f.mu.Lock()
	f.target = map[string]map[int32]int64{}
	end.Each(func(o kadm.ListedOffset) {
		s, _ := start.Lookup(o.Topic, o.Partition)
		if o.Offset > s.Offset {
			if f.target[o.Topic] == nil {
				f.target[o.Topic] = map[int32]int64{}
			}
			f.target[o.Topic][o.Partition] = o.Offset
		}
		f.advance(o.Topic, o.Partition, s.Offset)
	})
	f.mu.Unlock()
	f.checkCaughtUp()
}

func (f *Follower) advance(topic string, partition int32, offset int64) {
	if f.position[topic] == nil {
		f.position[topic] = map[int32]int64{}
	}
	f.position[topic][partition] = max(offset, f.position[topic][partition])
}

func (f *Follower) take(ctx context.Context, fetches kgo.Fetches) error {
	var records []*kgo.Record
	fetches.EachRecord(func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			records = append(records, r)
		}
	})
	if len(records) > 0 {
		if err := f.apply(ctx, records); err != nil {
			return err
		}
	}
	f.mu.Lock()
	fetches.EachRecord(func(r *kgo.Record) { f.advance(r.Topic, r.Partition, r.Offset+1) })
	f.mu.Unlock()
	f.checkCaughtUp()
	return nil
}

func (f *Follower) checkCaughtUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for topic, parts := range f.target {
		maps.DeleteFunc(parts, func(p int32, end int64) bool { return f.position[topic][p] >= end })
		if len(parts) > 0 {
			return
		}
	}
	select {
	case <-f.caughtUp:
	default:
		close(f.caughtUp)
	}
}
