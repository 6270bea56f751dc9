// Package calendar cuts a range of time into the hours and days of a time zone, and reads times as people write them.
//
// Totals are kept per quarter of an hour of UTC, and every zone's offset has been a multiple of that since 1972, so
// that every boundary here is a boundary of the totals.
package calendar

import (
	"errors"
	"strings"
	"time"
	_ "time/tzdata" // every zone must be known, also where the machine has no list of them
)

// Quarter is the finest unit of the totals.
const Quarter = 15 * time.Minute

// Period is a stretch of time, its end not included, in the zone it was made for.
type Period struct{ Start, End time.Time }

// Grain is how long a period is.
type Grain int

// The grains. An hour ends where the local clock shows a full hour and where the clock is changed: an hour that the
// clock shows twice is two periods, and a day of 23 or 25 hours is one.
const (
	Hour Grain = iota
	Day
)

// Zone is the time zone of an IANA name such as Europe/Berlin.
func Zone(name string) (*time.Location, error) {
	if name == "" || name == "Local" { // Go's own meanings of these would depend on the machine
		return nil, errors.New("not a time zone")
	}
	return time.LoadLocation(name)
}

// Split cuts [from, to) into periods; the first and the last are cut off at from and to. Both are first moved outwards
// to a quarter of an hour.
func Split(from, to time.Time, zone *time.Location, grain Grain) []Period {
	from, to = Floor(from).In(zone), Ceil(to).In(zone)
	var out []Period
	for from.Before(to) {
		end := next(from, grain)
		if end.After(to) {
			end = to
		}
		out = append(out, Period{from, end})
		from = end
	}
	return out
}

// Containing is the whole period around t.
func Containing(t time.Time, zone *time.Location, grain Grain) Period {
	t = Floor(t).In(zone)
	if grain == Day {
		t = wall(t.Year(), t.Month(), t.Day(), 0, 0, 0, zone)
		return Period{t, next(t, grain)}
	}
	start := t
	for inHour := time.Duration(t.Minute()) * time.Minute; inHour > 0; inHour -= Quarter {
		before := start.Add(-Quarter)
		if offset(before) != offset(t) {
			break
		}
		start = before
	}
	return Period{start, next(start, grain)}
}

// Floor is the start of the quarter of an hour that t is in.
func Floor(t time.Time) time.Time { return t.Truncate(Quarter) }

// Ceil is the first start of a quarter of an hour that is not before t.
func Ceil(t time.Time) time.Time {
	if f := Floor(t); f.Before(t) {
		return f.Add(Quarter)
	}
	return t
}

// Shift moves t by days on the local calendar: the clock shows the same time.
func Shift(t time.Time, days int) time.Time {
	return wall(t.Year(), t.Month(), t.Day()+days, t.Hour(), t.Minute(), t.Second(), t.Location())
}

func next(t time.Time, grain Grain) time.Time {
	if grain == Day {
		return wall(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, t.Location())
	}
	full := t.Add(time.Hour - time.Duration(t.Minute())*time.Minute)
	if offset(full) != offset(t) {
		for q := t.Add(Quarter); q.Before(full); q = q.Add(Quarter) {
			if offset(q) != offset(t) {
				return q
			}
		}
	}
	return full
}

func offset(t time.Time) int {
	_, seconds := t.Zone()
	return seconds
}

// wall is when the clock of the zone first shows this time; if it is skipped, when the clock jumps over it.
func wall(year int, month time.Month, day, hour, minute, second int, zone *time.Location) time.Time {
	asked := time.Date(year, month, day, hour, minute, second, 0, time.UTC)
	t := time.Date(year, month, day, hour, minute, second, 0, zone)
	shown := t.Add(time.Duration(offset(t)) * time.Second).UTC()
	start, end := t.ZoneBounds()
	switch {
	case shown.After(asked):
		return start
	case shown.Before(asked):
		return end
	case start.IsZero():
		return t
	}
	before := offset(start.Add(-1))
	if first := t.Add(time.Duration(offset(t)-before) * time.Second); first.Before(start) && first.Before(t) {
		return first
	}
	return t
}

// The years that Parse takes.
const (
	firstYear = 2000
	lastYear  = 2100
)

// Errors of Parse.
var (
	ErrForm  = errors.New("write RFC 3339 (2026-01-31T12:00:00Z) or a local date or time (2026-01-31, 2026-01-31T12:00)")
	ErrRange = errors.New("the year must be between 2000 and 2100")
)

// Parse reads an RFC 3339 time, or a date or a time on the clock of the zone. A time that the clock shows twice is the
// first of both; one that it skips is when it jumps.
func Parse(text string, zone *time.Location) (time.Time, error) {
	t, err := parse(text, zone)
	if err != nil {
		return time.Time{}, err
	}
	if t.Year() < firstYear || t.Year() > lastYear {
		return time.Time{}, ErrRange
	}
	return t.In(zone), nil
}

func parse(text string, zone *time.Location) (time.Time, error) {
	// A plus sign that was not escaped in an address arrives as a space.
	if i := strings.LastIndexByte(text, ' '); i > len("2006-01-02") {
		text = text[:i] + "+" + text[i+1:]
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.Parse(layout, text); err == nil {
			return wall(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), zone), nil
		}
	}
	return time.Time{}, ErrForm
}
