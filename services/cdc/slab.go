package cdc

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// slab is a piece of the total order on its way from the walk, which fills it, by one of the workers, which encodes it,
// to the sequencer, which passes slabs on in the order of the walk. Whoever has it owns it.
type slab struct {
	items        []item
	rows         [][]pgoutput.Datum // of items that were read beside the stream
	records      []*kgo.Record      // of items that are encoded already
	transactions []pgoutput.Begin
	previous     []pgoutput.LSN       // by transaction: the end of the one before
	headers      [][]kgo.RecordHeader // of events of annotated transactions
	bytes        int                  // of what the items refer to
	now          int64                // Unix microseconds
	chunk        []byte               // to be given back to the queue when this slab has passed

	position schemas.Position // after it
	absorbed int              // so many verdicts are in position
	boundary bool
	more     bool
	keep     bool
	barrier  chan struct{}

	out      *batch
	findings []finding
	err      error
	done     chan struct{} // gets one token when it is encoded
}

func newSlab() *slab { return &slab{done: make(chan struct{}, 1)} }

func (s *slab) reset() {
	clear(s.items)
	clear(s.rows)
	clear(s.records)
	clear(s.headers)
	clear(s.findings)
	*s = slab{items: s.items[:0], rows: s.rows[:0], records: s.records[:0], headers: s.headers[:0], transactions: s.transactions[:0], previous: s.previous[:0],
		findings: s.findings[:0], done: s.done}
}

// Kinds of item.
const (
	itemChange = iota // data is a change as the stream has it
	itemRow           // a row that was read beside the stream
	itemGone          // data is the framed key of a row that is no more
	itemRecord        // a record that is encoded already
)

// item is something to be encoded. What it refers to must not change until its slab has passed.
type item struct {
	rel     *relation     // the worker reads what is immutable; nil for a record
	encoder *rows.Encoder // as it was at this place of the order
	data    []byte
	lsn     pgoutput.LSN
	seq     int64 // of its first event; a change takes up to two
	total   int64 // order in its transaction; beside the stream the time instead, Unix microseconds
	order   int64 // order among the changes of its table; of a row or a record its index instead
	tx      int32 // index of the slab's transaction; -1: beside the stream
	kind    byte
	note    uint16 // which of the slab's headers its events have, from 1; 0: none
}

// headersOf are the headers that all events of an item have; nil if none.
func (s *slab) headersOf(it *item) []kgo.RecordHeader {
	if it.note == 0 {
		return nil
	}
	return s.headers[it.note-1]
}
