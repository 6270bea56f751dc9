//go:build bench

package bench

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// report collects what was measured. It is safe for concurrent use.
type report struct {
	begin time.Time
	mu    sync.Mutex
	notes []string
	lines []line
}

type line struct{ what, ours, other, ratio, target, met string }

func (r *report) add(t testing.TB, l line) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, l)
	t.Logf("%s: ours %s; compared with %s; ratio %s; target %s; %s", l.what, l.ours, l.other, l.ratio, l.target, l.met)
}

// note adds a line about the machine or the conditions.
func (r *report) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

// ratio adds a comparison of two rates; target 0 is for information only.
func (r *report) ratio(t testing.TB, what, unit string, ours float64, otherName string, other, target float64) {
	t.Helper()
	l := line{what: what, ours: count(ours) + " " + unit, other: otherName + ": " + count(other) + " " + unit, ratio: fmt.Sprintf("%.3f", ours/other), target: "-", met: "-"}
	if target > 0 {
		l.target, l.met = fmt.Sprintf("≥ %g", target), yes(ours/other >= target)
	}
	r.add(t, l)
}

// limit adds a time or size that must be below a limit.
func (r *report) limit(t testing.TB, what, ours, limit string, met bool) {
	t.Helper()
	r.add(t, line{what: what, ours: ours, other: "-", ratio: "-", target: "< " + limit, met: yes(met)})
}

// tell adds a figure that has no target.
func (r *report) tell(t testing.TB, what, ours string) {
	t.Helper()
	r.add(t, line{what: what, ours: ours, other: "-", ratio: "-", target: "-", met: "-"})
}

func (r *report) table() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	rows := [][]string{{"what", "ours", "compared with", "ratio", "target", "met?"}}
	for _, l := range r.lines {
		rows = append(rows, []string{l.what, l.ours, l.other, l.ratio, l.target, l.met})
	}
	width := make([]int, 6)
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len([]rune(c)))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s/%s, %d cores, took %v\n", time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), time.Since(r.begin).Round(time.Second))
	for _, n := range r.notes {
		fmt.Fprintf(&b, "%s\n", n)
	}
	for n, row := range rows {
		for i, c := range row {
			fmt.Fprintf(&b, "| %s%s ", c, strings.Repeat(" ", width[i]-len([]rune(c))))
		}
		b.WriteString("|\n")
		if n == 0 {
			for _, w := range width {
				b.WriteString("|" + strings.Repeat("-", w+2))
			}
			b.WriteString("|\n")
		}
	}
	return b.String()
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

// count writes a number with three digits that mean something.
func count(n float64) string {
	switch {
	case n >= 1e6:
		return fmt.Sprintf("%.2f M", n/1e6)
	case n >= 1e4:
		return fmt.Sprintf("%.0f k", n/1e3)
	case n >= 1e3:
		return fmt.Sprintf("%.1f k", n/1e3)
	default:
		return fmt.Sprintf("%.1f", n)
	}
}

// quantile of what was measured; the slice is sorted.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))]
}

func round(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	default:
		return d.Round(10 * time.Millisecond).String()
	}
}

// loadAverage is how busy the machine was when the run began; "?" where there is no /proc.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "?"
	}
	return strings.Join(strings.Fields(string(data))[:2], " ")
}
