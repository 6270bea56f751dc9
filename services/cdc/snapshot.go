package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// snapshot reads whole tables as they were at the slot's consistent point, by ranges of blocks. What is read is taken off
// the jobs of its position, which the tables have from the begin: if it is cut short, they go on beside the stream.
type snapshot struct {
	cfg     Config
	factory *factory
	metrics *metrics
	log     *slog.Logger
	pool    pool
	emit    func(context.Context, *batch) error
	connect func(context.Context) (*pgx.Conn, error)
	hooks   hooks

	name string // of the exported snapshot
	at   pgoutput.LSN
	time int64                      // Unix microseconds
	live map[string]map[string]bool // by topic: keys that have a value, and whether the table has them

	seq      atomic.Int64
	rows     atomic.Int64
	mu       sync.Mutex // also held while a batch is sent, so that positions are in order
	position schemas.Position
}

// copying is a table while it is read.
type copying struct {
	catalog.Table
	name    string
	topic   string
	encoder *rows.Encoder
	metrics *tableMetrics
	from    chunk.Table
	begin   time.Time

	job   schemas.Job     // under the snapshot's mu, as done is
	done  map[int64]int64 // ranges that were read behind a gap: from, to
	mu    sync.Mutex
	live  map[string]bool // under mu
	given atomic.Bool     // up: it is stopped, or left to its job
}

// extent of a table that is read at a time.
type copyRange struct {
	t        *copying
	from, to int64
}

// rangeBlocks is 8 MB of a table with the usual blocks.
const rangeBlocks = 1024

// run reads all tables, several ranges at a time; after a table's last range it deletes what the topic has and the table
// has not.
func (s *snapshot) run(ctx context.Context, tables []catalog.Table) error {
	var ranges []copyRange
	expected := int64(0)
	for _, t := range tables {
		c, err := s.prepare(ctx, t)
		if err != nil {
			return fmt.Errorf("snapshot of %s.%s: %w", t.Schema, t.Name, err)
		}
		if c == nil {
			continue
		}
		expected += t.EstimatedRows
		ranges = append(ranges, copyRange{t: c, to: min(rangeBlocks, c.job.Blocks)})
		for from := int64(rangeBlocks); from < c.job.Blocks; from += rangeBlocks {
			ranges = append(ranges, copyRange{t: c, from: from, to: min(from+rangeBlocks, c.job.Blocks)})
		}
	}
	work := make(chan copyRange, len(ranges))
	for _, r := range ranges {
		work <- r
	}
	close(work)
	s.metrics.snapshotAll.Set(float64(expected))
	s.metrics.snapshotDone.Set(0)
	group, ctx := errgroup.WithContext(ctx)
	for range min(s.cfg.SnapshotWorkers, len(ranges)) {
		group.Go(func() error { return s.worker(ctx, work) })
	}
	ended := make(chan struct{})
	go s.report(ended, expected)
	err := group.Wait()
	close(ended)
	return err
}

// prepare makes the encoder of a table; nil if the table is stopped.
func (s *snapshot) prepare(ctx context.Context, t catalog.Table) (*copying, error) {
	name := t.Schema + "." + t.Name
	version := s.position.Versions[name]
	c := &copying{Table: t, name: name, topic: s.factory.topicOf(t.Schema, t.Name, version), begin: time.Now(), done: map[int64]int64{}}
	c.job, _ = findJob(s.position, jobFirst+c.name)
	shape, err := s.factory.ofCatalog(ctx, t, version)
	if err != nil {
		return nil, err
	}
	if err := shape.Validate(); err != nil {
		s.stop(c, err)
		return nil, nil
	}
	c.encoder, err = s.factory.encoder(ctx, shape, version, keyLevelSnapshot)
	if errors.Is(err, avro.ErrIncompatible) {
		s.stop(c, errors.New(incompatible(name, version, err)))
		return nil, nil
	}
	c.metrics, c.from, c.live = s.metrics.table(c.name), chunkTable(t, shape), s.live[c.topic]
	return c, err
}

// report tells how far it is.
func (s *snapshot) report(ended <-chan struct{}, expected int64) {
	tick := time.NewTicker(5 * time.Second)
	defer tick.Stop()
	begin := time.Now()
	for {
		select {
		case <-ended:
			took := time.Since(begin)
			s.log.Info("snapshot read", "rows", s.rows.Load(), "took", took.Round(time.Millisecond),
				"rows_per_second", int64(float64(s.rows.Load())/took.Seconds()))
			return
		case <-tick.C:
			n := s.rows.Load()
			s.log.Info("snapshot", "rows", n, "expected", expected, "rows_per_second", int64(float64(n)/time.Since(begin).Seconds()))
		}
	}
}

func (s *snapshot) worker(ctx context.Context, work <-chan copyRange) error {
	conn, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if err == nil {
		_, err = conn.Exec(ctx, "SET TRANSACTION SNAPSHOT '"+strings.ReplaceAll(s.name, "'", "''")+"'")
	}
	if err != nil {
		return fmt.Errorf("take over the slot's snapshot: %w", err)
	}
	var locked *copying
	for r := range work {
		if r.t.given.Load() {
			continue
		}
		err := error(nil)
		if locked != r.t {
			locked = r.t
			err = s.lock(ctx, conn, r.t)
		}
		if err == nil && !r.t.given.Load() {
			err = s.copy(ctx, conn, r)
		}
		if err != nil {
			return fmt.Errorf("snapshot of %s: %w", r.t.name, err)
		}
		if s.hooks.copied != nil {
			s.hooks.copied(r.t.name, r.to)
		}
	}
	return nil
}

// lock keeps the table's files as they are until the transaction ends. A table that was rewritten since the slot was made
// has no rows under its snapshot: it is left to its job.
func (s *snapshot) lock(ctx context.Context, conn *pgx.Conn, t *copying) error {
	now, err := chunk.Lock(ctx, conn, t.from)
	if errors.Is(err, chunk.ErrChanged) || err == nil && now.FileNode != t.job.FileNode {
		s.log.Info("the table was rewritten since the slot was made; it is read beside the stream", "table", t.name)
		t.given.Store(true)
		s.change(func(p *schemas.Position) {
			left := t.job
			left.FileNode, left.Next = 0, 0
			p.Jobs = withJob(p.Jobs, left)
		})
		return nil
	}
	return err
}

func (s *snapshot) change(f func(*schemas.Position)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.position)
}

func (s *snapshot) stop(t *copying, reason error) {
	t.given.Store(true)
	s.change(func(p *schemas.Position) {
		*p = withStopped(*p, t.name, reason.Error())
		p.Jobs = withoutJob(p.Jobs, t.job.ID)
		s.metrics.stopped.Set(float64(len(p.Stopped)))
	})
	s.log.Error("table stopped; mend the cause, then `cdc resume`: it brings in what was dropped", "table", t.name, "reason", reason)
}

// copy reads one range.
func (s *snapshot) copy(ctx context.Context, conn *pgx.Conn, r copyRange) error {
	t := r.t
	in := &tableReader{s: s, t: t, out: s.pool.get()}
	sql := t.from.CopyAll()
	if r.from > 0 || r.to < t.job.Blocks { // else the whole table, and what it grew by meanwhile is not in the snapshot
		sql = chunk.Selection{From: chunk.TID{Block: r.from}, To: chunk.TID{Block: r.to}}.SQL(t.from)
	}
	if _, err := conn.PgConn().CopyTo(ctx, writer{ctx, in}, sql); err != nil {
		if in.err != nil {
			return in.err
		}
		return err
	}
	if in.err != nil {
		s.stop(t, in.err)
		return in.flush(ctx, nil)
	}
	whole := false
	err := in.flush(ctx, func(p *schemas.Position) {
		if !t.given.Load() {
			whole = t.finished(r, in.count)
			p.Jobs = withJob(p.Jobs, t.job)
		}
	})
	if err != nil || !whole {
		return err
	}
	if err := in.deletes(ctx); err != nil {
		return err
	}
	s.log.Info("table read", "table", t.name, "rows", t.job.Rows, "took", time.Since(t.begin).Round(time.Millisecond))
	return in.flush(ctx, func(p *schemas.Position) { p.Jobs = withoutJob(p.Jobs, t.job.ID) })
}

// finished notes that a range was read and its rows are sent; true if it was the last one. The job goes on behind what was read without a gap.
func (t *copying) finished(r copyRange, count int) bool {
	t.job.Rows += int64(count)
	t.done[r.from] = r.to
	for {
		to, ok := t.done[t.job.Next]
		if !ok {
			return false
		}
		delete(t.done, t.job.Next)
		if t.job.Next = to; to >= t.job.Blocks {
			return true
		}
	}
}

// tableReader takes the lines of one COPY.
type tableReader struct {
	s       *snapshot
	t       *copying
	out     *batch
	partial []byte
	count   int
	now     int64
	row     []pgoutput.Datum
	err     error
}

type writer struct {
	ctx context.Context
	r   *tableReader
}

// Write takes a piece of the copied text.
func (w writer) Write(data []byte) (int, error) {
	n := len(data)
	w.r.now = time.Now().UnixMicro()
	if w.r.err != nil { // the table is stopped; the copy runs to its end, for breaking it off would cost the connection
		return n, nil
	}
	if len(w.r.partial) > 0 {
		w.r.partial = append(w.r.partial, data...)
		data = w.r.partial
	}
	for {
		i := bytes.IndexByte(data, '\n') // a line feed within a value is written as \n
		if i < 0 {
			w.r.partial = append(w.r.partial[:0], data...)
			return n, nil
		}
		if err := w.r.line(w.ctx, data[:i]); err != nil {
			if w.r.err = err; errors.Is(err, rows.ErrDoesNotFit) {
				return n, nil
			}
			return 0, err
		}
		data = data[i+1:]
	}
}

func (r *tableReader) line(ctx context.Context, line []byte) error {
	r.row = chunk.Split(r.row[:0], line)
	captured, err := r.t.encoder.Captures(r.row)
	if err != nil {
		return err
	}
	if !captured {
		r.t.metrics.filtered.Inc()
		return nil
	}
	b := r.out
	start := len(b.buf)
	if b.buf, err = r.t.encoder.AppendKey(b.buf, r.row); err != nil {
		b.buf = b.buf[:start]
		return err
	}
	value := len(b.buf)
	r.t.met(b.buf[start:value])
	ev := r.event('r')
	ev.After = r.row
	if b.buf, err = r.t.encoder.AppendValue(b.buf, &ev); err != nil {
		b.buf = b.buf[:start]
		return err
	}
	if len(b.buf)-start > maxRecord {
		b.buf = b.buf[:start]
		return errTooLarge
	}
	b.add(ref{topic: r.t.topic, key: start, value: value, end: len(b.buf), table: r.t.metrics, op: 'r'})
	return r.added(ctx)
}

func (r *tableReader) event(op byte) rows.Event {
	return rows.Event{Op: op, Snapshot: true, CommitTime: r.s.time, LSN: r.s.at, Seq: r.s.seq.Add(1), Now: r.now}
}

func (r *tableReader) added(ctx context.Context) error {
	r.count++
	r.s.rows.Add(1)
	if len(r.out.buf) < batchBytes && len(r.out.buf) < r.s.cfg.TransactionBytes {
		return nil
	}
	return r.flush(ctx, nil)
}

// deletes removes the keys that the topic has and the table has not.
func (r *tableReader) deletes(ctx context.Context) error {
	r.now = time.Now().UnixMicro()
	current := string(r.t.encoder.AppendKeyFrame(nil))
	for key, there := range r.t.live {
		if there {
			continue
		}
		_, body, err := avro.Unframe([]byte(key))
		if err != nil {
			return fmt.Errorf("a key of topic %s cannot be read: %w", r.t.topic, err)
		}
		b := r.out
		start := len(b.buf)
		// A key that an older schema wrote goes in any case; the row itself only if the table has it under no key.
		if !r.t.live[current+string(body)] {
			b.buf = append(b.buf, key...)
			value := len(b.buf)
			ev := r.event('d')
			if b.buf, err = r.t.encoder.AppendDeleteOf(b.buf, body, &ev); err != nil {
				return fmt.Errorf("a key of topic %s cannot be read: %w", r.t.topic, err)
			}
			b.add(ref{topic: r.t.topic, key: start, value: value, end: len(b.buf), table: r.t.metrics, op: 'd'})
			start = len(b.buf)
		}
		b.buf = append(b.buf, key...)
		b.add(ref{topic: r.t.topic, key: start, value: len(b.buf), end: len(b.buf)})
		if err := r.added(ctx); err != nil {
			return err
		}
	}
	return nil
}

// met notes that the table has a key.
func (t *copying) met(key []byte) {
	if t.live == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.live[string(key)] = true
}

// flush sends what was encoded; change is made to the position that it is committed with.
func (r *tableReader) flush(ctx context.Context, change func(*schemas.Position)) error {
	r.s.metrics.snapshotDone.Set(float64(r.s.rows.Load()))
	b := r.out
	r.out = r.s.pool.get()
	b.finish()
	b.boundary = true
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if change != nil {
		change(&r.s.position)
	}
	b.position = r.s.position
	b.position.Seq = r.s.seq.Load()
	return r.s.emit(ctx, b)
}
