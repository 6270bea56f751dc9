package cdc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
)

// drift stops capture, drops its slot and changes the source meanwhile.
func (p *pair) drift(t *testing.T, s *store, r *running, sql string) *running {
	t.Helper()
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	p.dropSlot(t, s)
	s.exec(t, sql)
	p.standby.Sync(t)
	return s.start(t)
}

// dropSlot drops the slot once the source has noticed that nobody reads it.
func (p *pair) dropSlot(t *testing.T, s *store) {
	t.Helper()
	waitFor(t, "the slot to be free", 10*time.Second, func() bool {
		return p.standby.Query(t, "SELECT active_pid IS NULL FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot) == "true"
	})
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
}

func reconcileAfterGap(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.OnGap = onGapReconcile
	s.exec(t, manyRows)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	before := len(s.events(t, "items"))
	r = p.drift(t, s, r, `INSERT INTO items VALUES (901, 'new'), (902, 'new'); UPDATE items SET a = 'changed' WHERE id IN (3, 4);
		UPDATE items SET id = 907 WHERE id = 7; DELETE FROM items WHERE id = 9`)
	s.settled(t, r)
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
	ops := map[string]int{}
	for _, e := range s.events(t, "items") {
		switch {
		case e.value == nil:
			ops["tombstone"]++
		case snapshotMark(e) == markReconcile:
			ops[e.op()]++
		}
	}
	// 2 are new, 2 are changed and 1 is under another key; 2 keys are gone.
	if len(ops) != 3 || ops["r"] != 5 || ops["d"] != 2 || ops["tombstone"] != 2 {
		t.Errorf("the difference is %v", ops)
	}
	if n := len(s.events(t, "items")) - before; n != 9 {
		t.Errorf("%d records were written", n)
	}
	if n := len(s.events(t, "notes")); n != 20 {
		t.Errorf("%d records of a table without difference", n)
	}
	s.isEqual(t)
	s.exec(t, "UPDATE items SET n = 0 WHERE id < 20; DELETE FROM items WHERE id = 901")
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
}

// Where a gap stops cdc, the operator's request is the way over it, and it is carried out once.
func reconcileOverGapOnRequest(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, manyRows)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	lose := func(sql string) {
		t.Helper()
		p.dropSlot(t, s)
		s.exec(t, sql)
		p.standby.Sync(t)
		if err := s.service(t).Run(t.Context()); !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), "cdc reconcile") {
			t.Fatalf("run over a gap: %v", err)
		}
	}
	lose("UPDATE items SET a = 'gap' WHERE id = 3; DELETE FROM items WHERE id = 9")
	var out bytes.Buffer
	if err := s.service(t).Ask(t.Context(), &out, schemas.CaptureRequest{Kind: schemas.CaptureReconcile}, true); err != nil {
		t.Fatal(err, out.String())
	}
	r = s.start(t)
	s.quiet(t, r)
	s.settled(t, r)
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	lose("DELETE FROM items WHERE id = 10") // the request is done with
}

// What an operator asks for while capture runs: whatever came into the topic goes.
func reconcileAsked(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, manyRows)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	records := s.lastRecords(t, "items")
	s.produce(t, "items", kgo.Record{Key: records["2"].Key}, kgo.Record{Key: records["3"].Key, Value: records["4"].Value},
		kgo.Record{Key: append(bytes.Clone(records["4"].Key[:5]), 0xd0, 0x0f), Value: records["4"].Value},
		kgo.Record{Key: append([]byte{0, 0, 0, 0x7f, 0x7f}, records["5"].Key[5:]...), Value: records["5"].Value})
	var out bytes.Buffer
	if err := s.service(t).Ask(t.Context(), &out, schemas.CaptureRequest{Kind: schemas.CaptureReconcile}, false); err != nil {
		t.Fatal(err, out.String())
	}
	s.settled(t, r)
	s.isEqual(t)
	if n := len(s.events(t, "notes")); n != 20 {
		t.Errorf("%d records of a table without difference", n)
	}
}

func reconcileUnderLoad(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.OnGap = onGapReconcile
	s.exec(t, "INSERT INTO items SELECT i, 'a', 0 FROM generate_series(1, 2000) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	r = p.drift(t, s, r, "UPDATE items SET a = 'gap' WHERE id % 3 = 0; DELETE FROM items WHERE id % 5 = 0")
	ctx, cancel := context.WithCancel(t.Context())
	conn := s.primary.Connect(t, s.database)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			sql := fmt.Sprintf("UPDATE items SET n = n + 1 WHERE id %% 50 = %d; DELETE FROM items WHERE id = %d; INSERT INTO items VALUES (%d, 'back')", i%50, i%2000, 5000+i)
			if _, err := conn.PgConn().Exec(context.WithoutCancel(ctx), sql).ReadAll(); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	s.settled(t, r)
	cancel()
	<-done
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n")
	s.isEqual(t)
}

func reconcileTokens(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE customers (email text PRIMARY KEY, phone text, city text); CREATE PUBLICATION millrace FOR TABLE customers;
		INSERT INTO customers SELECT 'ann' || i || '@shop.example', '+44 ' || i, 'Leeds' FROM generate_series(1, 100) i`)
	s.cfg.OnGap = onGapReconcile
	r := s.start(t)
	s.quiet(t, r)
	r = p.drift(t, s, r, `DELETE FROM customers WHERE phone = '+44 5'; UPDATE customers SET city = 'York' WHERE phone = '+44 6';
		INSERT INTO customers VALUES ('bob@shop.example', '+44 0', 'Hull')`)
	s.settled(t, r)
	s.isEqual(t)
	if n := len(s.fold(t, "customers")); n != 100 {
		t.Errorf("%d customers", n)
	}
}
