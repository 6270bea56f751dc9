package enrich

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/images"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

const (
	stage            = "enrich"
	salesPrefix      = "sales."
	maxPoll          = 10_000                 // records of one transaction
	maxMend          = 5_000                  // images mended in one transaction
	claimInterval    = 250 * time.Millisecond // between claims, at least
	endTimeout       = 20 * time.Second       // to end a transaction that is under way
	txnTimeout       = 10 * time.Second       // after which brokers give up the transaction of one that vanished
	rebalanceTimeout = txnTimeout             // that the group waits for one who does not come back: its transaction is over by then
	offsetsPatience  = 2 * txnTimeout         // by then the transactions of others that keep offsets from us are over
	fetchWait        = 100 * time.Millisecond // of a fetch without records: a partition that is not part of it waits for its end
)

// session is one life of the stream: from joining the group to the first failure. Its methods are for one goroutine
// unless they say otherwise.
type session struct {
	*Service
	admin       *kadm.Client
	group       *kgo.GroupTransactSession
	tables      map[string]*images.Table // by topic, with prefix
	encoders    map[string]*avro.Encoder // by topic, without prefix
	images      map[string]*avro.Decoder // of images that wait
	activity    *avro.Decoder
	quarantined *quarantine.Quarantine
	rows        *rows
	refs        *reference.Store
	waiting     *waitingImages
	claims      *captures
	inputs      *inputs
	outputs     *outputEnds
	refFollower *kafka.Follower // of the reference tables; nil if the mapping has none
	ownFollower *kafka.Follower // of enrich.waiting and progress
	gated       int             // the assignment whose waiting images have been read
	claimedAt   time.Time
	held        map[schemas.Partition]struct{}     // that are not read for now
	nudge       atomic.Pointer[context.CancelFunc] // ends the poll under way
}

func (s *Service) newSession(client *kgo.Client) *session {
	out := &session{Service: s, admin: kadm.NewClient(client), tables: map[string]*images.Table{}, encoders: map[string]*avro.Encoder{},
		images: map[string]*avro.Decoder{}, rows: newRows(s.deps.Registry, s.status, partInput, s.log), refs: reference.New(s.set.References()),
		claims: &captures{}, inputs: newInputs(), outputs: &outputEnds{}}
	for _, t := range s.set.Tables {
		out.tables[s.deps.Kafka.Name(t.Topic)] = t
	}
	out.waiting = newWaitingImages(func(missing string) (has bool) {
		out.refs.View(func(v reference.View) { has = s.set.Has(missing, v) })
		return has
	})
	return out
}

// prepare makes what a session needs outside: topics, schemas. What is away is waited for.
func (s *session) prepare(ctx context.Context, client *kgo.Client) error {
	err := s.status.retry(ctx, partStart, func() (bool, error) {
		applied, err := s.deps.Kafka.EnsureTopics(ctx, client, schemas.Topics()...)
		for _, a := range applied {
			if a.Problem != "" {
				s.log.Warn("a topic is not as declared", "topic", a.Topic, "problem", a.Problem)
			}
		}
		return false, err
	})
	if err != nil {
		return err
	}
	if err := s.status.retry(ctx, partStart, func() (bool, error) { return false, s.awaitTables(ctx) }); err != nil {
		return err
	}
	return s.status.retry(ctx, partStart, func() (bool, error) {
		err := s.openSchemas(ctx)
		return errors.Is(err, avro.ErrIncompatible), err
	})
}

// awaitTables is nil when cdc has made the topics of all mapped tables.
func (s *session) awaitTables(ctx context.Context) error {
	var names, missing []string
	for _, t := range s.set.Tables {
		names = append(names, s.deps.Kafka.Name(t.Topic))
	}
	have, err := s.admin.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Errorf("list the topics of the store's tables: %w", err)
	}
	for _, name := range names {
		if !have.Has(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("waiting for cdc to make the topics %s; if the store has no such tables, set enrich.mapping to the right store", strings.Join(missing, ", "))
	}
	return nil
}

func (s *session) openSchemas(ctx context.Context) error {
	for _, topic := range []string{schemas.SalesOrders, schemas.SalesLines, schemas.SalesProducts, schemas.ActivityEnriched, schemas.Quarantine,
		schemas.Progress, schemas.EnrichWaiting} {
		enc, err := avro.NewEncoder(ctx, s.deps.Registry, schemas.Subject(topic), schemas.Latest(topic))
		if err != nil {
			return err
		}
		s.encoders[topic] = enc
	}
	s.quarantined = quarantine.New(s.deps.Keys, s.encoders[schemas.Quarantine], s.deps.Kafka.Name(schemas.Quarantine), stage)
	for _, topic := range []string{schemas.SalesOrders, schemas.SalesLines} {
		dec, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(topic))
		if err != nil {
			return err
		}
		s.images[topic] = dec
	}
	dec, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.ActivityRaw))
	s.activity = dec
	return err
}

// run follows the reference data, passes the bootstrap gate and streams until ctx ends or something fails.
func (s *session) run(ctx context.Context) error {
	work, ctx := errgroup.WithContext(ctx)
	if err := s.follow(work, ctx); err != nil {
		return errors.Join(err, work.Wait())
	}
	work.Go(func() error {
		if err := s.bootstrap(ctx); err != nil {
			return err
		}
		return s.stream(ctx, work)
	})
	return work.Wait()
}

// bootstrap waits until everything that the followed topics held at the start is in memory.
func (s *session) bootstrap(ctx context.Context) error {
	for _, f := range []*kafka.Follower{s.refFollower, s.ownFollower} {
		if f == nil {
			continue
		}
		s.status.stall(partStart, f.Ready())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.CaughtUp():
		}
		s.status.clear(partStart)
	}
	return nil
}

// stream joins the group and works until ctx ends.
func (s *session) stream(ctx context.Context, work *errgroup.Group) error {
	if err := s.endOpenTransaction(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("end the transaction of an earlier life: %w", err)
	}
	if err := s.join(); err != nil {
		return err
	}
	defer s.group.Close()
	s.streams.Store(true)
	for ctx.Err() == nil {
		err := s.step(ctx, work)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, errAborted): // partitions are moving: that takes a moment
			select {
			case <-ctx.Done():
			case <-time.After(firstPause):
			}
		case err != nil:
			return err
		}
	}
	return nil
}

// join makes the member of the group, which joins as it is polled.
func (s *session) join() error {
	topics := []string{s.deps.Kafka.Name(schemas.ActivityRaw)}
	for _, t := range s.set.Tables {
		topics = append(topics, s.deps.Kafka.Name(t.Topic))
	}
	slices.Sort(topics)
	group, err := kgo.NewGroupTransactSession(append(s.deps.Kafka.Options("enrich", s.log, s.deps.Metrics),
		kgo.ConsumerGroup(s.groupName()), kgo.InstanceID(s.deps.Kafka.Instance()), kgo.Balancers(kgo.RoundRobinBalancer()),
		kgo.TransactionalID(s.transactionalID()), kgo.TransactionTimeout(txnTimeout),
		kgo.ConsumeTopics(topics...), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords(),
		kgo.FetchMaxWait(fetchWait), kgo.SessionTimeout(s.cfg.SessionTimeout), kgo.HeartbeatInterval(s.cfg.SessionTimeout/6),
		kgo.RebalanceTimeout(rebalanceTimeout),
		kgo.OnPartitionsAssigned(s.inputs.begin), kgo.AdjustFetchOffsetsFn(s.inputs.assigned),
		kgo.OnPartitionsRevoked(s.inputs.lost), kgo.OnPartitionsLost(s.inputs.lost), kgo.WithHooks(s.inputs))...)
	if err != nil {
		return fmt.Errorf("kafka group: %w", err)
	}
	s.group = group
	return nil
}

func (s *session) groupName() string { return s.deps.Kafka.Name("enrich") }
func (s *session) transactionalID() string {
	return s.deps.Kafka.Name("enrich-" + s.deps.Kafka.Instance())
}

// step polls once and does what there is to do.
func (s *session) step(ctx context.Context, work *errgroup.Group) error {
	s.hold()
	records := s.poll(ctx)
	if ctx.Err() != nil {
		return nil
	}
	if s.inputs.alive(s.cfg.SessionTimeout) {
		s.status.clear(partKafka)
	} else {
		s.status.stall(partKafka, errors.New("the group has not heard from us lately: joining it, or Kafka does not answer"))
	}
	if waited := s.inputs.withheld(); waited > s.offsetsPatience {
		return fmt.Errorf("the group has kept the offsets of our partitions back for %v, as if a transaction of ours were open: ending it", waited.Round(time.Second))
	}
	if err := s.gate(ctx, work); err != nil {
		return err
	}
	if err := s.apply(ctx, records); err != nil {
		return err
	}
	if err := s.mendReady(ctx); err != nil {
		return err
	}
	return s.claim(ctx)
}

// poll waits for records, for a nudge, or until the next claim may be due.
func (s *session) poll(ctx context.Context) []*kgo.Record {
	ctx, cancel := context.WithTimeout(ctx, claimInterval)
	defer cancel()
	s.nudge.Store(&cancel)
	if s.waiting.pending(s.inputs.partitions()) && s.alive() {
		cancel() // told before the poll could be nudged
	}
	fetches := s.group.PollRecords(ctx, maxPoll)
	s.nudge.Store(nil)
	fetches.EachError(func(topic string, partition int32, err error) {
		if ctx.Err() == nil {
			s.log.Warn("cannot read a partition, trying again", "topic", topic, "partition", partition, "error", err)
		}
	})
	return fetches.Records()
}

// wake ends the poll under way. It is safe for concurrent use.
func (s *session) wake() {
	if cancel := s.nudge.Load(); cancel != nil {
		(*cancel)()
	}
}

// gate holds back the records of a new assignment until we know the images that wait there: whoever had the
// partitions before may have left some, and a newer image must end their waiting. Meanwhile the ends of the output are
// looked up, which claims need.
func (s *session) gate(ctx context.Context, work *errgroup.Group) error {
	_, generation := s.inputs.snapshot()
	if generation == s.gated {
		return nil
	}
	topic := s.deps.Kafka.Name(schemas.EnrichWaiting)
	err := s.status.retry(ctx, partInput, func() (bool, error) {
		ends, err := s.admin.ListEndOffsets(ctx, topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return false, fmt.Errorf("list the end of %s: %w", topic, err)
		}
		return false, s.awaitFollowed(ctx, ends)
	})
	if err != nil {
		return err
	}
	s.gated = generation
	work.Go(func() error { return s.findEnds(ctx, generation) })
	return nil
}

// gatePoll is how often a gate looks again.
const gatePoll = 2 * time.Millisecond

func (s *session) awaitFollowed(ctx context.Context, ends kadm.ListedOffsets) error {
	late := time.After(2 * time.Second)
	tick := time.NewTicker(gatePoll)
	defer tick.Stop()
	for {
		reached := true
		ends.Each(func(o kadm.ListedOffset) { reached = reached && s.ownFollower.Reached(o.Topic, o.Partition, o.Offset) })
		if reached {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return errors.New("still reading the images that wait for reference rows")
		case <-tick.C:
		}
	}
}

// findEnds looks up the ends of the output for the claims of an assignment. It runs beside the stream.
func (s *session) findEnds(ctx context.Context, generation int) error {
	topics := []string{s.deps.Kafka.Name(schemas.SalesOrders), s.deps.Kafka.Name(schemas.SalesLines), s.deps.Kafka.Name(schemas.SalesProducts)}
	pause := firstPause
	for {
		ends, err := s.tryDataEnds(ctx, topics)
		if err == nil {
			s.outputs.raise(ends)
			s.outputs.complete(generation)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("cannot look up the ends of the sales topics, no progress is claimed until then", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// endsPatience bounds one look at the ends: an open transaction is over by then, and a reader that makes no headway is
// better made anew than waited for without a word.
const endsPatience = 2 * txnTimeout

func (s *session) tryDataEnds(ctx context.Context, topics []string) (map[schemas.Partition]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, endsPatience)
	defer cancel()
	return s.dataEnds(ctx, topics)
}

// apply takes the records of a poll.
func (s *session) apply(ctx context.Context, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	begun := time.Now()
	b := newBatch()
	if err := s.fill(ctx, b, records); err != nil {
		return err
	}
	if len(b.outcomes) == 0 { // control records alone: nothing that could be done twice
		s.inputs.advance(b.next)
		return nil
	}
	if err := s.commit(ctx, b); err != nil {
		return err
	}
	s.metrics.batchTime.Observe(time.Since(begun).Seconds())
	return nil
}

// mendReady sends again what a reference row has come for.
func (s *session) mendReady(ctx context.Context) error {
	if !s.alive() {
		return nil
	}
	taken := s.waiting.take(s.inputs.partitions(), maxMend)
	if len(taken) == 0 {
		return nil
	}
	b := newBatch()
	err := s.mend(ctx, b, taken)
	if err == nil && len(b.out) > 0 {
		err = s.commit(ctx, b)
	}
	if err != nil {
		s.waiting.again(taken)
	}
	return err
}

// alive tells whether the group certainly counts us in.
func (s *session) alive() bool { return s.inputs.alive(s.cfg.SessionTimeout / 2) }

// plain is a topic's name without the prefix.
func (s *session) plain(topic string) string {
	return strings.TrimPrefix(topic, s.deps.Kafka.TopicPrefix)
}
