//go:build bench

package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

// publish prints what was measured, and in the long form puts it into docs/benchmarks.md.
func (d *duel) publish(t *testing.T) {
	t.Helper()
	section := d.section()
	fmt.Print(section)
	if testing.Short() {
		return
	}
	const begin, end = "<!-- debezium: written by test/bench/debezium/run.sh -->\n", "<!-- end of debezium -->\n"
	path := filepath.Join(harness.Root(), "docs", "benchmarks.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the section between %q and %q", path, begin, end)
	}
	if err := os.WriteFile(path, []byte(before+begin+section+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// section is the conditions, a table of all that was measured, and a table of ratios.
func (d *duel) section() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s, %s/%s, %d cores for everything; load average (1 and 5 minutes) %s when it began, %s when it ended.\n",
		time.Now().UTC().Format(time.DateOnly), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), d.load, loadAverage())
	var others float64
	if _, err := fmt.Sscan(d.load, &others); err == nil && others > 1 {
		b.WriteString("**Other work shared the machine: ratios of rates and times are rough, those of CPU and memory less so.**\n")
	}
	fmt.Fprintf(&b, "PostgreSQL %s primary and standby, Apache Kafka %s (one broker), Apicurio; Debezium %s in Kafka Connect %s with a heap of 512 MB.\n\n",
		pgserver.DefaultVersion, realparts.DefaultKafka, realparts.DebeziumPostgres.Version(), realparts.DefaultKafka)
	head, rule := "| |", "|---|"
	for _, c := range d.contenders {
		head += " " + c.name + " |"
		rule += "---|"
	}
	b.WriteString(head + "\n" + rule + "\n")
	for _, m := range measures() {
		b.WriteString("| " + m.what + " |")
		for _, c := range d.contenders {
			b.WriteString(" " + m.text(c) + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString(d.ratios())
	return b.String()
}

// measure is one line of the tables. ratio is how much better the first is than the second; nil for none.
type measure struct {
	what  string
	text  func(*contender) string
	ratio func(ours, other *contender) float64
}

func measures() []measure {
	rate := func(what string, of func(*contender) window) []measure {
		return []measure{
			{"rows/s, " + what, func(c *contender) string { return count(of(c).rate()) },
				func(a, b *contender) float64 { return of(a).rate() / of(b).rate() }},
			{"CPU-seconds a million rows, " + what, func(c *contender) string { return fmt.Sprintf("%.1f", 1e6/of(c).perCore()) },
				func(a, b *contender) float64 { return of(a).perCore() / of(b).perCore() }},
		}
	}
	out := append(rate("transactions of 1,000 rows", func(c *contender) window { return c.bulk }),
		rate("single-row transactions", func(c *contender) window { return c.single })...)
	return append(out,
		measure{"most memory", func(c *contender) string { return fmt.Sprintf("%d MiB", c.memory) },
			func(a, b *contender) float64 { return float64(b.memory) / float64(a.memory) }},
		measure{"commit → visible at 2,000 transactions/s, p50", func(c *contender) string { return round(c.p50) },
			func(a, b *contender) float64 { return b.p50.Seconds() / a.p50.Seconds() }},
		measure{"commit → visible at 2,000 transactions/s, p99", func(c *contender) string { return round(c.p99) },
			func(a, b *contender) float64 { return b.p99.Seconds() / a.p99.Seconds() }},
		measure{"transactions/s that the source committed meanwhile", func(c *contender) string { return count(c.commits) }, nil},
		measure{"rows repeated over the run's orderly restarts", func(c *contender) string { return fmt.Sprint(c.repeated) }, nil},
	)
}

// ratios says how many times better each of ours is than each of Debezium's.
func (d *duel) ratios() string {
	var b strings.Builder
	for _, a := range d.contenders {
		if !a.ours {
			continue
		}
		fmt.Fprintf(&b, "\n%s, times better than:\n\n| |", a.name)
		rule := "\n|---|"
		for _, c := range d.contenders {
			if !c.ours {
				b.WriteString(" " + c.name + " |")
				rule += "---|"
			}
		}
		b.WriteString(rule + "\n")
		for _, m := range measures() {
			if m.ratio == nil {
				continue
			}
			b.WriteString("| " + m.what + " |")
			for _, c := range d.contenders {
				if !c.ours {
					fmt.Fprintf(&b, " %.1f |", m.ratio(a, c))
				}
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}
