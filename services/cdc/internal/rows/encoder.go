package rows

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rowfilter"
)

// Origin is what all events of a source have in common.
type Origin struct {
	Version, Name, Database string
	Form                    Form
}

// head is how the envelope's source begins.
func (o Origin) head() []byte {
	return appendString(appendString(appendString(nil, o.Version), "postgresql"), o.Name)
}

// Event is what an event has beside the row. Times are Unix microseconds.
type Event struct {
	Op            byte             // c, u, d or r
	Before, After []pgoutput.Datum // nil for none
	Snapshot      bool
	Mark          string // instead of "true" or "false" in the source's snapshot, such as "incremental"; "" for none
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
	form           Form
	filter         *rowfilter.Bound
}

type column struct {
	append   appendFunc
	key      bool
	nullable bool // in the row: all but most keys
	absent   bool // not in the schema
}

// NewEncoder compiles the encoder; keyID and valueID are the registry's ids of the table's schemas.
func NewEncoder(t Table, origin Origin, keys *privacy.Keys, keyID, valueID int) *Encoder {
	e := &Encoder{Table: t, keyID: keyID, valueID: valueID, form: origin.Form}
	for _, c := range t.Columns {
		e.columns = append(e.columns, column{append: c.treated(c.appender(keys)), key: c.Key, nullable: !c.Key || c.Nullable, absent: !c.Treatment.Written()})
	}
	e.origin = origin.head()
	e.database = appendString(nil, origin.Database)
	var err error
	if e.filter, err = t.bind(); err != nil { // Validate says so before
		e.filter = rowfilter.Refusing(err)
	}
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
	case Money:
		return moneyValue(decimal(c.Precision, c.Scale))
	case MoneyText:
		return moneyValue(appendText)
	case MoneyDouble:
		return moneyValue(appendFloat8)
	case Bytes:
		return binaryValue(`\x`, appendRaw)
	case Base64:
		return binaryValue(`\x`, appendBase64)
	case Hex:
		return binaryValue(`\x`, appendHex)
	case Geometry:
		return binaryValue("", appendRaw)
	case GeometryBase64:
		return binaryValue("", appendBase64)
	case GeometryHex:
		return binaryValue("", appendHex)
	case Token:
		return token(keys)
	case Map:
		return appendHstore
	case Vector:
		return appendVector
	case Array:
		return list(c.Delimiter, c.element().appender(keys))
	default:
		return c.temporalAppender()
	}
}

func (c Column) temporalAppender() appendFunc {
	switch c.Kind {
	case Date:
		return appendDate
	case Time:
		return appendTime
	case TimeMillis:
		return appendTimeMillis
	case Timestamp, LocalTimestamp:
		return appendTimestamp
	case TimestampMillis:
		return appendTimestampMillis
	case ISODate:
		return appendISODate
	case ISOTimestamp:
		return appendISOTimestamp
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

// AppendKey appends the framed key of a row. With an error nothing is appended.
func (e *Encoder) AppendKey(dst []byte, row []pgoutput.Datum) ([]byte, error) {
	start := len(dst)
	if len(row) != len(e.columns) {
		return dst, e.mismatch(row)
	}
	dst = frame(dst, e.keyID)
	for i := range e.columns {
		if !e.columns[i].key {
			continue
		}
		var err error
		if dst, err = e.appendColumn(dst, i, row[i]); err != nil {
			return dst[:start], err
		}
	}
	return dst, nil
}

// appendColumn writes a column as the row has it: keys are written alike in the key and in the row.
func (e *Encoder) appendColumn(dst []byte, i int, d pgoutput.Datum) ([]byte, error) {
	c := &e.columns[i]
	if d.Kind != pgoutput.Text || c.append == nil {
		// A part of the key that the source did not send is not null: without it the row would be another one.
		if !c.nullable || c.key && d.Kind != pgoutput.Null {
			return dst, e.misfit(i)
		}
		return append(dst, 0), nil
	}
	if c.nullable {
		dst = append(dst, 2)
	}
	dst, err := c.append(dst, d.Data)
	if err != nil {
		return dst, e.misfit(i)
	}
	return dst, nil
}

func (e *Encoder) mismatch(row []pgoutput.Datum) error {
	return fmt.Errorf("a row has %d columns, its table %d: %w", len(row), len(e.columns), pgoutput.ErrMalformed)
}

func (e *Encoder) misfit(i int) error {
	return fmt.Errorf("column %s: %w", e.Table.Columns[i].Name, ErrDoesNotFit)
}

// KeyChanged tells whether two rows have different keys.
func (e *Encoder) KeyChanged(before, after []pgoutput.Datum) bool {
	for i := range e.columns {
		if e.columns[i].key && i < len(before) && i < len(after) &&
			(before[i].Kind != after[i].Kind || !bytes.Equal(before[i].Data, after[i].Data)) {
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
		return dst, e.mismatch(row)
	}
	dst = append(dst, 2)
	var err error
	for i := range e.columns {
		if e.columns[i].absent {
			continue
		}
		if dst, err = e.appendColumn(dst, i, row[i]); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// AppendValue appends the framed envelope, or what stands for it in another form. With an error nothing is appended.
func (e *Encoder) AppendValue(dst []byte, ev *Event) ([]byte, error) {
	if e.form != Envelope {
		return e.appendFlat(dst, ev)
	}
	start := len(dst)
	dst, err := e.appendRow(frame(dst, e.valueID), ev.Before)
	if err == nil {
		dst, err = e.appendRow(dst, ev.After)
	}
	if err != nil {
		return dst[:start], err
	}
	return e.appendRest(dst, ev), nil
}

// AppendDeleteOf appends the framed value of a delete whose "before" is known by its key only, as Avro without frame:
// keys are written alike in the key and in the row. With an error nothing is appended.
func (e *Encoder) AppendDeleteOf(dst, key []byte, ev *Event) ([]byte, error) {
	start := len(dst)
	dst = append(frame(dst, e.valueID), 2)
	for i, c := range e.Table.Columns {
		if !c.Treatment.Written() {
			continue
		}
		if !c.Key {
			dst = append(dst, 0)
			continue
		}
		n, ok := c.skip(key)
		if !ok {
			return dst[:start], e.misfit(i)
		}
		dst, key = append(dst, key[:n]...), key[n:]
	}
	if len(key) > 0 {
		return dst[:start], fmt.Errorf("key of %s: %w", e.Table.Ident(), ErrDoesNotFit)
	}
	return e.finishDelete(dst, start, ev), nil
}

// appendRest appends what follows the rows.
func (e *Encoder) appendRest(dst []byte, ev *Event) []byte {
	dst = append(dst, e.origin...)
	dst = appendLong(dst, ev.CommitTime/1000)
	switch {
	case ev.Mark != "":
		dst = appendString(append(dst, 0), ev.Mark)
	case ev.Snapshot:
		dst = appendString(append(dst, 0), "true")
	default:
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
