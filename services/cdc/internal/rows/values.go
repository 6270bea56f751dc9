package rows

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"strconv"
	"unicode/utf8"
)

// ErrDoesNotFit: a value cannot be written in its column's Avro type. Errors never repeat the value.
var ErrDoesNotFit = errors.New("a value does not fit its type")

// appendFunc appends the Avro form of PostgreSQL's text.
type appendFunc func(dst, text []byte) ([]byte, error)

func appendLong(dst []byte, v int64) []byte {
	return binary.AppendUvarint(dst, uint64(v<<1)^uint64(v>>63))
}

func appendString(dst []byte, s string) []byte { return append(appendLong(dst, int64(len(s))), s...) }

func appendBytes(dst, b []byte) []byte { return append(appendLong(dst, int64(len(b))), b...) }

func appendText(dst, text []byte) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, ErrDoesNotFit
	}
	return appendBytes(dst, text), nil
}

func parseInt(text []byte) (int64, bool) {
	neg := len(text) > 0 && text[0] == '-'
	if neg {
		text = text[1:]
	}
	if len(text) == 0 || len(text) > 19 {
		return 0, false
	}
	var n uint64
	for _, c := range text {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case neg && n <= 1<<63:
		return -int64(n), true
	case !neg && n < 1<<63:
		return int64(n), true
	}
	return 0, false
}

func appendInt4(dst, text []byte) ([]byte, error) {
	n, ok := parseInt(text)
	if !ok || n < math.MinInt32 || n > math.MaxInt32 {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, n), nil
}

func appendInt8(dst, text []byte) ([]byte, error) {
	n, ok := parseInt(text)
	if !ok {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, n), nil
}

func appendBool(dst, text []byte) ([]byte, error) {
	if len(text) == 1 {
		switch text[0] {
		case 't':
			return append(dst, 1), nil
		case 'f':
			return append(dst, 0), nil
		}
	}
	return dst, ErrDoesNotFit
}

func appendFloat4(dst, text []byte) ([]byte, error) {
	f, err := strconv.ParseFloat(string(text), 32)
	if err != nil {
		return dst, ErrDoesNotFit
	}
	return binary.LittleEndian.AppendUint32(dst, math.Float32bits(float32(f))), nil
}

func appendFloat8(dst, text []byte) ([]byte, error) {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return dst, ErrDoesNotFit
	}
	return binary.LittleEndian.AppendUint64(dst, math.Float64bits(f)), nil
}

// decimal writes a numeric of at most precision digits, scale of them fractional, as two's complement of the unscaled
// value. NaN and infinity do not fit.
func decimal(precision, scale int) appendFunc {
	return func(dst, text []byte) ([]byte, error) {
		var digits [1100]byte // numeric(1000) is the widest that can be declared
		unscaled, neg, ok := unscale(digits[:0], text, scale)
		if !ok || len(unscaled) > precision {
			return dst, ErrDoesNotFit
		}
		if len(unscaled) <= 18 {
			var n int64
			for _, c := range unscaled {
				n = n*10 + int64(c-'0')
			}
			if neg {
				n = -n
			}
			return appendTwosComplement(dst, n), nil
		}
		return appendBig(dst, unscaled, neg)
	}
}

// unscale gathers the digits without the point and leading zeros, with exactly scale after the point.
func unscale(digits, text []byte, scale int) (out []byte, neg, ok bool) {
	if len(text) > 1+1+1000+1 || len(text) == 0 {
		return nil, false, false
	}
	if text[0] == '-' {
		neg, text = true, text[1:]
	}
	fraction, point := 0, false
	for _, c := range text {
		switch {
		case c == '.' && !point:
			point = true
			continue
		case c < '0' || c > '9':
			return nil, false, false
		}
		if point {
			fraction++
		}
		if len(digits) > 0 || c != '0' {
			digits = append(digits, c)
		}
	}
	if fraction > scale || len(text) == 0 {
		return nil, false, false
	}
	for ; fraction < scale; fraction++ {
		if len(digits) > 0 {
			digits = append(digits, '0')
		}
	}
	return digits, neg, true
}

func appendTwosComplement(dst []byte, n int64) []byte {
	size := 1
	for size < 8 && (n >= 1<<(8*size-1) || n < -1<<(8*size-1)) {
		size++
	}
	dst = appendLong(dst, int64(size))
	for i := size - 1; i >= 0; i-- {
		dst = append(dst, byte(n>>(8*i)))
	}
	return dst
}

func appendBig(dst, digits []byte, neg bool) ([]byte, error) {
	n, ok := new(big.Int).SetString(string(digits), 10)
	if !ok {
		return dst, ErrDoesNotFit
	}
	size := n.BitLen()/8 + 1 // room for the sign
	if neg {
		n.Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*size)), n)
	}
	dst = appendLong(dst, int64(size))
	start := len(dst)
	for range size {
		dst = append(dst, 0)
	}
	n.FillBytes(dst[start:])
	return dst, nil
}

// moneyValue takes money as the C locale prints it, -$1,234.56, and has write take the number.
func moneyValue(write appendFunc) appendFunc {
	return func(dst, text []byte) ([]byte, error) {
		var buf [32]byte // the longest is -$92,233,720,368,547,758.08
		if len(text) > len(buf) {
			return dst, ErrDoesNotFit
		}
		out := buf[:0]
		text, neg := bytes.CutPrefix(text, []byte{'-'})
		text, dollar := bytes.CutPrefix(text, []byte{'$'})
		if neg {
			out = append(out, '-')
		}
		for _, c := range text {
			switch {
			case c == ',':
			case c == '.' || '0' <= c && c <= '9':
				out = append(out, c)
			default:
				return dst, ErrDoesNotFit
			}
		}
		if !dollar || len(text) < 4 || text[len(text)-3] != '.' || bytes.Count(text, []byte{'.'}) != 1 {
			return dst, ErrDoesNotFit
		}
		return write(dst, out)
	}
}
