package rows

import (
	"fmt"
	"slices"
	"strings"
)

// Type is a type of the source as its catalog has it, free of domains.
type Type struct {
	Name       string   // of pg_type: "numeric"; "" for one that is neither PostgreSQL's own nor an extension's
	Extension  string   // that it belongs to; "" for PostgreSQL's own
	Modifier   int32    // as in pg_attribute.atttypmod, -1 if none; an array has none, its elements have it
	Labels     []string // of an enum, in its order
	Enum       bool
	Elem       *Type // of an array: what it is of
	Delimiter  byte  // of an array: what stands between its elements
	Dimensions int   // of an array: as declared, which PostgreSQL does not enforce
}

// DecimalMode is how numeric and money are written.
type DecimalMode string

// Modes of decimals, named as in Debezium.
const (
	DecimalPrecise DecimalMode = "precise" // Avro decimal where precision and scale are declared, else text
	DecimalString  DecimalMode = "string"  // text
	DecimalDouble  DecimalMode = "double"  // double: digits may be lost
)

// TimeMode is how dates and times are written.
type TimeMode string

// Modes of times.
const (
	TimeMicros  TimeMode = "micros"    // Avro's logical types, microseconds
	TimeConnect TimeMode = "connect"   // those that Kafka Connect knows: milliseconds, what is finer is cut off
	TimeISO     TimeMode = "isostring" // ISO 8601 text
)

// BinaryMode is how bytea and other bytes are written.
type BinaryMode string

// Modes of bytes.
const (
	BinaryBytes  BinaryMode = "bytes"
	BinaryBase64 BinaryMode = "base64"
	BinaryHex    BinaryMode = "hex"
)

// Modes are the choices in how types are written. The zero value is precise, micros and bytes.
type Modes struct {
	Decimal DecimalMode
	Time    TimeMode
	Binary  BinaryMode
}

// Validate names the key of the cdc section that is wrong.
func (m Modes) Validate() error {
	for _, c := range []struct {
		key, value string
		allowed    []string
	}{
		{"decimal", string(m.Decimal), []string{string(DecimalPrecise), string(DecimalString), string(DecimalDouble)}},
		{"time", string(m.Time), []string{string(TimeMicros), string(TimeConnect), string(TimeISO)}},
		{"binary", string(m.Binary), []string{string(BinaryBytes), string(BinaryBase64), string(BinaryHex)}},
	} {
		if !slices.Contains(c.allowed, c.value) {
			return fmt.Errorf("%s: %q must be one of %s", c.key, c.value, strings.Join(c.allowed, ", "))
		}
	}
	return nil
}

// Exact are the modes for a key: two rows must not have one because digits or microseconds are cut off.
func (m Modes) Exact() Modes {
	if m.Decimal == DecimalDouble {
		m.Decimal = DecimalPrecise
	}
	if m.Time == TimeConnect {
		m.Time = TimeMicros
	}
	return m
}

// Column is how a column of the type is written: a Column without names. A type that nothing here knows is written as
// PostgreSQL prints it.
func (t Type) Column(m Modes) Column {
	switch {
	case t.Elem != nil:
		return t.array(m)
	case t.Enum:
		return Column{Semantic: enum, Labels: strings.Join(t.Labels, ",")}
	case t.Extension != "":
		return t.ofExtension(m)
	}
	switch t.Name {
	case "bool":
		return Column{Kind: Boolean}
	case "int2", "int4":
		return Column{Kind: Int}
	case "int8", "oid", "xid", "cid":
		return Column{Kind: Long}
	case "float4":
		return Column{Kind: Float}
	case "float8":
		return Column{Kind: Double}
	case "numeric":
		return t.numeric(m.Decimal)
	case "money":
		return money(m.Decimal)
	case "date", "time", "timestamp", "timestamptz":
		return temporal(t.Name, m.Time)
	case "bytea":
		return binaryColumn(m.Binary, Bytes, Base64, Hex)
	}
	return Column{Semantic: semantics(t.Name)}
}

// enum is the name by which Debezium's consumers know an enum.
const enum = "io.debezium.data.Enum"

// semantics is the name by which Debezium's consumers know what a string holds; "" if it is a string and no more.
func semantics(name string) string {
	switch name {
	case "uuid":
		return "io.debezium.data.Uuid"
	case "json", "jsonb":
		return "io.debezium.data.Json"
	case "xml":
		return "io.debezium.data.Xml"
	case "interval":
		return "io.debezium.time.Interval"
	}
	return ""
}

func (t Type) ofExtension(m Modes) Column {
	switch t.Extension + "." + t.Name {
	case "hstore.hstore":
		return Column{Kind: Map}
	case "ltree.ltree":
		return Column{Semantic: "io.debezium.data.Ltree"}
	case "vector.vector", "vector.halfvec":
		return Column{Kind: Vector}
	case "postgis.geometry", "postgis.geography":
		return binaryColumn(m.Binary, Geometry, GeometryBase64, GeometryHex)
	}
	return Column{}
}

// array is a list where one dimension is declared. More of them have no fixed schema: they are text.
func (t Type) array(m Modes) Column {
	out := t.Elem.Column(m)
	if t.Dimensions > 1 || out.Kind == Array {
		return Column{}
	}
	out.Kind, out.Elem, out.Delimiter = Array, out.Kind, t.Delimiter
	return out
}

func (t Type) numeric(m DecimalMode) Column {
	switch m {
	case DecimalDouble:
		return Column{Kind: Double}
	case DecimalString:
		return Column{}
	}
	if t.Modifier < 4 {
		return Column{}
	}
	precision := int(t.Modifier-4) >> 16 & 0xffff
	scale := int((t.Modifier-4)&0x7ff^1024) - 1024 // 11 bits with a sign
	if scale < 0 || scale > precision {            // Avro has no such decimals
		return Column{}
	}
	return Column{Kind: Decimal, Precision: precision, Scale: scale}
}

// moneyPrecision is the number of digits of the largest money.
const moneyPrecision, moneyScale = 19, 2

func money(m DecimalMode) Column {
	switch m {
	case DecimalDouble:
		return Column{Kind: MoneyDouble}
	case DecimalString:
		return Column{Kind: MoneyText}
	}
	return Column{Kind: Money, Precision: moneyPrecision, Scale: moneyScale}
}

func temporal(name string, m TimeMode) Column {
	switch m {
	case TimeConnect: // Kafka Connect knows these logical types by themselves
		switch name {
		case "date":
			return Column{Kind: Date}
		case "time":
			return Column{Kind: TimeMillis}
		}
		return Column{Kind: TimestampMillis}
	case TimeISO:
		switch name {
		case "date":
			return Column{Kind: ISODate}
		case "time":
			return Column{} // PostgreSQL's text is ISO's
		}
		return Column{Kind: ISOTimestamp}
	}
	switch name {
	case "date":
		return Column{Kind: Date}
	case "time":
		return Column{Kind: Time, Semantic: "io.debezium.time.MicroTime"}
	case "timestamp":
		return Column{Kind: LocalTimestamp, Semantic: "io.debezium.time.MicroTimestamp"}
	}
	return Column{Kind: Timestamp, Semantic: "io.debezium.time.MicroTimestamp"}
}

func binaryColumn(m BinaryMode, raw, base64, hex Kind) Column {
	switch m {
	case BinaryBase64:
		return Column{Kind: base64}
	case BinaryHex:
		return Column{Kind: hex}
	}
	return Column{Kind: raw}
}
