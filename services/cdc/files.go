package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/export"
	"github.com/millrace-io/millrace/services/cdc/internal/image"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// FilesOptions say which export to take in.
type FilesOptions struct {
	From       string   // a directory, or s3://bucket/prefix
	Tables     []string // schema.table; empty for all that have files
	DryRun     bool     // say what would be written, and write nothing
	MaxDeletes float64  // share of a table's rows that may be deleted: an export that lacks rows deletes them
	Keys       int      // keys that a dry run names at most for each table; 0 for all
}

// markFiles is the events' source.snapshot.
const markFiles = "files"

// ReconcileFiles makes the topics equal to an export of the tables, writing only what differs: rows as op r, and deletes
// with tombstones for keys that the export has not. All files are read and found good before anything is written. The
// source is not asked; no cdc may be running. Afterwards the tables count as incomplete until the next Run has compared
// them with the source, for the export may be older than what was captured. With DryRun the error wraps
// app.ErrDifferences if something would be written.
func (s *Service) ReconcileFiles(ctx context.Context, out io.Writer, o FilesOptions) (err error) {
	if o.MaxDeletes < 0 || o.MaxDeletes > 1 {
		return &app.UsageError{Err: fmt.Errorf("max-deletes: %v must be between 0 and 1", o.MaxDeletes)}
	}
	p, have, err := readPosition(ctx, s.deps.Kafka, s.deps.Registry, s.deps.Log, settled, s.cfg.Slot)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), err == nil && (!have || p.Snapshot == snapshotNone):
		return errNothingCaptured
	case err != nil:
		return err
	case p.Snapshot != snapshotDone:
		return errors.New("the first snapshot is not done: files can only be compared with topics that are whole; start `cdc run` first")
	}
	f := &fileRun{Service: s, FilesOptions: o, out: out, folder: s.newFolder()}
	store, done, err := s.openExport(ctx, o.From)
	if err != nil {
		return err
	}
	defer done()
	f.store = store
	defer func() { err = errors.Join(err, f.close()) }()
	if !o.DryRun {
		if err := f.take(ctx, p); err != nil {
			return err
		}
	}
	if err := f.read(ctx); err != nil {
		return err
	}
	if o.DryRun {
		return f.conclude()
	}
	return f.write(ctx)
}

func (s *Service) openExport(ctx context.Context, from string) (export.Store, func(), error) {
	if export.IsBucket(from) {
		store, err := export.OpenBucket(ctx, from, export.Bucket{Endpoint: s.cfg.ExportEndpoint, Region: s.cfg.ExportRegion})
		return store, func() {}, err
	}
	dir, err := export.OpenDirectory(from)
	if err != nil {
		return nil, nil, err
	}
	return dir, func() { _ = dir.Close() }, nil // it was only read
}

// fileRun is one run of ReconcileFiles. It is for one goroutine.
type fileRun struct {
	*Service
	FilesOptions
	out    io.Writer
	store  export.Store
	folder folder
	ses    *session // nil in a dry run
	tables []*fileTable
}

// fileTable is a table of the export.
type fileTable struct {
	run     *fileRun
	name    string // schema.table
	topic   string
	files   []string
	shape   rows.Table
	encoder *rows.Encoder
	keys    *image.KeyLayout
	folded  *folded
	rows    *diff.Set
	count   int64
	counts  diff.Counts
	named   []wanted
}

// take fences whoever writes, so that nobody else does until the end.
func (f *fileRun) take(ctx context.Context, p schemas.Position) error {
	database := ""
	if cfg, err := pgx.ParseConfig(f.deps.Source.URL.Reveal()); err == nil {
		database = cfg.Database
	}
	ses := &session{Service: f.Service, pool: newPool(), system: replica.System{ID: p.SystemID, Timeline: p.Timeline, Database: database}}
	if err := ses.openKafka(ctx); err != nil {
		return err
	}
	f.ses = ses
	return nil
}

func (f *fileRun) close() error {
	var errs []error
	for _, t := range f.tables {
		if t.folded != nil {
			errs = append(errs, t.folded.set.Close())
		}
		if t.rows != nil {
			errs = append(errs, t.rows.Close())
		}
	}
	if f.ses != nil {
		f.ses.closeKafka()
	}
	return errors.Join(errs...)
}

// read reads all files to their ends and compares them with the topics.
func (f *fileRun) read(ctx context.Context) error {
	if err := f.choose(ctx); err != nil {
		return err
	}
	for _, t := range f.tables {
		if err := t.describe(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	for _, t := range f.tables {
		if err := t.compare(ctx); err != nil {
			return err
		}
		if err := t.print(); err != nil {
			return err
		}
	}
	return nil
}

// choose finds the tables and their files.
func (f *fileRun) choose(ctx context.Context) error {
	topics, err := f.storeTopics(ctx)
	if err != nil {
		return err
	}
	names, err := f.store.List(ctx)
	if err != nil {
		return err
	}
	files, err := export.Assign(names, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return err
	}
	chosen := f.Tables
	if len(chosen) == 0 {
		chosen = slices.Sorted(maps.Keys(files))
	}
	for _, name := range chosen {
		if topics[name] == "" {
			return &app.UsageError{Err: fmt.Errorf("%s is not captured: it has no topic", name)}
		}
		if len(files[name]) == 0 {
			return fmt.Errorf("%s has no file in %s: it would be called %s.csv or %s.ndjson", name, f.From, name, name)
		}
		f.tables = append(f.tables, &fileTable{run: f, name: name, topic: topics[name], files: files[name]})
	}
	if len(f.tables) == 0 {
		return fmt.Errorf("there are no files of captured tables in %s: they are called <schema>.<table>*.csv, .ndjson or .json, with .gz if compressed", f.From)
	}
	return nil
}

// storeTopics are the topics of captured tables, by schema.table.
func (f *fileRun) storeTopics(ctx context.Context) (map[string]string, error) {
	cl, err := f.deps.Kafka.Client("cdc-files", f.deps.Log, nil)
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("list the topics: %w", err)
	}
	out := map[string]string{}
	for _, topic := range listed.Names() {
		name, ok := strings.CutPrefix(topic, f.deps.Kafka.Name(schemas.StorePrefix))
		if ok && strings.Count(name, ".") == 1 && f.captured(name) {
			out[name] = topic
		}
	}
	return out, nil
}

// describe makes the table's shape of what the registry has.
func (t *fileTable) describe(ctx context.Context) error {
	f := t.run
	keyID, key, err := f.deps.Registry.LatestOf(ctx, t.topic+"-key")
	if err != nil {
		return err
	}
	valueID, value, err := f.deps.Registry.LatestOf(ctx, t.topic+"-value")
	if err != nil {
		return err
	}
	schema, name, _ := strings.Cut(t.name, ".")
	t.shape, err = rows.Derive(schema, name, key, value, func(column string) rows.Treatment { return f.policy.Column(schema, name, column) })
	if err != nil {
		return err
	}
	t.shape.Filter = f.policy.Filter(schema, name)
	if err := t.shape.Validate(); err != nil {
		return err
	}
	origin := rows.Origin{}
	if f.ses != nil {
		origin = f.ses.factory.origin
	}
	t.encoder = rows.NewEncoder(t.shape, origin, f.deps.Keys, keyID, valueID)
	t.keys, err = image.CompileKey(key)
	return err
}

// compare reads the table's files and compares their rows with the topic.
func (t *fileTable) compare(ctx context.Context) (err error) {
	if t.folded, err = t.run.folder.fold(ctx, t.topic, imageReader(t.shape), everyKey); err != nil {
		return err
	}
	sums, err := newRowSums(t.encoder, t.folded.reader)
	if err != nil {
		return err
	}
	t.rows = t.run.folder.space.NewSet(mergeFileRows)
	for i, file := range t.files {
		err := export.Read(ctx, t.run.store, file, t.shape, func(line int, row []pgoutput.Datum) error {
			t.count++
			if err := t.put(sums, i, line, row); err != nil {
				return &export.Error{File: file, Line: line, Err: err}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	t.counts, err = diff.Compare(ctx, t.rows, t.folded.set, sameFileRow, t.check)
	if err != nil {
		return err
	}
	t.counts = diff.Counts{Source: t.count, Target: t.counts.Target, Equal: t.counts.Equal}
	_, err = t.each(ctx, func(kind diff.Kind, d diff.Difference) error {
		switch kind {
		case diff.Missing:
			t.counts.Missing++
		case diff.Extra:
			t.counts.Extra++
		default:
			t.counts.Different++
		}
		if t.run.DryRun && (t.run.Keys == 0 || len(t.named) < t.run.Keys) {
			t.named = append(t.named, wanted{Kind: kind.String(), Key: keyName(t.keys, string(d.Key()))})
		}
		return nil
	})
	if limit := t.run.MaxDeletes * float64(t.counts.Target); err == nil && float64(t.counts.Extra) > limit {
		return fmt.Errorf("%s: %d of %d rows are not in the files, more than a share of %v: if they are really gone, --max-deletes 1; nothing was written",
			t.name, t.counts.Extra, t.counts.Target, t.run.MaxDeletes)
	}
	return err
}

// What the extra of a row of a file begins with. An empty extra is that of a key as an older schema wrote it.
const (
	fileRow       = 0 // then the file's number and the line, the parts' length and the parts, and the row
	fileDuplicate = 1 // then file and line twice
)

func (t *fileTable) put(sums *rowSums, file, line int, row []pgoutput.Datum) error {
	e, err := sums.entry(row)
	if errors.Is(err, errNotCaptured) {
		return nil
	}
	if err != nil {
		return err
	}
	if len(e.Key)+len(sums.value) > maxRecord-1024 { // what is in the event beside the row may be longer
		return errTooLarge
	}
	extra := binary.AppendUvarint(binary.AppendUvarint([]byte{fileRow}, uint64(file)), uint64(line))
	extra = append(binary.AppendUvarint(extra, uint64(len(e.Extra))), e.Extra...)
	if extra, err = t.encoder.AppendRow(extra, row); err != nil {
		return err
	}
	if err := t.rows.Put(diff.Entry{Key: e.Key, Sum: e.Sum, Extra: extra}); err != nil {
		return err
	}
	for frame := range t.folded.frames {
		if frame == string(e.Key[:keyFrame]) {
			continue
		}
		if err := t.rows.Put(diff.Entry{Key: otherFrame(frame, e.Key)}); err != nil {
			return err
		}
	}
	return nil
}

// fileEntry is what the extra of a file's row says.
type fileEntry struct {
	file, line uint64
	parts, row []byte
}

func readFileEntry(extra []byte) fileEntry {
	var f fileEntry
	next := func(b []byte) (uint64, []byte) {
		v, n := binary.Uvarint(b)
		return v, b[max(0, n):]
	}
	var size uint64
	f.file, extra = next(extra[1:])
	f.line, extra = next(extra)
	size, extra = next(extra)
	f.parts, f.row = extra[:size], extra[size:]
	return f
}

// mergeFileRows notes that a key comes twice.
func mergeFileRows(former, later diff.Entry) diff.Entry {
	if len(former.Extra) == 0 || len(later.Extra) == 0 || former.Extra[0] == fileDuplicate {
		return former
	}
	a, b := readFileEntry(former.Extra), readFileEntry(later.Extra)
	extra := []byte{fileDuplicate}
	for _, v := range []uint64{a.file, a.line, b.file, b.line} {
		extra = binary.AppendUvarint(extra, v)
	}
	return diff.Entry{Key: later.Key, Extra: extra}
}

func sameFileRow(file, topic diff.Entry) bool {
	if len(file.Extra) == 0 || file.Extra[0] == fileDuplicate {
		return false
	}
	return sameImage(diff.Entry{Sum: file.Sum, Extra: readFileEntry(file.Extra).parts}, topic)
}

// check refuses a key that comes twice.
func (t *fileTable) check(d diff.Difference) error {
	if len(d.Source.Extra) == 0 || d.Source.Extra[0] != fileDuplicate {
		return nil
	}
	var at [4]uint64
	rest := d.Source.Extra[1:]
	for i := range at {
		v, n := binary.Uvarint(rest)
		at[i], rest = v, rest[n:]
	}
	return &export.Error{File: t.files[at[2]], Line: int(at[3]),
		Err: fmt.Errorf("the key %s is in %s, line %d, already", keyName(t.keys, string(d.Key())), t.files[at[0]], at[1])}
}

// each visits what is to be written. A key as an older schema wrote it counts as extra if its row is gone; else it is
// Different and its source's extra is empty: only the key itself goes.
func (t *fileTable) each(ctx context.Context, visit func(diff.Kind, diff.Difference) error) (diff.Counts, error) {
	return diff.Compare(ctx, t.rows, t.folded.set, sameFileRow, func(d diff.Difference) error {
		if d.Kind == diff.Missing && len(d.Source.Extra) == 0 {
			return nil
		}
		return visit(d.Kind, d)
	})
}

func (t *fileTable) print() error {
	c := t.counts
	verb := "written"
	if t.run.DryRun {
		verb = "to write"
	}
	_, err := fmt.Fprintf(t.run.out, "%s: %d rows in %d files, %d in the topic; %s: %d missing, %d different; deleted: %d\n",
		t.name, c.Source, len(t.files), c.Target, verb, c.Missing, c.Different, c.Extra)
	for _, k := range t.named {
		if err == nil {
			_, err = fmt.Fprintf(t.run.out, "  %-10s %s\n", k.Kind, k.Key)
		}
	}
	return err
}

func (f *fileRun) conclude() error {
	var different []string
	for _, t := range f.tables {
		if t.counts.Differences() > 0 {
			different = append(different, t.name)
		}
	}
	if len(different) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s; without --dry-run they are written", app.ErrDifferences, strings.Join(different, ", "))
}

// write writes what differs, in Kafka transactions with the position. That the tables have to be compared with the source
// afterwards is in the first of them.
func (f *fileRun) write(ctx context.Context) error {
	p := f.ses.position
	for _, t := range f.tables {
		waits := slices.ContainsFunc(p.Jobs, func(j schemas.Job) bool { return j.Table == t.name && j.Kind != schemas.CaptureKeys })
		if !waits {
			p.Jobs = append(slices.Clone(p.Jobs), reconcileJob(t.name))
		}
	}
	if err := f.ses.commits.record(ctx, p); err != nil {
		return err
	}
	batches := make(chan *batch, 4)
	w := &fileWriter{run: f, position: p, out: f.ses.pool.get(), emit: sender(batches)}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(batches)
		for _, t := range f.tables {
			if err := w.table(ctx, t); err != nil {
				return fmt.Errorf("write %s: %w", t.name, err)
			}
		}
		return w.flush(ctx)
	})
	group.Go(func() error { return f.ses.commits.run(ctx, batches) })
	return group.Wait()
}

// fileWriter makes records of what differs. It is for one goroutine.
type fileWriter struct {
	run      *fileRun
	position schemas.Position
	out      *batch
	emit     func(context.Context, *batch) error
}

func (w *fileWriter) table(ctx context.Context, t *fileTable) error {
	metrics := w.run.metrics.table(t.name)
	_, err := t.each(ctx, func(kind diff.Kind, d diff.Difference) error {
		switch {
		case kind == diff.Extra:
			w.remove(t, metrics, d.Key())
		case len(d.Source.Extra) == 0:
			w.tombstone(t, d.Key())
		default:
			w.row(t, metrics, d.Key(), readFileEntry(d.Source.Extra).row)
		}
		if len(w.out.buf) < batchBytes {
			return nil
		}
		return w.flush(ctx)
	})
	return err
}

// next is the event without its rows.
func (w *fileWriter) next(op byte) *rows.Event {
	w.position.Seq++
	now := time.Now().UnixMicro()
	return &rows.Event{Op: op, Snapshot: true, Mark: markFiles, CommitTime: now, Now: now, LSN: pgoutput.LSN(w.position.LSN), Seq: w.position.Seq}
}

func (w *fileWriter) row(t *fileTable, metrics *tableMetrics, key, row []byte) {
	b := w.out
	start := len(b.buf)
	b.buf = append(b.buf, key...)
	value := len(b.buf)
	b.buf = t.encoder.AppendValueOf(b.buf, row, w.next('r'))
	b.add(ref{topic: t.topic, key: start, value: value, end: len(b.buf), table: metrics, op: 'r'})
}

func (w *fileWriter) remove(t *fileTable, metrics *tableMetrics, key []byte) {
	_, body, err := avro.Unframe(key)
	b := w.out
	start := len(b.buf)
	if err == nil {
		b.buf = append(b.buf, key...)
		value := len(b.buf)
		if b.buf, err = t.encoder.AppendDeleteOf(b.buf, body, w.next('d')); err == nil {
			b.add(ref{topic: t.topic, key: start, value: value, end: len(b.buf), table: metrics, op: 'd'})
		}
	}
	if err != nil { // no key of ours: nothing but the record itself can go
		b.buf = b.buf[:start]
	}
	w.tombstone(t, key)
}

func (w *fileWriter) tombstone(t *fileTable, key []byte) {
	b := w.out
	start := len(b.buf)
	b.buf = append(b.buf, key...)
	b.add(ref{topic: t.topic, key: start, value: len(b.buf), end: len(b.buf)})
}

func (w *fileWriter) flush(ctx context.Context) error {
	b := w.out
	w.out = w.run.ses.pool.get()
	b.finish()
	b.position, b.boundary = w.position, true
	return w.emit(ctx, b)
}
