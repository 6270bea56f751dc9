//go:build bench

package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// sideVariable makes this test program one of the comparisons.
const sideVariable = "MILLRACE_BENCH_SIDE"

// side is a task of a comparison.
type side struct {
	Kind     string // relay, copy, constant, slot
	Brokers  []string
	Registry string
	Topic    string // what relay and copy read
	To       string // topic that relay writes, table that copy fills
	DSN      string // of copy's and slot's database
	Slot     string
	Wanted   int // records or rows after which it ends
	Size     int // of constant's answer
}

// cost is what a comparison reports on its standard output.
type cost struct {
	Records int
	Bytes   int64
	Wall    time.Duration
	CPU     time.Duration // of its process, user and system
}

func (c cost) rate() float64    { return float64(c.Records) / c.Wall.Seconds() }
func (c cost) perCore() float64 { return float64(c.Records) / c.CPU.Seconds() }

// run is the task in a process of its own, to its end.
func (s side) run(t testing.TB) cost {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := s.command(ctx, t)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s", s.Kind, err, errs.String())
	}
	var c cost
	if err := json.Unmarshal(out.Bytes(), &c); err != nil {
		t.Fatalf("%s: %v in %q", s.Kind, err, out.String())
	}
	return c
}

func (s side) command(ctx context.Context, t testing.TB) *exec.Cmd {
	t.Helper()
	task, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), sideVariable+"="+string(task))
	return cmd
}

// runSide is the other end: main of the comparison's process.
func runSide(task string) error {
	var s side
	if err := json.Unmarshal([]byte(task), &s); err != nil {
		return fmt.Errorf("the task: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var c cost
	var err error
	switch s.Kind {
	case "relay":
		c, err = s.relay(ctx)
	case "copy":
		c, err = s.copy(ctx)
	case "slot":
		c, err = s.readSlot(ctx)
	case "constant":
		return s.constant()
	default:
		err = errors.New("unknown kind")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.Kind, err)
	}
	return json.NewEncoder(os.Stdout).Encode(c)
}

// stopwatch measures wall and processor time of this process.
type stopwatch struct {
	at  time.Time
	cpu time.Duration
}

func startWatch() stopwatch { return stopwatch{time.Now(), ownCPU()} }

func (w stopwatch) cost(records int, bytes int64) cost {
	return cost{Records: records, Bytes: bytes, Wall: time.Since(w.at), CPU: ownCPU() - w.cpu}
}

func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
