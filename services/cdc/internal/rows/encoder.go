package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// Origin is what all events of a source have in common.
type Origin struct{ Version, Name, Database string }

// Event is what an event has beside the row. Times are Unix microseconds.
type Event struct {
	Op            byte             // c, u, d or r
	Before, After []pgoutput.Datum // nil for none
	Snapshot      bool
	CommitTime    int64
	Sequence      string // Debezium's: the LSN of the transaction before and of this change, as a JSON list of strings
	XID           uint32 // 0 outside of a transaction
	LSN           pgoutput.LSN
	Seq           int64
	Now           int64
	TxID          string // "" outside of a transaction
	TotalOrder    int64
	TableOrder    int64
}

// Encoder writes the keys and values of one version of a table. It is immutable and safe for concurrent use.
type Encoder struct {
	Table          Table
	keyID, valueID int
	columns        []column
	origin, names  []byte
	database       []byte
}

type column struct {
	append appendFunc
	key    bool
}

// NewEncoder compiles the encoder; keyID and valueID are the registry's ids of the table's schemas.
func NewEncoder(t Table, origin Origin, keys *privacy.Keys, keyID, valueID int) *Encoder {
	e := &Encoder{Table: t, keyID: keyID, valueID: valueID}
	for _, c := range t.Columns {
		e.columns = append(e.columns, column{append: c.appender(keys), key: c.Key})
	}
	e.origin = appendString(appendString(appendString(nil, origin.Version), "postgresql"), origin.Name)
	e.database = appendString(nil, origin.Database)
	e.names = appendString(appendString(nil, t.Schema), t.Name)
	return e
}

func (c Column) appender(keys *privacy.Keys) appendFunc {
	switch c.Kind {
	case Int:
		return appendInt4
	case Long:
		return appendInt8
	case Boolean:
		return appendBool
	case Float:
		return appendFloat4
	case Double:
		return appendFloat8
	case Decimal:
		return decimal(c.Precision, c.Scale)
	case Date:
		return appendDate
	case Timestamp, LocalTimestamp:
		return appendTimestamp
	case Bytes:
		return appendBytea
	case Token:
		return token(keys)
	default:
		return appendText
	}
}

// token writes the keyed token; the empty string stays as it is. What looks like a token becomes one as well: a customer
// may have written it.
func token(keys *privacy.Keys) appendFunc {
	size := int64(len(keys.AppendToken(nil, nil)))
	return func(dst, text []byte) ([]byte, error) {
		if len(text) == 0 {
			return appendText(dst, text)
		}
		return keys.AppendToken(appendLong(dst, size), text), nil
	}
}

func frame(dst []byte, id int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(id))
}

// AppendKeyFrame appends what every key begins with.
func (e *Encoder) AppendKeyFrame(dst []byte) []byte { return frame(dst, e.keyID) }

// AppendKey appends the framed key of a row. On an error dst's content is unspecified.
func (e *Encoder) AppendKey(dst []byte, row []pgoutput.Datum) ([]byte, error) {
	if len(row) != len(e.columns) {
		return dst, fmt.Errorf("a row has %d columns, its table %d: %w", len(row), len(e.columns), pgoutput.ErrMalformed)
	}
	dst = frame(dst, e.keyID)
	var err error
	for i := range e.columns {
		if !e.columns[i].key {
			continue
		}
		if row[i].Kind != pgoutput.Text {
			return dst, e.misfit(i)
		}
		if dst, err = e.columns[i].append(dst, row[i].Data); err != nil {
			return dst, e.misfit(i)
		}
	}
	return dst, nil
}

func (e *Encoder) misfit(i int) error {
	return fmt.Errorf("column %s: %w", e.Table.Columns[i].Name, ErrDoesNotFit)
}

// KeyChanged tells whether two rows have different keys.
func (e *Encoder) KeyChanged(before, after []pgoutput.Datum) bool {
	for i := range e.columns {
		if e.columns[i].key && i < len(before) && i < len(after) && !bytes.Equal(before[i].Data, after[i].Data) {
			return true
		}
	}
	return false
}

func (e *Encoder) appendRow(dst []byte, row []pgoutput.Datum) ([]byte, error) {
	if row == nil {
		return append(dst, 0), nil
	}
	if len(row) != len(e.columns) {
		return dst, fmt.Errorf("a row has %d columns, its table %d: %w", len(row), len(e.columns), pgoutput.ErrMalformed)
	}
	dst = append(dst, 2)
	var err error
	for i := range e.columns {
		c := &e.columns[i]
		if row[i].Kind != pgoutput.Text {
			if c.key {
				return dst, e.misfit(i)
			}
			dst = append(dst, 0)
			continue
		}
		if !c.key {
			dst = append(dst, 2)
		}
		if dst, err = c.append(dst, row[i].Data); err != nil {
			return dst, e.misfit(i)
		}
	}
	return dst, nil
}

// AppendValue appends the framed envelope. On an error dst's content is unspecified.
func (e *Encoder) AppendValue(dst []byte, ev *Event) ([]byte, error) {
	dst = frame(dst, e.valueID)
	var err error
	if dst, err = e.appendRow(dst, ev.Before); err != nil {
		return dst, err
	}
	if dst, err = e.appendRow(dst, ev.After); err != nil {
		return dst, err
	}
	return e.appendRest(dst, ev), nil
}

// AppendDeleteOf appends the framed value of a delete whose "before" is known by its key only, as Avro without frame:
// keys are written alike in the key and in the row.
func (e *Encoder) AppendDeleteOf(dst, key []byte, ev *Event) ([]byte, error) {
	dst = append(frame(dst, e.valueID), 2)
	for i, c := range e.Table.Columns {
		if !c.Key {
			dst = append(dst, 0)
			continue
		}
		n, ok := c.skip(key)
		if !ok {
			return dst, e.misfit(i)
		}
		dst, key = append(dst, key[:n]...), key[n:]
	}
	if len(key) > 0 {
		return dst, fmt.Errorf("key of %s: %w", e.Table.Ident(), ErrDoesNotFit)
	}
	return e.appendRest(append(dst, 0), ev), nil
}

// skip is the length of the column's value at the start of Avro bytes.
func (c Column) skip(b []byte) (int, bool) {
	fixed := func(n int) (int, bool) { return n, len(b) >= n }
	switch c.Kind {
	case Boolean:
		return fixed(1)
	case Float:
		return fixed(4)
	case Double:
		return fixed(8)
	}
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, false
	}
	switch c.Kind {
	case Int, Long, Date, Timestamp, LocalTimestamp:
		return n, true
	}
	size := int64(v>>1) ^ -int64(v&1)
	if size < 0 || size > int64(len(b)-n) {
		return 0, false
	}
	return n + int(size), true
}

// appendRest appends what follows the rows.
func (e *Encoder) appendRest(dst []byte, ev *Event) []byte {
	dst = append(dst, e.origin...)
	dst = appendLong(dst, ev.CommitTime/1000)
	if ev.Snapshot {
		dst = appendString(append(dst, 0), "true")
	} else {
		dst = appendString(append(dst, 0), "false")
	}
	dst = append(dst, e.database...)
	if ev.Sequence == "" {
		dst = append(dst, 0)
	} else {
		dst = appendString(append(dst, 2), ev.Sequence)
	}
	dst = appendLong(append(dst, 2), ev.CommitTime)
	dst = appendLong(append(dst, 2), ev.CommitTime*1000)
	dst = append(dst, e.names...)
	if ev.XID == 0 {
		dst = append(dst, 0)
	} else {
		dst = appendLong(append(dst, 2), int64(ev.XID))
	}
	dst = appendLong(append(dst, 2), int64(ev.LSN))
	dst = append(dst, 0) // xmin
	dst = appendLong(dst, ev.Seq)
	if ev.TxID == "" {
		dst = append(dst, 0)
	} else {
		dst = appendString(append(dst, 2), ev.TxID)
		dst = appendLong(appendLong(dst, ev.TotalOrder), ev.TableOrder)
	}
	dst = append(dst, 2, ev.Op)
	dst = appendLong(append(dst, 2), ev.Now/1000)
	dst = appendLong(append(dst, 2), ev.Now)
	return appendLong(append(dst, 2), ev.Now*1000)
}
