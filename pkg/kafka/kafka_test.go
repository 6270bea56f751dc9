package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/telemetry"
)

func setup(t *testing.T) (kafka.Config, *kgo.Client) {
	t.Helper()
	cfg := kafka.DefaultConfig()
	cfg.Brokers, cfg.TopicPrefix = brokertest.New(t), "test."
	cl, err := cfg.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cfg, cl
}

func TestEnsureTopics(t *testing.T) {
	cfg, cl := setup(t)
	decl := kafka.Topic{Name: "a", Partitions: 3, Compact: true, Retention: 48 * time.Hour, MinLag: time.Hour}
	applied, err := cfg.EnsureTopics(t.Context(), cl, decl)
	if err != nil || len(applied) != 1 || !applied[0].Created || applied[0].Topic != "test.a" {
		t.Fatal(applied, err)
	}
	if applied, err = cfg.EnsureTopics(t.Context(), cl, decl); err != nil || applied[0].Created || applied[0].Problem != "" {
		t.Fatal("a second time", applied, err)
	}
	decl.Partitions, decl.MinLag = 6, 2*time.Hour
	applied, err = cfg.EnsureTopics(t.Context(), cl, decl)
	if err != nil || !strings.Contains(applied[0].Problem, "3 partitions, declared are 6") {
		t.Fatal("another number of partitions", applied, err)
	}
}

func TestFollowerSeesCommittedRecordsOnceAndInOrder(t *testing.T) {
	cfg, cl := setup(t)
	if _, err := cfg.EnsureTopics(t.Context(), cl, kafka.Topic{Name: "a", Partitions: 2, Compact: true}, kafka.Topic{Name: "empty", Partitions: 1}); err != nil {
		t.Fatal(err)
	}
	producer, err := cfg.Client("writer", slog.New(slog.DiscardHandler), nil, kgo.TransactionalID("w"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close()
	write := func(commit kgo.TransactionEndTry, from, to int) {
		t.Helper()
		if err := producer.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		for i := from; i < to; i++ {
			r := &kgo.Record{Topic: "test.a", Partition: int32(i % 2), Key: fmt.Append(nil, i), Value: fmt.Append(nil, i)}
			if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		if err := producer.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	write(kgo.TryCommit, 0, 10)
	write(kgo.TryAbort, 10, 14)
	write(kgo.TryCommit, 14, 16)

	var mu sync.Mutex
	var got []string
	f := kafka.NewFollower(cfg, "follow", slog.New(slog.DiscardHandler), func(_ context.Context, rs []*kgo.Record) error {
		mu.Lock()
		defer mu.Unlock()
		for _, r := range rs {
			got = append(got, fmt.Sprint(r.Partition, ":", string(r.Value)))
		}
		return nil
	}, "test.a", "test.empty")
	if f.Ready() == nil {
		t.Fatal("ready before it began")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	select {
	case <-f.CaughtUp():
	case <-time.After(10 * time.Second):
		t.Fatal("does not catch up")
	}
	mu.Lock()
	even, odd := []string{}, []string{}
	for _, g := range got {
		if v, ok := strings.CutPrefix(g, "0:"); ok {
			even = append(even, v)
		} else {
			odd = append(odd, g[2:])
		}
	}
	mu.Unlock()
	if strings.Join(even, " ") != "0 2 4 6 8 14" || strings.Join(odd, " ") != "1 3 5 7 9 15" {
		t.Fatal(even, odd)
	}
	write(kgo.TryCommit, 16, 17)
	deadline := time.After(10 * time.Second)
	for !f.Reached("test.a", 0, 10) { // offsets: 0–4 data, marker, 10 12 aborted, marker, 14, marker, 16
		select {
		case <-deadline:
			t.Fatal("does not follow")
		case <-time.After(5 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestFollowerStopsOnAnErrorOfItsUser(t *testing.T) {
	cfg, cl := setup(t)
	if _, err := cfg.EnsureTopics(t.Context(), cl, kafka.Topic{Name: "a", Partitions: 1, Retention: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "test.a", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	want := fmt.Errorf("cannot apply")
	f := kafka.NewFollower(cfg, "follow", slog.New(slog.DiscardHandler), func(context.Context, []*kgo.Record) error { return want }, "test.a")
	if err := f.Run(t.Context()); !errors.Is(err, want) {
		t.Fatal(err)
	}
}

func TestTraceTravelsInHeaders(t *testing.T) {
	const trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	r := &kgo.Record{}
	kafka.SetTrace(telemetry.WithTrace(t.Context(), trace), r)
	if string(kafka.Header(r, telemetry.TraceParent)) != trace || kafka.Header(r, "other") != nil {
		t.Fatal(r.Headers)
	}
}

func TestConfigNamesTheMistake(t *testing.T) {
	f := func(change func(*kafka.Config), want string) {
		t.Helper()
		cfg := kafka.DefaultConfig()
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(func(c *kafka.Config) { c.Brokers = nil }, "brokers")
	f(func(c *kafka.Config) { c.Brokers = []string{"kafka"} }, "host:port")
	f(func(c *kafka.Config) { c.MaxBufferedBytes = 5 }, "max_buffered_bytes")
}

func TestUnreachableBrokersAreNamed(t *testing.T) {
	cfg := kafka.DefaultConfig()
	cfg.Brokers = []string{"127.0.0.1:1"}
	cl, err := cfg.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := cfg.CheckReachable(ctx, cl); err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "kafka.brokers") {
		t.Fatal(err)
	}
}
