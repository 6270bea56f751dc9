package cdc

import (
	"fmt"
	"strconv"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Headers of streamed changes where delivery is at least once, as decimal numbers. Within a partition the pair of them
// only grows: a record whose pair is not above all before it is a repeat. The ordinal leaves numbers out. Rows that were
// read beside the stream, and the deletes of a truncation, have neither; they may be applied any number of times.
const (
	HeaderCommitLSN = "millrace.commit_lsn"
	HeaderOrdinal   = "millrace.ordinal"
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
	headers  []kgo.RecordHeader // of numbered records
	numbers  []byte             // the values of headers
	position schemas.Position
	boundary bool          // no source transaction is cut here
	more     bool          // the source's next changes are here already
	keep     bool          // the position is to be recorded though there are no records
	barrier  chan struct{} // closed when this and all before it are committed
}

// ref is a record whose bytes are in buf, which may still move.
type ref struct {
	topic           string
	key, value, end int           // value == end: a tombstone
	table           *tableMetrics // nil: of no table
	op              byte          // 0: not an event of its own, as a tombstone
	headers         []kgo.RecordHeader
	commit          pgoutput.LSN // of the transaction; 0 if the record is not numbered
	ordinal         int64
}

// add notes that buf[key:value] and buf[value:] are a record.
func (b *batch) add(r ref) { b.refs = append(b.refs, r) }

// finish makes the records; buf must not change after it.
func (b *batch) finish() {
	if cap(b.records) < len(b.refs) {
		b.records = make([]kgo.Record, 0, len(b.refs)+len(b.refs)/4)
	}
	b.records = b.records[:0]
	for i := range b.refs {
		r := &b.refs[i]
		rec := kgo.Record{Topic: r.topic, Key: b.buf[r.key:r.value:r.value], Headers: r.headers}
		if r.commit != 0 {
			rec.Headers = b.number(r)
		}
		if r.end > r.value {
			rec.Value = b.buf[r.value:r.end:r.end]
		}
		b.records = append(b.records, rec)
	}
}

// number gives the headers by which consumers tell repeats.
func (b *batch) number(r *ref) []kgo.RecordHeader {
	first := len(b.headers)
	b.headers = append(b.headers, r.headers...)
	b.headers = append(b.headers, kgo.RecordHeader{Key: HeaderCommitLSN, Value: b.decimal(int64(r.commit))},
		kgo.RecordHeader{Key: HeaderOrdinal, Value: b.decimal(r.ordinal)})
	return b.headers[first:len(b.headers):len(b.headers)]
}

// decimal is a number as text. Should numbers have to move, the texts before stay where they are.
func (b *batch) decimal(n int64) []byte {
	start := len(b.numbers)
	b.numbers = strconv.AppendInt(b.numbers, n, 10)
	return b.numbers[start:len(b.numbers):len(b.numbers)]
}

// recordBytes is about what a record takes beside its bytes: in refs, in records and in the client.
const recordBytes = int(unsafe.Sizeof(ref{})+unsafe.Sizeof(kgo.Record{})) + 64

// size is about how many bytes the batch holds in memory.
func (b *batch) size() int { return len(b.buf) + recordBytes*len(b.refs) }

func (b *batch) reset() {
	clear(b.refs)
	clear(b.records)
	clear(b.headers)
	*b = batch{buf: b.buf[:0], refs: b.refs[:0], records: b.records[:0], headers: b.headers[:0], numbers: b.numbers[:0]}
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
