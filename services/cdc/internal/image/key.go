package image

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/avro"
)

// KeyLayout reads the keys that one schema wrote. It is immutable.
type KeyLayout struct{ fields []keyField }

type keyField struct {
	name string
	skip skipper
	node *avro.SchemaNode
}

// KeyColumn is a column of a key.
type KeyColumn struct {
	Field string
	// Text is the value as PostgreSQL writes it, where that can be told: encoding it again shows whether it is.
	Text string
}

// CompileKey makes the layout of keys of a schema.
func CompileKey(schema *avro.Schema) (*KeyLayout, error) {
	root := schema.Root()
	if root.Type != "record" {
		return nil, errors.New("keys of the topic are no records")
	}
	l, c := &KeyLayout{}, newCompiler()
	for i := range root.Fields {
		f := &root.Fields[i]
		skip, err := c.skipper(&f.Type)
		if err != nil {
			return nil, err
		}
		l.fields = append(l.fields, keyField{f.Name, skip, &f.Type})
	}
	return l, nil
}

// Read reads a key without its frame.
func (l *KeyLayout) Read(body []byte) ([]KeyColumn, error) {
	var out []KeyColumn
	for _, f := range l.fields {
		n, ok := f.skip(body)
		if !ok {
			return nil, ErrMalformed
		}
		out = append(out, KeyColumn{Field: f.name, Text: keyText(f.node, body[:n])})
		body = body[n:]
	}
	if len(body) > 0 {
		return nil, ErrMalformed
	}
	return out, nil
}

// keyText is a value in PostgreSQL's text form, or as near to it as people need.
func keyText(node *avro.SchemaNode, b []byte) string {
	switch node.Type {
	case "union":
		branch, n, _ := varint(b)
		if node.Branches[branch].Type == "null" {
			return "null"
		}
		return keyText(&node.Branches[branch], b[n:])
	case "boolean":
		return strconv.FormatBool(b[0] != 0)[:1]
	case "int", "long":
		v, _, _ := varint(b)
		return integerText(node.LogicalType, v)
	case "float":
		return strconv.FormatFloat(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 'g', -1, 32)
	case "double":
		return strconv.FormatFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)), 'g', -1, 64)
	case "string":
		return text(b)
	case "bytes":
		if node.LogicalType == "decimal" {
			return decimalText([]byte(text(b)), node.Scale)
		}
		return `\x` + hex.EncodeToString([]byte(text(b)))
	}
	return `\x` + hex.EncodeToString(b)
}

func integerText(logical string, v int64) string {
	switch logical {
	case "date":
		if v == math.MaxInt32 || v == math.MinInt32 {
			return infinity(v)
		}
		return time.Unix(v*86_400, 0).UTC().Format("2006-01-02")
	case "timestamp-micros", "local-timestamp-micros":
		if v == math.MaxInt64 || v == math.MinInt64 {
			return infinity(v)
		}
		form := "2006-01-02 15:04:05.999999"
		if logical == "timestamp-micros" {
			form += "-07"
		}
		return time.UnixMicro(v).UTC().Format(form)
	}
	return strconv.FormatInt(v, 10)
}

func infinity(v int64) string {
	if v < 0 {
		return "-infinity"
	}
	return "infinity"
}

// decimalText writes the two's complement of an unscaled value.
func decimalText(b []byte, scale int) string {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	digits := new(big.Int).Abs(n).String()
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale+1-len(digits)) + digits
	}
	out := digits[:len(digits)-scale]
	if scale > 0 {
		out += "." + digits[len(digits)-scale:]
	}
	if n.Sign() < 0 {
		out = "-" + out
	}
	return out
}
