package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

const (
	// longestRead is the time limit of a statement of a window; what it reads adapts to take much less.
	longestRead = 30 * time.Second
	// askEvery is how often a window that waits asks the source how far it is.
	askEvery = 10 * time.Millisecond
	// settleKeys and settleBytes bound the keys of one window.
	settleKeys  = 500
	settleBytes = 256 << 10
)

// jobRun is one job while it is worked on. It is for one goroutine.
type jobRun struct {
	*jobs
	id         string
	begin      time.Time
	beginRows  int64
	beginShare float64
	told       time.Time
	windows    int  // that were closed
	removed    bool // keys were removed that the table has not
	// more tells, when the work is done, whether there is new work by now.
	more  func(*transform) bool
	watch *watch
	mark  string // of the events: see rows.Event

	reader  *chunk.Reader
	table   catalog.Table // as the catalog has it
	from    chunk.Table
	reading *relation // with the encoder of the table as the catalog has it
	shape   string    // of the chunks that this encoder fits
	pace    pace
}

// attempt looks at the table and does the job's work.
func (r *jobRun) attempt(ctx context.Context) error {
	var j schemas.Job
	err := r.beside.do(ctx, func(_ context.Context, t *transform) error {
		j, _ = findJob(t.position, r.id)
		t.beside.watches[j.Table] = r.watch
		return nil
	})
	if err != nil {
		return err
	}
	kind := r.kinds[j.Kind]
	if j.Kind == schemas.CaptureReconcile {
		r.mark = markReconcile
	}
	if kind == nil {
		return fmt.Errorf("%w: a job of kind %q is not known to this version", errRefused, j.Kind)
	}
	if r.reader == nil {
		r.reader = r.newReader()
	}
	if err := r.describe(ctx, j.Table); err != nil {
		return err
	}
	return kind(ctx, r)
}

func (r *jobRun) close(ctx context.Context) {
	if r.reader != nil {
		r.reader.Close()
	}
	_ = r.beside.do(ctx, func(_ context.Context, t *transform) error { // a session that ends takes its watches with it
		for table, w := range t.beside.watches {
			if w == r.watch {
				delete(t.beside.watches, table)
			}
		}
		return nil
	})
}

// job is the job as the position has it.
func (r *jobRun) job(ctx context.Context) (j schemas.Job, err error) {
	err = r.beside.do(ctx, func(_ context.Context, t *transform) error {
		j, _ = findJob(t.position, r.id)
		return nil
	})
	return j, err
}

// update changes the job in the position.
func (r *jobRun) update(ctx context.Context, change func(*schemas.Job)) error {
	return r.beside.do(ctx, func(_ context.Context, t *transform) error { r.updateIn(t, change); return nil })
}

func (r *jobRun) updateIn(t *transform, change func(*schemas.Job)) {
	if j, ok := findJob(t.position, r.id); ok {
		change(&j)
		t.setJobs(withJob(t.position.Jobs, j))
	}
}

// describe reads the table from the catalog and makes the encoder of its rows.
func (r *jobRun) describe(ctx context.Context, name string) error {
	conn, err := r.connectWindow(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tables, err := catalog.Tables(ctx, conn, r.cfg.Publication)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(tables, func(t catalog.Table) bool { return t.Schema+"."+t.Name == name })
	if i < 0 {
		return fmt.Errorf("%w: %s is not in the publication %s", errRefused, name, r.cfg.Publication)
	}
	r.table = tables[i]
	var version int32
	err = r.beside.do(ctx, func(_ context.Context, t *transform) error { version = t.position.Versions[name]; return nil })
	if err != nil {
		return err
	}
	shape, err := r.factory.ofCatalog(ctx, r.table, version)
	if err != nil {
		return err
	}
	if err := shape.Validate(); err != nil {
		return r.stopTable(ctx, name, err.Error())
	}
	encoder, err := r.factory.encoder(ctx, shape, version, keyLevelStream)
	if errors.Is(err, avro.ErrIncompatible) {
		return r.stopTable(ctx, name, incompatible(name, version, err))
	}
	if err != nil {
		return err
	}
	r.from = chunkTable(r.table, shape)
	first, err := r.reader.Describe(ctx, r.from)
	if err != nil {
		return err
	}
	r.shape = first.Shape
	return r.beside.do(ctx, func(_ context.Context, t *transform) error {
		r.reading = &relation{mark: r.mark, name: name, topic: r.factory.topicOf(shape.Schema, shape.Name, version), captured: true, encoder: encoder, metrics: t.metrics.table(name)}
		return nil
	})
}

func (r *jobRun) stopTable(ctx context.Context, name, reason string) error {
	if err := r.beside.do(ctx, func(_ context.Context, t *transform) error { t.stopTable(name, reason); return nil }); err != nil {
		return err
	}
	return fmt.Errorf("%w: %s", errStopped, reason)
}

// chunkTable is a table as chunks are read from it.
func chunkTable(t catalog.Table, shape rows.Table) chunk.Table {
	out := chunk.Table{OID: t.OID, Ident: shape.Ident(), Partitioned: t.Partitioned, Filter: t.Filter, List: shape.SelectList(),
		Query: t.Generated || len(shape.Selected()) != len(shape.Columns)}
	for _, c := range shape.Columns {
		if c.Key {
			out.Key = append(out.Key, c.Name)
		}
	}
	return out
}

// look reads a selection through one window, and waits until the stream has closed it. then is called by the walk with
// the rows; its changes of the position are committed together with them. Errors are the outcome's or the source's.
func (r *jobRun) look(ctx context.Context, s chunk.Selection, asked map[string]struct{}, check func(*chunk.Chunk) error, then func(*transform, outcome)) (outcome, error) {
	w := &window{table: r.reading.name, reading: r.reading, touched: map[string]*touch{}, done: make(chan outcome, 1)}
	if err := r.beside.do(ctx, func(_ context.Context, t *transform) error { t.beside.open(w); return nil }); err != nil {
		return outcome{}, err
	}
	c, err := r.reader.Read(ctx, r.from, s)
	if err == nil && c.Shape != r.shape {
		err = fmt.Errorf("%w: its columns are others", chunk.ErrChanged)
	}
	if err == nil && check != nil {
		err = check(c)
	}
	read := &reading{chunk: c, asked: asked, then: then}
	if err == nil {
		read.keys, err = r.keys(c)
	}
	if err == nil && r.hooks.read != nil {
		r.hooks.read(w.table, c)
	}
	given := r.beside.do(ctx, func(_ context.Context, t *transform) error {
		if w.read = read; err != nil {
			t.beside.shut(w)
		}
		return nil
	})
	if err == nil {
		err = given
	}
	if errors.Is(err, rows.ErrDoesNotFit) {
		err = r.stopTable(ctx, w.table, err.Error())
	}
	if err != nil {
		return outcome{}, err
	}
	out, err := r.await(ctx, w)
	r.metrics.jobWindows.Inc()
	if r.windows++; err == nil {
		err = out.err
	}
	return out, err
}

// await waits for the end of a window.
func (r *jobRun) await(ctx context.Context, w *window) (outcome, error) {
	ticker := time.NewTicker(askEvery)
	defer ticker.Stop()
	for {
		select {
		case out := <-w.done:
			return out, nil
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		default:
		}
		r.ask() // an idle source says nothing by itself
		select {
		case out := <-w.done:
			return out, nil
		case <-ctx.Done():
			return outcome{}, ctx.Err()
		case <-ticker.C:
		}
	}
}

// keys are the topic's keys of a chunk's lines.
func (r *jobRun) keys(c *chunk.Chunk) ([]string, error) {
	out := make([]string, len(c.Lines))
	var row []pgoutput.Datum
	var line, key []byte
	var err error
	for i := range c.Lines {
		line = append(line[:0], c.Lines[i]...) // a line can be split once
		row = chunk.Split(row[:0], line)
		if key, err = r.reading.encoder.AppendKey(key[:0], row); err != nil {
			return nil, err
		}
		out[i] = string(key)
	}
	return out, nil
}

// settlement is what settle did.
type settlement struct{ Written, Removed int64 }

// settle makes the topic right for some keys: each is read through a window and written as an r event, or, if the table
// has no such row, deleted by a delete and a tombstone. What the stream changed meanwhile is left to the stream. It
// returns when all of it is committed to Kafka. Settling a key twice does no harm.
func (r *jobRun) settle(ctx context.Context, keys []keyRow) (settlement, error) {
	var out settlement
	for len(keys) > 0 {
		n, bytes := 0, 0
		for n < len(keys) && n < settleKeys && bytes < settleBytes {
			for _, v := range keys[n] {
				bytes += len(v.Data) + 4
			}
			n++
		}
		if err := r.settleSome(ctx, keys[:n], &out); err != nil {
			return out, err
		}
		keys = keys[n:]
	}
	return out, r.committed(ctx)
}

// settleSome settles what one window takes, in two halves if the rows are too large for it.
func (r *jobRun) settleSome(ctx context.Context, keys []keyRow, out *settlement) error {
	for again := 0; ; again++ {
		asked, err := r.asked(keys)
		if err != nil {
			return err
		}
		got, err := r.look(ctx, chunk.Selection{Keys: keys}, asked, nil, nil)
		switch {
		case err == nil:
			out.Written += got.written
			out.Removed += got.removed
			return nil
		case (errors.Is(err, chunk.ErrTooLarge) || errors.Is(err, errCrowded)) && len(keys) > 1:
			if err := r.settleSome(ctx, keys[:len(keys)/2], out); err != nil {
				return err
			}
			return r.settleSome(ctx, keys[len(keys)/2:], out)
		case !errors.Is(err, errReadAgain) || again == 10:
			return err
		}
		if err := r.describe(ctx, r.reading.name); err != nil {
			return err
		}
	}
}

// asked are the topic's keys of what a window asks for.
func (r *jobRun) asked(keys []keyRow) (map[string]struct{}, error) {
	asked := make(map[string]struct{}, len(keys))
	columns := r.reading.encoder.Table.Columns
	for _, k := range keys {
		row, n := make([]pgoutput.Datum, len(columns)), 0
		for c := range columns {
			if columns[c].Key && n < len(k) {
				row[c] = k[n]
				n++
			}
		}
		key, err := r.reading.encoder.AppendKey(nil, row)
		if err != nil || n != len(k) {
			return nil, fmt.Errorf("a key of %s has other columns than the table: %w", r.reading.name, errReadAgain)
		}
		asked[string(key)] = struct{}{}
	}
	return asked, nil
}

// committed waits until everything that was written so far is committed to Kafka.
func (r *jobRun) committed(ctx context.Context) error {
	done := make(chan struct{})
	if err := r.beside.do(ctx, func(ctx context.Context, t *transform) error { t.keep(); return t.flush(ctx, done) }); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *session) connectWindow(ctx context.Context) (*pgx.Conn, error) {
	return connectSQL(ctx, s.deps.Source, "millrace-cdc-window")
}

func (s *session) replicateWindow(ctx context.Context) (*replica.Conn, error) {
	return replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-window")
}
