package enrich

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/schemas"
)

// inputs are the input partitions that the group has given us, and how far each has been read and committed. It is
// safe for concurrent use: the group calls it from its own goroutine.
//
// The group must take and give all partitions at once (an eager balancer), for two reasons. A transactional session
// tells of partitions that are lost only once between two transactions, so that an idle one may not hear of it; but it
// always tells what it has been given, which then is all. And one that is killed between the two steps of a cooperative
// rebalance and comes back under its name within the session timeout would keep the partitions of the first step, while
// those it had handed back belonged to nobody.
type inputs struct {
	mu         sync.Mutex
	committed  map[schemas.Partition]int64
	generation int // counts assignments
	heartbeat  time.Time
	asked      time.Time // since when the offsets of an assignment are awaited; zero if they are not
}

func newInputs() *inputs { return &inputs{committed: map[schemas.Partition]int64{}} }

// begin forgets what we had before a new assignment.
func (in *inputs) begin(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	clear(in.committed)
	in.asked = time.Time{}
	if len(parts) > 0 {
		in.asked = time.Now()
	}
}

// withheld tells for how long the group has kept the offsets of our assignment from us, which it does while a
// transaction with offsets of these partitions is open.
func (in *inputs) withheld() time.Duration {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.asked.IsZero() {
		return 0
	}
	return time.Since(in.asked)
}

// assigned takes over the offsets from which the group goes on. It is called after they were fetched, so that the
// transactions of whoever had the partitions before are over.
func (in *inputs) assigned(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for topic, parts := range offsets {
		for p, o := range parts {
			in.committed[schemas.Partition{Topic: topic, Partition: p}] = max(0, o.EpochOffset().Offset)
		}
	}
	if len(offsets) > 0 {
		in.generation++
		in.asked = time.Time{}
	}
	return offsets, nil
}

func (in *inputs) lost(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.asked = time.Time{}
	for topic, list := range parts {
		for _, p := range list {
			delete(in.committed, schemas.Partition{Topic: topic, Partition: p})
		}
	}
}

// advance tells that everything before the offsets has been committed.
func (in *inputs) advance(next map[schemas.Partition]int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for p, o := range next {
		if at, ok := in.committed[p]; ok {
			in.committed[p] = max(at, o)
		}
	}
}

// snapshot is a copy, with the number of the assignment.
func (in *inputs) snapshot() (map[schemas.Partition]int64, int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	return maps.Clone(in.committed), in.generation
}

func (in *inputs) partitions() []schemas.Partition {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Collect(maps.Keys(in.committed))
}

// OnBrokerE2E notes when the group last heard from us (kgo.HookBrokerE2E).
func (in *inputs) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	switch kmsg.Key(key) {
	case kmsg.Heartbeat, kmsg.SyncGroup, kmsg.ConsumerGroupHeartbeat:
	default:
		return
	}
	if e.Err() != nil {
		return
	}
	in.mu.Lock()
	in.heartbeat = time.Now()
	in.mu.Unlock()
}

// alive tells whether the group heard from us within the time given.
func (in *inputs) alive(within time.Duration) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return time.Since(in.heartbeat) < within
}
