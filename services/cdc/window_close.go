package cdc

import (
	"bytes"
	"context"
	"slices"

	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// finish closes a window whose end the stream has reached: rows that the stream has newer are dropped, the others are
// written as they are at that position.
func (b *beside) finish(ctx context.Context, t *transform, w *window) error {
	b.shut(w)
	c := closing{t: t, w: w, watch: b.watches[w.table]}
	if c.out.err = c.verdict(); c.out.err == nil {
		if err := c.emit(ctx); err != nil {
			return err
		}
	}
	if c.out.err == nil {
		if w.read.then != nil {
			w.read.then(t, c.out)
		}
		if err := t.flush(ctx, nil); err != nil {
			return err
		}
	}
	w.done <- c.out
	return nil
}

// closing is the end of one window.
type closing struct {
	t     *transform
	w     *window
	watch *watch
	out   outcome
}

// verdict is why the chunk must not be written.
func (c *closing) verdict() error {
	w, low := c.w, c.w.read.chunk.Low
	now := c.t.beside.streamed(w.table)
	switch {
	case c.t.position.Stopped[w.table] != "":
		return errStopped
	case w.crowded:
		return errCrowded
	case w.all >= low && w.all != 0, w.encoder != nil && now != w.encoder, w.encoder == nil && now != nil && !now.Table.Equal(w.reading.encoder.Table):
		return errReadAgain
	case now != nil && !bytes.Equal(now.AppendKeyFrame(nil), w.reading.encoder.AppendKeyFrame(nil)):
		return errReadAgain // keys are written differently, so they cannot be compared
	}
	return nil
}

func (c *closing) emit(ctx context.Context) error {
	r := c.w.read
	for i, line := range r.chunk.Lines {
		if err := c.line(ctx, r.keys[i], line); err != nil {
			return err
		}
	}
	for key := range r.asked { // what was asked for and is not there, nor was a moment ago, is deleted
		if touch := c.w.touched[key]; touch != nil && touch.lsn >= r.chunk.Low {
			c.out.overtook++
			continue
		}
		if err := c.t.gone(ctx, c.w.reading, c.w.reading.encoder, []byte(key), r.chunk.High, r.chunk.Time); err != nil {
			return err
		}
		c.out.removed++
	}
	return nil
}

// line writes one row that was read, unless the stream has it newer.
func (c *closing) line(ctx context.Context, key string, line []byte) error {
	touch, read := c.w.touched[key], c.w.read.chunk
	overtaken := touch != nil && touch.lsn >= read.Low
	if overtaken && touch.image == nil {
		delete(c.w.read.asked, key)
		c.out.overtook++
		return nil
	}
	row := chunk.Split(make([]pgoutput.Datum, 0, len(c.w.reading.encoder.Table.Columns)), line)
	whole := true
	if overtaken {
		if row, whole = touch.complete(row); row == nil {
			delete(c.w.read.asked, key)
			c.out.overtook++
			return nil
		}
	}
	if captured, err := c.w.reading.encoder.Captures(row); err == nil && !captured {
		c.w.reading.metrics.filtered.Inc()
		return nil // as if the table had it not: what was asked for is deleted
	}
	delete(c.w.read.asked, key)
	if c.watch != nil && c.watch.live != nil {
		c.watch.live[key] = true
	}
	c.out.written++
	if c.watch != nil && whole {
		c.watch.fill(key)
	}
	return c.t.readRow(ctx, c.w.reading, c.w.reading.encoder, row, read.High, read.Time)
}

// complete is the row of the stream with the values that it never gave, which are as they were read; those that it gave
// and did not repeat stay Unchanged, and the row is not whole. nil if the row that was read has another shape.
func (n *touch) complete(read []pgoutput.Datum) (row []pgoutput.Datum, whole bool) {
	if len(read) != len(n.image) {
		return nil, false
	}
	row, whole = slices.Clone(n.image), true
	for i := range row {
		switch {
		case row[i].Kind == pgoutput.Unchanged && n.given[i]:
			whole = false
		case row[i].Kind == pgoutput.Unchanged:
			row[i] = read[i]
		}
	}
	return row, whole
}

// stopTable is stop for a table by name.
func (t *transform) stopTable(name, reason string) {
	stopped := &relation{name: name}
	for _, rel := range t.relations {
		if rel.name == name {
			stopped = rel
		}
	}
	t.stop(stopped, reason)
	t.keep()
}
