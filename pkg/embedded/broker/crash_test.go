package broker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestKilledInTheMiddleOfCommits kills the broker at random while transactions
// over three partitions are committed, and checks after every restart that each
// of them is there whole or not at all, that every acknowledged one is there,
// and that a group's position and the output it stands for agree.
func TestKilledInTheMiddleOfCommits(t *testing.T) {
	const rounds, inputs = 4, 60_000
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "t", 3, nil)
	createTopic(t, b.Addr(), "in", 1, nil)
	createTopic(t, b.Addr(), "out", 3, nil)
	var rs []*kgo.Record
	for i := range inputs {
		rs = append(rs, record("in", 0, fmt.Sprint(i), "v"))
	}
	send(t, b.Addr(), rs...)
	mustClose(t, b)

	acked := make(map[string]bool)
	var position int64
	for round := range rounds {
		c := startChild(t, dir)
		if c.unclean {
			t.Fatal("the child reports an unclean stop after a clean one")
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { commitUntilDead(ctx, c.addr, round, acked) })
		wg.Go(func() { copyUntilDead(ctx, c.addr) })
		time.Sleep(time.Duration(300+rand.IntN(500)) * time.Millisecond) // when to kill, not what to wait for
		c.kill()
		cancel()
		wg.Wait()

		b := openAt(t, Options{Dir: dir, CompactAfterBytes: 64 << 10})
		if !b.UncleanStop() {
			t.Error("kill -9 was not reported as an unclean stop")
		}
		checkWhole(t, b, acked)
		position = checkCopied(t, b)
		t.Logf("round %d: %+v, %d transactions acknowledged, position %d", round, b.store.repaired, len(acked), position)
		mustClose(t, b)
	}
	if len(acked) == 0 || position == 0 {
		t.Errorf("%d transactions acknowledged, position %d: nothing was tested", len(acked), position)
	}
}

// commitUntilDead commits transactions of one record in each partition and
// notes the acknowledged ones.
func commitUntilDead(ctx context.Context, addr string, round int, acked map[string]bool) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.TransactionalID("w"), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequestRetries(1), kgo.RecordRetries(1), kgo.ProducerLinger(0))
	if err != nil {
		return
	}
	context.AfterFunc(ctx, cl.Close) // only this ends a produce whose broker is gone
	for i := 0; ctx.Err() == nil; i++ {
		id := fmt.Sprintf("%d-%d", round, i)
		if cl.BeginTransaction() != nil {
			return
		}
		if cl.ProduceSync(ctx, record("t", 0, id, ""), record("t", 1, id, ""), record("t", 2, id, "")).FirstErr() != nil {
			return
		}
		if cl.EndTransaction(ctx, kgo.TryCommit) != nil {
			return
		}
		acked[id] = true
	}
}

// copyUntilDead reads "in" as a group and writes every record to "out" in the
// transaction of its position.
func copyUntilDead(ctx context.Context, addr string) {
	sess, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(addr), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("in"), kgo.TransactionalID("copy"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.SessionTimeout(time.Second), kgo.HeartbeatInterval(200*time.Millisecond),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.ProducerLinger(0))
	if err != nil {
		return
	}
	context.AfterFunc(ctx, sess.Client().Close)
	for ctx.Err() == nil {
		fs := sess.PollRecords(ctx, 20)
		if errors.Join(fs.Err(), sess.Begin()) != nil {
			return
		}
		var out []*kgo.Record
		fs.EachRecord(func(r *kgo.Record) { out = append(out, record("out", int32(r.Offset%3), string(r.Key), "")) })
		if sess.ProduceSync(ctx, out...).FirstErr() != nil {
			return
		}
		if _, err := sess.End(ctx, kgo.TryCommit); err != nil {
			return
		}
	}
}

func checkWhole(t *testing.T, b *Broker, acked map[string]bool) {
	t.Helper()
	seen := make(map[string]int)
	for _, r := range readAll(t, b.Addr(), "t") {
		seen[string(r.Key)] |= 1 << r.Partition
	}
	for id, parts := range seen {
		if parts != 0b111 {
			t.Errorf("transaction %s is in partitions %03b only", id, parts)
		}
	}
	for id := range acked {
		if seen[id] == 0 {
			t.Errorf("transaction %s was acknowledged and is lost", id)
		}
	}
}

// checkCopied returns the group's position.
func checkCopied(t *testing.T, b *Broker) int64 {
	t.Helper()
	adm := kadm.NewClient(client(t, b.Addr()))
	defer adm.Close()
	offs, err := adm.FetchOffsets(within(t, 10*time.Second), "g")
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) { // killed before its first commit
		t.Fatal(err)
	}
	var position int64
	if o, ok := offs.Lookup("in", 0); ok && o.Err == nil {
		position = max(o.At, 0)
	}
	seen := make(map[string]int)
	for _, r := range readAll(t, b.Addr(), "out") {
		if seen[string(r.Key)]++; seen[string(r.Key)] > 1 {
			t.Errorf("input %s was copied twice", r.Key)
		}
	}
	if int64(len(seen)) != position {
		t.Errorf("the group's position is %d and its output has %d records", position, len(seen))
	}
	return position
}

// copyLive copies a directory of a running broker: what a kill -9 at this
// moment would leave.
func copyLive(t *testing.T, from string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// cutLastBatch removes the last batch of a partition, but not its index entry.
func cutLastBatch(t *testing.T, dir string, id partitionID) {
	t.Helper()
	p, err := scanPartition(filepath.Join(dir, firstGen), id)
	if err != nil {
		t.Fatal(err)
	}
	last := p.lastBatch()
	base := p.segments[len(p.segments)-1].base
	if err := os.Truncate(segmentPath(p.dir, base), last.pos); err != nil {
		t.Fatal(err)
	}
}

func TestHalfCommittedTransactionIsCompleted(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "in", 1, nil)
	createTopic(t, b.Addr(), "t", 3, nil)
	send(t, b.Addr(), record("in", 0, "k", "v"))
	ctx := within(t, 30*time.Second)
	sess, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(b.Addr()), kgo.ConsumerGroup("g"), kgo.ConsumeTopics("in"), kgo.TransactionalID("tx"),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer sess.Close()
	if err := sess.PollFetches(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	if err := sess.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := sess.ProduceSync(ctx, record("t", 0, "k", "v"), record("t", 1, "k", "v"), record("t", 2, "k", "v")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	producersBefore, err := os.ReadFile(filepath.Join(dir, firstGen, "pids.log"))
	if err != nil {
		t.Fatal(err)
	}
	groupsBefore, err := os.ReadFile(filepath.Join(dir, firstGen, "groups.log"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	open := copyLive(t, dir)
	if ok, err := sess.End(ctx, kgo.TryCommit); err != nil || !ok {
		t.Fatal(ok, err)
	}

	// Killed after the decision and the first of three markers.
	half := copyLive(t, dir)
	cutLastBatch(t, half, partitionID{"t", 1})
	cutLastBatch(t, half, partitionID{"t", 2})
	for name, data := range map[string][]byte{"pids.log": producersBefore, "groups.log": groupsBefore} {
		if err := os.WriteFile(filepath.Join(half, firstGen, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		dir  string
		want int
		at   int64
	}{"half committed": {half, 3, 1}, "not decided": {open, 0, -1}} {
		t.Run(name, func(t *testing.T) {
			b := openAt(t, Options{Dir: c.dir})
			if !b.UncleanStop() {
				t.Error("not reported as an unclean stop")
			}
			if rs := readAll(t, b.Addr(), "t"); len(rs) != c.want {
				t.Errorf("%d records, want %d", len(rs), c.want)
			}
			adm := kadm.NewClient(client(t, b.Addr()))
			defer adm.Close()
			offs, err := adm.FetchOffsets(ctx, "g")
			if err != nil {
				t.Fatal(err)
			}
			at := int64(-1)
			if o, ok := offs.Lookup("in", 0); ok {
				at = o.At
			}
			if at != c.at {
				t.Errorf("group position %d, want %d", at, c.at)
			}
			// The next transaction of the same id, and another crash, change
			// nothing about the first one.
			commit := kgo.TryCommit
			cl := client(t, b.Addr(), kgo.TransactionalID("tx"))
			txn(t, cl, &commit, record("t", 0, "k2", "v"))
			again := openAt(t, Options{Dir: copyLive(t, c.dir)})
			if rs := readAll(t, again.Addr(), "t"); len(rs) != c.want+1 {
				t.Errorf("%d records after the second crash, want %d", len(rs), c.want+1)
			}
		})
	}
}

func TestTornFilesAreRepaired(t *testing.T) {
	commit := kgo.TryCommit
	abort := kgo.TryAbort
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "t", 1, nil)
	cl := client(t, b.Addr(), kgo.TransactionalID("tx"))
	txn(t, cl, &commit, record("t", 0, "a", "1"))
	txn(t, cl, &abort, record("t", 0, "b", "aborted"))
	torn := copyLive(t, dir)
	for _, name := range []string{"partitions/t-0/0.dat", "pids.log", "groups.log"} {
		path := filepath.Join(torn, firstGen, name)
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("\x00\x00\x00\x00\x00\x00\x00\x09half a batch")); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// The index lacks the batches' entries: an aborted batch would look plain.
	if err := os.Truncate(filepath.Join(torn, firstGen, "partitions/t-0/0.idx"), 7); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "1"}
	for range 2 { // the second time over what the first one wrote
		b := openAt(t, Options{Dir: torn})
		if !b.UncleanStop() || len(want) == 1 && b.store.repaired.TruncatedBytes == 0 {
			t.Errorf("unclean %v, %+v", b.UncleanStop(), b.store.repaired)
		}
		if got := fold(readAll(t, b.Addr(), "t")); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		again := client(t, b.Addr(), kgo.TransactionalID("tx"))
		txn(t, again, &commit, record("t", 0, "c", fmt.Sprint(len(want))))
		want["c"] = fmt.Sprint(len(want))
		torn = copyLive(t, torn)
	}
}

func TestAProducerThatSurvivedDoesNotWriteTwice(t *testing.T) {
	dir := t.TempDir()
	b := openAt(t, Options{Dir: dir})
	createTopic(t, b.Addr(), "t", 1, nil)
	cl := client(t, b.Addr())
	for i := range 7 {
		produce(t, cl, record("t", 0, fmt.Sprint(i), "v"))
	}
	crashed := copyLive(t, dir)
	again := openAt(t, Options{Dir: crashed})
	raw, err := os.ReadFile(filepath.Join(crashed, again.store.gen, "partitions/t-0/0.dat"))
	if err != nil {
		t.Fatal(err)
	}
	var last []byte // the last batch, as its producer would send it again
	for len(raw) > 0 {
		bt, ok := parseBatch(raw)
		if !ok {
			t.Fatal("unreadable segment")
		}
		last, raw = raw[:bt.size], raw[bt.size:]
	}
	resend(t, again.Addr(), "t", last)
	if end := endOffset(t, again.Addr(), "t", 0); end != 7 {
		t.Errorf("end offset %d after a batch was sent again, want 7", end)
	}
}
