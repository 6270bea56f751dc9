package cdc

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// A table stops when more of its rows than this do not fit: that is no accident any more. The position carries their
// keys, in every Kafka transaction, so their bytes are bounded too, of all tables together.
const (
	maxPoisoned      = 1000
	maxPoisonedBytes = 128 << 10
)

// finding is what a worker found wrong at a place of its slab: the row of a key does not fit, or, without a key, the table
// has to stop.
type finding struct {
	at     int // before the batch's record of that index
	table  *tableMetrics
	key    []byte
	reason string
	owed   bool // the row of the key is there, and lacks values that are to be read
}

// Kinds of verdict.
const (
	verdictStopped = iota
	verdictPoisoned
	verdictCleared
	verdictOwed
)

// verdict is a finding as it stands in the total order.
type verdict struct {
	kind   byte
	table  string
	key    []byte
	reason string
}

func (v verdict) apply(p schemas.Position) schemas.Position {
	switch v.kind {
	case verdictStopped:
		return withStopped(p, v.table, v.reason)
	case verdictPoisoned:
		return withPoisoned(p, v.table, v.key)
	case verdictOwed:
		return withOwed(p, v.table, v.key)
	default:
		return withoutPoisoned(p, v.table, v.key)
	}
}

// verdicts is what the sequencer has found and the walk, which is ahead of it, has still to take over. It is safe for
// concurrent use.
type verdicts struct {
	total atomic.Int64
	mu    sync.Mutex
	first int // number of list[0]
	list  []verdict
}

// add appends a verdict.
func (v *verdicts) add(x verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.list = append(v.list, x)
	v.total.Add(1)
}

// after are the verdicts that follow the first n.
func (v *verdicts) after(n int) []verdict {
	if v.total.Load() == int64(n) {
		return nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.list[n-v.first:])
}

// forget drops the first n, which nobody will ask for again.
func (v *verdicts) forget(n int) {
	if v.total.Load() == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if n > v.first {
		v.list = slices.Delete(v.list, 0, n-v.first)
		v.first = n
	}
}

// withPoisoned is the position with one more key whose row is not in its topic; nothing is shared.
func withPoisoned(p schemas.Position, table string, key []byte) schemas.Position {
	i, found := slices.BinarySearchFunc(p.Poisoned[table], key, bytes.Compare)
	if found {
		return p
	}
	keys := slices.Insert(slices.Clone(p.Poisoned[table]), i, key)
	if p.Poisoned = maps.Clone(p.Poisoned); p.Poisoned == nil {
		p.Poisoned = map[string][][]byte{}
	}
	p.Poisoned[table] = keys
	return p
}

// withoutPoisoned is the inverse of withPoisoned.
func withoutPoisoned(p schemas.Position, table string, key []byte) schemas.Position {
	i, found := slices.BinarySearchFunc(p.Poisoned[table], key, bytes.Compare)
	if !found {
		return p
	}
	keys := slices.Delete(slices.Clone(p.Poisoned[table]), i, i+1)
	p.Poisoned = maps.Clone(p.Poisoned)
	if p.Poisoned[table] = keys; len(keys) == 0 {
		delete(p.Poisoned, table)
	}
	return p
}

func isPoisoned(p schemas.Position, table string, key []byte) bool {
	_, found := slices.BinarySearchFunc(p.Poisoned[table], key, bytes.Compare)
	return found
}

// tooPoisoned is why a table has to stop rather than to miss the row of one more key; "" if it need not.
func tooPoisoned(p schemas.Position, limit int, table string, key []byte) string {
	if len(p.Poisoned[table]) >= limit {
		return fmt.Sprintf("more than %d of its rows do not fit; quarantine has them", limit)
	}
	size := len(key)
	for _, keys := range p.Poisoned {
		for _, k := range keys {
			size += len(k)
		}
	}
	if size > maxPoisonedBytes {
		return fmt.Sprintf("the keys of rows that do not fit, of all tables, take more than %d bytes; quarantine has the rows", maxPoisonedBytes)
	}
	return ""
}

// judge applies what is known up to this slab: findings become verdicts, good events clear keys, and what follows the
// stop of a table is taken out.
func (q *sequencer) judge(s *slab, pending []verdict) {
	stopped := map[string]bool{}
	for _, v := range pending {
		s.position = v.apply(s.position)
		stopped[v.table] = stopped[v.table] || v.kind == verdictStopped
	}
	b := s.out
	findings, kept := s.findings, b.refs[:0]
	for i, r := range b.refs {
		for len(findings) > 0 && findings[0].at <= i {
			q.find(s, findings[0], stopped)
			findings = findings[1:]
		}
		switch {
		case r.table == nil:
		case stopped[r.table.name]:
			if r.op != 0 {
				r.table.dropped.Inc()
			}
			continue
		case r.op != opQuarantined && (r.op == 0 || whole(r)) && isPoisoned(s.position, r.table.name, b.buf[r.key:r.value]):
			q.decide(s, r.table, verdict{kind: verdictCleared, table: r.table.name, key: slices.Clone(b.buf[r.key:r.value])})
		}
		kept = append(kept, r)
	}
	for _, f := range findings {
		q.find(s, f, stopped)
	}
	if len(kept) < len(b.refs) {
		clear(b.refs[len(kept):])
		b.refs = kept
		b.finish()
	}
}

func (q *sequencer) find(s *slab, f finding, stopped map[string]bool) {
	name := f.table.name
	if stopped[name] {
		if f.key == nil {
			f.table.dropped.Inc()
		}
		return
	}
	reason := f.reason
	if f.owed {
		q.decide(s, f.table, verdict{kind: verdictOwed, table: name, key: f.key})
		return
	}
	if f.key != nil {
		if reason = tooPoisoned(s.position, q.limit, name, f.key); reason == "" {
			q.log.Warn("a row does not fit and is in quarantine; a later good row of its key mends it, or `cdc resume`", "table", name, "reason", f.reason)
			q.decide(s, f.table, verdict{kind: verdictPoisoned, table: name, key: f.key})
			return
		}
	} else {
		f.table.dropped.Inc()
	}
	stopped[name] = true
	q.log.Error("table stopped; mend the cause, then `cdc resume`: it brings in what was dropped",
		"table", name, "reason", reason)
	q.decide(s, f.table, verdict{kind: verdictStopped, table: name, reason: reason})
}

func (q *sequencer) decide(s *slab, table *tableMetrics, v verdict) {
	q.verdicts.add(v)
	s.position = v.apply(s.position)
	table.poisoned.Set(float64(len(s.position.Poisoned[v.table])))
	q.metrics.stopped.Set(float64(len(s.position.Stopped)))
}

// poison makes quarantine entries of rows that do not fit. It is safe for concurrent use.
type poison struct {
	quarantine *quarantine.Quarantine
	now        func() time.Time
}

// Codes of faults in quarantine.
const (
	codeMisfit   = "does_not_fit"
	codeTooLarge = "too_large"
)

// opQuarantined counts a record of the quarantine topic.
const opQuarantined = 'q'

// found notes that the row of a key does not fit, and adds its entry to the slab's batch.
func (p *poison) found(s *slab, it *item, op byte, key []byte, before, after []pgoutput.Datum, reason error) error {
	s.findings = append(s.findings, finding{at: len(s.out.refs), table: it.rel.metrics, key: key, reason: reason.Error()})
	u := unfit{Op: op, LSN: it.lsn, Before: before, After: after}
	if it.tx >= 0 {
		u.Commit, u.Ordinal = s.transactions[it.tx].FinalLSN, it.total
	}
	return p.add(s.out, it.rel.topic, it.rel.metrics, it.encoder.Table, key, u, reason)
}

// add adds the entry of a row that does not fit to a batch. Whoever calls it notes the key in the position: see
// tooPoisoned and withPoisoned.
func (p *poison) add(b *batch, topic string, table *tableMetrics, shape rows.Table, key []byte, u unfit, reason error) error {
	r, err := p.entry(topic, shape, key, u, reason)
	if err != nil {
		return err
	}
	start := len(b.buf)
	b.buf = append(b.buf, r.Key...)
	value := len(b.buf)
	b.buf = append(b.buf, r.Value...)
	b.add(ref{topic: r.Topic, key: start, value: value, end: len(b.buf), table: table, op: opQuarantined, headers: r.Headers})
	return nil
}

// unfit is a row that does not fit, and where it came from.
type unfit struct {
	Op            byte
	LSN           pgoutput.LSN
	Commit        pgoutput.LSN // of its transaction; 0 for a row that was read beside the stream
	Ordinal       int64        // of the change in its transaction
	Before, After []pgoutput.Datum
}

// entry is the quarantine's record. Its payload has the key as the topic would, and the row as JSON, each value as
// PostgreSQL's text.
func (p *poison) entry(topic string, shape rows.Table, key []byte, u unfit, reason error) (*kgo.Record, error) {
	payload := struct {
		Op      string         `json:"op"`
		LSN     string         `json:"lsn"`
		Commit  string         `json:"commit_lsn,omitempty"`
		Ordinal int64          `json:"ordinal,omitempty"`
		Before  map[string]any `json:"before,omitempty"`
		After   map[string]any `json:"after,omitempty"`
	}{Op: string(u.Op), LSN: u.LSN.String(), Ordinal: u.Ordinal, Before: texts(shape, u.Before), After: texts(shape, u.After)}
	at := payload.LSN
	if u.Commit != 0 {
		payload.Commit, at = u.Commit.String(), u.Commit.String()
	}
	value, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("write a quarantine entry: %w", err)
	}
	code := codeMisfit
	if errors.Is(reason, errTooLarge) {
		code = codeTooLarge
	}
	r, err := p.quarantine.Record(quarantine.Source{Topic: topic, Partition: -1, Offset: -1, Key: key, Value: value,
		EventID: at + ":" + strconv.FormatInt(u.Ordinal, 10)}, schemas.ClassSchemaViolation,
		[]schemas.Fault{{Code: code, Expected: reason.Error()}}, p.now())
	if err != nil {
		return nil, fmt.Errorf("quarantine a row of topic %s: %w", topic, err)
	}
	return r, nil
}

// texts is the row by column; what is no text is in base 64 under that name.
func texts(table rows.Table, row []pgoutput.Datum) map[string]any {
	if row == nil {
		return nil
	}
	out := map[string]any{}
	for i, c := range table.Columns {
		switch {
		case i >= len(row) || row[i].Kind == pgoutput.Unchanged || !c.Treatment.Written():
		case row[i].Kind != pgoutput.Text:
			out[c.Name] = nil
		case utf8.Valid(row[i].Data):
			out[c.Name] = string(row[i].Data)
		default:
			out[c.Name] = map[string]string{"base64": base64.StdEncoding.EncodeToString(row[i].Data)}
		}
	}
	return out
}
