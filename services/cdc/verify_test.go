package cdc

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// TestDifferences holds the tests of what compares tables with topics; they share a primary and its standby.
func TestDifferences(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED with -short: under the race detector the writers of these tests outrun two cores; `make test` runs them")
	}
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "60")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"verify: equal, and what was written into the topic is found", verifyFinds},
		{"verify: equal while changes are made", verifyUnderLoad},
		{"verify: unchanged large values", verifyLargeValues},
		{"verify: keys that are tokens", verifyTokens},
		{"verify: a primary is a source too", verifyPrimary},
		{"verify: what is not whole is incomplete", verifyIncomplete},
		{"verify: partitions, filters and added columns", verifyShapes},
		{"reconcile after a gap writes only the difference", reconcileAfterGap},
		{"reconcile: asked for while capture runs", reconcileAsked},
		{"reconcile: asked for over a gap", reconcileOverGapOnRequest},
		{"reconcile while changes are made", reconcileUnderLoad},
		{"reconcile: keys that are tokens", reconcileTokens},
		{"files instead of the source", filesInstead},
		{"files that are older than what was captured", filesTooOld},
		{"files that are broken change nothing", filesBad},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// verify runs Verify and gives what it found by table.
func (s *store) verify(t testing.TB, tables ...string) (map[string]verified, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	err := s.service(t).Verify(ctx, &out, VerifyOptions{Sample: 1, Keys: 100, JSON: true, Tables: tables})
	if err != nil && !errors.Is(err, app.ErrDifferences) {
		t.Fatal(err)
	}
	var got struct {
		Equal  bool
		Tables []verified
	}
	if e := json.Unmarshal(out.Bytes(), &got); e != nil {
		t.Fatalf("%v: %s", e, out.String())
	}
	if got.Equal != (err == nil) {
		t.Errorf("equal is %v, and the error %v", got.Equal, err)
	}
	found := map[string]verified{}
	for _, v := range got.Tables {
		found[strings.TrimPrefix(v.Table, "public.")] = v
	}
	return found, err
}

// isEqual fails unless all tables are verified to be equal.
func (s *store) isEqual(t testing.TB) map[string]verified {
	t.Helper()
	found, err := s.verify(t)
	if err != nil || len(found) == 0 {
		t.Errorf("verify: %v: %+v", err, found)
	}
	return found
}

// produce writes records into a table's topic, as something that is not cdc.
func (s *store) produce(t testing.TB, table string, records ...kgo.Record) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.kafka.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i := range records {
		records[i].Topic = s.kafka.Name("store.public." + table)
		if err := cl.ProduceSync(t.Context(), &records[i]).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// lastRecords are those of a table's topic that have a value, the last of each key, by the key's first column.
func (s *store) lastRecords(t testing.TB, table string) map[string]kgo.Record {
	t.Helper()
	out := map[string]kgo.Record{}
	for _, e := range s.events(t, table) {
		for _, v := range e.keyFields {
			if e.value != nil {
				out[fmt.Sprint(v)] = kgo.Record{Key: []byte(e.key), Value: e.raw}
			}
			break
		}
	}
	return out
}

func verifyFinds(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, `INSERT INTO items SELECT i, 'a' || i, i * 1.125, i % 2 = 0, now(), 'b', '{"x": 1}' FROM generate_series(1, 500) i;
		INSERT INTO notes SELECT 'k', i, 'body' FROM generate_series(1, 20) i`)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "UPDATE items SET a = NULL WHERE id % 7 = 0; DELETE FROM items WHERE id % 11 = 0; UPDATE items SET id = id + 1000 WHERE id % 13 = 0")
	s.quiet(t, r)
	if found := s.isEqual(t); found["items"].Source == 0 || found["items"].Source != found["items"].Equal || found["notes"].Equal != 20 {
		t.Errorf("%+v", found)
	}
	if err := r.stop(); err != nil { // verify needs no running cdc if the position is there
		t.Fatal(err)
	}
	records := s.lastRecords(t, "items")
	spoilt := bytes.Replace(bytes.Clone(records["1"].Value), []byte("a1"), []byte("z1"), 1)
	s.produce(t, "items", kgo.Record{Key: records["1"].Key, Value: spoilt}, kgo.Record{Key: records["2"].Key}, kgo.Record{Key: records["3"].Key, Value: []byte("garbage")},
		kgo.Record{Key: append(bytes.Clone(records["4"].Key[:5]), 0xd0, 0x0f), Value: records["4"].Value})
	s.start(t)
	found, err := s.verify(t)
	if !errors.Is(err, app.ErrDifferences) || !strings.Contains(err.Error(), "cdc reconcile public.items") {
		t.Fatal(err)
	}
	items := found["items"]
	slices.SortFunc(items.Keys, func(a, b wanted) int { return strings.Compare(a.Key, b.Key) })
	want := []wanted{{"different", "id=1"}, {"extra", "id=1000"}, {"missing", "id=2"}, {"different", "id=3"}}
	if !slices.Equal(items.Keys, want) || items.Missing != 1 || items.Extra != 1 || items.Different != 2 || items.State != verifiedDifferent {
		t.Errorf("%+v", items)
	}
	if found["notes"].State != verifiedEqual {
		t.Errorf("%+v", found["notes"])
	}
	var text bytes.Buffer
	err = s.service(t).Verify(t.Context(), &text, VerifyOptions{Sample: 1, Keys: 2, Tables: []string{"public.items"}})
	if !errors.Is(err, app.ErrDifferences) || !strings.Contains(text.String(), "different  public.items") || !strings.Contains(text.String(), "and 2 more") {
		t.Errorf("%v: %s", err, text.String())
	}
	var usage *app.UsageError
	if err := s.service(t).Verify(t.Context(), &text, VerifyOptions{Sample: 1, Tables: []string{"public.none"}}); !errors.As(err, &usage) {
		t.Error(err)
	}
}

func verifyUnderLoad(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i, 'a', 0 FROM generate_series(1, 3000) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for w := range 2 {
		conn := pgtest.Connect(t, p.primary.DSN("postgres", s.database))
		writers.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				sql := fmt.Sprintf(`INSERT INTO items VALUES (%d, 'w'); DELETE FROM items WHERE id = %d; UPDATE items SET n = n + 1 WHERE id %% 400 = %d;
					UPDATE items SET id = -id WHERE id = %d`, 10000*(w+1)+i, 10000*(w+1)+i-5, i%400, 1+(7*i+w)%3000)
				if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil && !strings.Contains(err.Error(), "deadlock") &&
					!strings.Contains(err.Error(), "duplicate") {
					t.Error(err)
					return
				}
			}
		})
	}
	moved := int64(0)
	for range 4 {
		moved += s.isEqual(t)["items"].Moved
	}
	cancel()
	writers.Wait()
	s.quiet(t, r)
	s.isEqual(t)
	if moved == 0 {
		t.Error("nothing changed while it was verified")
	}
}

func verifyLargeValues(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; ALTER TABLE items ALTER big SET STORAGE EXTERNAL")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, `INSERT INTO items SELECT i, 'a', 1, true, now(), repeat('large', 2000) FROM generate_series(1, 20) i; UPDATE items SET a = 'b' WHERE id < 10;
		UPDATE items SET big = NULL WHERE id = 3; UPDATE items SET a = 'c' WHERE id = 3; DELETE FROM items WHERE id = 4`)
	s.quiet(t, r)
	s.isEqual(t)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// The value that an unchanged column had before is not that of the table.
	var full, partial kgo.Record
	for _, e := range s.events(t, "items") {
		if e.keyFields["id"] != int32(6) {
			continue
		}
		if e.unchanged == nil {
			full = kgo.Record{Key: []byte(e.key), Value: bytes.Replace(bytes.Clone(e.raw), []byte("large"), []byte("LARGE"), 1)}
		} else {
			partial = kgo.Record{Key: []byte(e.key), Value: e.raw, Headers: []kgo.RecordHeader{{Key: HeaderUnchanged, Value: []byte("big")}}}
		}
	}
	s.produce(t, "items", full, partial)
	s.start(t)
	if found, err := s.verify(t); err == nil || len(found["items"].Keys) != 1 || found["items"].Keys[0] != (wanted{"different", "id=6"}) {
		t.Errorf("%v: %+v", err, found["items"])
	}
}

func verifyTokens(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE customers (email text PRIMARY KEY, phone text, city text); CREATE PUBLICATION millrace FOR TABLE customers;
		INSERT INTO customers SELECT 'ann' || i || '@shop.example', '+44 ' || i, 'Leeds' FROM generate_series(1, 100) i`)
	r := s.start(t)
	s.quiet(t, r)
	s.isEqual(t)
	var ann kgo.Record
	for _, e := range s.events(t, "customers") {
		if e.keyFields["email"] == s.keys.Token("ann7@shop.example") {
			ann = kgo.Record{Key: []byte(e.key)}
		}
	}
	s.produce(t, "customers", ann, kgo.Record{Key: bytes.Replace(bytes.Clone(ann.Key), []byte(s.keys.Token("ann7@shop.example")), []byte(s.keys.Token("bob@shop.example")), 1),
		Value: []byte("x")})
	found, err := s.verify(t)
	keys := found["customers"].Keys
	slices.SortFunc(keys, func(a, b wanted) int { return strings.Compare(a.Kind, b.Kind) })
	if err == nil || len(keys) != 2 || keys[0] != (wanted{"extra", "email=" + s.keys.Token("bob@shop.example")}) ||
		keys[1] != (wanted{"missing", "email=" + s.keys.Token("ann7@shop.example")}) {
		t.Errorf("%v: %+v", err, keys)
	}
}

func verifyPrimary(t *testing.T, p *pair) {
	s := newStore(t, p.primary, p.primary, brokertest.New(t), itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 50) i")
	r := s.start(t)
	s.quiet(t, r)
	s.isEqual(t)
	s.produce(t, "items", kgo.Record{Key: s.lastRecords(t, "items")["9"].Key})
	if found, err := s.verify(t); err == nil || len(found["items"].Keys) != 1 || found["items"].Keys[0] != (wanted{"missing", "id=9"}) {
		t.Errorf("%v: %+v", err, found["items"])
	}
}

func verifyIncomplete(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE narrow (i int PRIMARY KEY, n int); CREATE TABLE good (i int PRIMARY KEY); CREATE PUBLICATION millrace FOR TABLE narrow, good`)
	var none bytes.Buffer
	if err := s.service(t).Verify(t.Context(), &none, VerifyOptions{Sample: 1}); !errors.Is(err, errNothingCaptured) {
		t.Error(err)
	}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO narrow VALUES (1, 1); ALTER TABLE narrow ALTER n TYPE text; INSERT INTO narrow VALUES (2, 'two')")
	s.quiet(t, r)
	found, err := s.verify(t)
	if !errors.Is(err, app.ErrDifferences) || found["narrow"].State != verifiedIncomplete || !strings.HasPrefix(found["narrow"].Reason, "stopped: ") || found["good"].State != verifiedEqual {
		t.Errorf("%v: %+v", err, found)
	}
}

func verifyShapes(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE parts (id int, day date, v text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
		CREATE TABLE parts_a PARTITION OF parts FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
		CREATE TABLE parts_b PARTITION OF parts FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
		CREATE TABLE few (id int PRIMARY KEY, v text, "odd name" numeric, twice int GENERATED ALWAYS AS (id * 2) STORED);
		CREATE PUBLICATION millrace FOR TABLE parts, few (id, v, "odd name") WHERE (id > 10) WITH (publish_via_partition_root = true);
		INSERT INTO parts SELECT i, '2024-01-01'::date + i % 50, 'v' FROM generate_series(1, 300) i; INSERT INTO few SELECT i, 'v', i / 3.0 FROM generate_series(1, 30) i`)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.isEqual(t)
	s.exec(t, "ALTER TABLE parts ADD extra text; UPDATE parts SET v = 'w' WHERE id % 9 = 0; UPDATE parts SET extra = 'x' WHERE id = 18; DELETE FROM few WHERE id = 20")
	s.quiet(t, r)
	found := s.isEqual(t)
	if found["parts"].Equal != 300 || found["few"].Equal != 19 {
		t.Errorf("%+v", found)
	}
}
