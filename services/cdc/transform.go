package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// HeaderUnchanged lists, separated by commas, the columns of "after" that the update did not touch and whose large value
// the source's log does not repeat: they are null in the event, and keep the value that they had.
const HeaderUnchanged = "millrace.unchanged"

// relation is a table as the stream describes it at the moment. name, topic and metrics do not change; the rest is the
// walk's.
type relation struct {
	mark     string // of events that are read beside the stream: see rows.Event
	name     string // schema.table
	topic    string
	captured bool // selected by the configuration, and published under its own name
	metrics  *tableMetrics
	encoder  *rows.Encoder // nil: not captured, or stopped
	message  []byte        // of the stream, that described it
	outbox   *outboxTable  // not nil: it is the outbox
	shown    bool          // observers see its changes parsed, watched or not
	tx       pgoutput.LSN  // transaction that order counts in
	order    int64
}

// transform walks along the stream: it keeps the books of transactions and tables, gives every change its place in the
// total order, and hands slabs of changes to the pipeline, which encodes them. It is for one goroutine, but for call.
type transform struct {
	cfg      Config
	factory  *factory
	metrics  *metrics
	log      *slog.Logger
	conn     *pgx.Conn // to look into the catalog
	queue    *queue
	pipeline *pipeline
	live     func(ctx context.Context, topic string) (*diff.Set, error) // that have a value

	observers []observer
	watched   map[string]bool // tables whose changes the observers want to see parsed

	beside    *beside // what is read beside the stream
	newTopic  func(context.Context, kafka.Topic) (fresh bool, err error)
	keys      map[string][]string // key columns by table, of the catalog
	types     catalog.Types
	relations map[uint32]*relation

	position schemas.Position
	absorbed int          // so many verdicts of the sequencer are in position
	start    pgoutput.LSN // what ends at or before it is in Kafka
	inTx     bool
	begin    pgoutput.Begin
	previous pgoutput.LSN // end of the transaction before
	now      int64
	ordinal  int64
	skip     int64              // so many changes of this transaction are in Kafka
	ignore   bool               // the whole transaction is in Kafka
	messages int64              // of this transaction: counted apart, for a slot can be read without them
	heard    int64              // so many of them are in Kafka
	headers  []kgo.RecordHeader // of this transaction's events from here on
	change   pgoutput.Change
	out      *slab
	received int    // changes that are not counted in metrics yet
	calls    []call // wait for the end of the transaction
	more     bool   // further messages are here already
}

// run reads the queue until it is closed; the queue's reason is returned.
func (t *transform) run(ctx context.Context) error {
	for {
		chunk, calls, err := t.queue.pop()
		if err != nil {
			return err
		}
		begin := time.Now()
		t.now, t.more = begin.UnixMicro(), true
		t.calls = append(t.calls, calls...)
		if err := t.runCalls(ctx); err != nil {
			return err
		}
		for rest := chunk; len(rest) > 0; {
			var m replica.Message
			m, rest = nextMessage(rest)
			if err := t.handle(ctx, m); err != nil {
				return misread(err, m.LSN)
			}
		}
		t.more = t.queue.waiting() > 0
		t.slab().chunk = chunk
		if err := t.flush(ctx, nil); err != nil {
			return err
		}
		t.queue.gather(time.Since(begin))
	}
}

// misread says where in the stream a message is malformed.
func misread(err error, at pgoutput.LSN) error {
	if errors.Is(err, pgoutput.ErrMalformed) {
		return fmt.Errorf("the source's message at %s: %w; nothing of it was written", at, err)
	}
	return err
}

func (t *transform) handle(ctx context.Context, m replica.Message) error {
	if m.Keepalive {
		if t.inTx {
			return nil
		}
		t.position.LSN = max(t.position.LSN, int64(m.LSN))
		return t.reached(ctx)
	}
	if len(m.Data) == 0 {
		return pgoutput.ErrMalformed
	}
	switch m.Data[0] {
	case pgoutput.KindBegin:
		return t.onBegin(ctx, m.Data)
	case pgoutput.KindCommit:
		return t.onCommit(ctx, m.Data)
	case pgoutput.KindRelation:
		return t.onRelation(ctx, m.Data)
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return t.onChange(ctx, m)
	case pgoutput.KindTruncate:
		return t.onTruncate(ctx, m)
	case pgoutput.KindMessage:
		return t.onMessage(ctx, m)
	case pgoutput.KindType, pgoutput.KindOrigin:
		return nil
	}
	return fmt.Errorf("message of kind %q: %w", m.Data[0], pgoutput.ErrMalformed)
}

func (t *transform) onBegin(ctx context.Context, msg []byte) error {
	b, err := pgoutput.ParseBegin(msg)
	if err != nil {
		return err
	}
	if t.inTx {
		return fmt.Errorf("a transaction begins within another: %w", pgoutput.ErrMalformed)
	}
	t.begin, t.inTx, t.ordinal, t.skip = b, true, 0, 0
	t.messages, t.heard, t.headers = 0, 0, nil
	t.ignore = b.FinalLSN < t.start
	if t.position.TxLSN != 0 {
		if t.position.TxLSN == int64(b.FinalLSN) {
			t.skip, t.heard = t.position.TxOrdinal, t.position.TxMessages
		} else if !t.ignore {
			return gap("the transaction that ends at %s is in Kafka in part, and the source goes on with the one that ends at %s",
				pgoutput.LSN(t.position.TxLSN), b.FinalLSN)
		}
	}
	if t.ignore {
		return nil
	}
	for _, o := range t.observers {
		if err := o.begun(ctx, b, t.skip > 0); err != nil {
			return err
		}
	}
	return nil
}

func (t *transform) onCommit(ctx context.Context, msg []byte) error {
	c, err := pgoutput.ParseCommit(msg)
	if err != nil {
		return err
	}
	if !t.inTx {
		return fmt.Errorf("a transaction ends that did not begin: %w", pgoutput.ErrMalformed)
	}
	if t.skip > t.ordinal {
		return gap("%d changes of the transaction that ends at %s are in Kafka, and the source has %d", t.skip, c.EndLSN, t.ordinal)
	}
	if !t.ignore {
		for _, o := range t.observers {
			if err := o.committing(ctx, c); err != nil {
				return err
			}
		}
	}
	t.inTx, t.previous = false, t.begin.FinalLSN
	if t.ignore {
		return nil
	}
	t.position.LSN, t.position.TxLSN, t.position.TxOrdinal, t.position.TxMessages = int64(c.EndLSN), 0, 0, 0
	t.position.CommitTime = time.UnixMicro(c.CommitTime).UTC()
	t.metrics.transactions.Inc()
	return t.reached(ctx)
}

// next counts a change; false if it is in Kafka already.
func (t *transform) next() bool {
	t.ordinal++
	if t.ignore || t.ordinal <= t.skip {
		return false
	}
	t.position.TxLSN, t.position.TxOrdinal = int64(t.begin.FinalLSN), t.ordinal
	t.received++
	return true
}

// nextMessage does so for a message.
func (t *transform) nextMessage() bool {
	t.messages++
	if t.ignore || t.messages <= t.heard {
		return false
	}
	t.position.TxLSN, t.position.TxMessages = int64(t.begin.FinalLSN), t.messages
	return true
}

// place is where the walk is within the transaction.
func (t *transform) place() int64 { return t.ordinal + t.messages }

// note is the index of the present headers in the slab.
func (t *transform) note() uint16 {
	if t.headers == nil {
		return 0
	}
	s := t.slab()
	if n := len(s.headers); n == 0 || &s.headers[n-1][0] != &t.headers[0] {
		s.headers = append(s.headers, t.headers)
	}
	return uint16(len(s.headers)) // each is of another item, and so many do not fit into a slab
}

func (t *transform) onRelation(ctx context.Context, msg []byte) error {
	r, err := pgoutput.ParseRelation(msg)
	if err != nil {
		return err
	}
	name := r.Schema + "." + r.Name
	version := t.position.Versions[name]
	rel := &relation{name: name, topic: t.factory.topicOf(r.Schema, r.Name, version), metrics: t.metrics.table(name), message: bytes.Clone(msg)}
	rel.captured = t.cfg.ours(name) && t.factory.policy.Captured(r.Schema, r.Name)
	old := t.relations[r.ID]
	t.relations[r.ID] = rel
	if name == t.cfg.Outbox {
		rel.outbox = t.cfg.outboxTable(r)
	}
	for _, o := range t.observers {
		if err := o.described(ctx, rel, old); err != nil {
			return err
		}
	}
	if !rel.captured || t.position.Stopped[name] != "" {
		return nil
	}
	if _, member := t.position.Members[name]; !member {
		if rel.captured, err = t.published(ctx, r.ID); err != nil || !rel.captured {
			return err
		}
		if err := t.join(ctx, name, 0); err != nil {
			return err
		}
	}
	table, err := t.shape(ctx, r, old != nil, version)
	if err != nil {
		return err
	}
	if old != nil && old.encoder != nil && old.encoder.Table.Equal(table) {
		rel.encoder = old.encoder
		return nil
	}
	if err := table.Validate(); err != nil {
		t.stop(rel, err.Error())
		return nil
	}
	rel.encoder, err = t.factory.encoder(ctx, table, version, keyLevelStream)
	if errors.Is(err, avro.ErrIncompatible) {
		t.stop(rel, incompatible(name, version, err))
		return nil
	}
	if err != nil {
		return err
	}
	t.log.Info("table as streamed", "table", name, "columns", len(table.Columns), "changed", old != nil)
	return nil
}

// shape is the relation with its types resolved and its key known; changed, if it was described before.
func (t *transform) shape(ctx context.Context, r pgoutput.Relation, changed bool, version int32) (rows.Table, error) {
	if err := t.types.LearnRelation(ctx, t.conn, r, changed); err != nil {
		return rows.Table{}, err
	}
	key := t.keys[r.Schema+"."+r.Name]
	if key == nil && (r.Identity == 'f' || r.Identity == 'n') { // the stream does not tell the key
		tables, err := catalog.Tables(ctx, t.conn, t.cfg.Publication)
		if err != nil {
			return rows.Table{}, err
		}
		for _, table := range tables {
			t.keys[table.Schema+"."+table.Name] = table.Key
		}
		key = t.keys[r.Schema+"."+r.Name]
	}
	return t.factory.ofRelation(ctx, t.conn, r, key, &t.types, version)
}

// stop stops a table: its changes are dropped from here on, until a new snapshot.
func (t *transform) stop(rel *relation, reason string) {
	rel.encoder = nil
	t.position = withStopped(t.position, rel.name, reason)
	t.metrics.stopped.Set(float64(len(t.position.Stopped)))
	t.log.Error("table stopped; mend the cause, then `cdc resume`: it brings in what was dropped",
		"table", rel.name, "reason", reason)
}

func (t *transform) onChange(ctx context.Context, m replica.Message) error {
	id, err := pgoutput.RelationOf(m.Data)
	if err != nil {
		return err
	}
	rel := t.relations[id]
	if rel == nil {
		return fmt.Errorf("a change of a table that was not described: %w", pgoutput.ErrMalformed)
	}
	if !t.inTx {
		return fmt.Errorf("a change outside of a transaction: %w", pgoutput.ErrMalformed)
	}
	if rel.tx != t.begin.FinalLSN {
		rel.tx, rel.order = t.begin.FinalLSN, 0
	}
	rel.order++
	isNew := t.next()
	if len(t.observers) > 0 && !t.ignore {
		if err := t.show(ctx, rel, m, isNew); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	tx := t.transaction() // a new slab may bring the news that the table is stopped
	if rel.encoder == nil {
		if rel.captured {
			rel.metrics.dropped.Inc()
		}
		return nil
	}
	return t.add(ctx, item{kind: itemChange, rel: rel, encoder: rel.encoder, tx: tx, lsn: m.LSN, seq: t.position.Seq + 1,
		total: t.place(), order: rel.order, note: t.note(), data: m.Data}, eventsOf(m.Data[0]))
}

// eventsOf is the most events that a change becomes: an update of the key is a delete and a create.
func eventsOf(kind byte) int64 {
	if kind == pgoutput.KindUpdate {
		return 2
	}
	return 1
}

// onTruncate deletes every key that the topics have: Kafka's compacted topics know no truncation.
func (t *transform) onTruncate(ctx context.Context, m replica.Message) error {
	msg, err := pgoutput.ParseTruncate(m.Data)
	if err != nil {
		return err
	}
	if !t.inTx {
		return fmt.Errorf("a truncation outside of a transaction: %w", pgoutput.ErrMalformed)
	}
	isNew := t.next()
	// The step is done as a whole: a restart in its middle repeats it.
	after := t.position.TxOrdinal
	if isNew {
		t.position.TxOrdinal--
		if err := t.barrier(ctx); err != nil {
			return err
		}
	}
	for _, id := range msg.Relations {
		rel := t.relations[id]
		if rel == nil {
			return fmt.Errorf("a truncation of a table that was not described: %w", pgoutput.ErrMalformed)
		}
		if !t.ignore {
			for _, o := range t.observers {
				if err := o.truncated(ctx, rel, isNew); err != nil {
					return err
				}
			}
		}
		if !isNew || rel.encoder == nil {
			continue
		}
		if err := t.truncate(ctx, rel, m.LSN); err != nil {
			return err
		}
	}
	if !isNew {
		return nil
	}
	t.position.TxOrdinal = after
	// What follows must not be in Kafka when the step is repeated: the deletes would be those of the rows that follow.
	return t.barrier(ctx)
}

func (t *transform) truncate(ctx context.Context, rel *relation, lsn pgoutput.LSN) (err error) {
	keys, err := t.live(ctx, rel.topic)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	encoder, count := rel.encoder, 0
	err = keys.Each(ctx, func(e diff.Entry) error {
		count++
		return t.add(ctx, item{kind: itemGone, rel: rel, encoder: encoder, tx: t.transaction(), lsn: lsn, seq: t.position.Seq + 1,
			total: t.place(), order: rel.order, note: t.note(), data: e.Key}, 1)
	})
	t.log.Info("table truncated", "table", rel.name, "rows", count)
	return err
}

// transaction is the index of the present transaction in the slab.
func (t *transform) transaction() int32 {
	s := t.slab()
	n := len(s.transactions)
	if n == 0 || s.transactions[n-1].FinalLSN != t.begin.FinalLSN {
		s.transactions, s.previous = append(s.transactions, t.begin), append(s.previous, t.previous)
		n++
	}
	return int32(n - 1)
}

// slab is what is being filled.
func (t *transform) slab() *slab {
	if t.out == nil {
		t.out = t.pipeline.slab()
		t.absorb()
		t.out.absorbed = t.absorbed
	}
	return t.out
}

// absorb takes over what the sequencer found out about tables.
func (t *transform) absorb() {
	for _, v := range t.pipeline.verdicts.after(t.absorbed) {
		t.absorbed++
		t.position = v.apply(t.position)
		if v.kind == verdictOwed && t.beside != nil {
			t.beside.jobsChanged()
		}
		if v.kind != verdictStopped {
			continue
		}
		for _, rel := range t.relations {
			if rel.name == v.table {
				rel.encoder = nil
			}
		}
	}
}

// add puts an item into the order and takes so many values of seq.
func (t *transform) add(ctx context.Context, it item, events int64) error {
	s := t.slab()
	t.position.Seq += events
	s.items = append(s.items, it)
	s.bytes += len(it.data)
	if s.bytes >= chunkBytes || s.bytes >= t.cfg.TransactionBytes {
		return t.flush(ctx, nil)
	}
	return nil
}

// barrier waits until everything so far is committed to Kafka.
func (t *transform) barrier(ctx context.Context) error {
	done := make(chan struct{})
	if err := t.flush(ctx, done); err != nil {
		return err
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flush hands on what there is, with the position after it.
func (t *transform) flush(ctx context.Context, barrier chan struct{}) error {
	s := t.slab()
	t.out = nil
	t.metrics.in.Add(float64(t.received))
	t.received = 0
	s.now, s.position, s.boundary, s.barrier, s.more = t.now, t.position, !t.inTx, barrier, t.more
	return t.pipeline.dispatch(ctx, s)
}

// record puts a record that is encoded already into the order. It must not change after.
func (t *transform) record(ctx context.Context, r *kgo.Record) error {
	s := t.slab()
	s.records = append(s.records, r)
	s.bytes += len(r.Key) + len(r.Value)
	return t.add(ctx, item{kind: itemRecord, tx: -1, order: int64(len(s.records) - 1)}, 0)
}
