package aggregate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
)

// session is one membership in the consumer group. Whatever goes wrong in a way that leaves doubt ends it: the next one
// claims its partitions anew and goes on from where the database says.
type session struct {
	s          *Service
	ledger     *ledger.Ledger
	progress   *progress
	client     *kgo.Client
	decoder    *decoder
	quarantine *quarantine.Quarantine

	ctx    context.Context // ends with the session
	cancel context.CancelCauseFunc
	began  time.Time

	// Only poll uses these.
	pace   *pace
	atWork bool // a batch has been written

	mu      sync.Mutex
	claims  map[ledger.Partition]*owned
	blocked bool // the group wants to rebalance and waits for the batch in hand
}

// owned is a claimed partition.
type owned struct {
	ledger.Claim
	read int64 // the offset up to which it has been read; from Claim.Next on there are only markers
}

// errRebalance ends a session that holds up a rebalance with a batch that cannot be written.
var errRebalance = errors.New("the batch in hand is given back: the group rebalances while it cannot be written")

// work is one session.
func (s *Service) work(ctx context.Context, l *ledger.Ledger, p *progress) error {
	if err := l.Ping(ctx); err != nil {
		return err
	}
	x := &session{s: s, ledger: l, progress: p, began: time.Now(), pace: newPace(s.cfg.BatchRecords), claims: map[ledger.Partition]*owned{}}
	var err error
	if x.decoder, err = newDecoder(s.deps.Kafka, s.deps.Registry); err != nil {
		return err
	}
	enc, err := avro.NewEncoder(ctx, s.deps.Registry, schemas.Subject(s.deps.Kafka.Name(schemas.Quarantine)), schemas.Latest(schemas.Quarantine))
	if err != nil {
		return err
	}
	x.quarantine = quarantine.New(s.deps.Keys, enc, x.decoder.refuseTopic, name)
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	defer x.cancel(nil)
	if x.client, err = s.deps.Kafka.Client(name, s.log, nil, x.options()...); err != nil {
		return err
	}
	defer x.client.CloseAllowingRebalance()
	s.step("joining the group", x.began)
	s.setSession(x)
	defer s.setSession(nil)
	err = x.poll()
	if cause := context.Cause(x.ctx); cause != nil && ctx.Err() == nil {
		return cause
	}
	return err
}

func (s *Service) setSession(x *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = x
	if x == nil {
		s.metrics.owned.Set(0)
		s.metrics.lag.Reset()
	}
}

func (s *Service) session() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (x *session) options() []kgo.Opt {
	k, timeout := x.s.deps.Kafka, x.s.cfg.SessionTimeout
	return []kgo.Opt{
		kgo.ConsumeTopics(x.decoder.topics()...),
		kgo.ConsumerGroup(k.Name(name)),
		kgo.InstanceID(k.Instance()), // a restart gets its partitions back at once
		kgo.SessionTimeout(timeout),
		kgo.HeartbeatInterval(timeout / 4),
		kgo.RebalanceTimeout(max(30*time.Second, timeout)),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // positions come from the database only
		kgo.KeepControlRecords(),                    // markers are passed, or the lag would never be 0
		// Every partition has its place in every answer: with larger pieces, those of some topics fill the answer, and
		// lines are read long before their headers.
		kgo.FetchMaxPartitionBytes(partitionBytes),
		kgo.BlockRebalanceOnPoll(),
		kgo.AutoCommitMarks(),
		kgo.AutoCommitInterval(time.Second),
		kgo.OnPartitionsAssigned(x.assigned),
		kgo.OnPartitionsRevoked(x.gone),
		kgo.OnPartitionsLost(x.gone),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { x.setBlocked(true) }),
		kgo.AdjustFetchOffsetsFn(x.offsets),
	}
}

func (x *session) setBlocked(b bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.blocked = b
}

func (x *session) isBlocked() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.blocked
}

// partitionBytes is what is fetched of a partition at a time, if there is more: some ten thousand records.
const partitionBytes = 400 << 10

// poll writes what comes until the session ends. It takes all that is at hand, and not some records of it, since those
// would be of some partitions: headers and lines that came together must be written together.
func (x *session) poll() error {
	for x.ctx.Err() == nil {
		fetches := x.client.PollFetches(x.ctx)
		if x.ctx.Err() != nil {
			return nil
		}
		x.setBlocked(false)
		err := x.take(fetches)
		x.client.AllowRebalance()
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *session) take(fetches kgo.Fetches) error {
	if err := x.fetchErrors(fetches); err != nil {
		return err
	}
	ctx, cancel := outlive(x.ctx, drainTime)
	defer cancel()
	b, raw, err := x.batch(ctx, fetches)
	if err != nil {
		return err
	}
	if !x.atWork {
		x.s.step("records are at hand", x.began, "records", len(b.Records))
	}
	for len(b.Records) > 0 {
		if x.ctx.Err() != nil {
			return nil // what is not written is read again
		}
		part, rest := b.Split(x.pace.now)
		if err := x.write(ctx, part, raw); err != nil {
			return err
		}
		if !x.atWork {
			x.atWork = true
			x.s.step("the first batch is written", x.began, "records", len(part.Records))
		}
		b = rest
	}
	x.mark(fetches)
	return nil
}

// drainTime is what a batch in hand gets when the service stops.
const drainTime = 5 * time.Second

// outlive is ctx with some time more, so that a shutdown does not tear a batch apart that the database is taking.
func outlive(ctx context.Context, more time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(more, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

func (x *session) write(ctx context.Context, b ledger.Batch, raw map[place]*kgo.Record) error {
	began := time.Now()
	done, err := x.ledger.Write(ctx, b, ledger.Guard{Waiting: x.waiting,
		Reject: func(ctx context.Context, r ledger.Record, reason error) error {
			x.s.log.Warn("the sales database refuses a record", "topic", r.Topic, "partition", r.Part, "offset", r.Offset, "reason", reason)
			return x.patiently(ctx, func() error {
				return x.refuse(ctx, raw[place{r.Partition, r.Offset}], &refusal{schemas.ClassSinkReject, "refused_by_database"})
			})
		}})
	if err != nil {
		return err
	}
	x.s.setProblem(nil)
	took := time.Since(began)
	x.pace.took(len(b.Records), took)
	x.s.metrics.batch.Observe(took.Seconds())
	x.s.metrics.count(done.Tally)
	x.progress.changed(done.Hours)
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range b.Spans {
		if o := x.claims[s.Claim.Partition]; o != nil {
			o.Next = s.To
		}
	}
	return nil
}

// waiting is told of each failure that is tried again. It ends the tries when the service stops, or when the group
// waits for the batch.
func (x *session) waiting(err error) error {
	x.s.metrics.retries.Inc()
	switch {
	case x.ctx.Err() != nil:
		return fmt.Errorf("the batch in hand is given back: %w", context.Cause(x.ctx))
	case x.isBlocked():
		return fmt.Errorf("%w (%w)", errRebalance, err)
	}
	x.s.setProblem(fmt.Errorf("a batch cannot be written yet: %w", err))
	return nil
}

// patiently tries until it succeeds, or until waiting ends the tries.
func (x *session) patiently(ctx context.Context, do func() error) error {
	for try := 0; ; try++ {
		err := do()
		if err == nil {
			return nil
		}
		if err := x.waiting(err); err != nil {
			return err
		}
		pause(ctx, try)
	}
}

// place is where a record is.
type place struct {
	ledger.Partition
	offset int64
}

// batch decodes what was fetched. Records that cannot be read are in quarantine when it returns. Each span ends after
// the last record or marker.
func (x *session) batch(ctx context.Context, fetches kgo.Fetches) (ledger.Batch, map[place]*kgo.Record, error) {
	var b ledger.Batch
	raw := map[place]*kgo.Record{}
	var err error
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		p := ledger.Partition{Topic: ftp.Topic, Part: ftp.Partition}
		o := x.claim(p)
		if err != nil || o == nil || len(ftp.Records) == 0 {
			return
		}
		span := ledger.Span{Claim: o.Claim, From: o.Next}
		before := len(b.Records)
		for _, r := range ftp.Records {
			span.To = r.Offset + 1
			if r.Attrs.IsControl() {
				continue
			}
			var rec ledger.Record
			if rec, err = x.record(ctx, p, r); err != nil {
				return
			}
			b.Records = append(b.Records, rec)
			raw[place{p, r.Offset}] = r
		}
		if len(b.Records) > before {
			b.Spans = append(b.Spans, span)
		}
	})
	b.Records = last(b.Records, x.decoder.linesTopic)
	return b, raw, err
}

// last puts the records of the topic of lines last: a line that is written after its header counts at once, and is not
// written again. It goes by the topic and not by the content, since the order within a partition must stay.
func last(records []ledger.Record, topic string) []ledger.Record {
	out := make([]ledger.Record, 0, len(records))
	for _, lines := range []bool{false, true} {
		for _, r := range records {
			if (r.Topic == topic) == lines {
				out = append(out, r)
			}
		}
	}
	return out
}

func (x *session) record(ctx context.Context, p ledger.Partition, r *kgo.Record) (ledger.Record, error) {
	rec := ledger.Record{Partition: p, Offset: r.Offset}
	err := x.patiently(ctx, func() error {
		var err error
		var why *refusal
		if rec.Image, err = x.decoder.image(ctx, r); errors.As(err, &why) {
			rec.Quarantined = true
			return x.refuse(ctx, r, why)
		}
		return err
	})
	return rec, err
}

// mark notes how far the partitions have been read and lets Kafka know, for lag tools.
func (x *session) mark(fetches kgo.Fetches) {
	marks := map[string]map[int32]kgo.EpochOffset{}
	x.mu.Lock()
	defer x.mu.Unlock()
	fetches.EachPartition(func(ftp kgo.FetchTopicPartition) {
		p := ledger.Partition{Topic: ftp.Topic, Part: ftp.Partition}
		o := x.claims[p]
		if o == nil || ftp.Err != nil {
			return
		}
		if n := len(ftp.Records); n > 0 {
			last := ftp.Records[n-1]
			o.read = last.Offset + 1
			if marks[p.Topic] == nil {
				marks[p.Topic] = map[int32]kgo.EpochOffset{}
			}
			marks[p.Topic][p.Part] = kgo.EpochOffset{Epoch: last.LeaderEpoch, Offset: o.read}
		}
		x.s.metrics.behind(p, ftp.HighWatermark-o.read)
	})
	x.client.MarkCommitOffsets(marks)
}

// fetchErrors stops partitions whose position is no longer in the log and ends the session if it cannot go on.
func (x *session) fetchErrors(fetches kgo.Fetches) error {
	var fatal error
	fetches.EachError(func(topic string, part int32, err error) {
		var group *kgo.ErrGroupSession
		switch {
		case errors.Is(err, context.Canceled):
		case errors.As(err, &group), errors.Is(err, kgo.ErrClientClosed):
			fatal = fmt.Errorf("the consumer group %s (is another process running with the same kafka.instance_id?): %w", x.s.deps.Kafka.Name(name), err)
		case errors.Is(err, kerr.OffsetOutOfRange):
			fatal = x.stopOutOfRange(ledger.Partition{Topic: topic, Part: part})
		default:
			x.s.log.Warn("cannot read, trying again", "topic", topic, "partition", part, "error", err)
		}
	})
	return fatal
}

func (x *session) claim(p ledger.Partition) *owned {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.claims[p]
}
