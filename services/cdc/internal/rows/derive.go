package rows

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/avro"
)

// Derive makes a table of the schemas that its topic's keys and values were written with, where the source cannot be asked.
// What an encoder of it writes can be read by those schemas, or there is an error. treat tells how a column is handled.
// Columns that the schema says are not written are in the table all the same, behind the others.
func Derive(schema, name string, key, value *avro.Schema, treat func(column string) Treatment) (Table, error) {
	t := Table{Schema: schema, Name: name}
	row := rowOf(value.Root())
	if row == nil {
		return t, errors.New("the topic's schema has no row")
	}
	var keys []string
	for _, f := range key.Root().Fields {
		keys = append(keys, f.Name)
	}
	for i := range row.Fields {
		f := &row.Fields[i]
		c := Column{Name: f.Name, Field: f.Name, Key: slices.Contains(keys, f.Name)}
		c.Nullable = c.Key && f.Type.Type == "union"
		kind, precision, scale := kindOfAvro(notNull(&f.Type))
		if c.Kind, c.Precision, c.Scale = kind, precision, scale; kind == Array {
			c.Elem, c.Precision, c.Scale = kindOfAvro(notNull(notNull(&f.Type).Items))
			c.Delimiter = ','
		}
		t.Columns = append(t.Columns, c.Treated(treat(f.Name), true))
	}
	hidden, _ := row.Props["hidden"].(map[string]any)
	for _, column := range slices.Sorted(maps.Keys(hidden)) {
		t.Columns = append(t.Columns, Column{Name: column, Field: FieldName(column), Treatment: Treatment{Handling: Excluded}})
	}
	for _, c := range t.Columns {
		if err := c.allowed(); err != nil {
			return t, err
		}
	}
	for _, s := range []struct {
		of   string
		have *avro.Schema
		mine string
	}{{"keys", key, t.KeySchema()}, {"values", value, t.ValueSchema()}} {
		mine, err := avro.Parse(s.mine)
		if err != nil || !bytes.Equal(mine.Canonical(), s.have.Canonical()) {
			return t, fmt.Errorf("the topic's schema of %s has types, or a form, that cannot be written without the source", s.of)
		}
	}
	return t, nil
}

// notNull is the type that may be null.
func notNull(node *avro.SchemaNode) *avro.SchemaNode {
	for i := range node.Branches {
		if node.Branches[i].Type != "null" {
			return &node.Branches[i]
		}
	}
	return node
}

// rowOf is the record of the row in the envelope, declared where it is first used.
func rowOf(root *avro.SchemaNode) *avro.SchemaNode {
	for i := range root.Fields {
		if root.Fields[i].Name != "before" {
			continue
		}
		for j := range root.Fields[i].Type.Branches {
			if b := &root.Fields[i].Type.Branches[j]; b.Type == "record" {
				return b
			}
		}
	}
	return nil
}

// kindOfAvro is a kind that is written in a type; where several are, the one whose text needs no more than is told.
func kindOfAvro(node *avro.SchemaNode) (kind Kind, precision, scale int) {
	switch node.Type + " " + node.LogicalType {
	case "int ":
		return Int, 0, 0
	case "long ":
		return Long, 0, 0
	case "boolean ":
		return Boolean, 0, 0
	case "float ":
		return Float, 0, 0
	case "double ":
		return Double, 0, 0
	case "bytes decimal":
		return Decimal, node.Precision, node.Scale
	case "bytes ":
		return Bytes, 0, 0
	case "int date":
		return Date, 0, 0
	case "long timestamp-micros":
		return Timestamp, 0, 0
	case "long local-timestamp-micros":
		return LocalTimestamp, 0, 0
	case "long timestamp-millis":
		return TimestampMillis, 0, 0
	case "long time-micros":
		return Time, 0, 0
	case "int time-millis":
		return TimeMillis, 0, 0
	case "map ":
		return Map, 0, 0
	case "array ":
		if node.Items.Type == "float" {
			return Vector, 0, 0
		}
		return Array, 0, 0
	}
	return String, 0, 0
}
