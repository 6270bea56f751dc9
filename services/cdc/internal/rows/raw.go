package rows

import "github.com/millrace-io/millrace/services/cdc/internal/pgoutput"

// AppendRow appends a row as it stands in an event, to be put into one later by AppendValueOf. On an error dst's content is
// unspecified.
func (e *Encoder) AppendRow(dst []byte, row []pgoutput.Datum) ([]byte, error) {
	return e.appendRow(dst, row)
}

// AppendValueOf appends the framed value of an event whose row after it was written by AppendRow of an equal encoder; there
// is no row before it.
func (e *Encoder) AppendValueOf(dst, after []byte, ev *Event) []byte {
	return e.appendRest(append(append(frame(dst, e.valueID), 0), after...), ev)
}
