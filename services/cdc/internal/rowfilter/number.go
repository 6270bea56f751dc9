package rowfilter

import (
	"bytes"
	"strconv"
)

// number is a decimal number of any size: the digits without leading zeros before the point and without trailing zeros
// after it, both parts of the text that was read.
type number struct {
	negative        bool
	whole, fraction []byte
	order           int8 // 1 infinity, 2 not a number, which PostgreSQL sorts last; 0 for all others
}

// parseNumber reads what PostgreSQL writes for a number, without allocating in the usual case.
func parseNumber(text []byte) (number, bool) {
	var n number
	switch string(text) {
	case "NaN":
		return number{order: 2}, true
	case "Infinity":
		return number{order: 1}, true
	case "-Infinity":
		return number{order: 1, negative: true}, true
	}
	if len(text) > 0 && text[0] == '-' {
		n.negative, text = true, text[1:]
	}
	if bytes.IndexByte(text, 'e') >= 0 {
		return expanded(text, n.negative)
	}
	whole, fraction, point := bytes.Cut(text, []byte{'.'})
	if len(whole) == 0 || point && len(fraction) == 0 || !digits(whole) || !digits(fraction) {
		return n, false
	}
	n.whole, n.fraction = bytes.TrimLeft(whole, "0"), bytes.TrimRight(fraction, "0")
	if len(n.whole)+len(n.fraction) == 0 {
		n.negative = false
	}
	return n, true
}

// expanded is a floating-point number with an exponent, of which the text has at most a few hundred digits when written out.
func expanded(text []byte, negative bool) (number, bool) {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return number{}, false
	}
	n, ok := parseNumber(strconv.AppendFloat(nil, f, 'f', -1, 64))
	n.negative = negative && (len(n.whole)+len(n.fraction) > 0)
	return n, ok
}

func digits(b []byte) bool {
	for _, c := range b {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

// compare is negative, zero or positive as a is less than, equal to or greater than b.
func (a number) compare(b number) int {
	if s := a.sign() - b.sign(); s != 0 {
		return s
	}
	c := int(a.order) - int(b.order)
	if c == 0 {
		c = len(a.whole) - len(b.whole)
	}
	if c == 0 {
		c = bytes.Compare(a.whole, b.whole)
	}
	if c == 0 {
		c = bytes.Compare(a.fraction, b.fraction)
	}
	if a.negative {
		return -c
	}
	return c
}

func (a number) sign() int {
	switch {
	case a.negative:
		return -1
	case a.order == 0 && len(a.whole)+len(a.fraction) == 0:
		return 0
	}
	return 1
}
