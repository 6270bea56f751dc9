package rows

import "strconv"

// Form is how a row's event is written.
type Form uint8

// Forms.
const (
	Envelope      Form = iota // Debezium's envelope
	Flat                      // the row alone, and the fields of flatFields; a delete is its tombstone only
	FlatTombstone             // as Flat, and before its tombstone a delete is a record whose __deleted is "true"
)

// flatFields are what the flat form adds to the row, in this order. Their names and types are those of Debezium's
// unwrapping transform, but __seq, which is ours.
func flatFields() []field {
	return []field{
		{Name: "__deleted", Type: "string", Default: "false"}, {Name: "__op", Type: "string", Default: "r"},
		optional("long", "__lsn"), optional("long", "__source_ts_ms"), {Name: "__seq", Type: "long", Default: 0},
	}
}

// FlatSchema is the Avro schema of the topic's values in the flat forms.
func (t Table) FlatSchema() string {
	r := record{Type: "record", Name: "Value", Namespace: t.namespace()}
	r.Fields = t.rowFields()
	t.describe(&r)
	r.Fields = append(r.Fields, flatFields()...)
	return marshal(r)
}

// SchemaIn is the Avro schema of the topic's values in a form.
func (t Table) SchemaIn(f Form) string {
	if f == Envelope {
		return t.ValueSchema()
	}
	return t.FlatSchema()
}

// rowStart is where a row that was appended behind a frame begins: after magic, schema id and the branch of "before".
const rowStart = 5 + 1

// appendFlat appends the framed value of the flat forms; nothing at all for a delete that is its tombstone only.
func (e *Encoder) appendFlat(dst []byte, ev *Event) ([]byte, error) {
	row := ev.After
	if ev.Op == 'd' {
		if e.form == Flat {
			return dst, nil
		}
		row = ev.Before
	}
	start := len(dst)
	dst, err := e.appendRow(frame(dst, e.valueID), row)
	if err != nil {
		return dst[:start], err
	}
	return e.flatten(dst, start, ev), nil
}

// flatten takes the branch off a row that was appended at start, and appends what follows the row.
func (e *Encoder) flatten(dst []byte, start int, ev *Event) []byte {
	dst = append(dst[:start+rowStart-1], dst[start+rowStart:]...)
	dst = appendString(dst, strconv.FormatBool(ev.Op == 'd'))
	dst = append(dst, 2, ev.Op)
	dst = appendLong(append(dst, 2), int64(ev.LSN))
	dst = appendLong(append(dst, 2), ev.CommitTime/1000)
	return appendLong(dst, ev.Seq)
}

// finishDelete appends what follows the row of a delete that was appended at start.
func (e *Encoder) finishDelete(dst []byte, start int, ev *Event) []byte {
	switch e.form {
	case Flat:
		return dst[:start]
	case FlatTombstone:
		return e.flatten(dst, start, ev)
	}
	return e.appendRest(append(dst, 0), ev)
}
