package enrich

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/pkg/telemetry"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/envelope"
	"github.com/millrace-io/millrace/services/enrich/internal/images"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

// batch is what one transaction writes, and what is true once it is committed.
type batch struct {
	out      []*kgo.Record
	waiting  []waitingChange
	overlay  map[string]*schemas.Waiting // changes of waiting images in this batch; nil for an end
	next     map[schemas.Partition]int64 // input offsets that are done
	outcomes map[outcome]int
	owners   map[schemas.Partition]struct{} // partitions that images are mended for, which must be ours
	mended   int
}

type outcome struct{ topic, what string }

// waitingChange is a change of an image that waits, and the record that tells it.
type waitingChange struct {
	key    string
	entry  *schemas.Waiting // nil: it waits no more
	record *kgo.Record
}

func newBatch() *batch {
	return &batch{overlay: map[string]*schemas.Waiting{}, next: map[schemas.Partition]int64{}, outcomes: map[outcome]int{},
		owners: map[schemas.Partition]struct{}{}}
}

// fill takes the records of one poll. It fails only when ctx ends, or for what an operator must mend.
func (s *session) fill(ctx context.Context, b *batch, records []*kgo.Record) error {
	for _, r := range records {
		b.next[schemas.Partition{Topic: r.Topic, Partition: r.Partition}] = r.Offset + 1
		if r.Attrs.IsControl() {
			continue
		}
		what, err := s.take(ctx, b, r)
		if err != nil {
			return err
		}
		b.outcomes[outcome{s.plain(r.Topic), what}]++
	}
	return nil
}

// take turns one record into its outputs and tells its outcome.
func (s *session) take(ctx context.Context, b *batch, r *kgo.Record) (string, error) {
	if t := s.tables[r.Topic]; t != nil {
		return s.takeRow(ctx, b, r, t)
	}
	return s.takeActivity(ctx, b, r)
}

func (s *session) takeRow(ctx context.Context, b *batch, r *kgo.Record, t *images.Table) (string, error) {
	if r.Value == nil {
		return outcomeUnchanged, nil // the tombstone after a delete, which has been dealt with
	}
	row, err := s.rows.decode(ctx, t, r.Value)
	if err != nil {
		return s.refuse(ctx, b, r, err)
	}
	if row.Op == 't' {
		return outcomeUnchanged, nil // every row's delete came before
	}
	faults := shapeFaults(row)
	var key string
	if faults == nil {
		key, faults = t.Key(row)
	}
	if len(faults) > 0 {
		return s.quarantine(b, r, schemas.ClassDataQuality, "", faults)
	}
	switch t.Role {
	case images.Orders:
		faults, err = s.emitOrder(b, r, row, key)
	case images.Lines:
		faults, err = s.emitLine(b, r, row, key)
	case images.Products:
		faults, err = s.emitProduct(b, r, row, key)
	}
	if err != nil {
		return "", err
	}
	if len(faults) > 0 {
		return s.quarantine(b, r, schemas.ClassDataQuality, "", faults)
	}
	return outcomeApplied, nil
}

func shapeFaults(row *envelope.Row) []schemas.Fault {
	switch {
	case row.Seq <= 0:
		return []schemas.Fault{{Path: schemas.EnvelopeSource + "." + schemas.SourceSeq, Code: string(envelope.OutOfRange), Expected: "a number above 0"}}
	case row.Op == 'd' && !row.HasBefore:
		return []schemas.Fault{{Path: schemas.EnvelopeBefore, Code: string(envelope.Missing), Expected: "the key of the deleted row"}}
	case row.Op == 'd':
		return nil
	case row.Op != 'c' && row.Op != 'u' && row.Op != 'r':
		return []schemas.Fault{{Path: schemas.EnvelopeOp, Code: "unknown_operation", Expected: "c, u, d, r or t"}}
	case !row.HasAfter:
		return []schemas.Fault{{Path: schemas.EnvelopeAfter, Code: string(envelope.Missing), Expected: "the row"}}
	}
	return nil
}

func (s *session) emitOrder(b *batch, r *kgo.Record, row *envelope.Row, key string) (faults []schemas.Fault, err error) {
	var img *schemas.Order
	var missing string
	s.refs.View(func(v reference.View) { img, missing, faults = s.set.Order(row, key, v) })
	if len(faults) > 0 {
		return faults, nil
	}
	return nil, s.emit(b, r, schemas.SalesOrders, key, img, img.Gone, missing)
}

func (s *session) emitLine(b *batch, r *kgo.Record, row *envelope.Row, key string) (faults []schemas.Fault, err error) {
	var img *schemas.Line
	var missing string
	s.refs.View(func(v reference.View) { img, missing, faults = s.set.Line(row, key, v) })
	if len(faults) > 0 {
		return faults, nil
	}
	return nil, s.emit(b, r, schemas.SalesLines, key, img, img.Gone, missing)
}

func (s *session) emitProduct(b *batch, r *kgo.Record, row *envelope.Row, key string) ([]schemas.Fault, error) {
	img, faults := s.set.Product(row, key)
	if len(faults) > 0 {
		return faults, nil
	}
	return nil, s.emit(b, r, schemas.SalesProducts, key, img, img.Gone, "")
}

// emit writes an image, a tombstone behind it if the row is gone, and what is to be known of its waiting.
func (s *session) emit(b *batch, in *kgo.Record, topic, key string, img any, gone bool, missing string) error {
	value, err := s.encoders[topic].Append(nil, img)
	if err != nil {
		return fmt.Errorf("encode an image for %s: %w", topic, err)
	}
	headers := traceOf(in)
	b.out = append(b.out, &kgo.Record{Topic: s.deps.Kafka.Name(topic), Key: []byte(key), Value: value, Headers: headers})
	if gone {
		b.out = append(b.out, &kgo.Record{Topic: s.deps.Kafka.Name(topic), Key: []byte(key), Headers: headers})
	}
	wkey := waitingKey(topic, key)
	if missing == "" {
		return s.stopWaiting(b, wkey)
	}
	return s.startWaiting(b, wkey, &schemas.Waiting{InputTopic: in.Topic, InputPartition: in.Partition, Missing: []string{missing},
		OutputTopic: topic, OutputKey: key, Image: value})
}

func (s *session) startWaiting(b *batch, key string, entry *schemas.Waiting) error {
	value, err := s.encoders[schemas.EnrichWaiting].Append(nil, entry)
	if err != nil {
		return fmt.Errorf("encode an image that waits: %w", err)
	}
	b.changeWaiting(key, entry, &kgo.Record{Topic: s.deps.Kafka.Name(schemas.EnrichWaiting), Key: []byte(key), Value: value})
	return nil
}

// stopWaiting ends the wait of an image that a newer one takes the place of.
func (s *session) stopWaiting(b *batch, key string) error {
	old, changed := b.overlay[key]
	if !changed {
		old = s.waiting.get(key)
	}
	if old != nil {
		b.changeWaiting(key, nil, &kgo.Record{Topic: s.deps.Kafka.Name(schemas.EnrichWaiting), Key: []byte(key)})
	}
	return nil
}

func (b *batch) changeWaiting(key string, entry *schemas.Waiting, r *kgo.Record) {
	b.overlay[key] = entry
	b.waiting = append(b.waiting, waitingChange{key, entry, r})
	b.out = append(b.out, r)
}

func (s *session) takeActivity(ctx context.Context, b *batch, r *kgo.Record) (string, error) {
	var a schemas.Activity
	err := s.status.retry(ctx, partInput, func() (bool, error) {
		err := s.activity.Decode(ctx, r.Value, &a)
		return avro.Bad(err), err
	})
	if err != nil {
		return s.refuse(ctx, b, r, err)
	}
	var out *schemas.EnrichedActivity
	s.refs.View(func(v reference.View) { out = s.set.Activity(&a, v) })
	value, err := s.encoders[schemas.ActivityEnriched].Append(nil, out)
	if err != nil {
		return s.quarantine(b, r, schemas.ClassSchemaViolation, a.EventID, []schemas.Fault{{Code: "not_encodable", Expected: "values that fit activity.enriched"}})
	}
	b.out = append(b.out, &kgo.Record{Topic: s.deps.Kafka.Name(schemas.ActivityEnriched), Key: r.Key, Value: value, Headers: traceOf(r)})
	return outcomeApplied, nil
}

// refuse quarantines a record that could not be decoded; an error that is not the record's goes on.
func (s *session) refuse(ctx context.Context, b *batch, r *kgo.Record, err error) (string, error) {
	class, faults, ok := verdict(err)
	if !ok || ctx.Err() != nil {
		return "", err
	}
	return s.quarantine(b, r, class, "", faults)
}

func (s *session) quarantine(b *batch, r *kgo.Record, class, event string, faults []schemas.Fault) (string, error) {
	src := quarantine.FromRecord(r)
	src.EventID = event
	out, err := s.quarantined.Record(src, class, faults, s.deps.Now())
	if err != nil {
		return "", err
	}
	b.out = append(b.out, out)
	return outcomeQuarantined, nil
}

// mend sends images again whose reference row has come.
func (s *session) mend(ctx context.Context, b *batch, taken map[string]*schemas.Waiting) error {
	for key, old := range taken {
		img, missing, err := s.enrichAgain(ctx, old)
		if err != nil {
			return err
		}
		if missing == old.Missing[0] {
			continue // the row was there and has gone again
		}
		value, err := s.encoders[old.OutputTopic].Append(nil, img)
		if err != nil {
			return fmt.Errorf("encode an image for %s: %w", old.OutputTopic, err)
		}
		b.out = append(b.out, &kgo.Record{Topic: s.deps.Kafka.Name(old.OutputTopic), Key: []byte(old.OutputKey), Value: value})
		b.owners[inputOf(old)] = struct{}{}
		b.mended++
		if missing == "" {
			err = s.stopWaiting(b, key)
		} else {
			entry := *old
			entry.Missing, entry.Image = []string{missing}, value
			err = s.startWaiting(b, key, &entry)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// enrichAgain is the image with what is known now. Its version is above the one that was sent, even where the rows
// that have come are older than one that was there: tables are read side by side.
func (s *session) enrichAgain(ctx context.Context, old *schemas.Waiting) (img any, missing string, err error) {
	switch old.OutputTopic {
	case schemas.SalesOrders:
		var o schemas.Order
		err = s.decodeImage(ctx, old.OutputTopic, old.Image, &o)
		sent := o.RefSeq
		s.refs.View(func(v reference.View) { missing = s.set.EnrichOrder(&o, v) })
		o.RefSeq = max(o.RefSeq, sent+1)
		return &o, missing, err
	case schemas.SalesLines:
		var l schemas.Line
		err = s.decodeImage(ctx, old.OutputTopic, old.Image, &l)
		sent := l.RefSeq
		s.refs.View(func(v reference.View) { missing = s.set.EnrichLine(&l, v) })
		l.RefSeq = max(l.RefSeq, sent+1)
		return &l, missing, err
	default:
		return nil, "", fmt.Errorf("topic %s holds an image for %s, which is not sent again", schemas.EnrichWaiting, old.OutputTopic)
	}
}

func (s *session) decodeImage(ctx context.Context, topic string, image []byte, into any) error {
	return s.status.retry(ctx, partInput, func() (bool, error) {
		err := s.images[topic].Decode(ctx, image, into)
		return avro.Bad(err), err
	})
}

// errAborted: the transaction was not committed, and its inputs will be read again.
var errAborted = errors.New("transaction given up")

// commit writes the batch in one transaction with the offsets of what has been polled. After errAborted the session
// goes on; after any other error it must be made anew.
func (s *session) commit(ctx context.Context, b *batch) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	if err := s.group.Begin(); err != nil {
		return fmt.Errorf("begin a transaction: %w", err)
	}
	client := s.group.Client()
	first := kgo.AbortingFirstErrPromise(client)
	for _, r := range b.out {
		client.Produce(ctx, r, first.Promise())
	}
	failed := first.Err() // waits for all of them
	committed, err := s.group.End(s.fenced(ctx, b.owners), kgo.TransactionEndTry(failed == nil))
	switch {
	case err != nil:
		return fmt.Errorf("end a transaction: %w", err)
	case failed != nil:
		return fmt.Errorf("write a transaction's records: %w", failed)
	case !committed:
		s.metrics.aborted.Inc()
		return errAborted
	}
	s.settle(b)
	return nil
}

// settle makes true in memory what was committed.
func (s *session) settle(b *batch) {
	ends := map[schemas.Partition]int64{}
	for _, r := range b.out {
		name := s.plain(r.Topic)
		s.metrics.out.WithLabelValues(name).Inc()
		if strings.HasPrefix(name, salesPrefix) {
			p := schemas.Partition{Topic: r.Topic, Partition: r.Partition}
			ends[p] = max(ends[p], r.Offset+1)
		}
	}
	s.outputs.raise(ends)
	for _, c := range b.waiting {
		s.waiting.committed(c.key, c.entry, c.record.Offset)
	}
	s.metrics.waiting.Set(float64(s.waiting.len()))
	for o, n := range b.outcomes {
		s.metrics.in.WithLabelValues(o.topic, o.what).Add(float64(n))
	}
	s.metrics.mended.Add(float64(b.mended))
	s.inputs.advance(b.next)
}

func traceOf(r *kgo.Record) []kgo.RecordHeader {
	if t := kafka.Header(r, telemetry.TraceParent); t != nil {
		return []kgo.RecordHeader{{Key: telemetry.TraceParent, Value: t}}
	}
	return nil
}
