package cdc

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
)

// programVariable makes the test's binary be another program, "cdc" or "broker": a process of its own can be measured,
// or left out of what is measured.
const programVariable = "CDC_TEST_PROGRAM"

func TestMain(m *testing.M) {
	switch os.Getenv(programVariable) {
	case "cdc":
		os.Exit(app.Main(Program("test")))
	case "broker":
		os.Exit(serveBroker())
	}
	os.Exit(m.Run())
}

// serveBroker runs an embedded broker until standard input ends.
func serveBroker() int {
	b, err := broker.Open(context.Background(), broker.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(b.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin) // its end is all that matters
	if err := b.Close(); err != nil {
		return 1
	}
	return 0
}

// brokerProcess is a broker in a process of its own, which ends with the test.
func brokerProcess(t *testing.T) []string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programVariable+"=broker")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // nobody misses it
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the broker does not say its address: %v", err)
	}
	return []string{strings.TrimSpace(addr)}
}

// program is cdc as a process of its own.
type program struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

func (s *store) program(t *testing.T) *program {
	t.Helper()
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(keyFile, []byte(strings.Repeat("17", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &program{}
	p.cmd = exec.Command(os.Args[0], "run", "--http-address", "127.0.0.1:0")
	p.cmd.Env = append(os.Environ(), programVariable+"=cdc", "MILLRACE_KAFKA_BROKERS="+strings.Join(s.kafka.Brokers, ","),
		"MILLRACE_KAFKA_INSTANCE_ID=0", "MILLRACE_REGISTRY_URL="+server.URL, "MILLRACE_SOURCE_URL="+s.source.DSN("cdc", s.database),
		"MILLRACE_PRIVACY_KEY_FILE="+keyFile, "MILLRACE_CDC_SLOT="+s.cfg.Slot)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = p.cmd.Wait()
		if t.Failed() {
			t.Logf("the log of cdc:\n%s", p.log.String())
		}
	})
	return p
}

// peak is the most memory that the process has held, in bytes.
func (p *program) peak(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, ok := strings.Cut(string(status), "VmHWM:")
	if !ok {
		t.Fatal("the system does not tell the memory of a process")
	}
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// slow is a broker that can be made to take its time over every write.
type slow struct {
	brokers []string
	held    atomic.Bool
}

func newSlow(t *testing.T) *slow {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(6))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	s := &slow{brokers: cluster.ListenAddrs()}
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if s.held.Load() {
			cluster.SleepControl(func() { time.Sleep(50 * time.Millisecond) })
		}
		return nil, nil, false
	})
	return s
}

// Invariant 10: what capture holds does not depend on how much waits, whether it comes as many transactions or as one,
// or on how fast Kafka is. What waits here is several times the limit; to the source's log it is small, since it
// compresses well.
func TestMemoryDoesNotGrowWithTheBacklog(t *testing.T) {
	if runtime.GOOS != "linux" || raceEnabled {
		t.Skip("memory is measured on Linux, and not of programs with the race detector in them")
	}
	const limit = 256_000_000
	primary, standby := pgtest.Pair(t, "max_wal_size", "2GB")
	prepare(t, primary)
	broker := newSlow(t)
	s := newStore(t, primary, standby, broker.brokers, `CREATE TABLE lines (id bigint PRIMARY KEY, product text, note text);
		CREATE PUBLICATION millrace FOR TABLE lines`)
	stop := s.busy(t)
	p := s.program(t)
	waitFor(t, "the stream", 30*time.Second, func() bool {
		return standby.Query(t, "SELECT count(*) FROM pg_stat_replication WHERE application_name = $1 AND state <> 'startup'", "millrace-cdc-"+s.cfg.Slot) == "1"
	})
	stop()
	f := func(what string, first, transactions, rows, width int) {
		t.Helper()
		broker.held.Store(true)
		s.exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO lines SELECT %d + i * %d + j, 'S18_' || j, repeat('x', %d)
			FROM generate_series(1, %[3]d) j; COMMIT; END LOOP; END $$`, transactions, first, rows, width))
		standby.Sync(t) // the source has it all, and Kafka hardly any
		broker.held.Store(false)
		s.confirmed(t, standby)
		peak := p.peak(t)
		t.Logf("%s: %d rows, about %d MB; at most %d MB of memory", what, transactions*rows, transactions*rows*width/1_000_000, peak/1_000_000)
		if peak > limit {
			t.Errorf("%s: capture held %d MB; the limit is %d MB", what, peak/1_000_000, limit/1_000_000)
		}
	}
	f("transactions of one row", 0, 4000, 1, 100)
	f("transactions of 500 rows", 1_000_000, 100, 500, 6000)
	if *speed {
		f("one transaction of a million rows", 2_000_000, 1, 1_000_000, 1000)
	} else {
		f("one transaction", 2_000_000, 1, 60_000, 6000)
	}
}

// busy makes the primary log its running transactions, which a slot on a standby waits for, until stop.
func (s *store) busy(t *testing.T) (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				_ = s.primary.LogStandbySnapshot(t.Context()) // the next one does as well
			}
		}
	}()
	return func() { close(done) }
}

// confirmed waits until capture has let the source forget everything that the primary has written.
func (s *store) confirmed(t *testing.T, standby *pgtest.Server) {
	t.Helper()
	target := s.primary.LSN(t)
	waitFor(t, "capture", 2*time.Minute, func() bool {
		return standby.Query(t, "SELECT coalesce(confirmed_flush_lsn >= $1::pg_lsn, false) FROM pg_replication_slots WHERE slot_name = $2", target, s.cfg.Slot) == "true"
	})
}
