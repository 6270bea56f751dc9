package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// HeaderUnchanged lists, separated by commas, the columns of "after" that the update did not touch and whose large value
// the source's log does not repeat: they are null in the event, and keep the value that they had.
const HeaderUnchanged = "millrace.unchanged"

// relation is a table as the stream describes it at the moment.
type relation struct {
	name    string // schema.table
	topic   string
	encoder *rows.Encoder // nil: not captured, or stopped
	metrics *tableMetrics
	tx      pgoutput.LSN // transaction that order counts in
	order   int64
}

// transform turns messages of the stream into batches of records. It is for one goroutine.
type transform struct {
	cfg     Config
	factory *factory
	metrics *metrics
	log     *slog.Logger
	conn    *pgx.Conn // to look into the catalog
	pool    pool
	emit    func(context.Context, *batch) error
	live    func(ctx context.Context, topic string) (map[string]struct{}, error)

	known     map[string]bool     // topics that a snapshot has filled
	keys      map[string][]string // key columns by table, of the catalog
	domains   catalog.Domains
	relations map[uint32]*relation

	position schemas.Position
	start    pgoutput.LSN // what ends at or before it is in Kafka
	inTx     bool
	begin    pgoutput.Begin
	previous pgoutput.LSN // end of the transaction before
	txID     string
	now      int64
	ordinal  int64
	skip     int64 // so many changes of this transaction are in Kafka
	ignore   bool  // the whole transaction is in Kafka
	change   pgoutput.Change
	event    rows.Event
	out      *batch
	more     bool // further messages are here already
}

// run reads the queue until it is closed; the queue's reason is returned.
func (t *transform) run(ctx context.Context, q *queue) error {
	var spare []byte
	for {
		messages, err := q.pop(spare)
		if err != nil {
			return err
		}
		begin := time.Now()
		t.now, t.more = begin.UnixMicro(), true
		for rest := messages; len(rest) > 0; {
			var m replica.Message
			m, rest = nextMessage(rest)
			if err := t.handle(ctx, m); err != nil {
				return err
			}
		}
		t.more = q.waiting() > 0
		if err := t.flush(ctx, nil); err != nil {
			return err
		}
		spare = messages
		q.gather(time.Since(begin))
	}
}

func (t *transform) handle(ctx context.Context, m replica.Message) error {
	if m.Keepalive {
		if !t.inTx && int64(m.LSN) > t.position.LSN {
			t.position.LSN = int64(m.LSN)
		}
		return nil
	}
	if len(m.Data) == 0 {
		return pgoutput.ErrMalformed
	}
	switch m.Data[0] {
	case pgoutput.KindBegin:
		return t.onBegin(m.Data)
	case pgoutput.KindCommit:
		return t.onCommit(m.Data)
	case pgoutput.KindRelation:
		return t.onRelation(ctx, m.Data)
	case pgoutput.KindInsert, pgoutput.KindUpdate, pgoutput.KindDelete:
		return t.onChange(ctx, m)
	case pgoutput.KindTruncate:
		return t.onTruncate(ctx, m)
	case pgoutput.KindType, pgoutput.KindOrigin, pgoutput.KindMessage:
		return nil
	}
	return fmt.Errorf("message of kind %q: %w", m.Data[0], pgoutput.ErrMalformed)
}

func (t *transform) onBegin(msg []byte) error {
	b, err := pgoutput.ParseBegin(msg)
	if err != nil {
		return err
	}
	t.begin, t.inTx, t.ordinal, t.skip = b, true, 0, 0
	t.ignore = b.FinalLSN < t.start
	t.txID = strconv.FormatUint(uint64(b.XID), 10) + ":" + strconv.FormatUint(uint64(b.FinalLSN), 10)
	if t.position.TxLSN != 0 {
		if t.position.TxLSN == int64(b.FinalLSN) {
			t.skip = t.position.TxOrdinal
		} else if !t.ignore {
			return gap("the transaction that ends at %s is in Kafka in part, and the source goes on with the one that ends at %s",
				pgoutput.LSN(t.position.TxLSN), b.FinalLSN)
		}
	}
	return nil
}

func (t *transform) onCommit(msg []byte) error {
	c, err := pgoutput.ParseCommit(msg)
	if err != nil {
		return err
	}
	if t.skip > t.ordinal {
		return gap("%d changes of the transaction that ends at %s are in Kafka, and the source has %d", t.skip, c.EndLSN, t.ordinal)
	}
	t.inTx, t.previous = false, t.begin.FinalLSN
	if t.ignore {
		return nil
	}
	t.position.LSN, t.position.TxLSN, t.position.TxOrdinal = int64(c.EndLSN), 0, 0
	t.position.CommitTime = time.UnixMicro(c.CommitTime).UTC()
	t.metrics.transactions.Inc()
	return nil
}

// next counts a change; false if it is in Kafka already.
func (t *transform) next() bool {
	t.ordinal++
	if t.ignore || t.ordinal <= t.skip {
		return false
	}
	t.position.TxLSN, t.position.TxOrdinal = int64(t.begin.FinalLSN), t.ordinal
	t.metrics.in.Inc()
	return true
}

func (t *transform) onRelation(ctx context.Context, msg []byte) error {
	r, err := pgoutput.ParseRelation(msg)
	if err != nil {
		return err
	}
	name := r.Schema + "." + r.Name
	rel := &relation{name: name, topic: t.factory.topicOf(r.Schema, r.Name), metrics: t.metrics.table(name)}
	old := t.relations[r.ID]
	t.relations[r.ID] = rel
	if !t.cfg.captured(name) || t.position.Stopped[name] != "" {
		return nil
	}
	if !t.known[rel.topic] {
		t.stop(rel, "it joined the publication after the snapshot")
		return nil
	}
	table, err := t.shape(ctx, r)
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
	rel.encoder, err = t.factory.encoder(ctx, table, keyLevelStream)
	if errors.Is(err, avro.ErrIncompatible) {
		t.stop(rel, incompatible(rel.topic, err))
		return nil
	}
	if err != nil {
		return err
	}
	t.log.Info("table as streamed", "table", name, "columns", len(table.Columns), "changed", old != nil)
	return nil
}

// shape is the relation with its domains resolved and its key known.
func (t *transform) shape(ctx context.Context, r pgoutput.Relation) (rows.Table, error) {
	unknown := false
	for _, c := range r.Columns {
		_, ok := t.domains[c.Type]
		unknown = unknown || c.Type >= rows.FirstUserOID && !ok
	}
	if unknown { // an enum, or a domain that is newer than what we read
		domains, err := catalog.ReadDomains(ctx, t.conn)
		if err != nil {
			return rows.Table{}, err
		}
		t.domains = domains
	}
	key := t.keys[r.Schema+"."+r.Name]
	if key == nil && r.Identity == 'f' {
		tables, err := catalog.Tables(ctx, t.conn, t.cfg.Publication)
		if err != nil {
			return rows.Table{}, err
		}
		for _, table := range tables {
			t.keys[table.Schema+"."+table.Name] = table.Key
		}
		key = t.keys[r.Schema+"."+r.Name]
	}
	return catalog.FromRelation(r, key, t.domains, t.cfg.personal), nil
}

// stop stops a table: its changes are dropped from here on, until a new snapshot.
func (t *transform) stop(rel *relation, reason string) {
	rel.encoder = nil
	t.position = withStopped(t.position, rel.name, reason)
	t.metrics.stopped.Set(float64(len(t.position.Stopped)))
	t.log.Error("table stopped; mend the cause, then `cdc reset --yes` and start again: the snapshot brings in what was dropped",
		"table", rel.name, "reason", reason)
}

func (t *transform) onChange(ctx context.Context, m replica.Message) error {
	if err := t.change.Parse(m.Data); err != nil {
		return err
	}
	rel := t.relations[t.change.Relation]
	if rel == nil {
		return fmt.Errorf("a change of a table that was not described: %w", pgoutput.ErrMalformed)
	}
	if rel.tx != t.begin.FinalLSN {
		rel.tx, rel.order = t.begin.FinalLSN, 0
	}
	rel.order++
	if !t.next() {
		return nil
	}
	if rel.encoder == nil {
		if t.cfg.captured(rel.name) {
			rel.metrics.dropped.Inc()
		}
		return nil
	}
	b := t.batch()
	mark, refs, seq := len(b.buf), len(b.refs), t.position.Seq
	if err := t.encode(rel, m.LSN); err != nil {
		if !errors.Is(err, rows.ErrDoesNotFit) {
			return err
		}
		b.buf, b.refs, t.position.Seq = b.buf[:mark], b.refs[:refs], seq
		rel.metrics.dropped.Inc()
		t.stop(rel, err.Error())
	}
	if len(b.buf) >= batchBytes || len(b.buf) >= t.cfg.TransactionBytes {
		return t.flush(ctx, nil)
	}
	return nil
}

// encode adds the records of t.change.
func (t *transform) encode(rel *relation, lsn pgoutput.LSN) error {
	c := &t.change
	if c.Op == pgoutput.KindDelete {
		return t.remove(rel, c.Old, lsn)
	}
	var before []pgoutput.Datum
	if c.OldKind != pgoutput.OldNone {
		before = c.Old
	}
	headers := t.fill(rel)
	op := byte('c')
	if c.Op == pgoutput.KindUpdate {
		op = 'u'
		if before != nil && rel.encoder.KeyChanged(before, c.New) {
			if err := t.remove(rel, before, lsn); err != nil {
				return err
			}
			op, before = 'c', nil
		}
	}
	return t.add(rel, op, before, c.New, lsn, headers)
}

// fill puts the old row's values where the new row says that they did not change, and lists those it cannot.
func (t *transform) fill(rel *relation) []kgo.RecordHeader {
	var missing []string
	for i := range t.change.New {
		if t.change.New[i].Kind != pgoutput.Unchanged {
			continue
		}
		if i < len(t.change.Old) && t.change.Old[i].Kind == pgoutput.Text { // of a full row, or a large key
			t.change.New[i] = t.change.Old[i]
		} else if i < len(rel.encoder.Table.Columns) {
			missing = append(missing, rel.encoder.Table.Columns[i].Field)
		}
	}
	if missing == nil {
		return nil
	}
	return []kgo.RecordHeader{{Key: HeaderUnchanged, Value: []byte(strings.Join(missing, ","))}}
}

// remove adds a delete and its tombstone.
func (t *transform) remove(rel *relation, row []pgoutput.Datum, lsn pgoutput.LSN) error {
	if err := t.add(rel, 'd', row, nil, lsn, nil); err != nil {
		return err
	}
	t.tombstone(rel)
	return nil
}

// tombstone repeats the key of the last record, with no value.
func (t *transform) tombstone(rel *relation) {
	b := t.out
	last := b.refs[len(b.refs)-1]
	start := len(b.buf)
	b.buf = append(b.buf, b.buf[last.key:last.value]...)
	b.add(ref{topic: rel.topic, key: start, value: len(b.buf), end: len(b.buf)})
}

func (t *transform) add(rel *relation, op byte, before, after []pgoutput.Datum, lsn pgoutput.LSN, headers []kgo.RecordHeader) error {
	b := t.batch()
	keyRow := after
	if after == nil {
		keyRow = before
	}
	start := len(b.buf)
	var err error
	if b.buf, err = rel.encoder.AppendKey(b.buf, keyRow); err != nil {
		return err
	}
	value := len(b.buf)
	t.describe(rel, op, lsn)
	t.event.Before, t.event.After = before, after
	if b.buf, err = rel.encoder.AppendValue(b.buf, &t.event); err != nil {
		return err
	}
	if len(b.buf)-start > maxRecord {
		return errTooLarge
	}
	b.add(ref{topic: rel.topic, key: start, value: value, end: len(b.buf), table: rel.metrics, op: op, headers: headers})
	return nil
}

// describe fills the event but for the rows, and gives it a seq.
func (t *transform) describe(rel *relation, op byte, lsn pgoutput.LSN) {
	t.position.Seq++
	e := &t.event
	if e.TxID != t.txID {
		e.Sequence = `["` + strconv.FormatUint(uint64(t.previous), 10) + `","` + strconv.FormatUint(uint64(t.begin.FinalLSN), 10) + `"]`
	}
	e.Op, e.CommitTime, e.XID, e.LSN, e.Seq, e.Now = op, t.begin.CommitTime, t.begin.XID, lsn, t.position.Seq, t.now
	e.TxID, e.TotalOrder, e.TableOrder = t.txID, t.ordinal, rel.order
}

// onTruncate deletes every key that the topics have: Kafka's compacted topics know no truncation.
func (t *transform) onTruncate(ctx context.Context, m replica.Message) error {
	msg, err := pgoutput.ParseTruncate(m.Data)
	if err != nil || !t.next() {
		return err
	}
	// The step is done as a whole: a restart in its middle repeats it.
	after := t.position
	t.position.TxOrdinal--
	if err := t.barrier(ctx); err != nil {
		return err
	}
	for _, id := range msg.Relations {
		rel := t.relations[id]
		if rel == nil {
			return fmt.Errorf("a truncation of a table that was not described: %w", pgoutput.ErrMalformed)
		}
		if rel.encoder == nil {
			continue
		}
		keys, err := t.live(ctx, rel.topic)
		if err != nil {
			return err
		}
		t.log.Info("table truncated", "table", rel.name, "rows", len(keys))
		for key := range keys {
			if err := t.removeKey(rel, key, m.LSN); err != nil {
				return err
			}
			if len(t.out.buf) >= batchBytes {
				if err := t.flush(ctx, nil); err != nil {
					return err
				}
			}
		}
	}
	t.position.TxOrdinal = after.TxOrdinal
	return nil
}

// removeKey adds a delete and a tombstone for a key as it stands in the topic.
func (t *transform) removeKey(rel *relation, key string, lsn pgoutput.LSN) error {
	b := t.batch()
	start := len(b.buf)
	b.buf = append(b.buf, key...)
	value := len(b.buf)
	t.describe(rel, 'd', lsn)
	_, body, err := avro.Unframe([]byte(key))
	if err == nil {
		b.buf, err = rel.encoder.AppendDeleteOf(b.buf, body, &t.event)
	}
	if err != nil {
		return fmt.Errorf("a key of topic %s cannot be read: %w", rel.topic, err)
	}
	b.add(ref{topic: rel.topic, key: start, value: value, end: len(b.buf), table: rel.metrics, op: 'd'})
	t.tombstone(rel)
	return nil
}

func (t *transform) batch() *batch {
	if t.out == nil {
		t.out = t.pool.get()
	}
	return t.out
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

// flush sends on what is encoded, with the position after it.
func (t *transform) flush(ctx context.Context, barrier chan struct{}) error {
	b := t.batch()
	t.out = nil
	b.finish()
	b.position, b.boundary, b.barrier, b.more = t.position, !t.inTx, barrier, t.more
	return t.emit(ctx, b)
}
