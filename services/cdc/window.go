package cdc

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// window is open while rows of one table are read beside the stream: the stream notes which keys change meanwhile. All
// but done belongs to the walk once the window is open.
type window struct {
	table   string
	reading *relation // the table as it is read
	touched map[string]*touch
	bytes   int
	all     pgoutput.LSN  // commit of the last transaction that changed every key
	encoder *rows.Encoder // of the stream, when the window was opened
	crowded bool          // more keys changed than are noted
	read    *reading
	done    chan outcome
}

// reading is what was read for a window.
type reading struct {
	chunk *chunk.Chunk
	keys  []string            // of the chunk's lines
	asked map[string]struct{} // keys that were asked for: nil for a range
	// then is called by the walk with the rows, before the batch that holds the last of them is sent.
	then func(*transform, outcome)
}

// outcome is how a window ended.
type outcome struct {
	err      error // errReadAgain, errCrowded or errStopped
	written  int64
	overtook int64 // rows that the stream has newer
	removed  int64
}

var (
	// errReadAgain: the table was truncated or changed its columns in the window.
	errReadAgain = errors.New("the table changed while it was read")
	// errCrowded: so many keys changed that the next window must be shorter.
	errCrowded = errors.New("too many changes while the table was read")
	// errStopped: the table is stopped.
	errStopped = errors.New("the table is stopped")
)

// touchedBytes is how much a window notes.
const touchedBytes = 4 << 20

// touch is what the stream did to a key since the window was opened.
type touch struct {
	lsn   pgoutput.LSN // commit of the last transaction that did
	whole bool         // every column's value was in the stream since
	// image is the row as the stream has it, while values are missing: those are Unchanged. What the stream gave earlier
	// and does not repeat is Null, and marked in given.
	image []pgoutput.Datum
	given []bool
}

// watch is what the stream notes for a job, from its begin to its end.
type watch struct {
	live      map[string]bool     // if not nil: keys with a value in the topic, and whether they were read or streamed since
	early     map[string]struct{} // keys streamed before live was there
	holes     map[string]keyRow   // keys whose last event lacks a value that the topic may lack too
	holeBytes int
	lost      bool // not all holes are known
}

// keyRow is the values of a key's columns, in the order of the table's columns.
type keyRow = []pgoutput.Datum

// beside is where the walk and those who read beside the stream meet. do is for everybody, all else is the walk's.
type beside struct {
	unmoved
	walk    *transform
	tell    func(schemas.CaptureNotification)
	windows map[string][]*window
	watches map[string]*watch
	seen    map[string]bool // tables whose changes are parsed for us
	news    chan struct{}   // the position's jobs are others
}

func newBeside(walk *transform, tell func(schemas.CaptureNotification)) *beside {
	return &beside{walk: walk, tell: tell, windows: map[string][]*window{}, watches: map[string]*watch{}, seen: map[string]bool{}, news: make(chan struct{}, 1)}
}

// do has the walk do something between two transactions of the source, and waits for it. An error of f ends the session.
// With an error f was not called, and will not be.
func (b *beside) do(ctx context.Context, f func(context.Context, *transform) error) error {
	done := make(chan struct{})
	var taken atomic.Bool // by the walk, or by the end of ctx
	b.walk.call(func(ctx context.Context) error {
		if !taken.CompareAndSwap(false, true) {
			return nil
		}
		defer close(done)
		if err := f(ctx, b.walk); err != nil {
			return err
		}
		b.show()
		return b.reached(ctx, pgoutput.LSN(b.walk.position.LSN)) // a window may have its rows after its end was passed
	})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		if taken.CompareAndSwap(false, true) {
			return ctx.Err()
		}
		<-done
		return nil
	}
}

// show has the changes parsed of the tables that we look at, and of no others that nobody else looks at.
func (b *beside) show() {
	for table := range b.seen {
		if b.windows[table] == nil && b.watches[table] == nil {
			delete(b.seen, table)
			delete(b.walk.watched, table)
		}
	}
	see := func(table string) {
		if !b.walk.watched[table] {
			b.walk.watched[table], b.seen[table] = true, true
		}
	}
	for table := range b.windows {
		see(table)
	}
	for table := range b.watches {
		see(table)
	}
}

// reached closes the windows whose end the stream has reached.
func (b *beside) reached(ctx context.Context, at pgoutput.LSN) error {
	for _, open := range b.windows {
		for _, w := range slices.Clone(open) {
			if w.read != nil && at >= w.read.chunk.High {
				if err := b.finish(ctx, b.walk, w); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (b *beside) open(w *window) {
	w.encoder = b.streamed(w.table)
	b.windows[w.table] = append(b.windows[w.table], w)
}

// streamed is the encoder of a table as the stream describes it, nil if it does not.
func (b *beside) streamed(table string) *rows.Encoder {
	for _, rel := range b.walk.relations {
		if rel.name == table && rel.encoder != nil {
			return rel.encoder
		}
	}
	return nil
}

func (b *beside) shut(w *window) {
	left := slices.DeleteFunc(b.windows[w.table], func(o *window) bool { return o == w })
	if b.windows[w.table] = left; len(left) == 0 {
		delete(b.windows, w.table)
	}
}

// truncated notes that every key of a table changed.
func (b *beside) truncated(_ context.Context, rel *relation, _ bool) error {
	b.all(rel.name)
	return nil
}

func (b *beside) all(table string) {
	for _, w := range b.windows[table] {
		w.all = b.walk.begin.FinalLSN
	}
	if watch := b.watches[table]; watch != nil {
		clear(watch.holes)
		watch.holeBytes = 0
	}
}

// changed notes a change of the stream.
func (b *beside) changed(_ context.Context, rel *relation, c *pgoutput.Change, _ bool) error {
	windows, watch := b.windows[rel.name], b.watches[rel.name]
	if windows == nil && watch == nil || rel.encoder == nil {
		return nil
	}
	e, commit := rel.encoder, b.walk.begin.FinalLSN
	row := c.New
	if c.Op == pgoutput.KindDelete {
		row = c.Old
	}
	raw, err := e.AppendKey(nil, row)
	if err != nil { // the row stops its table or goes to quarantine; what is read must not be believed meanwhile
		b.all(rel.name)
		return nil
	}
	key, was := string(raw), ""
	if c.Op == pgoutput.KindUpdate && c.OldKind != pgoutput.OldNone && e.KeyChanged(c.Old, c.New) {
		if raw, err = e.AppendKey(raw[:0], c.Old); err == nil {
			was = string(raw)
		}
	}
	for _, w := range windows {
		w.note(c, commit, key, was)
	}
	if watch != nil {
		watch.note(e, c, key, was)
	}
	return nil
}

func (w *window) note(c *pgoutput.Change, commit pgoutput.LSN, key, was string) {
	if w.crowded {
		return
	}
	if was != "" {
		w.put(was, &touch{lsn: commit, whole: true})
	}
	n, old := &touch{lsn: commit, whole: true}, w.touched[key]
	// What a row lacks that came under another key cannot be told from the chunk; the job reads it again by its key.
	if c.Op == pgoutput.KindUpdate && was == "" && missing(c) && (old == nil || !old.whole) {
		n.inherit(c, old)
	}
	w.put(key, n)
}

// missing tells whether the change lacks a value that its old row does not have either.
func missing(c *pgoutput.Change) bool {
	for i, d := range c.New {
		if d.Kind == pgoutput.Unchanged && (i >= len(c.Old) || c.Old[i].Kind != pgoutput.Text) {
			return true
		}
	}
	return false
}

// inherit makes the image of a change that lacks values, given what the stream did to the row before.
func (n *touch) inherit(c *pgoutput.Change, old *touch) {
	n.whole = false
	n.image, n.given = make([]pgoutput.Datum, len(c.New)), make([]bool, len(c.New))
	for i, d := range c.New {
		if d.Kind == pgoutput.Unchanged && i < len(c.Old) && c.Old[i].Kind == pgoutput.Text {
			d = c.Old[i]
		}
		if d.Kind == pgoutput.Unchanged && old != nil && i < len(old.image) && (old.image[i].Kind != pgoutput.Unchanged || old.given[i]) {
			n.given[i] = true
		}
		n.image[i] = pgoutput.Datum{Kind: d.Kind, Data: slices.Clone(d.Data)}
	}
}

// put notes a touch within the bound.
func (w *window) put(key string, n *touch) {
	const overhead = 160
	size := len(key) + overhead
	for _, d := range n.image {
		size += len(d.Data) + 40
	}
	w.touched[key] = n
	if w.bytes += size; w.bytes > touchedBytes {
		w.crowded, w.touched = true, nil
	}
}

func (n *watch) note(e *rows.Encoder, c *pgoutput.Change, key, was string) {
	for _, k := range []string{key, was} {
		if k == "" {
			continue
		}
		if n.live != nil {
			n.live[k] = true
		} else if n.early != nil {
			n.early[k] = struct{}{}
		}
	}
	if was != "" {
		n.fill(was)
	}
	if c.Op == pgoutput.KindDelete || !missing(c) {
		n.fill(key)
		return
	}
	if _, ok := n.holes[key]; ok || n.lost {
		return
	}
	var texts keyRow
	for i, col := range e.Table.Columns {
		if col.Key {
			texts = append(texts, pgoutput.Datum{Kind: c.New[i].Kind, Data: slices.Clone(c.New[i].Data)})
			n.holeBytes += len(c.New[i].Data)
		}
	}
	if n.holeBytes += len(key) + 100; n.holeBytes > touchedBytes {
		n.lost, n.holes = true, nil
		return
	}
	n.holes[key] = texts
}

// fill notes that the topic has all values of a key.
func (n *watch) fill(key string) { delete(n.holes, key) }
