package intake

import (
	"math"
	"strconv"
	"time"
)

// An event's time is believed from this long before to this long after it was received.
const (
	oldest = 7 * 24 * time.Hour
	newest = 5 * time.Minute
)

// when is the event's time by our own clock. What the client's clock says is corrected by how far it was off when the
// request was sent; what cannot be believed becomes the time of receipt.
func (r *reader) when(received time.Time) time.Time {
	happened, ok := r.time("event_time", r.timeAt)
	sent, sentOK := r.time("sent_at", r.sentAt)
	if !ok {
		return received
	}
	if sentOK {
		happened = received.Add(-sent.Sub(happened))
	}
	if happened.Before(received.Add(-oldest)) || happened.After(received.Add(newest)) {
		return received
	}
	return happened.UTC().Truncate(time.Microsecond)
}

func (r *reader) time(field string, value []byte) (time.Time, bool) {
	if value == nil || string(value) == "null" {
		return time.Time{}, false
	}
	text := value
	if value[0] == '"' {
		text = unquoteBytes(value)
		if t, err := time.Parse(time.RFC3339Nano, string(text)); err == nil {
			return t, true
		}
	}
	t, ok := epoch(text)
	if !ok {
		r.fault(field, CodeTime, "is not a time", "RFC 3339 such as 2026-01-31T12:00:00Z, or seconds, milliseconds or microseconds since 1970")
	}
	return t, ok
}

// epoch reads seconds, milliseconds or microseconds since 1970, told apart by size: as seconds the numbers reach to
// the year 5138, as milliseconds back to 1973.
func epoch(text []byte) (time.Time, bool) {
	if wholeNumber(text) {
		n, err := strconv.ParseInt(string(text), 10, 64)
		if err != nil || n < 0 {
			return time.Time{}, false
		}
		switch {
		case n < 1e11:
			return time.Unix(n, 0), true
		case n < 1e14:
			return time.UnixMilli(n), true
		case n < 1e17:
			return time.UnixMicro(n), true
		}
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsNaN(f) || f < 0 || f >= 1e17 {
		return time.Time{}, false
	}
	switch {
	case f < 1e11:
		f *= 1e6
	case f < 1e14:
		f *= 1e3
	}
	return time.UnixMicro(int64(f)), true
}
