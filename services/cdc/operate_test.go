package cdc

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
)

// TestOperate holds what an operator meets; the tests share a primary and its standby.
func TestOperate(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"gap: the publication is dropped, then made anew", publicationDropped},
		{"gap: the publication is dropped while streaming", publicationDroppedWhileStreaming},
		{"gap: the slot is one of another database", slotOfAnotherDatabase},
		{"gap: the slot is made anew", slotMadeAnew},
		{"gap: a topic is made anew", topicMadeAnew},
		{"the slot is given up at a limit", slotGivenUp},
		{"uninstall", uninstalls},
		{"status", statusTells},
		{"status without Kafka or the source", statusOfHalf},
		{"check as JSON", checkAsJSON},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// captured is a store that was captured, by a cdc that has stopped.
func captured(t *testing.T, p *pair) *store {
	t.Helper()
	s := p.store(t, itemsTable)
	s.exec(t, "INSERT INTO items SELECT i FROM generate_series(1, 10) i")
	p.standby.Sync(t)
	s.stopped(t, s.start(t))
	return s
}

// stopped lets everything arrive, stops, and waits until the source has noticed.
func (s *store) stopped(t *testing.T, r *running) {
	t.Helper()
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	s.unread(t)
}

func (s *store) unread(t *testing.T) {
	t.Helper()
	waitFor(t, "the source to notice that nobody reads the slot", 20*time.Second, func() bool {
		return s.source.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE active AND slot_name = $1", s.cfg.Slot) == "0"
	})
}

// expectGap runs until the gap, and checks that status tells it as well.
func (s *store) expectGap(t *testing.T, cause GapCause, reason string) GapError {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := s.service(t).Run(ctx)
	var g *GapError
	if !errors.As(err, &g) || g.Cause != cause || g.Reason != reason {
		t.Fatalf("the run ends with %v, want a gap of cause %s %s", err, cause, reason)
	}
	t.Log(err)
	return *g
}

// statusGap is the gap that status shows.
func (s *store) statusGap(t *testing.T) GapStatus {
	t.Helper()
	report, err := s.service(t).Report(t.Context())
	if err != nil || report.Gap == nil {
		t.Fatalf("status shows no gap: %v, %+v", err, report)
	}
	return *report.Gap
}

// recovers resets, runs, and compares.
func (s *store) recovers(t *testing.T) {
	t.Helper()
	if err := s.service(t).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a")
}

func publicationDropped(t *testing.T, p *pair) {
	s := captured(t, p)
	s.exec(t, "DROP PUBLICATION millrace; INSERT INTO items VALUES (100)")
	p.standby.Sync(t)
	if g := s.expectGap(t, GapPublicationDropped, ""); !strings.Contains(g.Mend, "CREATE PUBLICATION") {
		t.Error(g.Mend)
	}
	s.exec(t, "CREATE PUBLICATION millrace FOR TABLE items, notes")
	p.standby.Sync(t)
	s.expectGap(t, GapPublicationRecreated, "")
	if g := s.statusGap(t); g.Cause != GapPublicationRecreated || g.Next == "" {
		t.Errorf("%+v", g)
	}
	s.recovers(t)
}

func publicationDroppedWhileStreaming(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	svc := s.service(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	s.quiet(t, &running{Service: svc})
	s.exec(t, "DROP PUBLICATION millrace; INSERT INTO items VALUES (1); CREATE PUBLICATION millrace FOR TABLE items, notes")
	var g *GapError
	if err := <-ended; !errors.As(err, &g) || g.Cause != GapPublicationDropped {
		t.Fatalf("the run ends with %v", err)
	}
	p.standby.Sync(t)
	s.unread(t)
	s.expectGap(t, GapPublicationRecreated, "")
	s.recovers(t)
}

// makeSlot makes a slot on the standby as a DBA would.
func (s *store) makeSlot(t *testing.T, database string) {
	t.Helper()
	conn := pgtest.Connect(t, s.source.DSN("postgres", database))
	made := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", s.cfg.Slot)
		made <- err
	}()
	for {
		select {
		case err := <-made:
			if err != nil {
				t.Fatal(err)
			}
			return
		case <-time.After(20 * time.Millisecond):
			if err := s.primary.LogStandbySnapshot(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func slotOfAnotherDatabase(t *testing.T, p *pair) {
	s := captured(t, p)
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
	s.makeSlot(t, "postgres")
	s.expectGap(t, GapSlotDatabase, "")
	var out strings.Builder
	var usage *app.UsageError
	if err := s.service(t).Uninstall(t.Context(), &out); !errors.As(err, &usage) {
		t.Errorf("a slot of another database is uninstalled: %v\n%s", err, &out)
	}
	if err := Check(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}); !errors.Is(err, app.ErrDifferences) {
		t.Errorf("check: %v", err)
	}
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
}

func slotMadeAnew(t *testing.T, p *pair) {
	s := captured(t, p)
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
	s.exec(t, "INSERT INTO items VALUES (100)")
	s.makeSlot(t, s.database)
	s.expectGap(t, GapSlotRecreated, "")
	s.recovers(t)
}

func topicMadeAnew(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; INSERT INTO items SELECT i FROM generate_series(1, 10) i")
	r := s.start(t)
	s.quiet(t, r)
	waitFor(t, "a claim", 20*time.Second, func() bool {
		claim, _, err := r.lastClaim(t.Context())
		return err == nil && len(claim.Ends) > 0
	})
	s.stopped(t, r)
	client, err := s.kafka.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	topic := s.kafka.Name("store.public.items")
	if _, err := kadm.NewClient(client).DeleteTopic(t.Context(), topic); err != nil {
		t.Fatal(err)
	}
	if _, err := s.kafka.EnsureTopics(t.Context(), client, schemas.StoreTopic("public", "items")); err != nil {
		t.Fatal(err)
	}
	if g := s.expectGap(t, GapTopicLost, ""); !strings.Contains(g.What, topic) {
		t.Error(g.What)
	}
	s.recovers(t)
}

func slotGivenUp(t *testing.T, p *pair) {
	broker := newFlaky(t, 1)
	s := newStore(t, p.primary, p.standby, broker.brokers, itemsTable)
	s.cfg.SlotMaxBytes = 24 << 20
	svc := s.service(t)
	svc.guardEvery = 20 * time.Millisecond
	var mu sync.Mutex
	var told []schemas.CaptureNotification
	svc.announce = func(n schemas.CaptureNotification) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- svc.Run(ctx) }()
	s.quiet(t, &running{Service: svc})
	broker.dead.Store(true) // Kafka takes nothing any more
	s.exec(t, "INSERT INTO items VALUES (1)")
	s.exec(t, "SELECT pg_logical_emit_message(false, 'noise', repeat('x', 1000000)) FROM generate_series(1, 32)")
	var g *GapError
	if err := <-ended; !errors.As(err, &g) || g.Cause != GapSlotGivenUp || !strings.Contains(err.Error(), "cdc.slot_max_bytes") {
		t.Fatalf("the run ends with %v", err)
	}
	if n := p.standby.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot); n != "0" {
		t.Error("the slot is still there")
	}
	if v := metric(t, svc.metrics.givenUp); v != 1 {
		t.Errorf("given up %v times", v)
	}
	mu.Lock()
	if len(told) != 2 || told[0].Kind != schemas.NoteSlotDropped || told[0].Details["limit"] != "cdc.slot_max_bytes" || told[1].Kind != schemas.NoteGap || told[1].Details["cause"] != string(GapSlotGivenUp) {
		t.Errorf("told: %+v", told)
	}
	mu.Unlock()
	broker.dead.Store(false)
	s.expectGap(t, GapSlotDropped, "")
	s.cfg.SlotMaxBytes = 0
	s.recovers(t)
}

func uninstalls(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	var out strings.Builder
	if err := s.service(t).Uninstall(t.Context(), &out); err == nil || !strings.Contains(err.Error(), "is read by process") {
		t.Errorf("beside a running cdc: %v\n%s", err, &out)
	}
	s.stopped(t, r)
	for _, want := range []string{"dropped the slot", "is not on the source"} {
		out.Reset()
		if err := s.service(t).Uninstall(t.Context(), &out); err != nil || !strings.Contains(out.String(), want) || !strings.Contains(out.String(), `DROP PUBLICATION "millrace"`) {
			t.Errorf("%v\n%s", err, &out)
		}
	}
	if n := p.standby.Query(t, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", s.cfg.Slot); n != "0" {
		t.Error("the slot is still there")
	}
}

func statusTells(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO items VALUES (1, 'a', 'NaN')") // goes to quarantine
	s.quiet(t, r)
	var out strings.Builder
	if err := r.StatusJSON(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	var got StatusReport
	if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
		t.Fatal(err)
	}
	k, src := got.Kafka, got.Source
	if k == nil || src == nil || got.Gap != nil || k.Snapshot != "done" || k.ClaimedAt == nil || time.Since(*k.ClaimedAt) > time.Minute ||
		src.Slot == nil || src.Slot.ReaderPID == 0 || !src.Standby || !src.Publication || src.PrimaryEnd == "" || len(got.Lag) != 3 || k.Poisoned["public.items"] != 1 {
		t.Errorf("%s", &out)
	}
	out.Reset()
	if err := r.Status(t.Context(), &out); err != nil || !strings.Contains(out.String(), "lag        replay") {
		t.Errorf("%v\n%s", err, &out)
	}
	s.stopped(t, r)
	if report, err := s.service(t).Report(t.Context()); err != nil || report.Gap != nil || report.Waiting != "" {
		t.Errorf("of a cdc that stopped: %v, %+v", err, report)
	}
	p.standby.Exec(t, "SELECT pg_drop_replication_slot('"+s.cfg.Slot+"')")
	if g := s.statusGap(t); g.Cause != GapSlotDropped {
		t.Errorf("%+v", g)
	}
}

// TestStatusText shows everything that a position can hold.
func TestStatusText(t *testing.T) {
	now := time.Unix(2_000_000_000, 0)
	done, left := 0.25, 30.0
	r := &StatusReport{Slot: "millrace", SourceError: "connection refused", Lag: []LagStatus{{"capture", 7}}, Gap: &GapStatus{Cause: GapSlotDropped, What: "gone", First: "look", Next: "reset"},
		Kafka: &RecordedStatus{Position: "0/10", CommitTime: &now, RecordedAt: &now, ClaimedAt: &now, Snapshot: "done",
			Jobs:    []JobStatus{{Kind: "reconcile", Table: "public.items", Rows: 100, RowsPerSecond: 10, Done: &done, SecondsLeft: &left}},
			Stopped: []StoppedStatus{{"public.notes", "a reason", "cdc resume public.notes"}}, Poisoned: map[string]int{"public.a": 3}, Versions: map[string]int32{"public.b": 2}}}
	text := string(r.text(now.Add(3 * time.Second)))
	for _, want := range []string{"position   0/10, recorded 3s ago", "job        reconcile of public.items: 100 rows, 10 a second, 25 %, about 30s left",
		"stopped    public.notes: a reason; next: cdc resume public.notes", "poisoned   public.a: 3 rows", "version    public.b: 2",
		"source     does not answer: connection refused", "gap        slot_dropped: gone", "first      look", "next       reset", "lag        capture  7 bytes"} {
		if !strings.Contains(text, want) {
			t.Errorf("not said: %s\n%s", want, text)
		}
	}
	j := jobStatus(schemas.Job{Rows: 500, Next: 50, Blocks: 200, StartedAt: now}, now.Add(10*time.Second))
	if j.RowsPerSecond != 50 || *j.Done != 0.25 || *j.SecondsLeft != 30 {
		t.Errorf("%+v", j)
	}
	if j := jobStatus(schemas.Job{StartedAt: now}, now); j.Done != nil || j.SecondsLeft != nil {
		t.Errorf("a job that has not begun: %+v", j)
	}
}

func statusOfHalf(t *testing.T, p *pair) {
	s := captured(t, p)
	without := *s
	without.kafka.Brokers = []string{"127.0.0.1:1"}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var out strings.Builder
	if err := without.service(t).Status(ctx, &out); err == nil || !strings.Contains(out.String(), "kafka      does not answer") || !strings.Contains(out.String(), "slot       "+s.cfg.Slot) {
		t.Errorf("without Kafka: %v\n%s", err, &out)
	}
	svc := s.service(t)
	svc.deps.Source.URL = "postgres://cdc:hunter2@127.0.0.1:1/shop"
	out.Reset()
	if err := svc.Status(t.Context(), &out); err == nil || !strings.Contains(out.String(), "source     does not answer") || !strings.Contains(out.String(), "snapshot   done") {
		t.Errorf("without the source: %v\n%s", err, &out)
	} else if strings.Contains(out.String()+err.Error(), "hunter2") {
		t.Error("the password is told")
	}
}

func checkAsJSON(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE items (id int PRIMARY KEY, v int, w text); CREATE TABLE few (id int PRIMARY KEY, v int);
		CREATE PUBLICATION millrace FOR TABLE items (id, w), few WHERE (v > 5)`)
	var out strings.Builder
	source := SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}
	err := CheckJSON(t.Context(), &out, s.cfg, source)
	var got CheckReport
	if failed := json.Unmarshal([]byte(out.String()), &got); failed != nil || !errors.Is(err, app.ErrDifferences) {
		t.Fatal(failed, err)
	}
	codes := map[string]string{}
	for _, f := range got.Findings {
		codes[string(f.Code)] = f.Table + " " + string(f.Severity)
	}
	for code, want := range map[string]string{"column_list": "public.items note", "row_filter": "public.few note", "filter_identity": "public.few problem", "standby_snapshot": " note"} {
		if codes[code] != want {
			t.Errorf("%s: %q, want %q\n%s", code, codes[code], want, &out)
		}
	}
	if got.Ready || !got.Standby || strings.Join(got.Tables, " ") != "public.items public.few" {
		t.Errorf("%s", &out)
	}
	s.exec(t, "ALTER TABLE few REPLICA IDENTITY FULL; ALTER PUBLICATION millrace SET TABLE items, few WHERE (v > 5)")
	p.standby.Sync(t)
	out.Reset()
	if err := CheckJSON(t.Context(), &out, s.cfg, source); err != nil || !strings.Contains(out.String(), `"ready": true`) {
		t.Errorf("%v\n%s", err, &out)
	}
	s.exec(t, "UPDATE few SET v = 7; DELETE FROM few") // and PostgreSQL takes changes
}

// metric is the value of a counter or gauge without labels.
func metric(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(c); err != nil {
		t.Fatal(err)
	}
	families, err := r.Gather()
	if err != nil || len(families) != 1 || len(families[0].GetMetric()) != 1 {
		t.Fatalf("%v: %v", err, families)
	}
	m := families[0].GetMetric()[0]
	return m.GetCounter().GetValue() + m.GetGauge().GetValue()
}
