package calendar

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := Zone(name)
	if err != nil {
		t.Fatal(err)
	}
	return z
}

func show(periods []Period) string {
	var out []string
	for _, p := range periods {
		out = append(out, p.Start.Format("02T15:04-07:00")+" "+p.End.Sub(p.Start).String())
	}
	return strings.Join(out, "\n")
}

func TestSplit(t *testing.T) {
	cases := []struct {
		name, zone, from, to string
		grain                Grain
		want                 string
	}{
		{"a quarter cut off at both ends", "UTC", "2026-01-01T10:20:00Z", "2026-01-01T11:01:00Z", Hour, "01T10:15+00:00 45m0s\n01T11:00+00:00 15m0s"},
		{"half hours", "Asia/Kolkata", "2026-01-01T10:00:00Z", "2026-01-01T12:00:00Z", Hour, "01T15:30+05:30 30m0s\n01T16:00+05:30 1h0m0s\n01T17:00+05:30 30m0s"},
		{"quarters", "Asia/Kathmandu", "2026-01-01T00:15:00Z", "2026-01-01T01:15:00Z", Hour, "01T06:00+05:45 1h0m0s"},
		{"skipped hour", "Europe/Berlin", "2026-03-29T01:00", "2026-03-29T04:00", Hour, "29T01:00+01:00 1h0m0s\n29T03:00+02:00 1h0m0s"},
		{"repeated hour", "Europe/Berlin", "2026-10-25T01:00", "2026-10-25T04:00", Hour, "25T01:00+02:00 1h0m0s\n25T02:00+02:00 1h0m0s\n25T02:00+01:00 1h0m0s\n25T03:00+01:00 1h0m0s"},
		{"skipped half hour", "Australia/Lord_Howe", "2026-10-04T01:00", "2026-10-04T04:00", Hour, "04T01:00+10:30 1h0m0s\n04T02:30+11:00 30m0s\n04T03:00+11:00 1h0m0s"},
		{"repeated half hour", "Australia/Lord_Howe", "2026-04-05T01:00", "2026-04-05T03:00", Hour, "05T01:00+11:00 1h0m0s\n05T01:30+10:30 30m0s\n05T02:00+10:30 1h0m0s"},
		{"days of 24 and 23 hours", "Europe/Berlin", "2026-03-28", "2026-03-30", Day, "28T00:00+01:00 24h0m0s\n29T00:00+01:00 23h0m0s"},
		{"a day of 25 hours", "Europe/Berlin", "2026-10-25", "2026-10-26", Day, "25T00:00+02:00 25h0m0s"},
		{"a day of 24 hours and a half", "Australia/Lord_Howe", "2026-04-05", "2026-04-06", Day, "05T00:00+11:00 24h30m0s"},
		{"a day without midnight", "Africa/Cairo", "2026-04-23", "2026-04-25", Day, "23T00:00+02:00 24h0m0s\n24T01:00+03:00 23h0m0s"},
		{"a day that did not exist", "Pacific/Apia", "2011-12-29", "2012-01-01", Day, "29T00:00-10:00 24h0m0s\n31T00:00+14:00 24h0m0s"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			z := zone(t, c.zone)
			from, err := Parse(c.from, z)
			to, err2 := Parse(c.to, z)
			if err := errors.Join(err, err2); err != nil {
				t.Fatal(err)
			}
			if got := show(Split(from, to, z, c.grain)); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestPeriodsTile holds for every zone: periods leave no gap, none is longer than its grain allows, and each is found
// again from its middle.
func TestPeriodsTile(t *testing.T) {
	for _, name := range []string{"UTC", "Europe/Berlin", "America/St_Johns", "Asia/Kolkata", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo",
		"Pacific/Chatham", "America/Havana", "Africa/Casablanca", "America/Nuuk", "Asia/Gaza", "Antarctica/Troll"} {
		z := zone(t, name)
		from := time.Date(2025, 12, 31, 12, 0, 0, 0, time.UTC)
		to := from.AddDate(1, 1, 0)
		for _, grain := range []Grain{Hour, Day} {
			at := from
			for _, p := range Split(from, to, z, grain) {
				length := p.End.Sub(p.Start)
				if !p.Start.Equal(at) || length <= 0 || (grain == Hour && length > time.Hour) || length > 26*time.Hour {
					t.Fatalf("%s: %v follows %v", name, p, at)
				}
				if c := Containing(p.Start.Add(length/2), z, grain); c.Start.After(p.Start) || c.End.Before(p.End) {
					t.Fatalf("%s: %v contains not %v", name, c, p)
				}
				at = p.End
			}
			if !at.Equal(to) {
				t.Errorf("%s: ends at %v", name, at)
			}
		}
	}
}

func TestParse(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for text, want := range map[string]string{
		"2026-01-31T12:00:00Z":         "2026-01-31T13:00:00+01:00",
		"2026-01-31T12:00:00.5+05:30":  "2026-01-31T07:30:00+01:00",
		"2026-01-31T12:00:00 05:30":    "2026-01-31T07:30:00+01:00", // + not escaped
		"2026-01-31T12:00Z":            "2026-01-31T13:00:00+01:00",
		"2026-01-31":                   "2026-01-31T00:00:00+01:00",
		"2026-01-31T12:30":             "2026-01-31T12:30:00+01:00",
		"2026-01-31 12:30:15":          "2026-01-31T12:30:15+01:00",
		"2026-03-29T02:30":             "2026-03-29T03:00:00+02:00", // skipped
		"2026-10-25T02:30":             "2026-10-25T02:30:00+02:00", // the first of two
		"2026-10-25T02:30:00.1+01:00":  "2026-10-25T02:30:00+01:00",
		"2026-02-28T23:59:59.99-00:00": "2026-03-01T00:59:59+01:00",
	} {
		got, err := Parse(text, berlin)
		if err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%s: %v %v, want %s", text, got.Format(time.RFC3339), err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-02-30", "2026-01-31T25:00", "31.01.2026", "2026-01-31T12:00:00+25:00", "2026-01-31T12:00:00+01:00x", " 2026-01-31"} {
		if got, err := Parse(text, berlin); !errors.Is(err, ErrForm) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, text := range []string{"1999-12-31", "2101-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01"} {
		if got, err := Parse(text, berlin); !errors.Is(err, ErrRange) {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	for _, name := range []string{"", "Local", "Mars/Olympus", "../../etc/passwd", "europe", "+02:00"} {
		if z, err := Zone(name); err == nil {
			t.Errorf("zone %q is %v", name, z)
		}
	}
}

func TestShift(t *testing.T) {
	z := zone(t, "Europe/Berlin")
	monday := time.Date(2026, 3, 30, 14, 0, 0, 0, z)
	for days, want := range map[int]string{-1: "2026-03-29T14:00:00+02:00", -7: "2026-03-23T14:00:00+01:00"} {
		if got := Shift(monday, days).Format(time.RFC3339); got != want {
			t.Errorf("%d days: %s, want %s", days, got, want)
		}
	}
}

func ExampleSplit() {
	z, _ := Zone("Europe/Berlin")
	from, _ := Parse("2026-10-25", z)
	to, _ := Parse("2026-10-26", z)
	fmt.Println(len(Split(from, to, z, Hour)), "hours")
	// Output: 25 hours
}
