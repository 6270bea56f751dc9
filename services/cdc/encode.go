package cdc

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rowfilter"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// coder turns the items of slabs into records. It is for one goroutine at a time.
type coder struct {
	pool   pool
	poison *poison
	// numbered: changes have headers by which repeats can be told.
	numbered bool

	slab   *slab
	out    *batch
	change pgoutput.Change
	event  rows.Event
	known  int32 // the slab's transaction that the event's texts are of; -1: none
	text   []byte
}

// recordsPerChange is the most records that a change becomes: delete, tombstone and create.
const recordsPerChange = 3

// encode fills the slab's batch, or sets its error.
func (c *coder) encode(s *slab) {
	c.slab, c.out = s, c.pool.get()
	s.out = c.out
	c.event.Now, c.known = s.now, -1
	for i := range s.items {
		if err := c.item(&s.items[i]); err != nil {
			s.err = misread(err, s.items[i].lsn)
			return
		}
	}
	c.out.finish()
}

func (c *coder) item(it *item) error {
	switch it.kind {
	case itemChange:
		return c.changed(it)
	case itemRow:
		return c.read(it)
	case itemGone:
		return c.removeKey(it)
	default:
		c.record(c.slab.records[it.order])
		return nil
	}
}

// changed adds the records of a change.
func (c *coder) changed(it *item) error {
	ch := &c.change
	if err := ch.Parse(it.data); err != nil {
		return err
	}
	headers := c.fill(it.encoder)
	verdict, err := c.judge(it)
	if err != nil || verdict == rowfilter.Drop {
		return err
	}
	if ch.Op == pgoutput.KindDelete {
		return c.remove(it, ch.Old)
	}
	var before []pgoutput.Datum
	if ch.OldKind != pgoutput.OldNone {
		before = ch.Old
	}
	if verdict == rowfilter.Leave {
		if before == nil {
			before = it.encoder.KeyOnly(ch.New)
		}
		return c.remove(it, before)
	}
	op, seq := byte('c'), it.seq
	if verdict == rowfilter.Enter {
		before = nil
	} else if ch.Op == pgoutput.KindUpdate {
		op = 'u'
		if before != nil && it.encoder.KeyChanged(before, ch.New) {
			if err := c.remove(it, before); err != nil {
				return err
			}
			op, before, seq = 'c', nil, seq+1
		}
	}
	added, err := c.add(it, op, before, ch.New, seq, headers)
	if added && op == 'c' && headers != nil {
		c.owe(it)
	}
	return err
}

// judge tells what the row filter makes of the change. A row about which it cannot decide is one that does not fit.
func (c *coder) judge(it *item) (rowfilter.Verdict, error) {
	ch := &c.change
	verdict, err := it.encoder.Verdict(ch)
	if !errors.Is(err, rows.ErrDoesNotFit) {
		if err == nil && verdict == rowfilter.Drop {
			it.rel.metrics.filtered.Inc()
		}
		return verdict, err
	}
	row, op := ch.New, byte('u')
	if ch.Op == pgoutput.KindDelete {
		row, op = ch.Old, 'd'
	} else if ch.OldKind != pgoutput.OldNone && it.encoder.KeyChanged(ch.Old, ch.New) {
		if err := c.remove(it, ch.Old); err != nil {
			return rowfilter.Drop, err
		}
	}
	return rowfilter.Drop, c.undecided(it, op, row, err)
}

// undecided is a row about which the row filter cannot decide.
func (c *coder) undecided(it *item, op byte, row []pgoutput.Datum, reason error) error {
	key, err := it.encoder.AppendKey(nil, row)
	if err != nil {
		return c.unkeyed(it, err)
	}
	return c.poison.found(c.slab, it, op, key, nil, row, reason)
}

// read adds a row that was read beside the stream, if it is captured.
func (c *coder) read(it *item) error {
	row := c.slab.rows[it.order]
	captured, err := it.encoder.Captures(row)
	switch {
	case errors.Is(err, rows.ErrDoesNotFit):
		return c.undecided(it, 'r', row, err)
	case err != nil:
		return err
	case !captured:
		it.rel.metrics.filtered.Inc()
		return nil
	}
	_, err = c.add(it, 'r', nil, row, it.seq, unchanged(it.encoder, row))
	return err
}

// fill puts the old row's values where the new row says that they did not change, and lists those it cannot.
func (c *coder) fill(encoder *rows.Encoder) []kgo.RecordHeader {
	for i := range c.change.New {
		if c.change.New[i].Kind == pgoutput.Unchanged && i < len(c.change.Old) && c.change.Old[i].Kind == pgoutput.Text { // of a full row, or a large key
			c.change.New[i] = c.change.Old[i]
		}
	}
	return unchanged(encoder, c.change.New)
}

// unchanged lists the columns that a row says nothing about.
func unchanged(encoder *rows.Encoder, row []pgoutput.Datum) []kgo.RecordHeader {
	var missing []string
	for i := range row {
		if row[i].Kind == pgoutput.Unchanged && i < len(encoder.Table.Columns) && encoder.Table.Columns[i].Treatment.Written() {
			missing = append(missing, encoder.Table.Columns[i].Field)
		}
	}
	if missing == nil {
		return nil
	}
	return []kgo.RecordHeader{{Key: HeaderUnchanged, Value: []byte(strings.Join(missing, ","))}}
}

// remove adds a delete and its tombstone.
func (c *coder) remove(it *item, row []pgoutput.Datum) error {
	added, err := c.add(it, 'd', row, nil, it.seq, nil)
	if added {
		c.tombstone(it)
	}
	return err
}

// owe has the last row that was added read again: it came under another key, and the stream does not repeat its large
// values, which the topic has under the old key only.
func (c *coder) owe(it *item) {
	last := c.out.refs[len(c.out.refs)-1]
	c.slab.findings = append(c.slab.findings, finding{at: len(c.out.refs), table: it.rel.metrics, owed: true,
		key: bytes.Clone(c.out.buf[last.key:last.value])})
}

// tombstone repeats the key of the last record, with no value.
func (c *coder) tombstone(it *item) {
	b := c.out
	last := b.refs[len(b.refs)-1]
	if last.value == last.end { // it is one itself: a delete in the flat form
		return
	}
	start := len(b.buf)
	b.buf = append(b.buf, b.buf[last.key:last.value]...)
	r := ref{topic: it.rel.topic, key: start, value: len(b.buf), end: len(b.buf), table: it.rel.metrics}
	if last.commit != 0 {
		r.commit, r.ordinal = last.commit, last.ordinal+1
	}
	b.add(r)
}

// add adds an event. It is false, without an error, if the row does not fit: then that is a finding.
func (c *coder) add(it *item, op byte, before, after []pgoutput.Datum, seq int64, headers []kgo.RecordHeader) (bool, error) {
	b := c.out
	keyRow := after
	if after == nil {
		keyRow = before
	}
	start := len(b.buf)
	var err error
	if b.buf, err = it.encoder.AppendKey(b.buf, keyRow); err != nil {
		b.buf = b.buf[:start]
		return false, c.unkeyed(it, err)
	}
	value := len(b.buf)
	c.describe(it, op, seq)
	c.event.Before, c.event.After = before, after
	if err = c.value(it.encoder, start, value); errors.Is(err, rows.ErrDoesNotFit) && before != nil {
		// What the row was is no reason to lose what it is.
		if c.event.Before = nil; op == 'd' {
			err = c.deleteOf(it.encoder, start, value)
		} else {
			err = c.value(it.encoder, start, value)
		}
	}
	if errors.Is(err, rows.ErrDoesNotFit) {
		key := append([]byte(nil), b.buf[start:value]...)
		b.buf = b.buf[:start]
		return false, c.poison.found(c.slab, it, op, key, before, after, err)
	}
	if err != nil {
		return false, err
	}
	if shared := c.slab.headersOf(it); shared != nil {
		headers = append(slices.Clip(headers), shared...)
	}
	r := ref{topic: it.rel.topic, key: start, value: value, end: len(b.buf), table: it.rel.metrics, op: op, headers: headers}
	if c.numbered && it.kind == itemChange {
		r.commit, r.ordinal = c.slab.transactions[it.tx].FinalLSN, it.total*recordsPerChange
		if seq != it.seq {
			r.ordinal += recordsPerChange - 1
		}
	}
	b.add(r)
	return true, nil
}

// value appends c.event's value to the key that is at start.
func (c *coder) value(encoder *rows.Encoder, start, value int) error {
	b := c.out
	var err error
	if b.buf, err = encoder.AppendValue(b.buf[:value], &c.event); err == nil && len(b.buf)-start > maxRecord {
		err = errTooLarge
	}
	return err
}

// deleteOf does so for a delete of which only the key is told.
func (c *coder) deleteOf(encoder *rows.Encoder, start, value int) error {
	b := c.out
	_, body, err := avro.Unframe(b.buf[start:value])
	if err == nil {
		b.buf, err = encoder.AppendDeleteOf(b.buf[:value], body, &c.event)
	}
	return err
}

// unkeyed is a row whose key does not fit: nobody could tell which row is missing, so its table stops.
func (c *coder) unkeyed(it *item, err error) error {
	if !errors.Is(err, rows.ErrDoesNotFit) {
		return err
	}
	c.slab.findings = append(c.slab.findings, finding{at: len(c.out.refs), table: it.rel.metrics, reason: "the key of a row: " + err.Error()})
	return nil
}

// describe fills the event but for the rows.
func (c *coder) describe(it *item, op byte, seq int64) {
	e := &c.event
	e.Op, e.LSN, e.Seq, e.Snapshot, e.Mark = op, it.lsn, seq, it.tx < 0, ""
	if it.tx < 0 {
		e.Mark = it.rel.mark
		e.CommitTime, e.XID, e.Sequence, e.TxID, e.TotalOrder, e.TableOrder = it.total, 0, "", "", 0, 0
		c.known = -1
		return
	}
	if it.tx != c.known {
		c.known = it.tx
		c.enter(c.slab.transactions[it.tx], c.slab.previous[it.tx])
	}
	e.TotalOrder, e.TableOrder = it.total, it.order
}

// enter fills in what all events of a transaction have in common.
func (c *coder) enter(tx pgoutput.Begin, previous pgoutput.LSN) {
	e := &c.event
	e.CommitTime, e.XID = tx.CommitTime, tx.XID
	c.text = append(strconv.AppendUint(c.text[:0], uint64(tx.XID), 10), ':')
	e.TxID = string(strconv.AppendUint(c.text, uint64(tx.FinalLSN), 10))
	c.text = append(strconv.AppendUint(append(c.text[:0], '[', '"'), uint64(previous), 10), `","`...)
	c.text = append(strconv.AppendUint(c.text, uint64(tx.FinalLSN), 10), '"', ']')
	e.Sequence = string(c.text)
}

// removeKey adds a delete and a tombstone for a key as it stands in the topic.
func (c *coder) removeKey(it *item) error {
	b := c.out
	start := len(b.buf)
	b.buf = append(b.buf, it.data...)
	value := len(b.buf)
	c.describe(it, 'd', it.seq)
	c.event.Before, c.event.After = nil, nil
	if err := c.deleteOf(it.encoder, start, value); err != nil {
		return fmt.Errorf("a key of topic %s cannot be read: %w", it.rel.topic, err)
	}
	b.add(ref{topic: it.rel.topic, key: start, value: value, end: len(b.buf), table: it.rel.metrics, op: 'd', headers: c.slab.headersOf(it)})
	c.tombstone(it)
	return nil
}

// record adds what is encoded already.
func (c *coder) record(r *kgo.Record) {
	b := c.out
	start := len(b.buf)
	b.buf = append(b.buf, r.Key...)
	value := len(b.buf)
	b.buf = append(b.buf, r.Value...)
	b.add(ref{topic: r.Topic, key: start, value: value, end: len(b.buf), headers: r.Headers})
}
