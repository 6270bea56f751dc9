// Package rows turns rows in PostgreSQL's text form into Avro: it derives the schemas of a table's topic and compiles, for
// one version of a table, an encoder that appends bytes without allocating. It does no I/O.
package rows

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/rowfilter"
)

// Kind is how a column is written in Avro.
type Kind uint8

// Kinds.
const (
	String Kind = iota // PostgreSQL's text
	Int
	Long
	Boolean
	Float
	Double
	Decimal
	Date
	Timestamp      // timestamptz
	LocalTimestamp // timestamp without time zone, read as UTC
	Bytes
	Token // personal data: a keyed token, as a string

	Time            // microseconds of the day; 24:00 is 86,400,000,000
	TimeMillis      // milliseconds of the day
	TimestampMillis // with or without time zone
	ISODate         // text
	ISOTimestamp    // text, with or without time zone
	Money           // as Decimal
	MoneyText
	MoneyDouble
	Base64 // of bytea, text
	Hex
	Geometry // PostGIS, EWKB
	GeometryBase64
	GeometryHex
	Map    // hstore
	Vector // pgvector
	Array  // one dimension, of Elem
)

// Column is a column of a table as it is captured.
type Column struct {
	Name             string // in the source
	Field            string // in Avro: Name with what Avro does not allow replaced by '_'
	Kind             Kind
	Precision, Scale int  // of a Decimal
	Key              bool // part of the topic's key; never null, unless Nullable
	Nullable         bool // of a key that is the whole row: null all the same

	Elem      Kind   // of an Array; Precision, Scale, Semantic and Labels are then its elements'
	Delimiter byte   // of an Array: between its elements
	Semantic  string // the name by which Kafka Connect's consumers know the type; "" for none
	Labels    string // of an enum, separated by commas
	Treatment Treatment
}

// Table is one version of a captured table.
type Table struct {
	Schema, Name string
	Columns      []Column          // in the order of the protocol
	Lineage      Lineage           // where the columns come from; Equal does not look at it
	Filter       *rowfilter.Filter // of the rows that are captured; nil for all
}

// FieldName makes a column's name one that Avro allows.
func FieldName(column string) string {
	out := strings.Map(func(r rune) rune {
		if r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, column)
	if out == "" || '0' <= out[0] && out[0] <= '9' {
		out = "_" + out
	}
	return out
}

// TopicPart makes a schema's or table's name one that a Kafka topic allows.
func TopicPart(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '_'
	}, name)
}

// Refusal tells why the configuration does not let the table be captured.
func (t Table) Refusal() error {
	for _, c := range t.Columns {
		if err := c.allowed(); err != nil {
			return err
		}
	}
	_, err := t.bind()
	return err
}

// Validate tells why the table cannot be captured.
func (t Table) Validate() error {
	if err := t.Refusal(); err != nil {
		return err
	}
	seen := map[string]string{}
	keys := 0
	for _, c := range t.Columns {
		if !c.Treatment.Written() {
			continue
		}
		if other, ok := seen[c.Field]; ok {
			return fmt.Errorf("columns %q and %q are both %q in Avro; rename one, or leave it out of the publication's column list", other, c.Name, c.Field)
		}
		seen[c.Field] = c.Name
		if c.Key {
			keys++
		}
	}
	if keys == 0 {
		return fmt.Errorf("it has no primary key; on the primary: ALTER TABLE %[1]s ADD PRIMARY KEY (…); or take its whole rows as keys: "+
			"ALTER TABLE %[1]s REPLICA IDENTITY FULL, and set cdc.keyless to row", t.Ident())
	}
	return nil
}

// Ident is the table's name in SQL, quoted.
func (t Table) Ident() string { return Quote(t.Schema) + "." + Quote(t.Name) }

// Quote makes an SQL identifier.
func Quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// Equal tells whether both have the same shape.
func (t Table) Equal(o Table) bool {
	if t.Schema != o.Schema || t.Name != o.Name || len(t.Columns) != len(o.Columns) {
		return false
	}
	for i, c := range t.Columns {
		if c != o.Columns[i] {
			return false
		}
	}
	return true
}

type field struct {
	Name    string `json:"name"`
	Type    any    `json:"type"`
	Default any    `json:"default,omitempty"`
	provenance
}

type record struct {
	Type      string            `json:"type"`
	Name      string            `json:"name"`
	Namespace string            `json:"namespace,omitempty"`
	Connect   string            `json:"connect.name,omitempty"`
	Fields    []field           `json:"fields"`
	Hidden    map[string]Hidden `json:"hidden,omitempty"`
}

// null is the JSON null as a default: omitempty leaves out a nil.
var null = json.RawMessage("null")

func optional(t any, name string) field {
	return field{Name: name, Type: []any{"null", t}, Default: null}
}

func (t Table) namespace() string {
	return "store." + FieldName(t.Schema) + "." + FieldName(t.Name)
}

// KeySchema is the Avro schema of the topic's keys. A key's bytes begin with its schema's id, so a new label of an enum
// must not make a new schema: an enum is a plain string here.
func (t Table) KeySchema() string {
	r := record{Type: "record", Name: "Key", Namespace: t.namespace()}
	for _, c := range t.Columns {
		if c.Semantic == enum {
			c.Semantic, c.Labels = "", ""
		}
		switch {
		case c.Key && c.Nullable:
			r.Fields = append(r.Fields, optional(c.avro(), c.Field))
		case c.Key:
			r.Fields = append(r.Fields, field{Name: c.Field, Type: c.avro()})
		}
	}
	return marshal(r)
}

// ValueSchema is the Avro schema of the topic's values: Debezium's envelope and our seq.
func (t Table) ValueSchema() string {
	row := record{Type: "record", Name: "Value", Fields: t.rowFields()}
	t.describe(&row)
	return marshal(record{Type: "record", Name: "Envelope", Namespace: t.namespace(), Fields: []field{
		optional(row, "before"), optional("Value", "after"), {Name: "source", Type: sourceRecord()}, optional(blockRecord(), "transaction"),
		{Name: "op", Type: "string"}, optional("long", "ts_ms"), optional("long", "ts_us"), optional("long", "ts_ns"),
	}})
}

// rowFields are the fields of the columns that are written.
func (t Table) rowFields() []field {
	var out []field
	for _, c := range t.Columns {
		switch {
		case !c.Treatment.Written():
		case c.Key && !c.Nullable:
			out = append(out, field{Name: c.Field, Type: c.avro()})
		default:
			out = append(out, optional(c.avro(), c.Field))
		}
	}
	return out
}

// AvroType is the column's type in values, without null, as JSON.
func (c Column) AvroType() string {
	out, err := json.Marshal(c.avro())
	if err != nil { // only strings, numbers and lists of them
		return ""
	}
	return string(out)
}

// avro is the column's type without null.
func (c Column) avro() any {
	switch c.Kind {
	case Array:
		return map[string]any{"type": "array", "items": []any{"null", c.element().avro()}}
	case Vector:
		return map[string]any{"type": "array", "items": "float"}
	case Map:
		return map[string]any{"type": "map", "values": []any{"null", "string"}}
	}
	base, logical := c.primitive()
	if logical == "" && c.Semantic == "" {
		return base
	}
	out := map[string]any{"type": base}
	if logical != "" {
		out["logicalType"] = logical
	}
	if logical == "decimal" {
		out["precision"], out["scale"] = c.Precision, c.Scale
	}
	if c.Semantic != "" {
		out["connect.name"] = c.Semantic
	}
	if c.Labels != "" {
		out["connect.parameters"] = map[string]string{"allowed": c.Labels}
	}
	return out
}

// primitive is Avro's primitive and logical type of a kind that has no parts.
func (c Column) primitive() (base, logical string) {
	switch c.Kind {
	case Int:
		return "int", ""
	case Long:
		return "long", ""
	case Boolean:
		return "boolean", ""
	case Float:
		return "float", ""
	case Double, MoneyDouble:
		return "double", ""
	case Decimal, Money:
		return "bytes", "decimal"
	case Date:
		return "int", "date"
	case Time:
		return "long", "time-micros"
	case TimeMillis:
		return "int", "time-millis"
	case Timestamp:
		return "long", "timestamp-micros"
	case LocalTimestamp:
		return "long", "local-timestamp-micros"
	case TimestampMillis:
		return "long", "timestamp-millis"
	case Bytes, Geometry:
		return "bytes", ""
	}
	return "string", ""
}

// element is what an Array is of, as if it were a column.
func (c Column) element() Column {
	c.Kind, c.Elem = c.Elem, String
	return c
}

func marshal(r record) string {
	out, err := json.Marshal(r)
	if err != nil { // only strings, numbers and lists of them
		return ""
	}
	return string(out)
}
