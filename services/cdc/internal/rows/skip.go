package rows

import "encoding/binary"

// skip is the length of the column's value at the start of Avro bytes, as it stands in a key.
func (c Column) skip(b []byte) (int, bool) {
	if c.Nullable {
		c.Nullable = false
		return skipOptional(b, c)
	}
	switch c.Kind {
	case Boolean:
		return 1, len(b) >= 1
	case Float:
		return 4, len(b) >= 4
	case Double, MoneyDouble:
		return 8, len(b) >= 8
	case Int, Long, Date, Time, TimeMillis, Timestamp, LocalTimestamp, TimestampMillis:
		_, n := binary.Uvarint(b)
		return n, n > 0
	case Array:
		return skipBlocks(b, func(b []byte) (int, bool) { return skipOptional(b, c.element()) })
	case Vector:
		return skipBlocks(b, Column{Kind: Float}.skip)
	case Map:
		return skipBlocks(b, skipEntry)
	}
	return skipSized(b)
}

func long(b []byte) (v int64, n int, ok bool) {
	u, n := binary.Uvarint(b)
	return int64(u>>1) ^ -int64(u&1), n, n > 0
}

func skipSized(b []byte) (int, bool) {
	size, n, ok := long(b)
	if !ok || size < 0 || size > int64(len(b)-n) {
		return 0, false
	}
	return n + int(size), true
}

// skipOptional passes a union of null and the column's type.
func skipOptional(b []byte, c Column) (int, bool) {
	if len(b) == 0 || b[0] != 0 && b[0] != 2 {
		return 0, false
	}
	if b[0] == 0 {
		return 1, true
	}
	n, ok := c.skip(b[1:])
	return n + 1, ok
}

// skipEntry passes a map's key and value.
func skipEntry(b []byte) (int, bool) {
	n, ok := skipSized(b)
	if !ok {
		return 0, false
	}
	m, ok := skipOptional(b[n:], Column{})
	return n + m, ok
}

// skipBlocks passes an array or a map: blocks of items, each with its count, up to one of none.
func skipBlocks(b []byte, item func([]byte) (int, bool)) (int, bool) {
	at := 0
	for {
		count, n, ok := long(b[at:])
		if !ok || count < 0 { // the encoder writes no block with its size
			return 0, false
		}
		if at += n; count == 0 {
			return at, true
		}
		for range count {
			n, ok := item(b[at:])
			if !ok {
				return 0, false
			}
			at += n
		}
	}
}
