package envelope

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is what a column's value is.
type Kind uint8

// Kinds of values.
const (
	Null Kind = iota
	Int
	Bool
	Double
	Text
	Decimal
	Date                 // days
	Timestamp            // microseconds UTC
	TimestampMillis      // milliseconds UTC
	LocalTimestamp       // microseconds of a clock without zone
	LocalTimestampMillis // milliseconds of a clock without zone
	Other                // bytes and nested values
)

// Value is one column's value. Bytes point into the record.
type Value struct {
	Kind   Kind
	Narrow bool // Float was written with 32 bits
	Scale  int32
	Int    int64
	Float  float64
	Bytes  []byte
}

// Problem is why a value is not what is asked for: a fixed word, empty if there is none.
type Problem string

// Problems.
const (
	Fine       Problem = ""
	Missing    Problem = "missing"
	WrongType  Problem = "wrong_type"
	NotInteger Problem = "not_an_integer"
	NotDecimal Problem = "not_a_decimal"
	NotTime    Problem = "not_a_time"
	OutOfRange Problem = "out_of_range"
	NotText    Problem = "not_utf8"
)

// Text is the value as text. Null is Missing.
func (v *Value) Text() (string, Problem) {
	switch v.Kind {
	case Null:
		return "", Missing
	case Text:
		if !utf8.Valid(v.Bytes) {
			return "", NotText
		}
		return string(v.Bytes), Fine
	case Int:
		return strconv.FormatInt(v.Int, 10), Fine
	case Bool:
		return strconv.FormatBool(v.Int != 0), Fine
	case Double, Decimal:
		return v.Decimal()
	case Date:
		return time.Unix(v.Int*86400, 0).UTC().Format(time.DateOnly), Fine
	case Timestamp, TimestampMillis, LocalTimestamp, LocalTimestampMillis:
		t, p := v.Time(time.UTC)
		if p != Fine {
			return "", p
		}
		return t.Format("2006-01-02T15:04:05.999999"), Fine
	default:
		return "", WrongType
	}
}

// Integer is the value as a whole number, however it is written, as long as it is whole.
func (v *Value) Integer() (int64, Problem) {
	switch v.Kind {
	case Null:
		return 0, Missing
	case Int:
		return v.Int, Fine
	case Double:
		if v.Float != math.Trunc(v.Float) {
			return 0, NotInteger
		}
		if math.Abs(v.Float) >= 1<<53 {
			return 0, OutOfRange
		}
		return int64(v.Float), Fine
	case Decimal, Text:
		text, p := v.Decimal()
		if p != Fine {
			return 0, NotInteger
		}
		whole, fraction, _ := strings.Cut(text, ".")
		if strings.Trim(fraction, "0") != "" {
			return 0, NotInteger
		}
		n, err := strconv.ParseInt(whole, 10, 64)
		if err != nil {
			return 0, OutOfRange
		}
		return n, Fine
	default:
		return 0, WrongType
	}
}

// Bool is the value as a truth value.
func (v *Value) Bool() (bool, Problem) {
	switch v.Kind {
	case Null:
		return false, Missing
	case Bool, Int:
		return v.Int != 0, Fine
	case Text:
		switch strings.ToLower(string(v.Bytes)) {
		case "t", "true", "yes", "y", "on", "1":
			return true, Fine
		case "f", "false", "no", "n", "off", "0":
			return false, Fine
		}
	}
	return false, WrongType
}

// maxDigits bounds a decimal's digits on either side of the point: more is no price.
const maxDigits = 40

// Decimal is the value as an exact decimal: digits with at most one point and one minus.
func (v *Value) Decimal() (string, Problem) {
	switch v.Kind {
	case Null:
		return "", Missing
	case Int:
		return strconv.FormatInt(v.Int, 10), Fine
	case Double:
		if math.IsNaN(v.Float) || math.IsInf(v.Float, 0) {
			return "", OutOfRange
		}
		bits := 64
		if v.Narrow {
			bits = 32
		}
		return plainDecimal(strconv.FormatFloat(v.Float, 'f', -1, bits))
	case Decimal:
		return unscaled(v.Bytes, int(v.Scale))
	case Text:
		return plainDecimal(string(v.Bytes))
	default:
		return "", WrongType
	}
}

func plainDecimal(s string) (string, Problem) {
	switch strings.ToLower(strings.TrimPrefix(s, "-")) {
	case "nan", "infinity", "inf":
		return "", OutOfRange
	}
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	if whole == "" || strings.Trim(whole, "0123456789") != "" || strings.Trim(fraction, "0123456789") != "" {
		return "", NotDecimal
	}
	if len(whole) > maxDigits || len(fraction) > maxDigits {
		return "", OutOfRange
	}
	return strings.TrimSuffix(s, "."), Fine
}

// unscaled prints big-endian two's complement with the point put in.
func unscaled(b []byte, scale int) (string, Problem) {
	if len(b) > 32 || scale < 0 || scale > maxDigits {
		return "", OutOfRange
	}
	var digits string
	if len(b) <= 8 {
		var n int64
		if len(b) > 0 && b[0]&0x80 != 0 {
			n = -1
		}
		for _, x := range b {
			n = n<<8 | int64(x)
		}
		digits = strconv.FormatInt(n, 10)
	} else {
		n := new(big.Int).SetBytes(b)
		if b[0]&0x80 != 0 {
			n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(len(b))*8))
		}
		digits = n.String()
	}
	if scale == 0 {
		return digits, Fine
	}
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale-len(digits)+1) + digits
	}
	if len(digits)-scale > maxDigits {
		return "", OutOfRange
	}
	return sign + digits[:len(digits)-scale] + "." + digits[len(digits)-scale:], Fine
}

// Times that are accepted: what a store can mean, and every consumer can hold.
var (
	firstTime = time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999999000, time.UTC)
)

// Time is the value as a moment; what has no zone is read in zone.
func (v *Value) Time(zone *time.Location) (time.Time, Problem) {
	var t time.Time
	switch v.Kind {
	case Null:
		return t, Missing
	case Timestamp:
		t = time.UnixMicro(v.Int)
	case TimestampMillis:
		t = time.UnixMilli(v.Int)
	case LocalTimestamp:
		t = inZone(time.UnixMicro(v.Int), zone)
	case LocalTimestampMillis:
		t = inZone(time.UnixMilli(v.Int), zone)
	case Date:
		if v.Int > math.MaxInt32 || v.Int < math.MinInt32 {
			return t, OutOfRange
		}
		t = inZone(time.Unix(v.Int*86400, 0), zone)
	case Text:
		var p Problem
		if t, p = textTime(string(v.Bytes), zone); p != Fine {
			return t, p
		}
	default:
		return t, WrongType
	}
	if t.Before(firstTime) || t.After(lastTime) {
		return time.Time{}, OutOfRange
	}
	return t.UTC().Truncate(time.Microsecond), Fine
}

// inZone is the moment at which a clock in zone shows what a clock in UTC shows at t.
func inZone(t time.Time, zone *time.Location) time.Time {
	if zone == time.UTC {
		return t
	}
	t = t.UTC()
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}

func textTime(s string, zone *time.Location) (time.Time, Problem) {
	if strings.EqualFold(s, "infinity") || strings.EqualFold(s, "-infinity") {
		return time.Time{}, OutOfRange
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999Z07"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, Fine
		}
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999", "2006-01-02 15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, Fine
		}
	}
	return time.Time{}, NotTime
}

// Key is the text of a key: one column as it is, several joined by '|', with '|' and '\' inside escaped by '\'. A null
// among several is Missing like a null alone.
func Key(values []Value, columns []int) (string, Problem) {
	if len(columns) == 1 {
		return values[columns[0]].Text()
	}
	var b strings.Builder
	for i, c := range columns {
		text, p := values[c].Text()
		if p != Fine {
			return "", p
		}
		if i > 0 {
			b.WriteByte('|')
		}
		escape(&b, text)
	}
	return b.String(), Fine
}

func escape(b *strings.Builder, s string) {
	for i := range len(s) {
		if s[i] == '|' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
}
