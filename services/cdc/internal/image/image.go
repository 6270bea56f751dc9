// Package image reads what a record of a store topic says about its row, without decoding it: a layout is compiled from the
// schema that wrote the value, finds the values of the columns in the bytes, and makes a sum of them that does not
// depend on the version of the schema. It does no I/O.
package image

import (
	"encoding/binary"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
)

// ErrMalformed: a value is not what its schema says.
var ErrMalformed = errors.New("a value does not fit its schema")

// Reader says which columns count. The sum of a row is over the name and the Avro bytes of every column that is not null, in
// the order of the names: a nullable column that was added or a column that was moved makes no difference.
type Reader struct {
	Fields  []string          // columns that count; one that a schema has beside them was dropped
	Renamed map[string]string // names that columns had before, and what they are called now
	// Large are columns, sorted, whose sums are kept by themselves: a later event may say of them that they did not change.
	Large []string
}

// Image is a row as one event has it.
type Image struct {
	Op     byte
	Row    bool  // there is a row after the event
	Seq    int64 // our version
	Commit int64 // LSN of the commit, or at which the row was read; 0 if the event does not tell
	Sum    diff.Sum
	Parts  []byte // of Reader.Large: see Merge
}

// States of a large column in Image.Parts.
const (
	partNull    = 0
	partSum     = 1
	partUnknown = 2 // it did not change, and what it was is not known
)

const partSize = 1 + len(diff.Sum{})

// Merge fills in, in the parts of a later image, what did not change since the former one, in place.
func Merge(former, later []byte) {
	for at := 0; at+partSize <= len(later) && at+partSize <= len(former); at += partSize {
		if later[at] == partUnknown {
			copy(later[at:at+partSize], former[at:])
		}
	}
}

// Known tells whether all parts are known.
func Known(parts []byte) bool {
	for at := 0; at+partSize <= len(parts); at += partSize {
		if parts[at] == partUnknown {
			return false
		}
	}
	return true
}

// Layout reads the values that one schema wrote. It is for one goroutine.
type Layout struct {
	fields []field // of the envelope, or of the row itself if there is no envelope
	flat   bool
	row    []field // in the order of the schema, called as they are now
	order  []int   // of row, by name, those that count and are not large
	large  []int   // of row, for each of Reader.Large; -1: the schema has it not

	spans   []span
	scratch []byte
}

// field of a record.
type field struct {
	name   string
	skip   skipper
	null   int64 // branch of the union that is null; -1 if it is no union
	union  bool
	nested []field
}

type span struct {
	there bool
	value []byte
}

// Compile makes the layout of values of a schema.
func Compile(schema *avro.Schema, reader Reader) (*Layout, error) {
	root := schema.Root()
	if root.Type != "record" {
		return nil, errors.New("values of the topic are no records")
	}
	l := &Layout{flat: true}
	for _, f := range root.Fields {
		if f.Name == schemas.EnvelopeAfter {
			l.flat = false
		}
	}
	c := newCompiler()
	if l.flat {
		return l, l.compileRow(c, root, reader)
	}
	var row *avro.SchemaNode
	for i := range root.Fields {
		f, err := c.field(&root.Fields[i])
		if err != nil {
			return nil, err
		}
		node := &root.Fields[i].Type
		switch f.name {
		case schemas.EnvelopeBefore, schemas.EnvelopeAfter:
			row = c.record(notNull(node))
		case schemas.EnvelopeSource, schemas.EnvelopeTx:
			if r := c.record(notNull(node)); r != nil {
				for j := range r.Fields {
					n, err := c.field(&r.Fields[j])
					if err != nil {
						return nil, err
					}
					f.nested = append(f.nested, n)
				}
			}
		}
		l.fields = append(l.fields, f)
	}
	if row == nil {
		return nil, errors.New("values of the topic have no row")
	}
	return l, l.compileRow(c, row, reader)
}

// field compiles a field, and says where it is null.
func (c *compiler) field(f *avro.SchemaField) (field, error) {
	skip, err := c.skipper(notNull(&f.Type))
	out := field{name: f.Name, skip: skip, null: nullBranch(&f.Type), union: f.Type.Type == "union"}
	if err == nil && out.union && (len(f.Type.Branches) != 2 || out.null < 0) { // more than null and one type: taken whole
		out.skip, err = c.skipper(&f.Type)
		out.union, out.null = false, -1
	}
	return out, err
}

func notNull(node *avro.SchemaNode) *avro.SchemaNode {
	for i := range node.Branches {
		if node.Branches[i].Type != "null" {
			return &node.Branches[i]
		}
	}
	return node
}

func nullBranch(node *avro.SchemaNode) int64 {
	for i := range node.Branches {
		if node.Branches[i].Type == "null" {
			return int64(i)
		}
	}
	return -1
}

func (l *Layout) compileRow(c *compiler, row *avro.SchemaNode, reader Reader) error {
	for i := range row.Fields {
		f, err := c.field(&row.Fields[i])
		if err != nil {
			return err
		}
		if now, ok := reader.Renamed[f.name]; ok {
			f.name = now
		}
		l.row = append(l.row, f)
		if !slices.Contains(reader.Large, f.name) && slices.Contains(reader.Fields, f.name) {
			l.order = append(l.order, i)
		}
	}
	slices.SortFunc(l.order, func(a, b int) int { return strings.Compare(l.row[a].name, l.row[b].name) })
	for _, name := range reader.Large {
		l.large = append(l.large, slices.IndexFunc(l.row, func(f field) bool { return f.name == name }))
	}
	l.spans = make([]span, len(l.row))
	return nil
}

// Read reads a value without its frame. unchanged are the columns that the event says did not change. The image's parts
// are appended to what into has of them, emptied.
func (l *Layout) Read(body []byte, unchanged []string, into *Image) error {
	*into = Image{Parts: into.Parts[:0], Op: 'r'}
	if l.flat {
		return l.readFlat(body, unchanged, into)
	}
	for i := range l.fields {
		f := &l.fields[i]
		value, rest, there, ok := f.next(body)
		if !ok {
			return ErrMalformed
		}
		if body = rest; !there {
			continue
		}
		switch f.name {
		case schemas.EnvelopeAfter:
			if _, ok := l.readRow(value); !ok {
				return ErrMalformed
			}
			into.Row = true
		case schemas.EnvelopeOp:
			if op := text(value); len(op) == 1 {
				into.Op = op[0]
			}
		case schemas.EnvelopeSource:
			readSource(f.nested, value, into)
		case schemas.EnvelopeTx:
			readTransaction(f.nested, value, into)
		}
	}
	if len(body) > 0 {
		return ErrMalformed
	}
	if into.Row {
		l.sum(unchanged, into)
	}
	return nil
}

// Fields beside the row where there is no envelope. They do not tell where a commit is.
const (
	flatOp  = "__op"
	flatSeq = "__seq"
)

func (l *Layout) readFlat(body []byte, unchanged []string, into *Image) error {
	rest, ok := l.readRow(body)
	if !ok || len(rest) > 0 {
		return ErrMalformed
	}
	for i := range l.row {
		if !l.spans[i].there {
			continue
		}
		switch l.row[i].name {
		case flatOp:
			if op := text(l.spans[i].value); len(op) == 1 {
				into.Op = op[0]
			}
		case flatSeq:
			into.Seq, _, _ = varint(l.spans[i].value)
		}
	}
	if into.Row = into.Op != 'd'; into.Row {
		l.sum(unchanged, into)
	}
	return nil
}

// next splits the field's value off; there is false when it is null.
func (f *field) next(b []byte) (value, rest []byte, there, ok bool) {
	if f.union {
		branch, n, ok := varint(b)
		if !ok || branch < 0 || branch > 1 {
			return nil, nil, false, false
		}
		if b = b[n:]; branch == f.null {
			return nil, b, false, true
		}
	}
	n, ok := f.skip(b)
	if !ok {
		return nil, nil, false, false
	}
	return b[:n], b[n:], true, true
}

func (l *Layout) readRow(b []byte) (rest []byte, ok bool) {
	for i := range l.row {
		value, after, there, ok := l.row[i].next(b)
		if !ok {
			return nil, false
		}
		l.spans[i], b = span{there, value}, after
	}
	return b, true
}

// text is the content of a string.
func text(b []byte) string {
	_, n, ok := varint(b)
	if !ok {
		return ""
	}
	return string(b[n:])
}

func readSource(fields []field, b []byte, into *Image) {
	for i := range fields {
		value, rest, there, ok := fields[i].next(b)
		if !ok {
			return
		}
		if b = rest; !there {
			continue
		}
		switch fields[i].name {
		case schemas.SourceSeq:
			into.Seq, _, _ = varint(value)
		case schemas.SourceLSN:
			lsn, _, _ := varint(value)
			into.Commit = lsn - 1
		}
	}
}

// readTransaction takes the commit's LSN, which the transaction's id ends with: that of the change is before it.
func readTransaction(fields []field, b []byte, into *Image) {
	for i := range fields {
		value, rest, there, ok := fields[i].next(b)
		if !ok {
			return
		}
		if b = rest; !there || fields[i].name != "id" {
			continue
		}
		if _, lsn, ok := strings.Cut(text(value), ":"); ok {
			if n, err := strconv.ParseInt(lsn, 10, 64); err == nil {
				into.Commit = n
			}
		}
	}
}

// sum makes the sums of the row that was read.
func (l *Layout) sum(unchanged []string, into *Image) {
	b := l.scratch[:0]
	for _, i := range l.order {
		if s := l.spans[i]; s.there {
			b = appendPart(appendPart(b, l.row[i].name), s.value)
		}
	}
	into.Sum = diff.SumOf(b)
	for _, i := range l.large {
		switch {
		case i < 0:
			into.Parts = append(into.Parts, make([]byte, partSize)...)
		case slices.Contains(unchanged, l.row[i].name):
			into.Parts = append(append(into.Parts, partUnknown), make([]byte, partSize-1)...)
		case !l.spans[i].there:
			into.Parts = append(into.Parts, make([]byte, partSize)...)
		default:
			s := diff.SumOf(l.spans[i].value)
			into.Parts = append(append(into.Parts, partSum), s[:]...)
		}
	}
	l.scratch = b
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(part))), part...)
}
