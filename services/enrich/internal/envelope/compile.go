// Package envelope reads Debezium envelopes: only the columns that are asked for, straight from the Avro bytes of the
// writer's schema, skipping the rest.
package envelope

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/schemas"
)

// Errors of Compile.
var (
	// ErrNotEnvelope: the schema is not that of a row's change. Its records are bad.
	ErrNotEnvelope = errors.New("not the envelope of a row")
	// ErrNoColumn: the table has no column of that name. The records may be good: what asks for the column is wrong.
	ErrNoColumn = errors.New("no such column")
)

// Column is a column that is asked for.
type Column struct {
	Name     string
	Required bool // the schema must have it; another column that it has not is read as null
}

// Plan reads the records of one writer's schema. It does not change and is safe for concurrent use.
type Plan struct {
	root    *node
	columns int
	lacking []string
}

// Lacking are the columns that were asked for, are not required and are not in the schema.
func (p *Plan) Lacking() []string { return p.lacking }

// Places of the fixed parts among the values that a node may fill; the columns of before and after follow.
const (
	destNone = iota - 1
	destOp
	destSeq
	destTs
	destBefore
	destAfter
	destColumns
)

type shape uint8

const (
	shapeNull shape = iota
	shapeBool
	shapeVarint
	shapeFloat
	shapeDouble
	shapeBytes
	shapeFixed
	shapeEnum
	shapeArray
	shapeMap
	shapeUnion
	shapeRecord
)

// node is one part of the schema.
type node struct {
	shape   shape
	dest    int  // where the value goes, or destNone
	kind    Kind // of the value
	scale   int32
	size    int // of a fixed
	symbols [][]byte
	parts   []*node // fields, branches, or the one item of an array or a map
}

// Compile makes the plan of a writer's schema for the columns asked for. Errors wrap ErrNotEnvelope or ErrNoColumn.
func Compile(s *avro.Schema, columns []Column) (*Plan, error) {
	c := compiler{columns: columns, defined: map[string]*avro.SchemaNode{}, skipped: map[string]*node{}, found: make([]bool, len(columns))}
	root := s.Root()
	if root == nil || root.Type != "record" {
		return nil, ErrNotEnvelope
	}
	c.define(root)
	p := &Plan{columns: len(columns), root: &node{shape: shapeRecord, dest: destNone}}
	var op, after, seq bool
	for i := range root.Fields {
		f := &root.Fields[i]
		part, err := c.envelopeField(f)
		if err != nil {
			return nil, err
		}
		p.root.parts = append(p.root.parts, part)
		switch f.Name {
		case schemas.EnvelopeOp:
			op = true
		case schemas.EnvelopeAfter:
			after = true
		case schemas.EnvelopeSource:
			seq = slices.ContainsFunc(c.resolve(&f.Type).Fields, func(f avro.SchemaField) bool { return f.Name == schemas.SourceSeq })
		}
	}
	if !op || !after || !seq {
		return nil, fmt.Errorf("%w: %s, %s and %s.%s are needed", ErrNotEnvelope, schemas.EnvelopeOp, schemas.EnvelopeAfter, schemas.EnvelopeSource, schemas.SourceSeq)
	}
	var missing []string
	for i, ok := range c.found {
		switch {
		case !ok && columns[i].Required:
			missing = append(missing, columns[i].Name)
		case !ok:
			p.lacking = append(p.lacking, columns[i].Name)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("%w: %s", ErrNoColumn, strings.Join(missing, ", "))
	}
	return p, nil
}

type compiler struct {
	columns []Column
	defined map[string]*avro.SchemaNode
	skipped map[string]*node // named types that are skipped; they may refer to themselves
	found   []bool           // columns of after
}

// define remembers the named types below n, for a later mention is by name alone.
func (c *compiler) define(n *avro.SchemaNode) {
	if n == nil {
		return
	}
	if full := fullName(n); full != "" {
		c.defined[full] = n
		// A mention may leave out the namespace. Two types that differ by it alone are left unresolved.
		if short := full[strings.LastIndexByte(full, '.')+1:]; short != full {
			if _, taken := c.defined[short]; taken {
				c.defined[short] = nil
			} else {
				c.defined[short] = n
			}
		}
	}
	for i := range n.Fields {
		c.define(&n.Fields[i].Type)
	}
	for i := range n.Branches {
		c.define(&n.Branches[i])
	}
	c.define(n.Items)
	c.define(n.Values)
}

func fullName(n *avro.SchemaNode) string {
	if n.Namespace == "" || strings.Contains(n.Name, ".") {
		return n.Name
	}
	return n.Namespace + "." + n.Name
}

// resolve follows a mention by name to its definition.
func (c *compiler) resolve(n *avro.SchemaNode) *avro.SchemaNode {
	if d := c.defined[n.Type]; d != nil {
		return d
	}
	return n
}

func (c *compiler) envelopeField(f *avro.SchemaField) (*node, error) {
	switch f.Name {
	case schemas.EnvelopeOp:
		return c.value(&f.Type, destOp)
	case schemas.EnvelopeBefore:
		return c.row(&f.Type, destBefore, destColumns)
	case schemas.EnvelopeAfter:
		return c.row(&f.Type, destAfter, destColumns+len(c.columns))
	case schemas.EnvelopeSource:
		return c.source(c.resolve(&f.Type))
	default:
		return c.value(&f.Type, destNone)
	}
}

func (c *compiler) source(n *avro.SchemaNode) (*node, error) {
	if n.Type != "record" {
		return nil, fmt.Errorf("%w: %s is not a record", ErrNotEnvelope, schemas.EnvelopeSource)
	}
	out := &node{shape: shapeRecord, dest: destNone}
	for i := range n.Fields {
		dest := destNone
		switch n.Fields[i].Name {
		case schemas.SourceSeq:
			dest = destSeq
		case schemas.SourceTsUs:
			dest = destTs
		}
		part, err := c.value(&n.Fields[i].Type, dest)
		if err != nil {
			return nil, err
		}
		out.parts = append(out.parts, part)
	}
	return out, nil
}

// row is before or after: a record of columns, or a union with one. present is told when the record is there; the
// columns go to first and on.
func (c *compiler) row(n *avro.SchemaNode, present, first int) (*node, error) {
	n = c.resolve(n)
	switch n.Type {
	case "union":
		out := &node{shape: shapeUnion, dest: destNone}
		for i := range n.Branches {
			b := c.resolve(&n.Branches[i])
			part := &node{shape: shapeNull, dest: destNone}
			if b.Type != "null" {
				var err error
				if part, err = c.row(b, present, first); err != nil {
					return nil, err
				}
			}
			out.parts = append(out.parts, part)
		}
		return out, nil
	case "record":
		out := &node{shape: shapeRecord, dest: present}
		for i := range n.Fields {
			dest := destNone
			if at := slices.IndexFunc(c.columns, func(col Column) bool { return col.Name == n.Fields[i].Name }); at >= 0 {
				dest = first + at
				if present == destAfter {
					c.found[at] = true
				}
			}
			part, err := c.value(&n.Fields[i].Type, dest)
			if err != nil {
				return nil, err
			}
			out.parts = append(out.parts, part)
		}
		return out, nil
	default:
		return nil, fmt.Errorf("%w: a row is not a record", ErrNotEnvelope)
	}
}

// value compiles any type; what is skipped is made once per name.
func (c *compiler) value(n *avro.SchemaNode, dest int) (*node, error) {
	name := ""
	if d := c.resolve(n); d.Name != "" {
		n, name = d, fullName(d)
		if done, ok := c.skipped[name]; ok && dest == destNone {
			return done, nil
		}
	}
	out := &node{dest: dest}
	if name != "" && dest == destNone {
		c.skipped[name] = out
	}
	var below []*avro.SchemaNode
	switch n.Type {
	case "record", "error":
		out.shape, out.kind = shapeRecord, Other
		for i := range n.Fields {
			below = append(below, &n.Fields[i].Type)
		}
		dest = destNone // a column of columns is not a value that anything reads
	case "union":
		out.shape, out.dest = shapeUnion, destNone
		for i := range n.Branches {
			below = append(below, &n.Branches[i])
		}
	case "array":
		out.shape, out.kind, dest = shapeArray, Other, destNone
		below = append(below, n.Items)
	case "map":
		out.shape, out.kind, dest = shapeMap, Other, destNone
		below = append(below, n.Values)
	default:
		if err := scalar(n, out); err != nil {
			return nil, err
		}
	}
	for _, b := range below {
		part, err := c.value(b, dest)
		if err != nil {
			return nil, err
		}
		out.parts = append(out.parts, part)
	}
	return out, nil
}

func scalar(n *avro.SchemaNode, out *node) error {
	switch n.Type {
	case "null":
		out.shape, out.kind = shapeNull, Null
	case "boolean":
		out.shape, out.kind = shapeBool, Bool
	case "int", "long":
		out.shape, out.kind = shapeVarint, integerKind(n.LogicalType)
	case "float":
		out.shape, out.kind = shapeFloat, Double
	case "double":
		out.shape, out.kind = shapeDouble, Double
	case "string":
		out.shape, out.kind = shapeBytes, Text
	case "bytes", "fixed":
		out.shape, out.kind = shapeBytes, Other
		if n.Type == "fixed" {
			out.shape, out.size = shapeFixed, n.Size
		}
		if n.LogicalType == "decimal" {
			out.kind, out.scale = Decimal, int32(n.Scale)
		}
	case "enum":
		out.shape, out.kind = shapeEnum, Text
		for _, s := range n.Symbols {
			out.symbols = append(out.symbols, []byte(s))
		}
	default:
		return fmt.Errorf("%w: a type of its schema is not known", ErrNotEnvelope)
	}
	return nil
}

func integerKind(logical string) Kind {
	switch logical {
	case "date":
		return Date
	case "timestamp-millis":
		return TimestampMillis
	case "timestamp-micros":
		return Timestamp
	case "local-timestamp-millis":
		return LocalTimestampMillis
	case "local-timestamp-micros":
		return LocalTimestamp
	default:
		return Int
	}
}
