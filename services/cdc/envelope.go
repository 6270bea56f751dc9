package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// HeaderTx is the header of records whose transaction has annotated itself before them: a JSON object of strings.
const HeaderTx = "millrace.tx"

// HeaderTooLarge is the header of a logical message whose content no record can hold: its size in bytes.
const HeaderTooLarge = "millrace.too_large"

const (
	// annotationPrefix is the prefix of the messages that annotate their transaction.
	annotationPrefix = HeaderTx
	// maxAnnotations is the largest header that annotations may make, in bytes: it is repeated on every record.
	maxAnnotations = 4096
	// maxPrefix is the longest prefix of a logical message that is captured, in bytes: it is the record's key.
	maxPrefix = 1024
	// messageCollection is under what logical messages are counted in the transaction topic, as Debezium does.
	messageCollection = "LOGICAL_DECODING_MESSAGE"
)

// EnvelopeDebezium is the form of events that Millrace's own services read.
const EnvelopeDebezium = "debezium"

// Other forms of events, and those of deletes in them.
const (
	envelopeNone     = "none"
	deletesTombstone = "tombstone"
	deletesRecord    = "record"
)

func (c Config) validateEnvelope() error {
	if c.Envelope != EnvelopeDebezium && c.Envelope != envelopeNone {
		return fmt.Errorf("envelope: %q must be one of %s, %s", c.Envelope, EnvelopeDebezium, envelopeNone)
	}
	if c.FlatDeletes != deletesTombstone && c.FlatDeletes != deletesRecord {
		return fmt.Errorf("flat_deletes: %q must be one of %s, %s", c.FlatDeletes, deletesTombstone, deletesRecord)
	}
	for _, p := range c.Messages {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("messages: %q must be a pattern of prefixes, such as audit.*", p)
		}
	}
	return nil
}

// form is how rows are written.
func (c Config) form() rows.Form {
	switch {
	case c.Envelope != envelopeNone:
		return rows.Envelope
	case c.FlatDeletes == deletesRecord:
		return rows.FlatTombstone
	}
	return rows.Flat
}

// streamOptions are what the stream is asked for beside the rows.
func (c Config) streamOptions() []replica.Option {
	if len(c.Messages) > 0 || c.Annotations || c.OutboxMessages != "" {
		return []replica.Option{replica.WithMessages}
	}
	return nil
}

// message tells whether logical messages with this prefix are captured.
func (c Config) message(prefix string) bool {
	return len(prefix) <= maxPrefix && slices.ContainsFunc(c.Messages, func(p string) bool {
		ok, err := path.Match(p, prefix)
		return err == nil && ok
	})
}

// extras writes what the stream brings beside rows: the transaction topic, logical messages, the outbox. It observes the
// walk, and is for its goroutine.
type extras struct {
	*transform
	transactions     *rows.Transactions // nil: not written
	transactionTopic string
	writer           *rows.Messages // nil: not written
	messageTopic     string
	outbox           *outbox // nil: none

	id          string           // of this transaction
	counts      map[string]int64 // its events by table, those among them that are in Kafka already
	annotations map[string]string
	events      int64 // messages among its events
}

// begun writes BEGIN, unless a part of the transaction is in Kafka.
func (x *extras) begun(ctx context.Context, b pgoutput.Begin, _ bool) error {
	clear(x.counts)
	x.annotations, x.events = nil, 0
	x.id = strconv.FormatUint(uint64(b.XID), 10) + ":" + strconv.FormatUint(uint64(b.FinalLSN), 10)
	if x.transactions == nil || x.position.TxLSN == int64(b.FinalLSN) {
		return nil
	}
	x.position.TxLSN = int64(b.FinalLSN) // goes into Kafka with it
	return x.bound(ctx, false)
}

// committing writes END. It counts as a message, for it may be in Kafka before the position behind it is.
func (x *extras) committing(ctx context.Context, _ pgoutput.Commit) error {
	x.headers = nil // what comes between transactions is not annotated
	if x.transactions == nil || !x.nextMessage() {
		return nil
	}
	return x.bound(ctx, true)
}

// bound writes a record of the transaction topic.
func (x *extras) bound(ctx context.Context, end bool) error {
	x.position.Seq++
	b := rows.Boundary{ID: x.id, End: end, Counts: x.counts, CommitTime: x.begin.CommitTime, Seq: x.position.Seq, Annotations: x.annotations}
	return x.record(ctx, &kgo.Record{Topic: x.transactionTopic, Key: x.transactions.AppendKey(nil, x.id), Value: x.transactions.AppendValue(nil, &b)})
}

// count adds to the events of this transaction.
func (x *extras) count(collection string, n int64) {
	if x.transactions == nil {
		return
	}
	if x.counts == nil {
		x.counts = map[string]int64{}
	}
	x.counts[collection] += n
}

// described has changes shown where they matter: those of the outbox, and all that are to be counted.
func (x *extras) described(_ context.Context, rel, _ *relation) error {
	rel.shown = rel.outbox != nil || x.transactions != nil
	return nil
}

// changed counts the events of a change: an update that changes the key is two. Inserts into the outbox are sent on.
func (x *extras) changed(ctx context.Context, rel *relation, c *pgoutput.Change, isNew bool) error {
	switch {
	case c == nil:
		return nil
	case rel.outbox != nil:
		if c.Op != pgoutput.KindInsert {
			return nil
		}
		x.count(rel.name, 1)
		if isNew {
			return x.route(ctx, rel, c)
		}
	case rel.encoder == nil:
	case c.Op == pgoutput.KindUpdate && c.OldKind != pgoutput.OldNone && rel.encoder.KeyChanged(c.Old, c.New):
		x.count(rel.name, 2)
	default:
		x.count(rel.name, 1)
	}
	return nil
}

// truncated counts a truncation as one event: how many keys it deletes is known only when it is done.
func (x *extras) truncated(_ context.Context, rel *relation, _ bool) error {
	if rel.encoder != nil {
		x.count(rel.name, 1)
	}
	return nil
}

// reached has nothing to write.
func (x *extras) reached(context.Context, pgoutput.LSN) error { return nil }

// messaged takes a logical message. One that is transactional is a step of its transaction; any other comes between
// transactions, and its own position says whether it is in Kafka.
func (x *extras) messaged(ctx context.Context, m replica.Message, isNew bool) error {
	msg, err := pgoutput.ParseMessage(m.Data)
	if err != nil {
		return err
	}
	if msg.Transactional != x.inTx {
		return fmt.Errorf("a message in the wrong place of the stream: %w", pgoutput.ErrMalformed)
	}
	outbox, captured := x.takes(msg.Prefix)
	switch {
	case !x.inTx && msg.LSN <= x.start:
		return nil
	case x.inTx && x.cfg.Annotations && msg.Prefix == annotationPrefix:
		x.annotate(msg.Content)
	case !outbox && !captured:
		return nil
	}
	at := m.SentAt
	switch {
	case !x.inTx: // all that was committed before the message has come before it
		x.position.LSN = max(x.position.LSN, int64(msg.LSN))
	case outbox || captured:
		at = x.begin.CommitTime
		x.count(messageCollection, 1)
		x.events++
	}
	switch {
	case !isNew:
		return nil
	case outbox:
		return x.sendMessage(ctx, msg.Content)
	case captured:
		return x.emitMessage(ctx, msg, at)
	}
	return nil
}

// takes tells what messages with this prefix are: events of the outbox, or messages to capture, or neither.
func (x *extras) takes(prefix string) (outbox, captured bool) {
	if x.outbox != nil && x.cfg.OutboxMessages != "" && prefix == x.cfg.OutboxMessages {
		return true, false
	}
	return false, x.writer != nil && x.cfg.message(prefix)
}

// emitMessage writes a record of the message topic.
func (x *extras) emitMessage(ctx context.Context, msg pgoutput.Message, at int64) error {
	x.position.Seq++
	ev := rows.Event{Op: 'm', CommitTime: at, LSN: msg.LSN, Seq: x.position.Seq, Now: x.now}
	if x.inTx {
		ev.XID, ev.TxID, ev.TotalOrder, ev.TableOrder = x.begin.XID, x.id, x.place(), x.events
	}
	headers, content := x.headers, msg.Content
	if len(content) > maxRecord-maxAnnotations-2*maxPrefix {
		headers = append(slices.Clip(headers), kgo.RecordHeader{Key: HeaderTooLarge, Value: fmt.Append(nil, len(content))})
		content = nil
		x.metrics.refused.WithLabelValues("message").Inc()
		x.log.Error("the content of a logical message is too large for a record and left out", "bytes", len(msg.Content), "lsn", msg.LSN)
	}
	return x.record(ctx, &kgo.Record{Topic: x.messageTopic, Headers: headers, Key: x.writer.AppendKey(nil, msg.Prefix),
		Value: x.writer.AppendValue(nil, &ev, msg.Prefix, content)})
}

// annotate adds annotations to the transaction. What is not a JSON object of strings, or too large, is left out.
func (x *extras) annotate(content []byte) {
	var added map[string]string
	err := json.Unmarshal(content, &added)
	if err != nil {
		err = errors.New("it is not a JSON object of strings") // the decoder's own text may repeat the content
	}
	all := maps.Clone(x.annotations)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, added)
	var text []byte
	if err == nil {
		if text, err = json.Marshal(all); err == nil && len(text) > maxAnnotations {
			err = fmt.Errorf("with it the annotations have %d bytes, and %d is the most", len(text), maxAnnotations)
		}
	}
	if err != nil {
		x.metrics.refused.WithLabelValues("annotation").Inc()
		x.log.Warn("an annotation of a transaction is left out", "transaction", x.id, "reason", err)
		return
	}
	x.annotations, x.headers = all, []kgo.RecordHeader{{Key: HeaderTx, Value: text}}
}

// observe has the walk write what the configuration asks for beside rows, if anything: it registers the schemas and makes
// the topics.
func (s *session) observe(ctx context.Context, t *transform) error {
	x := &extras{transform: t}
	f := s.factory
	suffix := ""
	if s.cfg.group != "" {
		suffix = "-" + s.cfg.group
	}
	if s.cfg.TransactionTopic {
		topic := schemas.StoreTransactions(suffix)
		x.transactionTopic = f.name(topic.Name)
		keyID, valueID, err := s.declare(ctx, topic, rows.TransactionKeySchema(), rows.TransactionSchema())
		if err != nil {
			return err
		}
		w := rows.NewTransactions(keyID, valueID)
		x.transactions = &w
	}
	if len(s.cfg.Messages) > 0 {
		topic := schemas.StoreMessages()
		x.messageTopic = f.name(topic.Name)
		keyID, valueID, err := s.declare(ctx, topic, rows.MessageKeySchema(), rows.MessageSchema())
		if err != nil {
			return err
		}
		x.writer = rows.NewMessages(f.origin, keyID, valueID)
	}
	if s.cfg.Outbox != "" || s.cfg.OutboxMessages != "" {
		x.outbox = s.newOutbox()
	}
	if x.transactions != nil || x.writer != nil || x.outbox != nil || s.cfg.Annotations {
		t.observers = append(t.observers, x)
	}
	return nil
}

// declare makes a topic and registers its schemas.
func (s *session) declare(ctx context.Context, topic kafka.Topic, key, value string) (keyID, valueID int, err error) {
	if err := s.ensure(ctx, []kafka.Topic{topic}); err != nil {
		return 0, 0, err
	}
	name := s.factory.name(topic.Name)
	if keyID, err = s.factory.register(ctx, name+"-key", key, valueLevel); err == nil {
		valueID, err = s.factory.register(ctx, name+"-value", value, valueLevel)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("register the schemas of topic %s: %w", name, err)
	}
	return keyID, valueID, nil
}
