package cdc

import (
	"fmt"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// batchBytes is about how large a batch of encoded records gets.
const batchBytes = 256 << 10

// maxRecord is the largest record, key and value, that brokers take by default, less what the batch around it needs.
const maxRecord = 1_000_000 - 1024

// errTooLarge is the table's, as a value that does not fit is.
var errTooLarge = fmt.Errorf("a row is larger than %d bytes, the most that a record can be: %w", maxRecord, rows.ErrDoesNotFit)

// batch is encoded records on their way to Kafka, and the position when they are there.
type batch struct {
	buf      []byte
	refs     []ref
	records  []kgo.Record
	position schemas.Position
	boundary bool          // no source transaction is cut here
	more     bool          // the source's next changes are here already
	barrier  chan struct{} // closed when this and all before it are committed
}

// ref is a record whose bytes are in buf, which may still move.
type ref struct {
	topic           string
	key, value, end int           // value == end: a tombstone
	table           *tableMetrics // nil: of no table
	op              byte          // 0: not an event of its own, as a tombstone
	headers         []kgo.RecordHeader
}

// add notes that buf[key:value] and buf[value:] are a record.
func (b *batch) add(r ref) { b.refs = append(b.refs, r) }

// finish makes the records; buf must not change after it.
func (b *batch) finish() {
	if cap(b.records) < len(b.refs) {
		b.records = make([]kgo.Record, 0, len(b.refs)+len(b.refs)/4)
	}
	b.records = b.records[:0]
	for _, r := range b.refs {
		rec := kgo.Record{Topic: r.topic, Key: b.buf[r.key:r.value:r.value], Headers: r.headers}
		if r.end > r.value {
			rec.Value = b.buf[r.value:r.end:r.end]
		}
		b.records = append(b.records, rec)
	}
}

// recordBytes is about what a record takes beside its bytes: in refs, in records and in the client.
const recordBytes = int(unsafe.Sizeof(ref{})+unsafe.Sizeof(kgo.Record{})) + 64

// size is about how many bytes the batch holds in memory.
func (b *batch) size() int { return len(b.buf) + recordBytes*len(b.refs) }

func (b *batch) reset() {
	clear(b.refs)
	clear(b.records)
	*b = batch{buf: b.buf[:0], refs: b.refs[:0], records: b.records[:0]}
}

// pool recycles batches: one that is committed is not referred to any more. What it keeps is bounded by their number
// and the largest that it takes back, together under 40 MB.
type pool struct{ free chan *batch }

func newPool() pool { return pool{free: make(chan *batch, 24)} }

func (p pool) get() *batch {
	select {
	case b := <-p.free:
		return b
	default:
		return &batch{} // small batches are the rule on a quiet system: it grows as it must
	}
}

func (p pool) put(b *batch) {
	if cap(b.buf) > 2*batchBytes || cap(b.refs) > batchBytes/64 { // one huge row, or many tiny ones, must not stay for ever
		return
	}
	b.reset()
	select {
	case p.free <- b:
	default:
	}
}
