package gen

import (
	"reflect"
	"testing"
	"time"
)

// perHour counts the orders of the last full hours before now, the latest first.
func perHour(w *World, now time.Time, n int) []int {
	count := make([]int, n)
	for _, o := range w.Orders {
		if ago := int(now.Sub(o.At) / time.Hour); ago < n {
			count[ago]++
		}
	}
	return count
}

func TestHistoryGrowsToTheLiveRate(t *testing.T) {
	for seed := range uint64(2) {
		now := testNow.Add(time.Duration(seed) * 103 * time.Hour)
		w := New(seed, now, 60, liveRate)
		count := perHour(w, now, 24*10)
		live := func(ago int) float64 {
			return liveRate * 3600 * Rhythm(Markets(), now.Add(-time.Duration(ago)*time.Hour-30*time.Minute))
		}
		var day, want float64
		for ago, n := range count[:24] {
			day, want = day+float64(n), want+live(ago)
			if ago < 12 && (float64(n) < live(ago)/2 || float64(n) > live(ago)*2) {
				t.Errorf("seed %d: %d orders in the hour that ended %d hours ago, the live rate is %.0f", seed, n, ago, live(ago))
			}
		}
		if day < want/1.5 || day > want*1.5 {
			t.Errorf("seed %d: %.0f orders in the last day, the live rate gives %.0f", seed, day, want)
		}
		quiet := 0
		for _, n := range count[4*24:] {
			quiet += n
		}
		if perDay := quiet / 6; perDay > 2*ordersPerDay {
			t.Errorf("seed %d: %d orders a day before the ramp", seed, perDay)
		}
		// No cliff: growth takes its time. Few orders an hour jump by chance.
		for ago := range len(count) - 1 {
			if n, before := count[ago], count[ago+1]; n > 3*before+40 || before > 3*n+100 {
				t.Errorf("seed %d: from %d to %d orders an hour, %d hours ago", seed, before, n, ago)
			}
		}
	}
}

func TestRampIsBounded(t *testing.T) {
	days := 7
	if testing.Short() {
		days = 1
	}
	for day := range days { // a Sunday sells more than a Monday
		now := testNow.Add(time.Duration(day) * 24 * time.Hour)
		w := New(1, now, 60, 1000)
		last := 0
		for _, n := range perHour(w, now, 24) {
			last += n
		}
		if w.OrderLines() > 90_000 || last > 25_000 {
			t.Errorf("%s: %d order lines, %d orders in the last day", now.Weekday(), w.OrderLines(), last)
		}
	}
}

func TestRampLeavesThePastAlone(t *testing.T) {
	quiet, busy := New(3, testNow, 60, 0), New(3, testNow, 60, liveRate)
	begin := testNow.Add(-rampFor)
	n := 0
	for n < len(quiet.Orders) && quiet.Orders[n].At.Before(begin) {
		n++
	}
	if n < 8000 || !reflect.DeepEqual(quiet.Orders[:n], busy.Orders[:n]) {
		t.Errorf("the first %d orders depend on what happened later", n)
	}
	if n := perHour(quiet, testNow, 24); n[0] > 60 {
		t.Errorf("%d orders in the last hour of a store without trade", n[0])
	}
	if low := New(3, testNow, 60, 0.0001); !reflect.DeepEqual(low.Orders, quiet.Orders) {
		t.Error("a rate below the quiet time's changed the history")
	}
}

func TestShortHistory(t *testing.T) {
	w := New(1, testNow, 1, liveRate)
	if len(w.Orders) < 8000 || w.Orders[0].At.Before(testNow.Add(-24*time.Hour)) {
		t.Errorf("%d orders, the first at %s", len(w.Orders), w.Orders[0].At)
	}
}

func TestBusyIsOneOnAverage(t *testing.T) {
	markets := Markets()
	var sum float64
	for h := range 7 * 24 {
		at := testNow.Add(time.Duration(h) * time.Hour)
		sum += Rhythm(markets, at)
		for _, m := range markets {
			if b := Busy(m, at); b <= 0 || b > MostBusy {
				t.Errorf("%s is %.2f busy at %s", m.Country, b, at)
			}
		}
	}
	if average := sum / (7 * 24); average < 0.999 || average > 1.001 {
		t.Errorf("the average is %.4f", average)
	}
}
