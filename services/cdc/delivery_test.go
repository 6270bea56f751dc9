package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/quarantine"
	"github.com/millrace-io/millrace/schemas"
)

// TestDelivery holds the tests of what Kafka gets, and when, that share a primary and its standby.
func TestDelivery(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"a row that does not fit is quarantined and mended", poisonMended},
		{"an unfit row before a good one is no reason to lose it", unfitBefore},
		{"at least once repeats only what headers tell", atLeastOnce},
		{"at least once, a truncation is not repeated over what follows", atLeastOnceTruncation},
		{"a commit whose answer is lost is found by reading", answerLost},
		{"a giant transaction is resumed by ordinal", giantResumed},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

const tooMuch = "repeat('x', 3000000)"

// quarantined are the entries that cdc wrote, with what they seal.
func (s *store) quarantined(t *testing.T) (entries []schemas.Quarantined, sources []quarantine.Source) {
	t.Helper()
	d, err := avro.NewDecoder(s.registry, schemas.Latest(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = scan(t.Context(), s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if r.Attrs.IsControl() {
			return
		}
		var e schemas.Quarantined
		if err := d.Decode(t.Context(), r.Value, &e); err != nil {
			t.Fatal(err)
		}
		src, err := quarantine.Open(s.keys, &e)
		if err != nil {
			t.Fatal(err)
		}
		entries, sources = append(entries, e), append(sources, src)
	}, s.kafka.Name(schemas.Quarantine))
	if err != nil {
		t.Fatal(err)
	}
	return entries, sources
}

func (s *store) incomplete(r *running) string {
	c, _, _ := r.state.claim()
	return strings.Join(c.Incomplete, ",")
}

func poisonMended(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "BEGIN; INSERT INTO items VALUES (1, 'a'); INSERT INTO items (id, big) VALUES (2, "+tooMuch+"), (3, "+tooMuch+"), (4, "+tooMuch+`); INSERT INTO items VALUES (5, 'e'); COMMIT;
		UPDATE items SET a = 'f' WHERE id = 5`)
	s.quiet(t, r)
	if got := s.incomplete(r); got != "public.items" {
		t.Errorf("incomplete: %s", got)
	}
	rows := s.fold(t, "items")
	if len(rows) != 2 {
		t.Errorf("%d rows are there, want the two that fit", len(rows))
	}
	entries, sources := s.quarantined(t)
	if len(entries) != 3 {
		t.Fatalf("%d entries in quarantine, want 3", len(entries))
	}
	third := slices.IndexFunc(entries, func(e schemas.Quarantined) bool { return strings.HasSuffix(e.EventID, ":3") })
	if third < 0 {
		t.Fatal("no entry of the third change")
	}
	e, src := entries[third], sources[third]
	if e.Stage != "cdc" || e.SourceTopic != "store.public.items" || len(e.Errors) == 0 || e.Errors[0].Code != codeTooLarge {
		t.Errorf("entry: stage %s of %s at %s, %v", e.Stage, e.SourceTopic, e.EventID, e.Errors)
	}
	if !strings.Contains(string(src.Value), `"id":"3"`) || !strings.Contains(string(src.Value), `"ordinal":3`) || len(src.Key) == 0 {
		t.Errorf("the payload is %.200s", src.Value)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = s.start(t) // the position knows
	s.quiet(t, r)
	if got := s.incomplete(r); got != "public.items" {
		t.Errorf("incomplete after a restart: %s", got)
	}
	s.exec(t, "UPDATE items SET big = 'small' WHERE id = 2; DELETE FROM items WHERE id = 3; UPDATE items SET id = 40, big = NULL WHERE id = 4")
	s.quiet(t, r)
	if got := s.incomplete(r); got != "" {
		t.Errorf("still incomplete: %s", got)
	}
	s.matches(t, "items", "id", "a", "big")
	noDoubles(t, s, "items")
}

func unfitBefore(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; ALTER TABLE items REPLICA IDENTITY FULL")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items (id, big) VALUES (1, "+tooMuch+"), (2, "+tooMuch+"); UPDATE items SET big = 'small' WHERE id = 1; DELETE FROM items WHERE id = 2")
	s.quiet(t, r)
	if got := s.incomplete(r); got != "" {
		t.Errorf("incomplete: %s", got)
	}
	s.matches(t, "items", "id", "big")
}

// deduplicated applies the rule of the headers, and gives what is dropped and what is left.
func deduplicated(t *testing.T, s *store, topic string) (dropped, left []*kgo.Record) {
	t.Helper()
	type place struct{ lsn, ordinal int64 }
	newest := map[int32]place{}
	number := func(r *kgo.Record, name string) int64 {
		n, err := strconv.ParseInt(string(kafka.Header(r, name)), 10, 64)
		if err != nil {
			t.Fatalf("header %s: %v", name, err)
		}
		return n
	}
	_, _, err := scan(t.Context(), s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if kafka.Header(r, HeaderCommitLSN) == nil {
			left = append(left, r)
			return
		}
		at, before := place{number(r, HeaderCommitLSN), number(r, HeaderOrdinal)}, newest[r.Partition]
		if at.lsn < before.lsn || at.lsn == before.lsn && at.ordinal <= before.ordinal {
			dropped = append(dropped, r)
			return
		}
		newest[r.Partition] = at
		left = append(left, r)
	}, s.kafka.Name("store.public."+topic))
	if err != nil {
		t.Fatal(err)
	}
	return dropped, left
}

func atLeastOnce(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.Delivery = AtLeastOnce
	s.cfg.TransactionBytes = 16 << 10
	s.exec(t, "INSERT INTO items SELECT i, 'a' FROM generate_series(1, 300) i")
	p.standby.Sync(t)
	repeats := 0
	for round := range 5 {
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, fmt.Sprintf(`UPDATE items SET a = 'u%d' WHERE id %% 3 = 0; UPDATE items SET id = id + 1000 WHERE id %% 50 = %[1]d AND id < 1000; DELETE FROM items WHERE id %% 41 = %[1]d;
			INSERT INTO items SELECT i, 'new' FROM generate_series(%d, %d) i`, round, 5000+round*500, 5400+round*500))
		s.quiet(t, r) // it is in Kafka, and the position need not be
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	r := s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
	dropped, left := deduplicated(t, s, "items")
	kept := map[string]bool{}
	for _, r := range left {
		kept[fmt.Sprintf("%d %s %s %x", r.Partition, kafka.Header(r, HeaderCommitLSN), kafka.Header(r, HeaderOrdinal), r.Key)] = true
	}
	for _, r := range dropped {
		repeats++
		if !kept[fmt.Sprintf("%d %s %s %x", r.Partition, kafka.Header(r, HeaderCommitLSN), kafka.Header(r, HeaderOrdinal), r.Key)] {
			t.Fatal("the rule of the headers drops a record that is no repeat")
		}
	}
	if repeats == 0 {
		t.Error("nothing was repeated: the test does not see what it is for")
	}
	live := map[string]bool{}
	for _, r := range left {
		if live[string(r.Key)] = r.Value != nil; r.Value == nil {
			delete(live, string(r.Key))
		}
	}
	if want := s.count(t, "items"); len(live) != want {
		t.Errorf("without repeats %d rows are left, the table has %d", len(live), want)
	}
	t.Logf("%d records were repeated", repeats)
}

func (s *store) count(t *testing.T, table string) (n int) {
	t.Helper()
	if err := s.write.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func atLeastOnceTruncation(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.Delivery = AtLeastOnce
	s.exec(t, "INSERT INTO items SELECT i, 'a' FROM generate_series(1, 50) i")
	p.standby.Sync(t)
	for round := range 3 {
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, fmt.Sprintf("BEGIN; UPDATE items SET a = 'b'; TRUNCATE items; INSERT INTO items SELECT i, 'r%d' FROM generate_series(%[1]d, 40) i; COMMIT", round))
		s.quiet(t, r)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
	r := s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
	_, left := deduplicated(t, s, "items")
	live := map[string]bool{}
	for _, r := range left {
		if live[string(r.Key)] = r.Value != nil; r.Value == nil {
			delete(live, string(r.Key))
		}
	}
	if want := s.count(t, "items"); len(live) != want {
		t.Errorf("without repeats %d rows are left, the table has %d", len(live), want)
	}
}

// deaf is a broker of which the answers to some commits are lost: the transactions end.
type deaf struct {
	brokers []string
	arm     atomic.Int64 // so many of the next answers are lost
	unheard atomic.Int64
}

func newDeaf(t *testing.T) *deaf {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DefaultNumPartitions(6))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	d := &deaf{brokers: cluster.ListenAddrs()}
	behind, err := kgo.NewClient(kgo.SeedBrokers(d.brokers...), kgo.WithLogger(nil))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(behind.Close)
	var through atomic.Int64
	cluster.ControlKey(int16(kmsg.EndTxn), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		if through.Load() > 0 {
			through.Add(-1)
			return nil, nil, false
		}
		if d.arm.Load() == 0 || !req.(*kmsg.EndTxnRequest).Commit {
			return nil, nil, false
		}
		d.arm.Add(-1)
		d.unheard.Add(1)
		through.Add(1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			defer cancel()
			_, _ = behind.Request(ctx, req) // its answer is the one that is lost
		}()
		return nil, errors.New("the answer is lost"), true
	})
	return d
}

// Invariant 2: after a commit without an answer nobody knows whether it happened, but for the position itself.
func answerLost(t *testing.T, p *pair) {
	broker := newDeaf(t)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	for round := range 4 {
		broker.arm.Store(1 + int64(round%2))
		s.exec(t, fmt.Sprintf("INSERT INTO items SELECT i, 'r%d' FROM generate_series(%d, %d) i; UPDATE items SET n = %[1]d WHERE id %% 7 = 0", round, round*100, round*100+60))
		waitFor(t, "a lost answer", 20*time.Second, func() bool { return broker.arm.Load() == 0 })
		s.quiet(t, r)
	}
	if broker.unheard.Load() < 4 {
		t.Fatalf("%d answers were lost", broker.unheard.Load())
	}
	s.matches(t, "items", "id", "a", "n")
	noDoubles(t, s, "items")
}

// A transaction of the source that is many of Kafka's goes on where it was, however often it is interrupted.
func giantResumed(t *testing.T, p *pair) {
	broker := newFlaky(t, 3)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	s.cfg.TransactionBytes = 32 << 10
	r := s.start(t)
	s.quiet(t, r)
	const total = 5000
	cut := map[int64]bool{}
	for kill := range 3 {
		broker.left.Store(int64(6 + 3*kill))
		if kill == 0 {
			s.exec(t, fmt.Sprintf("INSERT INTO items SELECT i, repeat('y', 100), i FROM generate_series(1, %d) i", total))
		} else {
			r = s.start(t)
		}
		waitFor(t, "the kill", 30*time.Second, broker.dead.Load)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		broker.dead.Store(false)
		pos, _, err := readPosition(t.Context(), s.kafka, s.registry, slog.New(slog.DiscardHandler), settled, s.cfg.Slot)
		if err != nil {
			t.Fatal(err)
		}
		if pos.TxOrdinal > 0 {
			cut[pos.TxOrdinal] = true
		}
	}
	if len(cut) < 2 {
		t.Fatalf("the transaction was cut at %d places: the test does not see what it is for", len(cut))
	}
	r = s.start(t)
	s.quiet(t, r)
	noDoubles(t, s, "items")
	next := int64(0)
	orders := map[int64]bool{}
	for _, e := range s.events(t, "items") {
		block := e.value["transaction"].(map[string]any)
		for _, b := range block {
			order := b.(map[string]any)["total_order"].(int64)
			orders[order], next = true, max(next, order)
		}
	}
	if len(orders) != total || next != total {
		t.Errorf("%d places of the transaction, the last is %d; want %d", len(orders), next, total)
	}
	s.matches(t, "items", "id", "a", "n")
}
