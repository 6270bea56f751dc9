package rows

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// KeyTexts reads a key, Avro without its frame, back into PostgreSQL's text of the key's columns, in their order: text
// that finds the row, and that gives the same key when it is encoded again. false if the bytes are no key of the table,
// or a column cannot be told, such as a token.
func (t Table) KeyTexts(body []byte) ([]pgoutput.Datum, bool) {
	var out []pgoutput.Datum
	for _, c := range t.Columns {
		if !c.Key {
			continue
		}
		n, ok := c.skip(body)
		if !ok {
			return nil, false
		}
		value := body[:n]
		body = body[n:]
		if c.Nullable {
			if value[0] == 0 {
				out = append(out, pgoutput.Datum{Kind: pgoutput.Null})
				continue
			}
			value = value[1:]
		}
		text, ok := c.text(value)
		if !ok {
			return nil, false
		}
		out = append(out, pgoutput.Datum{Kind: pgoutput.Text, Data: text})
	}
	return out, len(body) == 0
}

// text is PostgreSQL's text of a value, which is whole: skip has passed it.
func (c Column) text(b []byte) ([]byte, bool) {
	switch c.Kind {
	case Boolean:
		return []byte(strconv.FormatBool(b[0] != 0)[:1]), true
	case Float:
		return floatText(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32), true
	case Double:
		return floatText(math.Float64frombits(binary.LittleEndian.Uint64(b)), 64), true
	case Int, Long:
		v, _, _ := long(b)
		return strconv.AppendInt(nil, v, 10), true
	case Date, Time, Timestamp, LocalTimestamp:
		v, _, _ := long(b)
		return c.temporalText(v)
	case Array:
		return c.arrayText(b)
	case Map:
		return hstoreText(b)
	case Vector:
		return vectorText(b)
	case Token, TimeMillis, TimestampMillis, MoneyDouble: // something is cut off
		return nil, false
	}
	_, n, _ := long(b)
	return c.sizedText(b[n:])
}

// sizedText is the text of kinds that Avro writes with their length.
func (c Column) sizedText(b []byte) ([]byte, bool) {
	switch c.Kind {
	case Decimal:
		return decimalText(b, c.Scale), true
	case Money:
		return moneyText(string(decimalText(b, c.Scale))), true
	case MoneyText:
		return moneyText(string(b)), true
	case Bytes:
		return hex.AppendEncode([]byte(`\x`), b), true
	case Geometry:
		return bytes.ToUpper(hex.AppendEncode(nil, b)), true
	case Base64, GeometryBase64:
		raw, err := base64.StdEncoding.AppendDecode(nil, b)
		if err != nil {
			return nil, false
		}
		if c.Kind == Base64 {
			return hex.AppendEncode([]byte(`\x`), raw), true
		}
		return bytes.ToUpper(hex.AppendEncode(nil, raw)), true
	case Hex:
		return append([]byte(`\x`), b...), true
	case ISODate, ISOTimestamp:
		return textOfISO(string(b))
	}
	return bytes.Clone(b), true
}

func floatText(f float64, bits int) []byte {
	switch {
	case math.IsInf(f, 1):
		return []byte("Infinity")
	case math.IsInf(f, -1):
		return []byte("-Infinity")
	}
	return strconv.AppendFloat(nil, f, 'g', -1, bits)
}

// decimalText is the inverse of decimal: two's complement of the unscaled value.
func decimalText(b []byte, scale int) []byte {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	digits := new(big.Int).Abs(n).String()
	if len(digits) <= scale {
		digits = strings.Repeat("0", scale+1-len(digits)) + digits
	}
	out := []byte(nil)
	if n.Sign() < 0 {
		out = append(out, '-')
	}
	out = append(out, digits[:len(digits)-scale]...)
	if scale > 0 {
		out = append(append(out, '.'), digits[len(digits)-scale:]...)
	}
	return out
}

// moneyText puts the dollar and the commas of the C locale back.
func moneyText(number string) []byte {
	number, neg := strings.CutPrefix(number, "-")
	var out []byte
	if neg {
		out = append(out, '-')
	}
	out = append(out, '$')
	whole := strings.IndexByte(number, '.')
	for i, c := range []byte(number) {
		if i > 0 && i < whole && (whole-i)%3 == 0 {
			out = append(out, ',')
		}
		out = append(out, c)
	}
	return out
}

func (c Column) temporalText(v int64) ([]byte, bool) {
	switch c.Kind {
	case Date:
		switch v {
		case math.MaxInt32:
			return []byte("infinity"), true
		case math.MinInt32:
			return []byte("-infinity"), true
		}
		return dateText(v, nil), true
	case Time:
		return clockText(nil, v), true
	}
	switch v {
	case math.MaxInt64:
		return []byte("infinity"), true
	case math.MinInt64:
		return []byte("-infinity"), true
	}
	const day = secondsPerDay * microsPerSecond
	days, micros := v/day, v%day
	if micros < 0 {
		days, micros = days-1, micros+day
	}
	clock := clockText([]byte{' '}, micros)
	if c.Kind == Timestamp {
		clock = append(clock, "+00"...)
	}
	return dateText(days, clock), true
}

// dateText is the date that is so many days after 1970-01-01, what follows it, and the era.
func dateText(days int64, rest []byte) []byte {
	y, m, d := civilFromDays(days)
	bc := y < 1
	if bc {
		y = 1 - y
	}
	out := append(padded(nil, y, 4), '-')
	out = append(padded(out, m, 2), '-')
	out = append(padded(out, d, 2), rest...)
	if bc {
		out = append(out, " BC"...)
	}
	return out
}

// civilFromDays is the inverse of daysFromCivil.
func civilFromDays(days int64) (y, m, d int64) {
	days += 719468
	era := days
	if era < 0 {
		era -= 146096
	}
	era /= 146097
	doe := days - era*146097
	yoe := (doe - doe/1460 + doe/36524 - doe/146096) / 365
	doy := doe - (365*yoe + yoe/4 - yoe/100)
	mp := (5*doy + 2) / 153
	d = doy - (153*mp+2)/5 + 1
	m = mp + 3
	y = yoe + era*400
	if m > 12 {
		m, y = m-12, y+1
	}
	return y, m, d
}

// clockText appends a time of the day as PostgreSQL prints it, without zeros at the end of its fraction.
func clockText(dst []byte, micros int64) []byte {
	seconds, fraction := micros/microsPerSecond, micros%microsPerSecond
	dst = append(padded(dst, seconds/3600, 2), ':')
	dst = append(padded(dst, seconds/60%60, 2), ':')
	dst = padded(dst, seconds%60, 2)
	if fraction == 0 {
		return dst
	}
	return bytes.TrimRight(padded(append(dst, '.'), fraction, 6), "0")
}

func padded(dst []byte, n int64, width int) []byte {
	for least := int64(math.Pow10(width - 1)); least > 1 && n < least; least /= 10 {
		dst = append(dst, '0')
	}
	return strconv.AppendInt(dst, n, 10)
}

// textOfISO is the inverse of appendISODate and appendISOTimestamp.
func textOfISO(iso string) ([]byte, bool) {
	if infinite([]byte(iso)) {
		return []byte(iso), true
	}
	sign := ""
	if iso != "" && (iso[0] == '-' || iso[0] == '+') {
		sign, iso = iso[:1], iso[1:]
	}
	year, rest, ok := strings.Cut(iso, "-")
	y, err := strconv.ParseInt(year, 10, 64)
	if !ok || err != nil {
		return nil, false
	}
	bc := sign == "-" || y == 0
	if bc {
		y++
	}
	date, clock, timed := strings.Cut(rest, "T")
	out := append(append(padded(nil, y, 4), '-'), date...)
	if timed {
		if utc, ok := strings.CutSuffix(clock, "Z"); ok {
			clock = utc + "+00"
		}
		out = append(append(out, ' '), clock...)
	}
	if bc {
		out = append(out, " BC"...)
	}
	return out, true
}

// arrayText writes an array's text with the quotes that PostgreSQL would use.
func (c Column) arrayText(b []byte) ([]byte, bool) {
	out, elem := []byte{'{'}, c.element()
	count, n, _ := long(b)
	for b = b[n:]; count > 0; count-- {
		if len(out) > 1 {
			out = append(out, c.Delimiter)
		}
		if b[0] == 0 {
			out, b = append(out, "NULL"...), b[1:]
			continue
		}
		size, _ := elem.skip(b[1:])
		text, ok := elem.text(b[1 : 1+size])
		if !ok {
			return nil, false
		}
		b = b[1+size:]
		if bare(text, c.Delimiter) {
			out = append(out, text...)
		} else {
			out = appendQuoted(out, text)
		}
	}
	return append(out, '}'), ended(b)
}

// ended tells whether a list's end follows: the encoder writes lists in one piece.
func ended(b []byte) bool { return len(b) <= 1 }

// bare tells whether an array's element needs no quotes.
func bare(text []byte, delimiter byte) bool {
	if len(text) == 0 || bytes.EqualFold(text, []byte("NULL")) {
		return false
	}
	return bytes.IndexByte(text, delimiter) < 0 && !bytes.ContainsAny(text, "\"\\{} \t\n\r\v\f")
}

func appendQuoted(dst, text []byte) []byte {
	dst = append(dst, '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func hstoreText(b []byte) ([]byte, bool) {
	var out []byte
	sized := func() []byte {
		size, n, _ := long(b)
		text := b[n : n+int(size)]
		b = b[n+int(size):]
		return text
	}
	count, n, _ := long(b)
	for b = b[n:]; count > 0; count-- {
		if out != nil {
			out = append(out, ", "...)
		}
		out = append(appendQuoted(out, sized()), "=>"...)
		null := b[0] == 0
		b = b[1:]
		if null {
			out = append(out, "NULL"...)
		} else {
			out = appendQuoted(out, sized())
		}
	}
	return out, ended(b)
}

func vectorText(b []byte) ([]byte, bool) {
	out := []byte{'['}
	count, n, _ := long(b)
	for b = b[n:]; count > 0; count-- {
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(out, floatText(float64(math.Float32frombits(binary.LittleEndian.Uint32(b))), 32)...)
		b = b[4:]
	}
	return append(out, ']'), ended(b)
}
