package rowfilter

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// ErrUndecided: the filter needs a value that the row at hand does not have, because the source's log does not repeat a
// large value that an update did not touch.
var ErrUndecided = errors.New("the row filter needs a large value that the log does not repeat; on the primary: ALTER TABLE … REPLICA IDENTITY FULL")

// ErrNotNumber: a column that the filter compares with a number holds something else.
var ErrNotNumber = errors.New("the row filter compares a column with a number, and its value is none")

// Class is how a column may be compared.
type Class uint8

// Classes.
const (
	Any Class = iota // with any literal: it is not known what it is
	TextClass
	NumberClass
	BoolClass
)

// Column is a column of the rows to filter.
type Column struct {
	Name  string
	Class Class
	Key   bool // known in every old row
}

// Bound is a filter for rows with given columns. It is immutable and safe for concurrent use. A nil Bound lets every row
// pass.
type Bound struct {
	root  test
	keyed bool // it reads only columns of the key
}

// Bind finds the filter's columns in a table.
func (f *Filter) Bind(columns []Column) (*Bound, error) {
	b := &Bound{keyed: true}
	index := map[string]int{}
	for i, c := range columns {
		index[c.Name] = i
	}
	for _, name := range f.columns {
		i, ok := index[name]
		if !ok {
			return nil, fmt.Errorf("the row filter reads the column %s, which the table does not have", name)
		}
		b.keyed = b.keyed && columns[i].Key
	}
	var err error
	b.root, err = f.root.bind(index, columns)
	return b, err
}

// Refusing is a filter that fails for every row.
func Refusing(err error) *Bound {
	return &Bound{root: func([]pgoutput.Datum) (truth, error) { return unknown, err }}
}

// Keyed tells whether the filter reads only columns of the key.
func (b *Bound) Keyed() bool { return b == nil || b.keyed }

// Match tells whether a row is captured.
func (b *Bound) Match(row []pgoutput.Datum) (bool, error) {
	if b == nil {
		return true, nil
	}
	v, err := b.root(row)
	return v == yes, err
}

// Verdict is what a filter makes of a change.
type Verdict uint8

// Verdicts.
const (
	Pass  Verdict = iota // as it is
	Drop                 // neither the old nor the new row is captured
	Enter                // the new row is captured, the old one was not: a create
	Leave                // the old row was captured, the new one is not: a delete, of the old key if it changed
)

// Change judges a change. Where the log does not tell the old row, it is taken for captured: a delete too many does no
// harm. In New, what the update did not touch must have been filled from Old where it can be. keyChanged tells that the
// key is another.
func (b *Bound) Change(c *pgoutput.Change, keyChanged bool) (Verdict, error) {
	if b == nil {
		return Pass, nil
	}
	was, known, err := b.old(c, keyChanged)
	if err != nil {
		return Drop, err
	}
	if c.Op == pgoutput.KindDelete {
		return pick(was || !known, Pass, Drop), nil
	}
	is, err := b.Match(c.New)
	if err != nil {
		return Drop, err
	}
	switch {
	case c.Op == pgoutput.KindInsert:
		return pick(is, Pass, Drop), nil
	case is:
		return pick(was || !known, Pass, Enter), nil
	}
	return pick(was || !known, Leave, Drop), nil
}

func pick(yes bool, a, b Verdict) Verdict {
	if yes {
		return a
	}
	return b
}

// old tells whether the old row was captured, if that can be known.
func (b *Bound) old(c *pgoutput.Change, keyChanged bool) (was, known bool, err error) {
	switch {
	case c.Op == pgoutput.KindInsert:
		return false, true, nil
	case c.OldKind == pgoutput.OldFull, c.OldKind == pgoutput.OldKey && b.keyed:
		was, err = b.Match(c.Old)
		return was, true, err
	case c.OldKind == pgoutput.OldNone && b.keyed && !keyChanged:
		was, err = b.Match(c.New)
		return was, true, err
	}
	return false, false, nil
}

// truth is SQL's.
type truth uint8

const (
	no truth = iota
	unknown
	yes
)

// test evaluates a part of an expression.
type test func(row []pgoutput.Datum) (truth, error)

func (n node) bind(index map[string]int, columns []Column) (test, error) {
	switch n.kind {
	case both, either, negated:
		return n.bindParts(index, columns)
	case isNull:
		return nullTest(index[n.column]), nil
	}
	i := index[n.column]
	var matches []func(text []byte) (bool, error)
	for _, v := range n.values {
		if err := fits(columns[i], v); err != nil {
			return nil, err
		}
		matches = append(matches, v.matcher(n.op, n.kind == list))
	}
	return func(row []pgoutput.Datum) (truth, error) {
		text, null, err := value(row, i)
		if err != nil || null {
			return unknown, err
		}
		for _, m := range matches {
			if ok, err := m(text); ok || err != nil {
				return yes, err
			}
		}
		return no, nil
	}, nil
}

func (n node) bindParts(index map[string]int, columns []Column) (test, error) {
	parts := make([]test, len(n.parts))
	for i, p := range n.parts {
		var err error
		if parts[i], err = p.bind(index, columns); err != nil {
			return nil, err
		}
	}
	if n.kind == negated {
		return func(row []pgoutput.Datum) (truth, error) {
			v, err := parts[0](row)
			return yes - v, err
		}, nil
	}
	return func(row []pgoutput.Datum) (truth, error) {
		out := yes
		if n.kind == either {
			out = no
		}
		for _, p := range parts {
			v, err := p(row)
			if err != nil {
				return unknown, err
			}
			if n.kind == both {
				out = min(out, v)
			} else {
				out = max(out, v)
			}
		}
		return out, nil
	}, nil
}

func nullTest(i int) test {
	return func(row []pgoutput.Datum) (truth, error) {
		_, null, err := value(row, i)
		if null {
			return yes, err
		}
		return no, err
	}
}

func value(row []pgoutput.Datum, i int) (text []byte, null bool, err error) {
	if i >= len(row) {
		return nil, false, pgoutput.ErrMalformed
	}
	switch row[i].Kind {
	case pgoutput.Text:
		return row[i].Data, false, nil
	case pgoutput.Null:
		return nil, true, nil
	}
	return nil, false, ErrUndecided
}

// fits tells whether a column may be compared with a literal.
func fits(c Column, v literal) error {
	switch {
	case c.Class == Any:
		return nil
	case c.Class == NumberClass && v.kind != numberLiteral:
		return fmt.Errorf("the row filter compares %s, a number, with something else; write digits without quotes", c.Name)
	case c.Class == TextClass && v.kind != textLiteral:
		return fmt.Errorf("the row filter compares %s, a text, with something else; write it in single quotes", c.Name)
	case c.Class == BoolClass && v.kind != boolLiteral:
		return fmt.Errorf("the row filter compares %s, a boolean, with something else; write true or false", c.Name)
	}
	return nil
}

// matcher tells whether a column's text compares with the literal as op says; an element of a list is for equality.
func (v literal) matcher(op string, element bool) func(text []byte) (bool, error) {
	if element {
		op = "="
	}
	if v.kind != numberLiteral {
		want := []byte(v.text)
		return func(text []byte) (bool, error) { return holds(op, bytes.Compare(text, want)), nil }
	}
	want, _ := parseNumber([]byte(v.text)) // the parser has seen that it is one
	return func(text []byte) (bool, error) {
		got, ok := parseNumber(text)
		if !ok {
			return false, ErrNotNumber
		}
		return holds(op, got.compare(want)), nil
	}
}

func holds(op string, c int) bool {
	switch op {
	case "=":
		return c == 0
	case "<>":
		return c != 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	}
	return c >= 0
}
