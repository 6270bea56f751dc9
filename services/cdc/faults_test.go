package cdc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// flaky is a broker that loses requests and answers at random while it is on.
type flaky struct {
	brokers []string
	on      atomic.Bool
	dead    atomic.Bool  // no transaction ends any more, as after kill -9
	left    atomic.Int64 // if set, how many transactions may end before it is dead
	lost    atomic.Int64
	unheard atomic.Int64 // commits that happened and whose answer was lost
}

func newFlaky(t *testing.T, seed uint64) *flaky {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(6))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	f := &flaky{brokers: cluster.ListenAddrs()}
	behind, err := kgo.NewClient(kgo.SeedBrokers(f.brokers...), kgo.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(behind.Close)
	var through atomic.Int64 // requests of ours that must pass
	r := rand.New(rand.NewPCG(seed, 1))
	cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if through.Load() > 0 {
			through.Add(-1)
			return nil, nil, false
		}
		if f.left.Load() > 0 && f.left.Add(-1) == 0 {
			f.dead.Store(true)
		}
		switch {
		case f.dead.Load():
			return nil, errors.New("dead"), true
		case !f.on.Load() || r.IntN(3) > 0:
			return nil, nil, false
		case r.IntN(2) == 0:
			f.lost.Add(1)
			return nil, errors.New("lost"), true
		}
		// The transaction ends, and the client never hears of it.
		f.unheard.Add(1)
		through.Add(1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, _ = behind.Request(ctx, req)
		}()
		return nil, errors.New("unheard"), true
	})
	cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if f.on.Load() && r.IntN(12) == 0 {
			f.lost.Add(1)
			return nil, errors.New("lost"), true
		}
		return nil, nil, false
	})
	// This broker tells which transactions were aborted for whole partitions only, not for the one in which an answer has
	// become as large as was asked for: what of it was aborted would be read as if it were committed.
	cluster.ControlKey(int16(kmsg.Fetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		req.(*kmsg.FetchRequest).MaxBytes = math.MaxInt32
		return nil, nil, false
	})
	return f
}

// history makes random transactions, and some of all that is awkward.
func history(t *testing.T, s *store, r *rand.Rand, transactions int) {
	t.Helper()
	for range transactions {
		id := r.IntN(60)
		var sql string
		switch r.IntN(12) {
		case 0, 1, 2:
			sql = fmt.Sprintf("INSERT INTO items VALUES (%d, 'a%d', %d.125, true, now(), 'x') ON CONFLICT (id) DO UPDATE SET n = items.n + 1", id, r.IntN(99), r.IntN(999))
		case 3, 4:
			sql = fmt.Sprintf("UPDATE items SET a = 'u%d', ok = NOT ok WHERE id BETWEEN %d AND %d", r.IntN(99), id, id+10)
		case 5:
			sql = fmt.Sprintf("DELETE FROM items WHERE id = %d", id)
		case 6:
			sql = fmt.Sprintf("UPDATE items SET id = id + 100 * (1 + %d) WHERE id = %d AND NOT EXISTS (SELECT FROM items o WHERE o.id = items.id + 100 * (1 + %[1]d))", r.IntN(5), id)
		case 7:
			sql = fmt.Sprintf("BEGIN; INSERT INTO notes VALUES ('n%d', %d, 'b') ON CONFLICT DO NOTHING; SAVEPOINT a; DELETE FROM notes; ROLLBACK TO a; UPDATE notes SET body = body || 'c' WHERE m %% 3 = 0; COMMIT", id, r.IntN(9))
		case 8:
			sql = fmt.Sprintf("BEGIN; INSERT INTO items SELECT i FROM generate_series(2000, 2150) i ON CONFLICT DO NOTHING; UPDATE items SET n = %d WHERE id >= 2000; COMMIT", r.IntN(999))
		case 9:
			sql = fmt.Sprintf("UPDATE items SET big = (SELECT string_agg(md5(i::text || %d), '') FROM generate_series(1, 300) i) WHERE id = %d", r.IntN(99), id)
		case 10:
			if sql = "DELETE FROM items WHERE id >= 2000"; r.IntN(8) == 0 {
				sql = "TRUNCATE items, notes"
			}
		case 11:
			sql = fmt.Sprintf("UPDATE notes SET k = k || 'z' WHERE m = %d AND length(k) < 9", r.IntN(9))
		}
		s.exec(t, sql)
	}
}

// Invariants 1 and 2: whatever is lost, killed or in doubt, the folded topics are the tables, and each change is there once.
func TestRandomHistoriesSurviveFaults(t *testing.T) {
	primary, standby := pgtest.Pair(t)
	prepare(t, primary)
	for seed := range uint64(2) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			broker := newFlaky(t, seed)
			s := newStore(t, primary, standby, broker.brokers, itemsTable+`; CREATE TABLE changes (n int);
				ALTER TABLE items REPLICA IDENTITY `+[]string{"FULL", "DEFAULT"}[seed])
			s.cfg.TransactionBytes = 16 << 10 // large source transactions are split
			s.cfg.TransactionInterval = time.Millisecond
			s.cfg.EncodeWorkers = []int{1, 4}[seed]
			random := rand.New(rand.NewPCG(seed, 2))
			history(t, s, random, 40)
			for round := range 5 {
				broker.on.Store(round%2 == 0)
				run := s.start(t)
				if round > 0 && round%2 == 0 { // the source's side breaks too
					waitFor(t, "the stream", 20*time.Second, func() bool { return run.Ready() == nil })
					standby.Exec(t, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '"+s.cfg.Slot+"'")
				}
				history(t, s, random, 60)
				if round == 2 {
					broker.on.Store(false)
					s.quiet(t, run)
				}
				broker.dead.Store(round < 4) // as kill -9: nothing in hand is ended
				history(t, s, random, 10)
				if round < 4 {
					if err := run.stop(); err != nil {
						t.Fatal(err)
					}
				}
				broker.dead.Store(false)
				if round == 4 {
					broker.on.Store(false)
					s.quiet(t, run)
					if err := run.stop(); err != nil {
						t.Fatal(err)
					}
				}
			}
			s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
			s.matches(t, "notes", "k", "m", "body")
			noDoubles(t, s, "items")
			t.Logf("lost %d requests, %d commits unheard", broker.lost.Load(), broker.unheard.Load())
		})
	}
}

// noDoubles checks that no change of a source transaction is there twice.
func noDoubles(t *testing.T, s *store, topic string) {
	t.Helper()
	seen := map[string]event{}
	for _, e := range s.events(t, topic) {
		if e.value == nil {
			continue
		}
		block, ok := e.value["transaction"].(map[string]any)
		if !ok {
			continue
		}
		for _, b := range block {
			b := b.(map[string]any)
			id := fmt.Sprint(b["id"], "/", b["total_order"], "/", e.op(), "/", e.key)
			if first, twice := seen[id]; twice {
				t.Fatalf("topic %s: %s of change %v of transaction %v is there twice, at %d of partition %d with seq %d and at %d with seq %d", topic, e.op(),
					b["total_order"], b["id"], first.offset, first.partition, first.seq(), e.offset, e.seq())
			}
			seen[id] = e
		}
	}
	if len(seen) == 0 {
		t.Fatalf("topic %s: no change was streamed", topic)
	}
}
