package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestADaysGrowth(t *testing.T) {
	const keys, updates = 1000, 200_000
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "c", 2, compacted())
	cl := client(t, b.Addr(), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(50_000), kgo.ProducerBatchMaxBytes(20_000))
	want := make(map[string]string)
	ctx := within(t, 60*time.Second)
	for i := range updates {
		k, v := fmt.Sprintf("key-%d", i%keys), fmt.Sprintf("value-%d-%032d", i, i)
		want[k] = v
		cl.Produce(ctx, record("c", int32(i%keys%2), k, v), func(_ *kgo.Record, err error) {
			if err != nil {
				t.Error(err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	cl.Close()
	ends := []int64{endOffset(t, b.Addr(), "c", 0), endOffset(t, b.Addr(), "c", 1)}
	before := make(map[string]int64) // offset of the newest record of a key
	for _, r := range readAll(t, b.Addr(), "c") {
		before[string(r.Key)] = r.Offset
	}
	mustClose(t, b)
	grown, _ := dirBytes(dir)

	started := time.Now()
	b = openAt(t, Options{Dir: dir})
	t.Logf("start with compaction took %v", time.Since(started))
	small, _ := dirBytes(dir)
	t.Logf("directory: %d bytes before, %d after", grown, small)
	if small*20 > grown {
		t.Errorf("directory shrank from %d to %d bytes only", grown, small)
	}
	rs := readAll(t, b.Addr(), "c")
	if got := fold(rs); !maps.Equal(got, want) {
		t.Errorf("folded state differs: %d keys, want %d", len(got), len(want))
	}
	for _, r := range rs {
		if o := before[string(r.Key)]; r.Offset > o {
			t.Fatalf("key %s moved from offset %d to %d", r.Key, o, r.Offset)
		}
	}
	for p, want := range ends {
		if got := endOffset(t, b.Addr(), "c", int32(p)); got != want {
			t.Errorf("partition %d: end offset %d, want %d", p, got, want)
		}
	}
	// A position inside what was compacted is still valid.
	cl = client(t, b.Addr(), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"c": {0: kgo.NewOffset().At(50)}}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if fs := cl.PollFetches(within(t, 10*time.Second)); fs.Err() != nil || fs.NumRecords() == 0 {
		t.Errorf("consuming from a compacted offset: %v", fs.Err())
	}
	cl.Close()
	send(t, b.Addr(), record("c", 0, "key-0", "after"))
	mustClose(t, b)
	b = openAt(t, Options{Dir: dir})
	want["key-0"] = "after"
	if got := fold(readAll(t, b.Addr(), "c")); !maps.Equal(got, want) {
		t.Error("state differs after another restart")
	}
}

// txn runs a transaction; end is nil to leave it open.
func txn(t *testing.T, cl *kgo.Client, end *kgo.TransactionEndTry, rs ...*kgo.Record) {
	t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	produce(t, cl, rs...)
	if end != nil {
		if err := cl.EndTransaction(within(t, 10*time.Second), *end); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompactionIgnoresAbortedAndOpenTransactions(t *testing.T) {
	commit, abort := kgo.TryCommit, kgo.TryAbort
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "c", 1, compacted())
	a := client(t, b.Addr(), kgo.TransactionalID("a"))
	txn(t, a, &commit, record("c", 0, "x", "1"), record("c", 0, "y", "1"))
	txn(t, a, &commit, record("c", 0, "x", "2"))
	txn(t, a, &abort, record("c", 0, "x", "aborted"), record("c", 0, "y", "aborted"))
	left := client(t, b.Addr(), kgo.TransactionalID("b"))
	txn(t, left, nil, record("c", 0, "y", "open"), record("c", 0, "z", "open"))
	mustClose(t, b)

	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	if b.store.compacted.ReclaimedBytes <= 0 {
		t.Error("nothing was compacted")
	}
	want := map[string]string{"x": "2", "y": "1"}
	if got := fold(readAll(t, b.Addr(), "c")); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	txn(t, client(t, b.Addr(), kgo.TransactionalID("b")), &commit, record("c", 0, "z", "3"))
	mustClose(t, b)
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	want["z"] = "3"
	if got := fold(readAll(t, b.Addr(), "c")); !maps.Equal(got, want) {
		t.Errorf("after another compaction: got %v, want %v", got, want)
	}
}

func TestTombstonesStayUntilSeenLongEnough(t *testing.T) {
	dir := t.TempDir()
	tombstones := func(b *Broker) (n int) {
		for _, r := range readAll(t, b.Addr(), "c") {
			if r.Value == nil {
				n++
			}
		}
		return n
	}
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "c", 1, map[string]string{"cleanup.policy": "compact", "delete.retention.ms": "3600000"})
	old := &kgo.Record{Topic: "c", Key: []byte("k"), Timestamp: time.Now().Add(-90 * 24 * time.Hour)}
	send(t, b.Addr(), record("c", 0, "k", "v"))
	send(t, b.Addr(), old)
	send(t, b.Addr(), record("c", 0, "last", "v"))
	mustClose(t, b)
	// However old it is, no compaction has seen it yet.
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	if n := tombstones(b); n != 1 {
		t.Fatalf("%d tombstones after the first compaction, want 1", n)
	}
	send(t, b.Addr(), record("c", 0, "last", "w"))
	mustClose(t, b)

	gen := filepath.Join(dir, b.store.gen, passesName)
	var seen passes
	if ok, err := readJSON(gen, &seen); err != nil || !ok {
		t.Fatal(ok, err)
	}
	ps := seen.Partitions["c-0"]
	ps[0].At = ps[0].At.Add(-2 * time.Hour)
	seen.Bytes = 0
	if err := writeJSON(gen, seen); err != nil {
		t.Fatal(err)
	}
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	if n := tombstones(b); n != 0 {
		t.Errorf("%d tombstones two hours after a compaction saw it, want 0", n)
	}
}

func TestCompactionLagAndRetention(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "lag", 1, map[string]string{"cleanup.policy": "compact", "min.compaction.lag.ms": "86400000"})
	createTopic(t, b.Addr(), "ret", 1, map[string]string{"cleanup.policy": "delete", "retention.ms": "86400000"})
	for i, age := range []time.Duration{72, 48, 2, 1, 0} {
		for _, topic := range []string{"lag", "ret"} {
			r := record(topic, 0, "k", fmt.Sprint(i))
			r.Timestamp = time.Now().Add(-age * time.Hour)
			send(t, b.Addr(), r)
		}
	}
	mustClose(t, b)
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	for topic, want := range map[string]int{"lag": 4, "ret": 3} {
		if rs := readAll(t, b.Addr(), topic); len(rs) != want {
			t.Errorf("%s: %d records, want %d", topic, len(rs), want)
		}
		if end := endOffset(t, b.Addr(), topic, 0); end != 5 {
			t.Errorf("%s: end offset %d, want 5", topic, end)
		}
	}
}

func TestInterruptedCompactionLeavesTheOldGeneration(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "c", 1, compacted())
	for i := range 10 {
		send(t, b.Addr(), record("c", 0, "k", fmt.Sprint(i)))
	}
	mustClose(t, b)
	// A crash in the middle leaves a generation nobody switched to.
	c := &compaction{from: filepath.Join(dir, firstGen), to: filepath.Join(dir, "gen-000002"), now: time.Now(), seen: passes{Partitions: map[string][]pass{}}}
	if err := c.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: -1})
	if b.store.gen != firstGen {
		t.Errorf("generation %s, want the old one", b.store.gen)
	}
	if _, err := os.Stat(c.to); !errors.Is(err, os.ErrNotExist) {
		t.Error("the unfinished generation is still there")
	}
	if got := len(readAll(t, b.Addr(), "c")); got != 10 {
		t.Errorf("%d records, want all 10", got)
	}
	mustClose(t, b)

	// A start that is told to stop leaves the directory as it was.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, Options{Dir: dir, CompactAfterBytes: 1}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	b = openAt(t, Options{Dir: dir, CompactAfterBytes: 1})
	if b.store.gen == firstGen || b.UncleanStop() {
		t.Errorf("generation %s, unclean %v", b.store.gen, b.UncleanStop())
	}
	if got := fold(readAll(t, b.Addr(), "c")); got["k"] != "9" {
		t.Errorf("got %v", got)
	}
}

func TestDeletedRecordsDoNotResetOffsets(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "d", 1, nil)
	send(t, b.Addr(), record("d", 0, "k", "1"), record("d", 0, "k", "2"))
	if err := b.cluster.DeleteRecords("d", 0, 2); err != nil {
		t.Fatal(err)
	}
	mustClose(t, b)
	b = openAt(t, Options{Dir: dir})
	if end := endOffset(t, b.Addr(), "d", 0); end != 2 {
		t.Errorf("end offset %d after a restart, want 2", end)
	}
	send(t, b.Addr(), record("d", 0, "k", "3"))
	if rs := readAll(t, b.Addr(), "d"); len(rs) != 1 || rs[0].Offset != 2 {
		t.Errorf("got %d records", len(rs))
	}
}
