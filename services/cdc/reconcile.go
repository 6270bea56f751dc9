package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

// overGap makes a new slot, from whose consistent point the stream goes on, and leaves a job for each table that writes
// what differs: until it is done the table counts as incomplete. It returns the connection to stream over.
//
// A death in between repeats it: the slot then does not fit the position either.
func (s *session) overGap(ctx context.Context, conn *replica.Conn, lost error) (*replica.Conn, error) {
	if err := unready(s.found.Problems(true)); err != nil {
		return conn, err
	}
	s.state.blocked(fmt.Errorf("going over a gap: %w", lost))
	_, declared := s.topics(s.found.Tables)
	if err := s.ensure(ctx, declared); err != nil {
		return conn, err
	}
	if err := conn.DropSlot(ctx, s.cfg.Slot); err != nil {
		return conn, err
	}
	seen, _, err := s.sourceTimes(ctx)
	if err != nil {
		return conn, err
	}
	maker := slotMaker{cfg: s.cfg, log: s.deps.Log, sql: s.sql, onWait: s.deps.OnSlotWait,
		say: func(waiting string) { s.state.blocked(fmt.Errorf("creating a slot after a gap: %s", waiting)) }}
	at, _, err := maker.create(ctx, conn, s.found.Standby)
	if err != nil {
		return conn, err
	}
	before := s.position
	p := before
	p.Slot, p.SystemID, p.Timeline = s.cfg.Slot, s.system.ID, s.system.Timeline
	p.LSN, p.TxLSN, p.TxOrdinal, p.CommitTime = int64(at), 0, 0, seen
	p.Snapshot, p.Stopped, p.Poisoned = snapshotDone, nil, nil // the difference brings in what they lack
	p.Jobs = nil
	for _, t := range s.found.Tables {
		p.Jobs = append(p.Jobs, reconcileJob(t.Schema+"."+t.Name))
	}
	if err := s.commits.record(ctx, p); err != nil {
		return conn, err
	}
	s.position = p
	s.deps.Log.Warn("a gap: streaming goes on behind it, and what differs is written table by table", "from", before.LSN, "to", at, "reason", lost)
	conn.Close() // the new slot's snapshot is not needed
	return replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-"+s.cfg.Slot)
}

// freshRequest is how old a request may be that is taken without a position, which would tell whether it is done.
const freshRequest = time.Hour

// askedToReconcile tells whether an operator has asked for a difference since the last request that was carried out: the
// way over a gap where cdc.on_gap is stop.
func (s *Service) askedToReconcile(ctx context.Context) (asked bool, err error) {
	p, have, err := readPosition(ctx, s.deps.Kafka, s.deps.Registry, s.deps.Log, settled, s.cfg.Slot)
	if err != nil {
		return false, err
	}
	decoder, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.CDCRequests))
	if err != nil {
		return false, err
	}
	_, _, err = scanFrom(ctx, s.deps.Kafka, s.deps.Log, settled, func(_ partition, start, _ int64) int64 { return max(start, p.Requests) },
		func(r *kgo.Record) error {
			var q schemas.CaptureRequest
			if r.Attrs.IsControl() {
				return nil
			}
			if err := decoder.Decode(ctx, r.Value, &q); errors.Is(err, avro.ErrUnavailable) {
				return err
			} else if err != nil {
				return nil // the running cdc says so
			}
			if q.Slot == s.cfg.Slot && q.Kind == schemas.CaptureReconcile && (have || time.Since(q.RequestedAt) < freshRequest) {
				asked = true
			}
			return nil
		}, s.deps.Kafka.Name(schemas.CDCRequests))
	return asked, err
}

func reconcileJob(table string) schemas.Job {
	now := time.Now().UTC()
	return schemas.Job{ID: fmt.Sprintf("%s-%s-%d", schemas.CaptureReconcile, table, now.UnixMicro()), Kind: schemas.CaptureReconcile, Table: table, StartedAt: now}
}

var errNothingCaptured = errors.New("nothing is captured yet: Kafka has no position of this slot; start `cdc run` first")

// markReconcile is the source.snapshot of events that a reconcile job writes.
const markReconcile = "reconcile"

// errUntold: the difference has keys that cannot be read back, as tokens cannot.
var errUntold = errors.New("keys of the topic cannot be read back")

// writeDifference is the job that makes a topic equal to its table: both are folded on disk, and the keys on which they do
// not agree are settled through windows, so that changes meanwhile do no harm. It begins again after a restart, when less
// is left to do. Keys that are tokens cannot be asked for: such tables are read whole if they differ.
func writeDifference(ctx context.Context, r *jobRun) error {
	d := &difference{jobRun: r}
	if r.watch.live == nil { // else it is known already that all has to be read
		err := d.run(ctx)
		if !errors.Is(err, errUntold) {
			return err
		}
		r.deps.Log.Info("the keys that differ are tokens: reading the whole table", "table", r.reading.name)
	}
	return readAndRemove(ctx, r)
}

// difference is one run of writeDifference.
type difference struct {
	*jobRun
	folded *folded
	told   []keyRow
	bytes  int
}

func (d *difference) run(ctx context.Context) (err error) {
	if err := d.committed(ctx); err != nil {
		return err
	}
	encoder := d.reading.encoder
	f := d.newFolder()
	if d.folded, err = f.fold(ctx, d.reading.topic, imageReader(encoder.Table), everyKey); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.folded.set.Close()) }()
	table := f.space.NewSet(nil)
	defer func() { err = errors.Join(err, table.Close()) }()
	if err := d.scan(ctx, table); err != nil {
		return err
	}
	counts, err := diff.Compare(ctx, table, d.folded.set, sameImage, func(x diff.Difference) error { return d.candidate(ctx, x) })
	if err == nil {
		err = d.settleTold(ctx)
	}
	d.deps.Log.Info("compared", "table", d.reading.name, "rows", counts.Source, "differences", counts.Differences())
	return err
}

// scan folds the table.
func (d *difference) scan(ctx context.Context, table *diff.Set) error {
	conn, err := d.connectWindow(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	sums, err := newRowSums(d.reading.encoder, d.folded.reader)
	if err != nil {
		return err
	}
	return tableScan{conn: conn, from: d.from, each: func(line []byte) error {
		e, err := sums.line(line)
		if errors.Is(err, errNotCaptured) {
			return nil
		}
		if err != nil {
			return err
		}
		for frame := range d.folded.frames { // a key as another schema wrote it, which no row's sum equals
			if frame == string(e.Key[:keyFrame]) {
				continue
			}
			if err := table.Put(diff.Entry{Key: otherFrame(frame, e.Key)}); err != nil {
				return err
			}
		}
		return table.Put(e)
	}}.run(ctx)
}

// candidate takes a key on which table and topic did not agree when they were read.
func (d *difference) candidate(ctx context.Context, x diff.Difference) error {
	key := x.Key()
	current := d.reading.encoder.AppendKeyFrame(nil)
	other := len(key) < keyFrame || string(key[:keyFrame]) != string(current)
	if other && x.Kind == diff.Missing {
		return nil
	}
	if other && len(key) >= keyFrame { // the key itself goes; whether the row does is seen under its present key
		key = otherFrame(string(current), key)
	}
	texts := textsOf(d.reading.encoder, key)
	if texts == nil && (!other || x.Kind == diff.Extra && len(key) >= keyFrame) {
		return errUntold
	}
	if other {
		if err := d.removeOther(ctx, x.Key()); err != nil || x.Kind == diff.Different || texts == nil {
			return err
		}
	}
	d.told = append(d.told, texts)
	if d.bytes += len(key) + 64; d.bytes < mostCandidateBytes && len(d.told) < mostCandidates {
		return nil
	}
	return d.settleTold(ctx)
}

func (d *difference) removeOther(ctx context.Context, key []byte) error {
	return d.beside.do(ctx, func(ctx context.Context, t *transform) error {
		return t.record(ctx, &kgo.Record{Topic: d.reading.topic, Key: bytes.Clone(key)})
	})
}

func (d *difference) settleTold(ctx context.Context) error {
	if len(d.told) == 0 {
		return nil
	}
	done, err := d.settle(ctx, d.told)
	if err != nil {
		return err
	}
	d.told, d.bytes = nil, 0
	return d.update(ctx, func(j *schemas.Job) { j.Rows += done.Written + done.Removed })
}
