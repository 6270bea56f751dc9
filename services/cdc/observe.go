package cdc

import (
	"context"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// observer is told by the walk, in its goroutine and in the stream's order, what passes. An error ends the session. A
// transaction that is in Kafka as a whole is not told; of one that is there in part, isNew is false for the part that is
// there. Within the methods more may be written with record, and between transactions (reached, and calls) also with
// readRow and gone. Changes of t.position go into Kafka together with what is written; where nothing is, keep asks for it.
type observer interface {
	// begun: a transaction begins; resumed if a part of it is in Kafka. The walk is within it.
	begun(ctx context.Context, b pgoutput.Begin, resumed bool) error
	// changed: a row changes. c is parsed only for tables that are watched or shown, else nil; it holds until the method returns.
	changed(ctx context.Context, rel *relation, c *pgoutput.Change, isNew bool) error
	// truncated: a table becomes empty. Its deletes follow.
	truncated(ctx context.Context, rel *relation, isNew bool) error
	// described: the stream describes a table, at first or since it may have changed; old is what it was before, or nil.
	described(ctx context.Context, rel, old *relation) error
	// messaged: somebody has emitted a message; m.Data is the plugin's. Those within a transaction are counted, apart from its changes.
	messaged(ctx context.Context, m replica.Message, isNew bool) error
	// committing: the transaction ends. The walk is still within it.
	committing(ctx context.Context, c pgoutput.Commit) error
	// reached: no transaction is open, and everything before the LSN has been told.
	reached(ctx context.Context, lsn pgoutput.LSN) error
}

// unmoved is an observer that does nothing, to be embedded in those that care for some of what passes.
type unmoved struct{}

func (unmoved) begun(context.Context, pgoutput.Begin, bool) error                { return nil }
func (unmoved) changed(context.Context, *relation, *pgoutput.Change, bool) error { return nil }
func (unmoved) truncated(context.Context, *relation, bool) error                 { return nil }
func (unmoved) described(context.Context, *relation, *relation) error            { return nil }
func (unmoved) messaged(context.Context, replica.Message, bool) error            { return nil }
func (unmoved) committing(context.Context, pgoutput.Commit) error                { return nil }
func (unmoved) reached(context.Context, pgoutput.LSN) error                      { return nil }

// call is something to be done by the walk between two transactions.
type call func(ctx context.Context) error

// call lets the walk run c in its goroutine as soon as no transaction is open, though nothing comes from the source. An
// error ends the session. It does not wait, and is safe for concurrent use.
func (t *transform) call(c call) { t.queue.call(c) }

// keep has the walk's position recorded soon though nothing else is written: more than its LSN has changed.
func (t *transform) keep() { t.slab().keep = true }

func (t *transform) runCalls(ctx context.Context) error {
	for len(t.calls) > 0 && !t.inTx {
		c := t.calls[0]
		t.calls = t.calls[1:]
		if err := c(ctx); err != nil {
			return err
		}
	}
	return nil
}

// reached tells that the position is between two transactions.
func (t *transform) reached(ctx context.Context) error {
	for _, o := range t.observers {
		if err := o.reached(ctx, pgoutput.LSN(t.position.LSN)); err != nil {
			return err
		}
	}
	return t.runCalls(ctx)
}

// show tells the observers of a change.
func (t *transform) show(ctx context.Context, rel *relation, m replica.Message, isNew bool) error {
	var c *pgoutput.Change
	if t.watched[rel.name] || rel.shown {
		c = &t.change
		if err := c.Parse(m.Data); err != nil {
			return err
		}
	}
	for _, o := range t.observers {
		if err := o.changed(ctx, rel, c, isNew); err != nil {
			return err
		}
	}
	return nil
}

// onMessage passes on what somebody emitted.
func (t *transform) onMessage(ctx context.Context, m replica.Message) error {
	isNew := true
	if t.inTx {
		isNew = t.nextMessage()
	}
	if t.ignore && t.inTx {
		return nil
	}
	for _, o := range t.observers {
		if err := o.messaged(ctx, m, isNew); err != nil {
			return err
		}
	}
	return nil
}

// readRow writes a row that was read beside the stream, as it was at an LSN and a time (Unix microseconds): an event of
// op r. It is only for between transactions. The row must not change after.
func (t *transform) readRow(ctx context.Context, rel *relation, encoder *rows.Encoder, row []pgoutput.Datum, at pgoutput.LSN, time int64) error {
	s := t.slab()
	s.rows = append(s.rows, row)
	for i := range row {
		s.bytes += len(row[i].Data)
	}
	return t.add(ctx, item{kind: itemRow, rel: rel, encoder: encoder, tx: -1, lsn: at, seq: t.position.Seq + 1, total: time, order: int64(len(s.rows) - 1)}, 1)
}

// gone writes a delete and a tombstone for a framed key of the table's topic, for a row that is not there at an LSN. It is
// only for between transactions. The key must not change after.
func (t *transform) gone(ctx context.Context, rel *relation, encoder *rows.Encoder, key []byte, at pgoutput.LSN, time int64) error {
	return t.add(ctx, item{kind: itemGone, rel: rel, encoder: encoder, tx: -1, lsn: at, seq: t.position.Seq + 1, total: time, data: key}, 1)
}
