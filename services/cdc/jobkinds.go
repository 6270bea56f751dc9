package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// errMoved: the table's rows are in other files than when the job began.
var errMoved = errors.New("the table was rewritten")

// pace is how much the next window reads: so much that it takes less than reads should.
type pace struct {
	blocks int64
	lines  int64 // of one block, when even a block is too much; 0: whole blocks
	fit    int64 // lines that had rows and were not too much
}

const (
	firstBlocks = 64
	mostBlocks  = 1 << 14
	// mostLines is more lines than a block of any size has.
	mostLines = 1 << 13
	// longRead and shortRead are when windows get smaller and larger.
	longRead  = time.Second
	shortRead = 250 * time.Millisecond
)

// next is the end of the window that begins at from.
func (p *pace) next(from chunk.TID, end int64) chunk.TID {
	if p.blocks == 0 {
		p.blocks = firstBlocks
	}
	if p.lines == 0 {
		return chunk.TID{Block: min(from.Block+p.blocks, end)}
	}
	if from.Line+p.lines >= mostLines {
		return chunk.TID{Block: from.Block + 1}
	}
	return chunk.TID{Block: from.Block, Line: from.Line + p.lines}
}

// smaller is false if a window cannot be smaller.
func (p *pace) smaller() bool {
	switch {
	case p.lines == 1:
		return false
	case p.lines > 1:
		p.lines = max(1, p.lines/4)
		p.fit = p.lines
	case p.blocks > 1:
		p.blocks = max(1, p.blocks/4)
	default:
		p.lines, p.fit = 64, 64
	}
	return true
}

// took adapts to a window that was read.
func (p *pace) took(d time.Duration, share float64, wholeBlock bool) {
	switch {
	case d > longRead:
		p.smaller()
	case p.lines > 0:
		if share > 0 {
			p.fit = p.lines
		}
		if share < 0.4 {
			p.lines *= 2
		}
		if wholeBlock { // behind the last row of a block the steps got long
			if p.lines = 2 * p.fit; p.lines >= 256 {
				p.lines = 0
			}
		}
	case d < shortRead && share < 0.4:
		p.blocks = min(2*p.blocks, mostBlocks)
	}
}

// readAll writes every row of the table again, or those that the job's condition selects.
func readAll(ctx context.Context, r *jobRun) error {
	j, err := r.job(ctx)
	if err != nil {
		return err
	}
	if j.FileNode == 0 {
		if strings.HasPrefix(j.ID, jobJoined) {
			if err := r.awaitOlder(ctx); err != nil {
				return err
			}
		}
		first, err := r.reader.Describe(ctx, r.from)
		if err != nil {
			return err
		}
		if err := r.startOver(ctx, first, &j); err != nil {
			return err
		}
	}
	for at := (chunk.TID{Block: j.Next}); at.Block < j.Blocks; {
		to := r.pace.next(at, j.Blocks)
		err := r.readRange(ctx, &j, at, to)
		switch {
		case err == nil:
			at = to
			r.progress(j)
		case errors.Is(err, errMoved):
			at = chunk.TID{}
		case errors.Is(err, errReadAgain):
			if err := r.describe(ctx, j.Table); err != nil {
				return err
			}
		case errors.Is(err, chunk.ErrTooLarge) || errors.Is(err, errCrowded):
			if !r.pace.smaller() {
				return err
			}
		default:
			r.pace.smaller()
			return err
		}
	}
	r.more = func(*transform) bool { return len(r.watch.holes) > 0 || r.watch.lost && r.large() }
	return r.fillHoles(ctx, j)
}

// readRange reads a range through one window.
func (r *jobRun) readRange(ctx context.Context, j *schemas.Job, from, to chunk.TID) error {
	var read *chunk.Chunk
	check := func(c *chunk.Chunk) error {
		if read = c; c.FileNode == j.FileNode {
			return nil
		}
		return errMoved
	}
	_, err := r.look(ctx, chunk.Selection{From: from, To: to, Where: j.Where}, nil, check, func(t *transform, out outcome) {
		r.updateIn(t, func(in *schemas.Job) {
			in.Rows += out.written
			if to.Line == 0 {
				in.Next = to.Block
			}
			j.Rows, j.Next = in.Rows, in.Next
		})
	})
	if errors.Is(err, errMoved) {
		r.deps.Log.Info("the table's rows have moved, its job begins again", "table", j.Table, "job", j.Kind)
		if err := r.startOver(ctx, read, j); err != nil {
			return err
		}
	}
	if err == nil {
		r.pace.took(read.Took, float64(read.Bytes)/float64(r.reader.Limit), to.Line == 0)
	}
	return err
}

// startOver sets the job to the begin of the table's present files.
func (r *jobRun) startOver(ctx context.Context, c *chunk.Chunk, j *schemas.Job) error {
	return r.update(ctx, func(in *schemas.Job) {
		in.Next, in.FileNode, in.Blocks, in.Rows = 0, c.FileNode, c.Blocks, 0
		if in.StartedAt.IsZero() || in.StartedAt.Unix() == 0 {
			in.StartedAt = time.Now().UTC()
		}
		*j = *in
	})
}

// fillHoles reads the rows again whose last event lacks a large value: a row that moved before it was read is in no
// range, and the stream does not repeat the value.
func (r *jobRun) fillHoles(ctx context.Context, j schemas.Job) error {
	for {
		var holes []keyRow
		var lost bool
		err := r.beside.do(ctx, func(context.Context, *transform) error {
			for _, k := range r.watch.holes {
				holes = append(holes, k)
			}
			lost = r.watch.lost
			r.watch.holes, r.watch.holeBytes, r.watch.lost = map[string]keyRow{}, 0, false
			return nil
		})
		if err != nil {
			return err
		}
		if lost && r.large() {
			more, ok, err := r.holesInTopic(ctx)
			if err == nil && !ok {
				err = r.update(ctx, func(in *schemas.Job) { in.FileNode = 0 })
				if err == nil {
					err = fmt.Errorf("%w: rows lack large values, and their keys are tokens: reading the table again", errReadAgain)
				}
			}
			if err != nil {
				r.watch.lost = true
				return err
			}
			holes = append(holes, more...)
		}
		if len(holes) == 0 {
			return nil
		}
		r.deps.Log.Info("reading rows again for their large values", "table", j.Table, "rows", len(holes))
		if _, err := r.settle(ctx, holes); err != nil {
			return err
		}
	}
}

// large tells whether the stream may leave out values of the table.
func (r *jobRun) large() bool {
	if r.table.Identity == 'f' {
		return false
	}
	for _, c := range r.table.Columns {
		if c.Large {
			return true
		}
	}
	return false
}

// holesInTopic finds the keys whose values are incomplete in the topic; false if a key cannot be read back.
func (r *jobRun) holesInTopic(ctx context.Context) ([]keyRow, bool, error) {
	if err := r.committed(ctx); err != nil {
		return nil, false, err
	}
	holes := map[string]struct{}{}
	_, _, err := scan(ctx, r.deps.Kafka, r.deps.Log, 0, func(rec *kgo.Record) {
		switch {
		case rec.Attrs.IsControl():
		case rec.Value != nil && kafka.Header(rec, HeaderUnchanged) != nil:
			holes[string(rec.Key)] = struct{}{}
		default:
			delete(holes, string(rec.Key))
		}
	}, r.reading.topic)
	if err != nil {
		return nil, false, err
	}
	var out []keyRow
	for key := range holes {
		_, body, err := avro.Unframe([]byte(key))
		if err != nil {
			return nil, false, fmt.Errorf("a key of topic %s cannot be read: %w", r.reading.topic, err)
		}
		texts, ok := r.reading.encoder.Table.KeyTexts(body)
		if !ok {
			return nil, false, nil
		}
		out = append(out, texts)
	}
	return out, true, nil
}

// readAndRemove writes every row of the table again and then deletes the keys of the topic that were neither read nor
// streamed since it began. What it knows of the topic is lost with the session, so that it begins again then.
func readAndRemove(ctx context.Context, r *jobRun) error {
	if r.watch.live == nil && !r.removed {
		if err := r.fold(ctx); err != nil {
			return err
		}
	}
	if err := readAll(ctx, r); err != nil || r.removed {
		return err
	}
	return r.beside.do(ctx, func(ctx context.Context, t *transform) error {
		removed := 0
		current := string(r.reading.encoder.AppendKeyFrame(nil))
		for key, there := range r.watch.live {
			if there || len(key) < len(current) {
				continue
			}
			removed++
			var err error
			// A key that an older schema wrote goes in any case; the row itself only if the table has it under no key.
			if r.watch.live[current+key[len(current):]] {
				err = t.record(ctx, &kgo.Record{Topic: r.reading.topic, Key: []byte(key)})
			} else {
				err = t.gone(ctx, r.reading, r.reading.encoder, []byte(key), pgoutput.LSN(t.position.LSN), t.now)
			}
			if err != nil {
				return err
			}
		}
		r.watch.live, r.removed = nil, true
		r.deps.Log.Info("keys removed that the table has not", "table", r.reading.name, "keys", removed)
		return nil
	})
}

// fold finds out which keys the topic has, and begins to note which of them are met.
func (r *jobRun) fold(ctx context.Context) error {
	err := r.beside.do(ctx, func(_ context.Context, t *transform) error {
		r.watch.early, r.watch.lost = map[string]struct{}{}, false
		r.updateIn(t, func(in *schemas.Job) { in.FileNode, in.Next, in.Rows = 0, 0, 0 })
		return nil
	})
	if err == nil {
		err = r.committed(ctx)
	}
	if err != nil {
		return err
	}
	keys, err := liveKeys(ctx, r.deps.Kafka, r.deps.Log, r.reading.topic)
	if err != nil {
		return err
	}
	return r.beside.do(ctx, func(context.Context, *transform) error {
		r.watch.live = map[string]bool{}
		for k := range keys[r.reading.topic] {
			_, met := r.watch.early[k]
			r.watch.live[k] = met
		}
		r.watch.early = nil
		return nil
	})
}

// readPoisoned settles the keys that the position has as poisoned.
func readPoisoned(ctx context.Context, r *jobRun) error {
	var bodies [][]byte
	err := r.beside.do(ctx, func(_ context.Context, t *transform) error {
		bodies = t.position.Poisoned[r.reading.name]
		return nil
	})
	if err != nil {
		return err
	}
	r.more = func(t *transform) bool { // some are mended and some are not, or there are new ones
		t.absorb()
		left := t.position.Poisoned[r.reading.name]
		return len(left) > 0 && !slices.EqualFunc(left, bodies, bytes.Equal)
	}
	var keys []keyRow
	for _, b := range bodies {
		_, body, err := avro.Unframe(b)
		if err != nil {
			return fmt.Errorf("%w: a key in the position cannot be read: %w", errRefused, err)
		}
		texts, ok := r.reading.encoder.Table.KeyTexts(body)
		if !ok {
			return fmt.Errorf("%w: the keys of %s are tokens, which cannot be read back; cdc reconcile %[2]s", errRefused, r.reading.name)
		}
		keys = append(keys, texts)
	}
	done, err := r.settle(ctx, keys)
	if err != nil {
		return err
	}
	return r.update(ctx, func(j *schemas.Job) { j.Rows += done.Written + done.Removed })
}

// withOwed is the position with one more key whose row is to be read again, and the job that does it; if there are too
// many, the job reads all rows.
func withOwed(p schemas.Position, table string, key []byte) schemas.Position {
	kind := schemas.CaptureKeys
	if tooPoisoned(p, maxPoisoned, table, key) == "" {
		p = withPoisoned(p, table, key)
	} else {
		kind = schemas.CaptureSnapshot
	}
	if _, on := findJob(p, jobOwed+table); !on {
		p.Jobs = withJob(p.Jobs, schemas.Job{ID: jobOwed + table, Kind: kind, Table: table, StartedAt: time.Now().UTC()})
	}
	return p
}

// whole tells whether a record has all values of its row.
func whole(r ref) bool {
	return !slices.ContainsFunc(r.headers, func(h kgo.RecordHeader) bool { return h.Key == HeaderUnchanged })
}
