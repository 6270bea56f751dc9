package aggregate

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
)

// resetHint is the next command when a position does not fit the log.
const resetHint = "look at what happened to the topic, then run 'aggregate reset-offsets --yes': stopped partitions are read again from their start, which changes nothing that is right"

// assigned claims new partitions in the database. It is called before anything is fetched of them.
func (x *session) assigned(ctx context.Context, cl *kgo.Client, parts map[string][]int32) {
	x.s.step("the group gives partitions", x.began)
	if err := x.claimAll(ctx, cl, parts); err != nil {
		x.cancel(err)
		return
	}
	x.s.step("partitions are claimed", x.began)
	x.mu.Lock()
	n := len(x.claims)
	x.mu.Unlock()
	x.s.metrics.owned.Set(float64(n))
	x.s.setProblem(nil)
}

func (x *session) claimAll(ctx context.Context, cl *kgo.Client, parts map[string][]int32) error {
	if len(parts) == 0 {
		return nil
	}
	adm := kadm.NewClient(cl)
	var topics []string
	for t := range parts {
		topics = append(topics, t)
	}
	slices.Sort(topics)
	meta, err := adm.Metadata(ctx, topics...)
	if err != nil {
		return fmt.Errorf("ask for the topics' ids: %w", err)
	}
	starts, err := adm.ListStartOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("ask for the topics' starts: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, topics...)
	if err != nil {
		return fmt.Errorf("ask for the topics' ends: %w", err)
	}
	x.progress.setCluster(meta.Cluster)
	x.s.step("the bounds of the partitions are known", x.began)
	for _, t := range topics {
		slices.Sort(parts[t])
		for _, n := range parts[t] {
			start, _ := starts.Lookup(t, n)
			end, _ := ends.Lookup(t, n)
			if start.Err != nil || end.Err != nil {
				return fmt.Errorf("ask for the bounds of %s/%d: %w", t, n, firstError(start.Err, end.Err))
			}
			origin := ledger.Origin{Cluster: meta.Cluster, TopicID: meta.Topics[t].ID.String()}
			if err := x.claimOne(ctx, ledger.Partition{Topic: t, Part: n}, origin, start.Offset, end.Offset); err != nil {
				return err
			}
		}
	}
	return nil
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *session) claimOne(ctx context.Context, p ledger.Partition, origin ledger.Origin, start, end int64) error {
	c, err := x.ledger.Claim(ctx, p, origin)
	if err != nil {
		return err
	}
	if c.Moved {
		x.s.log.Warn("the position was of another Kafka cluster: reading from the start, which changes nothing that is there already",
			"topic", p.Topic, "partition", p.Part, "cluster", origin.Cluster)
	}
	if c.Stopped == "" {
		if reason := misfit(c, origin, start, end); reason != "" {
			if err := x.ledger.Stop(ctx, c, reason); err != nil {
				return err
			}
			c.Stopped = reason
		}
	}
	if c.Stopped != "" {
		x.s.log.Error("partition stopped; the others go on", "topic", p.Topic, "partition", p.Part, "reason", c.Stopped, "next", resetHint)
		x.client.PauseFetchPartitions(map[string][]int32{p.Topic: {p.Part}})
	} else {
		x.client.ResumeFetchPartitions(map[string][]int32{p.Topic: {p.Part}})
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.claims[p] = &owned{Claim: c, read: max(c.Next, start)}
	return nil
}

// misfit says why the claim's position is not one of the log: then nothing may be read, for records could be missed.
func misfit(c ledger.Claim, now ledger.Origin, start, end int64) string {
	switch {
	case c.TopicID != now.TopicID:
		return "the topic was deleted and made anew since the position was written"
	case c.Next > end:
		return fmt.Sprintf("the position %d is beyond the end of the log, %d: the topic was truncated or restored", c.Next, end)
	case c.Next > 0 && c.Next < start:
		return fmt.Sprintf("the position %d is before the start of the log, %d: records were deleted before they were read", c.Next, start)
	default:
		return ""
	}
}

// stopOutOfRange stops a partition whose log changed under the reader. It ends the session: what is claimed anew is
// compared with the log.
func (x *session) stopOutOfRange(p ledger.Partition) error {
	o := x.claim(p)
	if o == nil {
		return nil
	}
	if err := x.ledger.Stop(x.ctx, o.Claim, "the broker says that the position is not in the log: the topic was truncated or made anew"); err != nil {
		return err
	}
	return fmt.Errorf("%s/%d is stopped, since its position is not in the log", p.Topic, p.Part)
}

// offsets gives the client the database's positions.
func (x *session) offsets(_ context.Context, parts map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t, ps := range parts {
		for n := range ps {
			o := x.claims[ledger.Partition{Topic: t, Part: n}]
			switch {
			case o == nil:
				return nil, fmt.Errorf("%s/%d is not claimed", t, n)
			case o.Stopped != "":
				ps[n] = kgo.NewOffset().AtEnd() // it is paused: nothing is fetched
			default:
				ps[n] = kgo.NewOffset().At(o.read).WithEpoch(-1)
			}
		}
	}
	return parts, nil
}

// gone forgets partitions that the group has given to somebody else. No batch is in hand.
func (x *session) gone(_ context.Context, _ *kgo.Client, parts map[string][]int32) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for t, ps := range parts {
		for _, n := range ps {
			p := ledger.Partition{Topic: t, Part: n}
			delete(x.claims, p)
			x.s.metrics.lost(p)
		}
	}
	x.s.metrics.owned.Set(float64(len(x.claims)))
}

// checkTopics ends the session if a topic was made anew while it was read: its partitions are then stopped when they are
// claimed again.
func (x *session) checkTopics(ctx context.Context) error {
	meta, err := kadm.NewClient(x.client).Metadata(ctx, x.decoder.topics()...)
	if err != nil {
		return fmt.Errorf("ask for the topics' ids: %w", err)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for p, o := range x.claims {
		topic, ok := meta.Topics[p.Topic]
		if ok && topic.Err == nil && o.Stopped == "" && topic.ID.String() != o.TopicID {
			x.cancel(fmt.Errorf("the topic %s was made anew while it was read", p.Topic))
			return nil
		}
	}
	return nil
}

// check ends the session if a claim was taken away, or a stopped partition may go on: an idle partition would not
// notice.
func (x *session) check(positions []ledger.Position) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, pos := range positions {
		o := x.claims[pos.Partition]
		if o != nil && pos.Epoch > o.Epoch {
			x.cancel(ledger.ErrFenced)
			return
		}
	}
}
