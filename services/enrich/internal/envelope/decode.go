package envelope

import (
	"encoding/binary"
	"errors"
	"math"
)

// ErrCorrupt: the bytes do not fit the schema. The record is bad.
var ErrCorrupt = errors.New("record does not fit its schema")

// Row is a change of a row. It is reused from record to record; its values point into the record's bytes.
type Row struct {
	Op        byte  // c create, u update, d delete, r read, t truncate; 0 if it is something else
	Seq       int64 // version of the row
	TsUs      int64 // commit time at the source, microseconds
	HasBefore bool
	HasAfter  bool
	Before    []Value // by the columns asked for
	After     []Value

	values []Value
}

// maxDepth bounds the nesting of a record, so that bytes cannot exhaust the stack.
const maxDepth = 64

// Decode reads the body of a record, without frame. Its only error is ErrCorrupt.
func (p *Plan) Decode(body []byte, row *Row) error {
	n := destColumns + 2*p.columns
	if cap(row.values) < n {
		row.values = make([]Value, n)
	}
	row.values = row.values[:n]
	clear(row.values)
	r := reader{rest: body}
	r.read(p.root, row.values, 0)
	if r.bad || len(r.rest) > 0 {
		return ErrCorrupt
	}
	row.Op = 0
	if op := row.values[destOp]; len(op.Bytes) == 1 {
		row.Op = op.Bytes[0]
	}
	row.Seq, row.TsUs = row.values[destSeq].Int, row.values[destTs].Int
	row.HasBefore, row.HasAfter = row.values[destBefore].Kind != Null, row.values[destAfter].Kind != Null
	row.Before = row.values[destColumns : destColumns+p.columns]
	row.After = row.values[destColumns+p.columns:]
	return nil
}

// reader walks over the bytes; after a mistake it is bad and stays so.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) read(n *node, values []Value, depth int) {
	if depth > maxDepth {
		r.fail()
	}
	if r.bad {
		return
	}
	var v Value
	switch n.shape {
	case shapeNull:
		return
	case shapeBool:
		b := r.take(1)
		if len(b) == 1 && b[0] > 1 {
			r.fail()
		}
		if len(b) == 1 {
			v.Int = int64(b[0])
		}
	case shapeVarint:
		v.Int = r.varint()
	case shapeFloat:
		if b := r.take(4); b != nil {
			v.Float = float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
			v.Narrow = true
		}
	case shapeDouble:
		if b := r.take(8); b != nil {
			v.Float = math.Float64frombits(binary.LittleEndian.Uint64(b))
		}
	case shapeBytes:
		v.Bytes = r.take(r.varint())
	case shapeFixed:
		v.Bytes = r.take(int64(n.size))
	case shapeEnum:
		i := r.varint()
		if i < 0 || i >= int64(len(n.symbols)) {
			r.fail()
			return
		}
		v.Bytes = n.symbols[i]
	case shapeUnion:
		i := r.varint()
		if i < 0 || i >= int64(len(n.parts)) {
			r.fail()
			return
		}
		r.read(n.parts[i], values, depth+1)
		return
	case shapeRecord:
		for _, part := range n.parts {
			r.read(part, values, depth+1)
		}
		v.Kind = Other
	case shapeArray, shapeMap:
		r.blocks(n, values, depth)
	}
	if n.dest != destNone && !r.bad {
		v.Scale, v.Kind = n.scale, n.kind
		if n.shape == shapeRecord {
			v.Kind = Other
		}
		values[n.dest] = v
	}
}

// blocks skips the items of an array or a map; a block may tell its size.
func (r *reader) blocks(n *node, values []Value, depth int) {
	for !r.bad {
		count := r.varint()
		if count == 0 {
			return
		}
		if count < 0 {
			r.take(r.varint())
			continue
		}
		for ; count > 0 && !r.bad; count-- {
			before := len(r.rest)
			if n.shape == shapeMap {
				r.take(r.varint())
			}
			r.read(n.parts[0], values, depth+1)
			if len(r.rest) == before { // items without bytes: they are all skipped by one
				break
			}
		}
	}
}

func (r *reader) fail() { r.bad, r.rest = true, nil }

func (r *reader) take(n int64) []byte {
	if n < 0 || n > int64(len(r.rest)) {
		r.fail()
		return nil
	}
	out := r.rest[:n:n]
	r.rest = r.rest[n:]
	return out
}

func (r *reader) varint() int64 {
	if len(r.rest) > 0 && r.rest[0] < 0x80 { // most are of one byte
		u := uint64(r.rest[0])
		r.rest = r.rest[1:]
		return int64(u>>1) ^ -int64(u&1)
	}
	u, n := binary.Uvarint(r.rest)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.rest = r.rest[n:]
	return int64(u>>1) ^ -int64(u&1)
}
