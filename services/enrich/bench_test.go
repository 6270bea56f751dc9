package enrich

import (
	"bufio"
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/schemas"
)

const serverEnv = "ENRICH_TEST_SERVER"

// TestServer is not a test: it is the broker and the registry of the benchmark, in a process of their own so that
// their work does not count.
func TestServer(t *testing.T) {
	if os.Getenv(serverEnv) == "" {
		t.Skip("runs only as a process of BenchmarkAgainstCopying")
	}
	server := httptest.NewServer(registry.NewMemory())
	defer server.Close()
	fmt.Println("SERVER", brokertest.New(t)[0], server.URL)
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the benchmark is gone
}

func outside(b *testing.B) *world {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestServer$")
	cmd.Env = append(os.Environ(), serverEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 3 && f[0] == "SERVER" {
			return &world{brokers: []string{f[1]}, registry: f[2]}
		}
	}
	b.Fatal("no server")
	return nil
}

func cpu(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAgainstCopying measures lines per core-second through the service, beside a loop that consumes the same
// records and produces the same bytes in transactions without any work.
func BenchmarkAgainstCopying(b *testing.B) {
	const lines = 200_000
	for b.Loop() {
		w := fillLines(b, lines)
		copying := copyLines(b, w, lines)
		before := cpu(b)
		s := w.start(b, "bench")
		until(b, time.Minute, "all lines", func() bool {
			return counted(b, s.metrics, "millrace_enrich_in_records_total", map[string]string{"topic": "store.public.order_details"}) >= lines
		})
		used := cpu(b) - before
		s.stop()
		b.ReportMetric(lines/used.Seconds(), "enriched/core-s")
		b.ReportMetric(lines/copying.Seconds(), "copied/core-s")
		b.ReportMetric(copying.Seconds()/used.Seconds(), "ratio")
	}
}

// fillLines makes a store of so many order lines.
func fillLines(b *testing.B, lines int) *world {
	b.Helper()
	w := outside(b)
	src := newSource(b, w)
	for i := range 500 {
		code := fmt.Sprint("S10_", i)
		src.put("products", code, "c", productRow(code, "1969 Harley Davidson Ultimate Chopper", "Motorcycles"))
	}
	src.commit(true)
	for i := range lines {
		src.put("order_details", fmt.Sprint(i), "c", lineRow(i, fmt.Sprint("S10_", i%500), 3, 4995))
		if len(src.open) == 5000 || i == lines-1 {
			src.commit(true)
		}
	}
	return w
}

// copyLines is the CPU time of reading all lines and writing them to another topic, in transactions.
func copyLines(b *testing.B, w *world, lines int) time.Duration {
	b.Helper()
	cfg := w.kafka("copy")
	group := fmt.Sprint("copy", time.Now().UnixNano())
	session, err := kgo.NewGroupTransactSession(append(cfg.Options("copy", testLog(b), nil), kgo.ConsumerGroup(group), kgo.TransactionalID(group),
		kgo.ConsumeTopics("t.store.public.order_details"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	if err != nil {
		b.Fatal(err)
	}
	defer session.Close()
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	before := cpu(b)
	for n := 0; n < lines; {
		records := session.PollRecords(ctx, maxPoll).Records()
		if err := session.Begin(); err != nil {
			b.Fatal(err)
		}
		for _, r := range records {
			session.Produce(ctx, &kgo.Record{Topic: "t." + schemas.RecommendationsServed, Key: r.Key, Value: r.Value}, nil)
		}
		if ok, err := session.End(ctx, kgo.TryCommit); err != nil {
			b.Fatal(err)
		} else if ok {
			n += len(records)
		}
	}
	return cpu(b) - before
}
