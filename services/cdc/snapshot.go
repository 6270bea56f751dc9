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
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// snapshot reads whole tables as they were at the slot's consistent point.
type snapshot struct {
	cfg     Config
	factory *factory
	metrics *metrics
	log     *slog.Logger
	pool    pool
	emit    func(context.Context, *batch) error
	connect func(context.Context) (*pgx.Conn, error)

	name string // of the exported snapshot
	at   pgoutput.LSN
	time int64                      // Unix microseconds
	live map[string]map[string]bool // by topic: keys that have a value, and whether the table has them

	versions map[string]int32 // of the tables' topics

	seq      atomic.Int64
	rows     atomic.Int64
	mu       sync.Mutex
	position schemas.Position
}

// run reads all tables, several at a time, then deletes what the topics have and the tables have not.
func (s *snapshot) run(ctx context.Context, tables []catalog.Table) error {
	jobs := make(chan catalog.Table, len(tables))
	expected := int64(0)
	for _, t := range tables {
		jobs <- t
		expected += t.EstimatedRows
		s.metrics.table(t.Schema + "." + t.Name) // the workers only read the map
	}
	close(jobs)
	s.metrics.snapshotAll.Set(float64(expected))
	s.metrics.snapshotDone.Set(0)
	group, ctx := errgroup.WithContext(ctx)
	for range min(s.cfg.SnapshotWorkers, len(tables)) {
		group.Go(func() error { return s.worker(ctx, jobs) })
	}
	ended := make(chan struct{})
	go s.report(ended, expected)
	err := group.Wait()
	close(ended)
	return err
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

func (s *snapshot) worker(ctx context.Context, jobs <-chan catalog.Table) error {
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
	for t := range jobs {
		if err := s.table(ctx, conn, t); err != nil {
			return fmt.Errorf("snapshot of %s.%s: %w", t.Schema, t.Name, err)
		}
	}
	return nil
}

func (s *snapshot) stop(name string, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.position = withStopped(s.position, name, reason.Error())
	s.metrics.stopped.Set(float64(len(s.position.Stopped)))
	s.log.Error("table stopped; mend the cause, then `cdc reset --yes` and start again", "table", name, "reason", reason)
}

// table reads one table.
func (s *snapshot) table(ctx context.Context, conn *pgx.Conn, t catalog.Table) error {
	name := t.Schema + "." + t.Name
	version := s.versions[name]
	shape, err := s.factory.ofCatalog(ctx, t, version)
	if err != nil {
		return err
	}
	if err := shape.Validate(); err != nil {
		s.stop(name, err)
		return nil
	}
	encoder, err := s.factory.encoder(ctx, shape, version, keyLevelSnapshot)
	if errors.Is(err, avro.ErrIncompatible) {
		s.stop(name, errors.New(incompatible(name, version, err)))
		return nil
	}
	if err != nil {
		return err
	}
	topic := s.factory.topicOf(t.Schema, t.Name, version)
	r := &tableReader{s: s, encoder: encoder, topic: topic, metrics: s.metrics.table(name), live: s.live[topic], out: s.pool.get()}
	begin := time.Now()
	if _, err := conn.PgConn().CopyTo(ctx, writer{ctx, r}, copySQL(t, shape)); err != nil {
		if r.err != nil {
			return r.err
		}
		return err
	}
	if r.err != nil {
		s.stop(name, r.err)
		return r.flush(ctx)
	}
	if err := r.deletes(ctx); err != nil {
		return err
	}
	s.log.Info("table read", "table", name, "rows", r.count, "took", time.Since(begin).Round(time.Millisecond))
	return r.flush(ctx)
}

// copySQL reads a table whole, but for the columns that are not to leave.
func copySQL(t catalog.Table, shape rows.Table) string {
	list, ident := shape.SelectList(), shape.Ident()
	if !t.Partitioned && !t.Generated && t.Filter == "" && len(shape.Selected()) == len(shape.Columns) {
		return "COPY " + ident + " (" + list + ") TO STDOUT"
	}
	from := "ONLY " + ident
	if t.Partitioned {
		from = ident
	}
	if t.Filter != "" {
		from += " WHERE " + t.Filter
	}
	return "COPY (SELECT " + list + " FROM " + from + ") TO STDOUT"
}

// tableReader takes the lines of one COPY.
type tableReader struct {
	s       *snapshot
	encoder *rows.Encoder
	topic   string
	metrics *tableMetrics
	live    map[string]bool
	out     *batch
	partial []byte
	count   int
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
	r.row = splitCopy(r.row[:0], line)
	captured, err := r.encoder.Captures(r.row)
	if err != nil {
		return err
	}
	if !captured {
		r.metrics.filtered.Inc()
		return nil
	}
	b := r.out
	start := len(b.buf)
	if b.buf, err = r.encoder.AppendKey(b.buf, r.row); err != nil {
		b.buf = b.buf[:start]
		return err
	}
	value := len(b.buf)
	if r.live != nil {
		r.live[string(b.buf[start:value])] = true
	}
	ev := r.event('r')
	ev.After = r.row
	if b.buf, err = r.encoder.AppendValue(b.buf, &ev); err != nil {
		b.buf = b.buf[:start]
		return err
	}
	if len(b.buf)-start > maxRecord {
		b.buf = b.buf[:start]
		return errTooLarge
	}
	b.add(ref{topic: r.topic, key: start, value: value, end: len(b.buf), table: r.metrics, op: 'r'})
	return r.added(ctx)
}

func (r *tableReader) event(op byte) rows.Event {
	return rows.Event{Op: op, Snapshot: true, CommitTime: r.s.time, LSN: r.s.at, Seq: r.s.seq.Add(1), Now: time.Now().UnixMicro()}
}

func (r *tableReader) added(ctx context.Context) error {
	r.count++
	r.s.rows.Add(1)
	if len(r.out.buf) < batchBytes && len(r.out.buf) < r.s.cfg.TransactionBytes {
		return nil
	}
	return r.flush(ctx)
}

// deletes removes the keys that the topic has and the table has not.
func (r *tableReader) deletes(ctx context.Context) error {
	current := string(r.encoder.AppendKeyFrame(nil))
	for key, there := range r.live {
		if there {
			continue
		}
		_, body, err := avro.Unframe([]byte(key))
		if err != nil {
			return fmt.Errorf("a key of topic %s cannot be read: %w", r.topic, err)
		}
		b := r.out
		start := len(b.buf)
		// A key that an older schema wrote goes in any case; the row itself only if the table has it under no key.
		if !r.live[current+string(body)] {
			b.buf = append(b.buf, key...)
			value := len(b.buf)
			ev := r.event('d')
			if b.buf, err = r.encoder.AppendDeleteOf(b.buf, body, &ev); err != nil {
				return fmt.Errorf("a key of topic %s cannot be read: %w", r.topic, err)
			}
			b.add(ref{topic: r.topic, key: start, value: value, end: len(b.buf), table: r.metrics, op: 'd'})
			start = len(b.buf)
		}
		b.buf = append(b.buf, key...)
		b.add(ref{topic: r.topic, key: start, value: len(b.buf), end: len(b.buf)})
		if err := r.added(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (r *tableReader) flush(ctx context.Context) error {
	r.s.metrics.snapshotDone.Set(float64(r.s.rows.Load()))
	b := r.out
	r.out = r.s.pool.get()
	b.finish()
	b.boundary = true
	r.s.mu.Lock()
	b.position = r.s.position
	r.s.mu.Unlock()
	b.position.Seq = r.s.seq.Load()
	return r.s.emit(ctx, b)
}

// splitCopy splits a line of COPY's text format, undoing its escapes in place.
func splitCopy(row []pgoutput.Datum, line []byte) []pgoutput.Datum {
	for {
		i := bytes.IndexByte(line, '\t')
		field := line
		if i >= 0 {
			field = line[:i]
		}
		if len(field) == 2 && field[0] == '\\' && field[1] == 'N' {
			row = append(row, pgoutput.Datum{Kind: pgoutput.Null})
		} else {
			row = append(row, pgoutput.Datum{Kind: pgoutput.Text, Data: unescape(field)})
		}
		if i < 0 {
			return row
		}
		line = line[i+1:]
	}
}

func unescape(field []byte) []byte {
	i := bytes.IndexByte(field, '\\')
	if i < 0 {
		return field
	}
	out := field[:i]
	for ; i < len(field); i++ {
		c := field[i]
		if c == '\\' && i+1 < len(field) {
			i++
			switch field[i] {
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'v':
				c = '\v'
			default:
				c = field[i]
			}
		}
		out = append(out, c)
	}
	return out
}
