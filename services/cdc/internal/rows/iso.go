package rows

import (
	"bytes"
	"strconv"
)

// appendISODate writes a date as ISO 8601 has it: four digits of year, beyond 9999 with a plus, before the year 1 as the
// astronomers count (44 BC is -0043). Infinity stays a word.
func appendISODate(dst, text []byte) ([]byte, error) {
	if infinite(text) {
		return appendBytes(dst, text), nil
	}
	var buf [64]byte
	out, rest, ok := isoDate(buf[:0], text)
	if !ok || len(rest) > 0 {
		return dst, ErrDoesNotFit
	}
	return appendBytes(dst, out), nil
}

// appendISOTimestamp writes 2024-05-06T07:08:09.5, with Z or the offset behind it if the text has one.
func appendISOTimestamp(dst, text []byte) ([]byte, error) {
	if infinite(text) {
		return appendBytes(dst, text), nil
	}
	if _, ok := timestamp(text); !ok {
		return dst, ErrDoesNotFit
	}
	var buf [64]byte
	out, rest, ok := isoDate(buf[:0], text)
	if !ok || len(rest) == 0 || len(rest) > 30 {
		return dst, ErrDoesNotFit
	}
	out = append(out, 'T')
	clock, offset := rest[1:], []byte(nil)
	if i := bytes.IndexAny(clock, "+-"); i >= 0 {
		clock, offset = clock[:i], clock[i:]
	}
	out = append(out, clock...)
	switch {
	case string(offset) == "+00":
		out = append(out, 'Z')
	case len(offset) == 3:
		out = append(append(out, offset...), ":00"...)
	default:
		out = append(out, offset...)
	}
	return appendBytes(dst, out), nil
}

func infinite(text []byte) bool { return string(text) == "infinity" || string(text) == "-infinity" }

// isoDate rewrites the date at the start of the text; rest is what follows it, without the era.
func isoDate(dst, text []byte) (out, rest []byte, ok bool) {
	text, bc := bytes.CutSuffix(text, []byte(" BC"))
	_, rest, ok = civil(text, bc)
	if !ok {
		return dst, nil, false
	}
	date := text[:len(text)-len(rest)]
	year, monthAndDay, _ := digits(date, 0)
	if bc {
		year = 1 - year
	}
	switch {
	case year < 0:
		dst, year = append(dst, '-'), -year
	case year > 9999:
		dst = append(dst, '+')
	}
	for least := int64(1000); least > 1 && year < least; least /= 10 {
		dst = append(dst, '0')
	}
	return append(strconv.AppendInt(dst, year, 10), monthAndDay...), rest, true
}
