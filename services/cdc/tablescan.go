package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/image"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// errNotCaptured: the row is outside the table's row filter.
var errNotCaptured = errors.New("the row filter leaves the row out")

// rowSums makes of the source's rows what the topic's are compared with. It is for one goroutine.
type rowSums struct {
	encoder *rows.Encoder
	layout  *image.Layout
	row     []pgoutput.Datum
	key     []byte
	value   []byte
	image   image.Image
}

func newRowSums(encoder *rows.Encoder, reader image.Reader) (*rowSums, error) {
	schema, err := avro.Parse(encoder.Table.ValueSchema())
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", encoder.Table.Ident(), err)
	}
	layout, err := image.Compile(schema, reader)
	if err != nil {
		return nil, fmt.Errorf("schema of %s: %w", encoder.Table.Ident(), err)
	}
	return &rowSums{encoder: encoder, layout: layout}, nil
}

// line is the entry of a line of COPY's text, which it overwrites; the entry is overwritten by the next.
func (r *rowSums) line(line []byte) (diff.Entry, error) {
	r.row = chunk.Split(r.row[:0], line)
	return r.entry(r.row)
}

// entry is errNotCaptured for a row outside the table's filter: the topic must not have it.
func (r *rowSums) entry(row []pgoutput.Datum) (diff.Entry, error) {
	captured, err := r.encoder.Captures(row)
	if err != nil {
		return diff.Entry{}, err
	}
	if !captured {
		return diff.Entry{}, errNotCaptured
	}
	if r.key, err = r.encoder.AppendKey(r.key[:0], row); err != nil {
		return diff.Entry{}, err
	}
	if r.value, err = r.encoder.AppendValue(r.value[:0], &rows.Event{Op: 'r', After: row}); err != nil {
		return diff.Entry{}, err
	}
	if err := r.layout.Read(r.value[keyFrame:], nil, &r.image); err != nil {
		return diff.Entry{}, err
	}
	return diff.Entry{Key: r.key, Sum: r.image.Sum, Extra: r.image.Parts}, nil
}

// imageReader is how the rows of a table's topic are read to be compared with the table.
func imageReader(t rows.Table) image.Reader {
	var out image.Reader
	for _, c := range t.Columns {
		if c.Treatment.Written() {
			out.Fields = append(out.Fields, c.Field)
		}
	}
	return out
}

// How many blocks of a table are read at a time at first, and how long a read should take: on a standby replay may have to
// wait for it.
const (
	firstScan = 256
	mostScan  = 32 << 10
	readTime  = 500 * time.Millisecond
	lastBlock = 1 << 32
)

// tableScan reads a table in short transactions, one range of blocks after another: rows that move meanwhile may be missed or
// come twice.
type tableScan struct {
	conn *pgx.Conn
	from chunk.Table
	rate int // rows a second at most; 0 for no limit
	each func(line []byte) error
}

func (t tableScan) run(ctx context.Context) error {
	begin, count := time.Now(), 0
	blocks, err := t.size(ctx)
	if err != nil {
		return err
	}
	step := int64(firstScan)
	for from := int64(0); from < lastBlock; {
		to := from + step
		if to >= blocks {
			to = lastBlock
		}
		started := time.Now()
		n, err := t.part(ctx, from, to)
		if err != nil {
			return err
		}
		switch took := time.Since(started); {
		case took > readTime:
			step = max(1, step/2)
		case took < readTime/4:
			step = min(2*step, mostScan)
		}
		from, count = to, count+n
		if t.rate == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Until(begin.Add(time.Duration(float64(count) / float64(t.rate) * float64(time.Second))))):
		}
	}
	return nil
}

// size is how many blocks the table has, or its largest partition.
func (t tableScan) size(ctx context.Context) (blocks int64, err error) {
	err = t.conn.QueryRow(ctx, `SELECT greatest(coalesce(pg_relation_size($1::oid), 0), coalesce((SELECT max(pg_relation_size(relid))
		FROM pg_partition_tree($1::oid::regclass) WHERE isleaf), 0)) / current_setting('block_size')::bigint`, t.from.OID).Scan(&blocks)
	if err != nil {
		return 0, fmt.Errorf("look how large %s is: %w", t.from.Ident, err)
	}
	return blocks, nil
}

func (t tableScan) part(ctx context.Context, from, to int64) (int, error) {
	s := chunk.Selection{From: chunk.TID{Block: from}, To: chunk.TID{Block: to}}
	if to == lastBlock {
		s.To = chunk.TID{Block: 1<<32 - 1, Line: 1<<16 - 1}
	}
	w := &lineWriter{each: t.each}
	if _, err := t.conn.PgConn().CopyTo(ctx, w, s.SQL(t.from)); err != nil && w.err == nil {
		return 0, fmt.Errorf("read %s: %w", t.from.Ident, err)
	}
	return w.count, w.err
}

// lineWriter hands on the lines of a COPY.
type lineWriter struct {
	each    func([]byte) error
	partial []byte
	count   int
	err     error
}

// Write takes a piece of the copied text.
func (w *lineWriter) Write(data []byte) (int, error) {
	n := len(data)
	if len(w.partial) > 0 {
		w.partial = append(w.partial, data...)
		data = w.partial
	}
	for {
		i := bytes.IndexByte(data, '\n') // a line feed within a value is written as \n
		if i < 0 {
			w.partial = append(w.partial[:0], data...)
			return n, nil
		}
		w.count++
		if w.err = w.each(data[:i]); w.err != nil {
			return 0, w.err
		}
		data = data[i+1:]
	}
}
