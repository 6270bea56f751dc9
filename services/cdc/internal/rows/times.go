package rows

import (
	"bytes"
	"math"
)

// PostgreSQL's dates reach from 4713 BC to 5874897, its timestamps to 294276; Go's parser knows neither.

const microsPerSecond, secondsPerDay = 1_000_000, 86_400

// daysFromCivil counts days from 1970-01-01 in the proleptic Gregorian calendar; year 0 is 1 BC.
func daysFromCivil(y, m, d int64) int64 {
	if m <= 2 {
		y--
	}
	era := y
	if era < 0 {
		era -= 399
	}
	era /= 400
	yoe := y - era*400
	mp := (m + 9) % 12
	doy := (153*mp+2)/5 + d - 1
	doe := yoe*365 + yoe/4 - yoe/100 + doy
	return era*146097 + doe - 719468
}

// digits reads n digits, or as many as there are when n is 0.
func digits(text []byte, n int) (v int64, rest []byte, ok bool) {
	i := 0
	for i < len(text) && text[i] >= '0' && text[i] <= '9' && (n == 0 || i < n) && i < 9 {
		v = v*10 + int64(text[i]-'0')
		i++
	}
	return v, text[i:], i > 0 && (n == 0 || i == n)
}

func expect(text []byte, c byte) ([]byte, bool) {
	if len(text) == 0 || text[0] != c {
		return nil, false
	}
	return text[1:], true
}

// civil reads "YYYY-MM-DD"; bc tells that the text ended in " BC".
func civil(text []byte, bc bool) (days int64, rest []byte, ok bool) {
	y, text, ok1 := digits(text, 0)
	text, ok2 := expect(text, '-')
	m, text, ok3 := digits(text, 2)
	text, ok4 := expect(text, '-')
	d, text, ok5 := digits(text, 2)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || m < 1 || m > 12 || d < 1 || d > 31 {
		return 0, nil, false
	}
	if bc {
		y = 1 - y
	}
	return daysFromCivil(y, m, d), text, true
}

// appendDate writes days since 1970-01-01; infinity is the largest and smallest int.
func appendDate(dst, text []byte) ([]byte, error) {
	switch string(text) {
	case "infinity":
		return appendLong(dst, math.MaxInt32), nil
	case "-infinity":
		return appendLong(dst, math.MinInt32), nil
	}
	text, bc := bytes.CutSuffix(text, []byte(" BC"))
	days, rest, ok := civil(text, bc)
	if !ok || len(rest) > 0 {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, days), nil
}

// appendTimestamp writes microseconds since 1970-01-01 UTC; infinity is the largest and smallest long. A text without
// offset is UTC.
func appendTimestamp(dst, text []byte) ([]byte, error) {
	micros, ok := timestamp(text)
	if !ok {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, micros), nil
}

// appendTimestampMillis writes milliseconds, the finer part cut off towards the past.
func appendTimestampMillis(dst, text []byte) ([]byte, error) {
	micros, ok := timestamp(text)
	if !ok {
		return dst, ErrDoesNotFit
	}
	if micros == math.MaxInt64 || micros == math.MinInt64 {
		return appendLong(dst, micros), nil
	}
	millis := micros / 1000
	if micros%1000 < 0 {
		millis--
	}
	return appendLong(dst, millis), nil
}

func timestamp(text []byte) (micros int64, ok bool) {
	switch string(text) {
	case "infinity":
		return math.MaxInt64, true
	case "-infinity":
		return math.MinInt64, true
	}
	text, bc := bytes.CutSuffix(text, []byte(" BC"))
	days, text, ok1 := civil(text, bc)
	text, ok2 := expect(text, ' ')
	seconds, text, ok3 := clock(text)
	micros, text, ok4 := fraction(text)
	offset, text, ok5 := zone(text)
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || len(text) > 0 {
		return 0, false
	}
	total := days*secondsPerDay + seconds - offset
	const limit = math.MaxInt64/microsPerSecond - 1
	if total > limit || total < -limit {
		return 0, false
	}
	return total*microsPerSecond + micros, true
}

// appendTime writes microseconds since midnight; 24:00 is a time of the day.
func appendTime(dst, text []byte) ([]byte, error) {
	micros, ok := timeOfDay(text)
	if !ok {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, micros), nil
}

func appendTimeMillis(dst, text []byte) ([]byte, error) {
	micros, ok := timeOfDay(text)
	if !ok {
		return dst, ErrDoesNotFit
	}
	return appendLong(dst, micros/1000), nil
}

func timeOfDay(text []byte) (int64, bool) {
	seconds, text, ok1 := clock(text)
	micros, text, ok2 := fraction(text)
	total := seconds*microsPerSecond + micros
	return total, ok1 && ok2 && len(text) == 0 && total <= secondsPerDay*microsPerSecond
}

func clock(text []byte) (seconds int64, rest []byte, ok bool) {
	h, text, ok1 := digits(text, 2)
	text, ok2 := expect(text, ':')
	m, text, ok3 := digits(text, 2)
	text, ok4 := expect(text, ':')
	s, text, ok5 := digits(text, 2)
	return h*3600 + m*60 + s, text, ok1 && ok2 && ok3 && ok4 && ok5
}

func fraction(text []byte) (micros int64, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '.' {
		return 0, text, true
	}
	text = text[1:]
	n := 0
	for n < len(text) && text[n] >= '0' && text[n] <= '9' {
		micros = micros*10 + int64(text[n]-'0')
		if n++; n > 6 {
			return 0, nil, false
		}
	}
	for i := n; i < 6; i++ {
		micros *= 10
	}
	return micros, text[n:], n > 0
}

// zone reads "+HH", "+HH:MM" or "+HH:MM:SS".
func zone(text []byte) (seconds int64, rest []byte, ok bool) {
	if len(text) == 0 {
		return 0, text, true
	}
	sign := int64(1)
	switch text[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, nil, false
	}
	v, text, ok := digits(text[1:], 2)
	seconds = v * 3600
	for unit := int64(60); ok && len(text) > 0 && text[0] == ':' && unit > 0; unit /= 60 {
		v, text, ok = digits(text[1:], 2)
		seconds += v * unit
	}
	return sign * seconds, text, ok
}
