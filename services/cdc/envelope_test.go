package cdc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linkedin/goavro/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
)

// TestBesideTheRows holds the tests of what goes beside the rows, and of other forms of them; they share two servers.
func TestBesideTheRows(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"transactions and messages survive kills in their middle", transactionTopic},
		{"messages outside of transactions come once", looseMessages},
		{"annotations that cannot be are left out", badAnnotations},
		{"truncation is one event", truncationCounts},
		{"flat form", flatForm},
		{"outbox", outboxTopics},
		{"outbox by message", outboxMessages},
		{"groups of tables", groupsOfTables},
		{"a group with a gap stops alone", groupGap},
		{"check of groups", groupCheck},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// records reads a whole topic as it is.
func (s *store) records(t testing.TB, topic string) []*kgo.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var out []*kgo.Record
	_, _, err := scan(ctx, s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			out = append(out, r)
		}
	}, s.kafka.Name(topic))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decode reads framed bytes with goavro.
func (s *store) decode(t testing.TB, data []byte) map[string]any {
	t.Helper()
	id, body, err := avro.Unframe(data)
	if err != nil {
		t.Fatal(err)
	}
	schema, err := s.registry.Schema(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := goavro.NewCodec(schema.String())
	if err != nil {
		t.Fatal(err)
	}
	native, rest, err := codec.NativeFromBinary(body)
	if err != nil || len(rest) > 0 {
		t.Fatalf("%v, %d bytes left", err, len(rest))
	}
	return native.(map[string]any)
}

// union takes the branch off a union's value.
func union(v any) any {
	if m, ok := v.(map[string]any); ok && len(m) == 1 {
		for _, inner := range m {
			return inner
		}
	}
	return v
}

// counts are the events that an END tells of, by table.
func counts(end map[string]any) map[string]int64 {
	out := map[string]int64{}
	list, _ := union(end["data_collections"]).([]any)
	for _, c := range list {
		c := c.(map[string]any)
		out[c["data_collection"].(string)] = c["event_count"].(int64)
	}
	return out
}

// blockOf is the transaction of an event; "" for none.
func blockOf(value map[string]any) (id string, order int64) {
	b, _ := union(value["transaction"]).(map[string]any)
	if b == nil {
		return "", 0
	}
	return b["id"].(string), b["total_order"].(int64)
}

func transactionTopic(t *testing.T, p *pair) {
	broker := newFlaky(t, 7)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	s.cfg.TransactionTopic, s.cfg.Annotations, s.cfg.Messages = true, true, []string{"app.*"}
	s.cfg.TransactionBytes, s.cfg.TransactionInterval = 2048, time.Millisecond // large source transactions are split
	r := s.start(t)
	s.quiet(t, r)
	broker.left.Store(3)
	s.exec(t, `BEGIN; SELECT pg_logical_emit_message(true, 'app.a', 'first'); INSERT INTO items SELECT i, repeat('x', 300) FROM generate_series(1, 40) i;
		SELECT pg_logical_emit_message(true, 'millrace.tx', '{"user": "ada"}'); SELECT pg_logical_emit_message(true, 'other', 'not captured');
		UPDATE items SET id = id + 1000 WHERE id <= 5; INSERT INTO notes VALUES ('n', 1, 'b');
		SELECT pg_logical_emit_message(true, 'app.b', 'second'); INSERT INTO items SELECT i, repeat('y', 300) FROM generate_series(101, 140) i; COMMIT;
		DELETE FROM items WHERE id = 101`)
	kills := 0
	for range 60 {
		waitFor(t, "the broker's death, or the end", 20*time.Second, func() bool {
			return broker.dead.Load() || len(s.events(t, "items")) > 0 && s.has(t, "items", "d")
		})
		if !broker.dead.Load() {
			break
		}
		kills++
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		broker.dead.Store(false)
		broker.left.Store(2)
		r = s.start(t)
	}
	broker.left.Store(0)
	broker.dead.Store(false)
	s.quiet(t, r)
	if kills < 3 {
		t.Errorf("killed %d times in the middle, want some more", kills)
	}
	s.matches(t, "items", "id", "a")
	noDoubles(t, s, "items")
	checkTransactions(t, s)
}

// has tells whether the topic has two deletes of the op, the last one among them.
func (s *store) has(t testing.TB, topic, op string) bool {
	n := 0
	for _, e := range s.events(t, topic) {
		if e.value != nil && e.op() == op {
			n++
		}
	}
	return n > 5 // five keys change, and one row is deleted
}

func checkTransactions(t *testing.T, s *store) {
	t.Helper()
	boundaries := s.records(t, "store.transaction")
	if len(boundaries) != 4 {
		t.Fatalf("%d records of two transactions", len(boundaries))
	}
	found := map[string]map[string]int64{} // events by transaction and table
	note := func(value map[string]any, table string) {
		if id, _ := blockOf(value); id != "" {
			if found[id] == nil {
				found[id] = map[string]int64{}
			}
			found[id][table]++
		}
	}
	for _, table := range []string{"items", "notes"} {
		for _, e := range s.events(t, table) {
			if e.value != nil {
				note(e.value, "public."+table)
			}
		}
	}
	messages := s.records(t, "store.message")
	for _, m := range messages {
		note(s.decode(t, m.Value), messageCollection)
	}
	if len(messages) != 2 {
		t.Errorf("%d messages, want 2", len(messages))
	}
	last := int64(0)
	for i, r := range boundaries {
		v := s.decode(t, r.Value)
		if want := []string{"BEGIN", "END"}[i%2]; v["status"] != want || s.decode(t, r.Key)["id"] != v["id"] || v["seq"].(int64) <= last {
			t.Fatalf("record %d is %v, want %s", i, v, want)
		}
		last = v["seq"].(int64)
		if i%2 == 0 {
			continue
		}
		id := v["id"].(string)
		if got := counts(v); !maps.Equal(got, found[id]) || len(got) == 0 {
			t.Errorf("the end of %s tells of %v, and %v are in the topics", id, got, found[id])
		}
		total := int64(0)
		for _, n := range found[id] {
			total += n
		}
		if union(v["event_count"]) != total {
			t.Errorf("the end of %s counts %v, want %d", id, v["event_count"], total)
		}
	}
	end := s.decode(t, boundaries[1].Value)
	if got := union(end["annotations"]); fmt.Sprint(got) != "map[user:ada]" {
		t.Errorf("annotations of the transaction are %v", got)
	}
	for _, r := range s.records(t, "store.public.items") {
		if r.Value == nil {
			continue
		}
		v := s.decode(t, r.Value)
		id, order := blockOf(v)
		want := ""
		if id == end["id"] && order > 42 { // a message, 40 rows, and the annotation itself
			want = `{"user":"ada"}`
		}
		if got := string(kafka.Header(r, HeaderTx)); got != want {
			t.Fatalf("change %d of %s has the annotation %q, want %q", order, id, got, want)
		}
	}
}

func looseMessages(t *testing.T, p *pair) {
	broker := newFlaky(t, 8)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	s.cfg.Messages = []string{"app"}
	want := 0
	for round := range 4 {
		r := s.start(t)
		waitFor(t, "the stream", 20*time.Second, func() bool { return r.Ready() == nil })
		for range 10 {
			want++
			s.exec(t, fmt.Sprintf("SELECT pg_logical_emit_message(false, 'app', '%d'); SELECT pg_logical_emit_message(false, 'none', 'x'); INSERT INTO items VALUES (%d)", want, want))
		}
		if round == 3 {
			s.quiet(t, r)
		} else {
			broker.left.Store(2) // some of it is committed, and some is not
			waitFor(t, "some messages", 20*time.Second, func() bool { return broker.dead.Load() || s.captured(t, "store.message") >= want })
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		broker.left.Store(0)
		broker.dead.Store(false)
	}
	var got []int
	var seqs []int64
	for _, r := range s.records(t, "store.message") {
		v := s.decode(t, r.Value)
		message := v["message"].(map[string]any)
		if id, _ := blockOf(v); id != "" || v["op"] != "m" || union(message["prefix"]) != "app" || fmt.Sprint(s.decode(t, r.Key)) != "map[prefix:map[string:app]]" {
			t.Fatalf("a message is %v", v)
		}
		var n int
		if _, err := fmt.Sscan(string(union(message["content"]).([]byte)), &n); err != nil {
			t.Fatal(err)
		}
		got, seqs = append(got, n), append(seqs, v["source"].(map[string]any)["seq"].(int64))
	}
	if len(got) != want || !slices.IsSorted(got) || !slices.IsSorted(seqs) {
		t.Errorf("%d messages came of %d: %v", len(got), want, got)
	}
	s.matches(t, "items", "id")
}

// captured is how many records a topic has; 0 when there is none.
func (s *store) captured(t testing.TB, topic string) int {
	n := 0
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, err := scan(ctx, s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			n++
		}
	}, s.kafka.Name(topic))
	if err != nil {
		return 0
	}
	return n
}

func badAnnotations(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.Annotations, s.cfg.TransactionTopic = true, true
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, `BEGIN; SELECT pg_logical_emit_message(true, 'millrace.tx', '{"a": "1"}'); SELECT pg_logical_emit_message(true, 'millrace.tx', 'nonsense');
		SELECT pg_logical_emit_message(true, 'millrace.tx', '{"n": 5}'); SELECT pg_logical_emit_message(true, 'millrace.tx', '{"x": "' || repeat('y', 5000) || '"}');
		SELECT pg_logical_emit_message(true, 'millrace.tx', '{"b": "2"}'); INSERT INTO items VALUES (1); COMMIT;
		INSERT INTO items VALUES (2)`)
	s.quiet(t, r)
	for i, want := range []string{`{"a":"1","b":"2"}`, ""} {
		if got := string(kafka.Header(s.newest(t, "store.public.items", i+1), HeaderTx)); got != want {
			t.Errorf("row %d has the annotation %q, want %q", i+1, got, want)
		}
	}
	if n := s.captured(t, "store.message"); n != 0 {
		t.Errorf("%d messages are captured, and none was asked for", n)
	}
}

// newest is the last record of a row with this id.
func (s *store) newest(t testing.TB, topic string, id int) *kgo.Record {
	t.Helper()
	var out *kgo.Record
	for _, r := range s.records(t, topic) {
		if s.decode(t, r.Key)["id"] == int32(id) {
			out = r
		}
	}
	if out == nil {
		t.Fatalf("topic %s has no row %d", topic, id)
	}
	return out
}

func truncationCounts(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.TransactionTopic = true
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 20) i")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "BEGIN; TRUNCATE items; INSERT INTO items VALUES (1); COMMIT")
	s.quiet(t, r)
	s.matches(t, "items", "id")
	got := s.records(t, "store.transaction")
	if len(got) != 2 || !maps.Equal(counts(s.decode(t, got[1].Value)), map[string]int64{"public.items": 2}) {
		t.Errorf("%d records, the end tells of %v", len(got), counts(s.decode(t, got[len(got)-1].Value)))
	}
}

func flatForm(t *testing.T, p *pair) {
	for _, deletes := range []string{deletesTombstone, deletesRecord} {
		s := p.store(t, itemsTable)
		s.cfg.Envelope, s.cfg.FlatDeletes = envelopeNone, deletes
		s.exec(t, "INSERT INTO items SELECT i, 'a' FROM generate_series(1, 9) i")
		p.standby.Sync(t)
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, "UPDATE items SET a = 'b' WHERE id = 2; DELETE FROM items WHERE id = 3; UPDATE items SET id = 20 WHERE id = 4; TRUNCATE notes")
		s.quiet(t, r)
		rows := map[string]string{}
		last, flagged, tombstones := map[string]int64{}, 0, 0
		for _, rec := range s.records(t, "store.public.items") {
			key := fmt.Sprint(s.decode(t, rec.Key)["id"])
			if rec.Value == nil {
				delete(rows, key)
				tombstones++
				continue
			}
			v := s.decode(t, rec.Value)
			if seq := v["__seq"].(int64); seq <= last[key] {
				t.Errorf("seq %d of key %s follows %d", seq, key, last[key])
			} else {
				last[key] = seq
			}
			if v["__deleted"] == "true" {
				flagged++
				delete(rows, key)
				continue
			}
			rows[key] = fmt.Sprint(v["id"], union(v["a"]), v["__op"])
		}
		want := map[string]string{"1": "1ar", "2": "2bu", "5": "5ar", "6": "6ar", "7": "7ar", "8": "8ar", "9": "9ar", "20": "20ac"}
		for k, v := range rows {
			if strings.ReplaceAll(v, " ", "") != want[k] {
				t.Errorf("row %s is %s, want %s", k, v, want[k])
			}
		}
		wantFlagged := map[string]int{deletesTombstone: 0, deletesRecord: 2}[deletes]
		if len(rows) != len(want) || flagged != wantFlagged || tombstones != 2 {
			t.Errorf("deletes as %s: %d rows, %d records of deletes, %d tombstones", deletes, len(rows), flagged, tombstones)
		}
	}
}

const outboxTable1 = `; CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregatetype text, aggregateid text, type text, payload jsonb);
	ALTER PUBLICATION millrace ADD TABLE outbox`

func outboxTopics(t *testing.T, p *pair) {
	broker := newFlaky(t, 9)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable+outboxTable1)
	s.cfg.Outbox, s.cfg.OutboxMaxTopics, s.cfg.TransactionTopic = "public.outbox", 2, true
	s.cfg.TransactionInterval = time.Millisecond
	s.exec(t, "INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('order', 'old', 't', '{}')")
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	broker.left.Store(4)
	for i := range 30 {
		s.exec(t, fmt.Sprintf(`BEGIN; INSERT INTO items VALUES (%d); INSERT INTO outbox (aggregatetype, aggregateid, type, payload)
			VALUES ('%s', '%d', 'placed', '{"n": %[1]d}'); DELETE FROM outbox; COMMIT`, i, []string{"order", "customer"}[i%2], i))
	}
	waitFor(t, "the broker's death", 20*time.Second, broker.dead.Load)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	broker.left.Store(0)
	broker.dead.Store(false)
	r = s.start(t)
	s.exec(t, `INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('third', 'a', 't', '{}'), ('no/topic', 'b', 't', '{}'), (NULL, 'c', 't', '{}'),
		('order', 'd', 't', NULL), ('order', 'e', 't', to_jsonb(repeat('x', 1100000))); UPDATE outbox SET type = 'u'`)
	s.quiet(t, r)
	seen := map[string]string{}
	for _, topic := range []string{"outbox.order", "outbox.customer"} {
		for _, rec := range s.records(t, topic) {
			if seen[string(rec.Key)] != "" {
				t.Errorf("the event of %s is there twice", rec.Key)
			}
			seen[string(rec.Key)] = topic + " " + string(rec.Value)
			if len(kafka.Header(rec, HeaderOutboxID)) != 36 || kafka.Header(rec, HeaderOutboxSeq) == nil {
				t.Errorf("headers of an event: %v", rec.Headers)
			}
		}
	}
	if len(seen) != 31 || seen["d"] != "outbox.order " || seen["6"] != `outbox.order {"n": 6}` || seen["7"] != `outbox.customer {"n": 7}` || seen["old"] != "" {
		t.Errorf("%d events: %v", len(seen), seen)
	}
	reasons := map[string]string{}
	for _, rec := range s.records(t, "outbox.refused") {
		reasons[string(rec.Key)] = string(kafka.Header(rec, HeaderOutboxRefused)) + "/" + string(kafka.Header(rec, HeaderOutboxAggregate))
	}
	want := map[string]string{"a": "cdc.outbox_max_topics/third", "b": "aggregate type is not a topic's name/no/topic", "c": "no aggregate type/", "e": "larger than a record can be/"}
	if !maps.Equal(reasons, want) {
		t.Errorf("refused are %v, want %v", reasons, want)
	}
	if n := s.captured(t, "store.public.outbox"); n != 0 {
		t.Errorf("the outbox table itself has %d events", n)
	}
	if r.Ready() != nil || len(r.state.position.Stopped) > 0 {
		t.Errorf("%v, stopped %v", r.Ready(), r.state.position.Stopped)
	}
}

func outboxMessages(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.cfg.OutboxMessages, s.cfg.Annotations = "outbox", true
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, `BEGIN; SELECT pg_logical_emit_message(true, 'outbox', '{"id": "1", "aggregatetype": "order", "aggregateid": "7", "type": "placed", "payload": {"a": 1}}');
		SELECT pg_logical_emit_message(true, 'millrace.tx', '{"user": "ada"}'); INSERT INTO items VALUES (1); COMMIT;
		BEGIN; SELECT pg_logical_emit_message(true, 'outbox', '{"id": "2", "aggregatetype": "order", "aggregateid": "8", "payload": {}}'); ROLLBACK;
		SELECT pg_logical_emit_message(false, 'outbox', '{"id": "3", "aggregatetype": "order", "aggregateid": "9", "type": "text", "payload": "plain"}');
		SELECT pg_logical_emit_message(true, 'outbox', 'nonsense')`)
	s.quiet(t, r)
	var got []string
	for _, topic := range []string{"outbox.order", "outbox.refused"} {
		for _, rec := range s.records(t, topic) {
			if h := kafka.Header(rec, HeaderTx); h != nil {
				t.Errorf("an event outside of the transaction that was annotated, or before it was, has %s", h)
			}
			got = append(got, fmt.Sprintf("%s %s=%s (%s)", topic, rec.Key, rec.Value, kafka.Header(rec, HeaderOutboxID)))
		}
	}
	slices.Sort(got)
	want := []string{`outbox.order 7={"a": 1} (1)`, `outbox.order 9=plain (3)`, `outbox.refused =nonsense ()`}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// byGroup are the services of the groups as if each were alone.
func byGroup(r *running) map[string]*running {
	out := map[string]*running{}
	for _, g := range r.groups {
		out[g.cfg.group] = &running{Service: g}
	}
	return out
}

const groupTables = `CREATE TABLE items (id int PRIMARY KEY, a text); CREATE TABLE lines (id int PRIMARY KEY, a text); CREATE TABLE other (id int PRIMARY KEY, a text);
	CREATE PUBLICATION millrace_sales FOR TABLE items, lines; CREATE PUBLICATION millrace_rest FOR TABLE other, items`

func groupsOfTables(t *testing.T, p *pair) {
	broker := newFlaky(t, 10)
	s := newStore(t, p.primary, p.standby, broker.brokers, groupTables)
	s.cfg.Groups, s.cfg.TransactionTopic, s.cfg.Messages = []string{"sales: public.items, public.lines", "rest: *"}, true, []string{"app"}
	s.exec(t, "INSERT INTO items SELECT i, 'a' FROM generate_series(1, 50) i; INSERT INTO other SELECT i, 'a' FROM generate_series(1, 50) i")
	p.standby.Sync(t)
	for round := range 3 {
		r := s.start(t)
		waitFor(t, "the streams", 30*time.Second, func() bool { return r.Ready() == nil })
		for i := range 20 {
			s.exec(t, fmt.Sprintf(`BEGIN; INSERT INTO items VALUES (%[1]d, 'b'); INSERT INTO lines VALUES (%[1]d, 'b'); INSERT INTO other VALUES (%[1]d, 'b');
				UPDATE other SET a = a || 'c' WHERE id %% 7 = 0; DELETE FROM items WHERE id = %[1]d - 3; SELECT pg_logical_emit_message(true, 'app', 'm'); COMMIT`, 1000*(round+1)+i))
		}
		if round == 1 {
			broker.dead.Store(true) // as kill -9: nothing in hand is ended
		} else {
			for _, g := range byGroup(r) {
				s.quiet(t, g)
			}
		}
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		broker.dead.Store(false)
	}
	for _, table := range []string{"items", "lines", "other"} {
		s.matches(t, table, "id", "a")
		noDoubles(t, s, table)
	}
	if n := len(s.records(t, "store.message")); n != 60 {
		t.Errorf("%d messages, want 60: only one group carries them", n)
	}
	for _, group := range []string{"sales", "rest"} {
		if n := len(s.records(t, "store.transaction-"+group)); n != 120 {
			t.Errorf("group %s: %d records of 60 transactions", group, n)
		}
	}
	claims := map[string]bool{}
	for _, r := range s.records(t, "progress") {
		claims[string(r.Key)] = true
	}
	if want := map[string]bool{"cdc/" + s.cfg.Slot + "_sales": true, "cdc/" + s.cfg.Slot + "_rest": true}; !maps.Equal(claims, want) {
		t.Errorf("claims of %v", claims)
	}
	var out strings.Builder
	if err := s.service(t).Status(t.Context(), &out); err != nil || !strings.Contains(out.String(), "group      rest") || !strings.Contains(out.String(), s.cfg.Slot+"_sales") {
		t.Errorf("status says %v, %s", err, &out)
	}
}

func groupGap(t *testing.T, p *pair) {
	s := p.store(t, groupTables)
	s.cfg.Groups = []string{"sales: public.items public.lines", "rest: public.other"}
	r := s.start(t)
	for _, g := range byGroup(r) {
		s.quiet(t, g)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the slot to be free", 10*time.Second, func() bool {
		return p.standby.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '"+s.cfg.Slot+"_rest' AND active") == "0"
	})
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"_rest')")
	svc := s.service(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	sales := &running{Service: svc.groups[0]}
	waitFor(t, "the group without gap", 20*time.Second, func() bool { return sales.Ready() == nil && errors.Is(svc.Ready(), ErrGap) })
	s.exec(t, "INSERT INTO items VALUES (1, 'a')")
	s.quiet(t, sales)
	s.matches(t, "items", "id", "a")
	cancel()
	if err := <-done; !errors.Is(err, ErrGap) || !strings.Contains(err.Error(), "group rest") {
		t.Errorf("it ends with %v", err)
	}
}

func groupCheck(t *testing.T, p *pair) {
	s := p.store(t, groupTables)
	s.cfg.Groups = []string{"sales: public.items public.lines", "late: public.other"}
	var out strings.Builder
	err := Check(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))})
	if !errors.Is(err, app.ErrDifferences) || !strings.Contains(err.Error(), "groups late") {
		t.Errorf("check ends with %v", err)
	}
	for _, want := range []string{`CREATE PUBLICATION "millrace_sales" FOR TABLE "public"."items", "public"."lines"`, "slot " + s.cfg.Slot + "_late", "the publication millrace_late does not exist"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("not said: %s\nin\n%s", want, &out)
		}
	}
}

func TestGroupsAreSplit(t *testing.T) {
	base := DefaultConfig()
	base.Outbox, base.Messages = "public.outbox", []string{"app"}
	base.Groups = []string{"sales: public.orders, public.lines", "rest: *"}
	got, err := base.split()
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	if got[0].Slot != "millrace_sales" || got[0].Publication != "millrace_sales" || got[0].Outbox != "" || len(got[0].Messages) != 1 || !slices.Equal(got[0].Tables, []string{"public.orders", "public.lines"}) {
		t.Errorf("the first group is %+v", got[0])
	}
	if got[1].Outbox != "public.outbox" || got[1].Messages != nil || got[1].ours("public.orders") || got[1].ours("public.outbox") || !got[1].ours("public.x") {
		t.Errorf("the group of the rest is %+v", got[1])
	}
	registered := prometheus.NewRegistry()
	svc, err := New(base, Deps{Source: SourceConfig{URL: "postgres://cdc@localhost/x"}, Registry: &avro.Registry{}, Keys: &privacy.Keys{},
		Log: slog.New(slog.DiscardHandler), Metrics: registered})
	if err != nil || !slices.Equal(svc.Slots(), []string{"millrace_sales", "millrace_rest"}) || svc.Ready() == nil {
		t.Fatalf("%v", err)
	}
	all, err := registered.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() == "millrace_cdc_retained_bytes" && (len(family.Metric) != 2 || family.Metric[0].Label[0].GetName() != "group") {
			t.Errorf("what is retained for both groups: %v", family.Metric)
		}
	}
	for want, change := range map[string]func(*Config){
		"is in a and in b":        func(c *Config) { c.Groups = []string{"a: public.x", "b: public.x", "c: *"} },
		"is there twice":          func(c *Config) { c.Groups = []string{"a: public.x", "a: *"} },
		"take the rest":           func(c *Config) { c.Groups = []string{"a: *", "b: *"} },
		"takes the rest as well":  func(c *Config) { c.Groups = []string{"a: * public.x"} },
		"must be schema.table":    func(c *Config) { c.Groups = []string{"a: orders"} },
		"must be a name":          func(c *Config) { c.Groups = []string{"Sales: public.x"} },
		"in none of them":         func(c *Config) { c.Groups = []string{"a: public.x"} },
		"leave it empty":          func(c *Config) { c.Tables = []string{"public.x"} },
		"too long":                func(c *Config) { c.Slot = strings.Repeat("s", 60) },
		"envelope":                func(c *Config) { c.Envelope = "protobuf" },
		"flat_deletes":            func(c *Config) { c.FlatDeletes = "never" },
		"messages":                func(c *Config) { c.Messages = []string{"["} },
		"outbox: ":                func(c *Config) { c.Outbox = "outbox" },
		"outbox_columns":          func(c *Config) { c.OutboxColumns = []string{"id"} },
		"Millrace's own":          func(c *Config) { c.OutboxPrefix = "sales." },
		"outbox_prefix":           func(c *Config) { c.OutboxPrefix = "events" },
		"outbox_max_topics":       func(c *Config) { c.OutboxMaxTopics = 0 },
		"is that of annotations":  func(c *Config) { c.OutboxMessages = annotationPrefix },
		"such as cdc.position":    func(c *Config) { c.OutboxPrefix = "cdc." },
		"begin with \"store.x.\"": func(c *Config) { c.OutboxPrefix = "store.x." },
	} {
		c := base
		change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error of %q, got %v", want, err)
		}
	}
}
