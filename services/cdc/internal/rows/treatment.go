package rows

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rowfilter"
)

// Handling is what happens to the values of a column before they leave.
type Handling uint8

// Handlings.
const (
	Clear     Handling = iota // written as they are
	Truncated                 // texts: the first Length characters
	Tokenised                 // a keyed token
	Masked                    // a constant of the column's type; null stays null
	Excluded                  // not written, and not in the schema
	Withheld                  // like Excluded, until somebody says what the column is
	Refused                   // the rules contradict each other: the table is not captured
)

// String is the handling as the configuration calls it.
func (h Handling) String() string {
	return [...]string{"clear", "truncate", "tokenise", "mask", "exclude", "withhold", "refuse"}[h]
}

// Treatment is how a column is handled, and why.
type Treatment struct {
	Handling Handling
	Length   int    // of Truncated, in characters
	Rule     string // the rule that says so, for people
}

// Written tells whether the column's values, treated, leave at all. Columns that do not are in a Table all the same, for
// rows have a place for them.
func (t Treatment) Written() bool { return t.Handling < Excluded }

// Treated is the column with a treatment; truncatable tells that the start of a value is a value too. The column's Kind
// must be that of its type.
func (c Column) Treated(t Treatment, truncatable bool) Column {
	if t.Handling == Truncated && (c.Kind != String || !truncatable) {
		t = Treatment{Handling: Refused, Rule: t.Rule + " truncates it, and it is no text; mask, tokenise or exclude it"}
	}
	c.Treatment = t
	if t.Handling == Tokenised {
		return Column{Name: c.Name, Field: c.Field, Kind: Token, Key: c.Key, Nullable: c.Nullable, Treatment: t}
	}
	return c
}

// allowed tells why a column cannot be captured as it is to be treated.
func (c Column) allowed() error {
	switch {
	case c.Treatment.Handling == Refused:
		return fmt.Errorf("column %s: %s", c.Name, c.Treatment.Rule)
	case c.Key && c.Treatment.Handling == Withheld:
		return fmt.Errorf("column %s is of the key, and %s withholds it: name it in cdc.clear, or in cdc.tokenise", c.Name, c.Treatment.Rule)
	case c.Key && c.Treatment.Handling != Clear && c.Treatment.Handling != Tokenised:
		return fmt.Errorf("column %s is of the key, and %s would make rows one that are not: tokenise it instead", c.Name, c.Treatment.Rule)
	}
	return nil
}

// Withheld are the names of the columns that nobody has classified.
func (t Table) Withheld() []string {
	var out []string
	for _, c := range t.Columns {
		if c.Treatment.Handling == Withheld {
			out = append(out, c.Name)
		}
	}
	return out
}

// SelectList is the list of columns for an SQL query of whole rows, in the order of the table's columns: NULL takes the
// place of each that is not written and that the row filter does not read.
func (t Table) SelectList() string {
	out := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		if out[i] = "NULL"; t.selected(c) {
			out[i] = Quote(c.Name)
		}
	}
	return strings.Join(out, ", ")
}

// Selected are the names of the columns that SelectList reads.
func (t Table) Selected() []string {
	var out []string
	for _, c := range t.Columns {
		if t.selected(c) {
			out = append(out, c.Name)
		}
	}
	return out
}

func (t Table) selected(c Column) bool {
	return c.Treatment.Written() || t.Filter != nil && slices.Contains(t.Filter.Columns(), c.Name)
}

// bind finds the columns that the row filter reads; nil lets every row pass.
func (t Table) bind() (*rowfilter.Bound, error) {
	if t.Filter == nil {
		return nil, nil
	}
	columns := make([]rowfilter.Column, len(t.Columns))
	for i, c := range t.Columns {
		columns[i] = rowfilter.Column{Name: c.Name, Class: c.class(), Key: c.Key}
	}
	return t.Filter.Bind(columns)
}

// FilterKeyed tells whether the row filter reads nothing but the key, which is known of every old row.
func (t Table) FilterKeyed() bool {
	b, err := t.bind()
	return err == nil && b.Keyed()
}

func (c Column) class() rowfilter.Class {
	switch c.Kind {
	case Int, Long, Float, Double, Decimal:
		return rowfilter.NumberClass
	case Boolean:
		return rowfilter.BoolClass
	case Date, Timestamp, LocalTimestamp:
		return rowfilter.TextClass
	}
	return rowfilter.Any // a text, a number without scale, a token of either
}

// treated wraps what appends a value by what its treatment makes of it.
func (c Column) treated(inner appendFunc) appendFunc {
	switch c.Treatment.Handling {
	case Truncated:
		length := c.Treatment.Length
		return func(dst, text []byte) ([]byte, error) { return inner(dst, firstRunes(text, length)) }
	case Masked:
		constant, ok := c.mask()
		if !ok {
			return nil
		}
		return func(dst, _ []byte) ([]byte, error) { return append(dst, constant...), nil }
	case Excluded, Withheld, Refused:
		return nil
	}
	return inner
}

// mask is the constant of a masked column, in Avro; false if its type has none, so that null is written.
func (c Column) mask() ([]byte, bool) {
	switch c.Kind {
	case String:
		return appendString(nil, "***"), true
	case Int, Long, Boolean, Date, Timestamp, LocalTimestamp, Bytes:
		return []byte{0}, true // zero, false, 1970-01-01, no bytes
	case Decimal:
		return []byte{2, 0}, true // one byte, zero
	case Float:
		return make([]byte, 4), true
	case Double:
		return make([]byte, 8), true
	}
	return nil, false
}

// firstRunes cuts a text after n characters.
func firstRunes(text []byte, n int) []byte {
	for at := range text {
		if !utf8.RuneStart(text[at]) {
			continue
		}
		if n == 0 {
			return text[:at]
		}
		n--
	}
	return text
}

// Captures tells whether a row that was read is to be captured.
func (e *Encoder) Captures(row []pgoutput.Datum) (bool, error) { return filtered(e.filter.Match(row)) }

// Verdict tells what becomes of a change.
func (e *Encoder) Verdict(c *pgoutput.Change) (rowfilter.Verdict, error) {
	if e.filter == nil {
		return rowfilter.Pass, nil
	}
	moved := c.Op == pgoutput.KindUpdate && c.OldKind != pgoutput.OldNone && e.KeyChanged(c.Old, c.New)
	return filtered(e.filter.Change(c, moved))
}

// filtered makes a filter's error one of a row that does not fit.
func filtered[T any](v T, err error) (T, error) {
	if err != nil {
		return v, fmt.Errorf("%w: %w", ErrDoesNotFit, err)
	}
	return v, nil
}

// KeyOnly is a copy of a row with nothing but its key, for the delete of a row whose old values are not known.
func (e *Encoder) KeyOnly(row []pgoutput.Datum) []pgoutput.Datum {
	out := make([]pgoutput.Datum, len(row))
	for i := range row {
		if out[i].Kind = pgoutput.Null; i < len(e.columns) && e.columns[i].key {
			out[i] = row[i]
		}
	}
	return out
}
