package cdc

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/linkedin/goavro/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

var databases atomic.Int64

// store is a database on a primary, with a role for capture, and what it is captured into.
type store struct {
	primary, source *pgtest.Server
	database        string
	write           *pgx.Conn // superuser, on the primary
	cfg             Config
	kafka           kafka.Config
	registry        *avro.Registry
	keys            *privacy.Keys
}

// prepare makes the role for capture, which all databases of a server share.
func prepare(t *testing.T, primary *pgtest.Server) {
	t.Helper()
	primary.Exec(t, "CREATE ROLE cdc LOGIN REPLICATION; GRANT pg_read_all_stats TO cdc")
}

// newStore makes a database on the primary and runs setup in it. source is the standby, or the primary itself.
func newStore(t *testing.T, primary, source *pgtest.Server, brokers []string, setup string) *store {
	t.Helper()
	name := fmt.Sprintf("shop_%d", databases.Add(1))
	primary.Exec(t, "CREATE DATABASE "+name)
	s := &store{primary: primary, source: source, database: name, write: primary.Connect(t, name)}
	s.exec(t, setup+"; GRANT SELECT ON ALL TABLES IN SCHEMA public TO cdc")
	s.cfg = DefaultConfig()
	s.cfg.Slot = name
	s.cfg.EncodeWorkers = 2 // whatever the machine has
	s.cfg.ProgressInterval = 20 * time.Millisecond
	s.cfg.SlotTimeout = 20 * time.Second
	s.cfg.PositionInterval = 100 * time.Millisecond
	s.kafka = kafka.DefaultConfig()
	s.kafka.Brokers = brokers
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	var err error
	if s.registry, err = avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)}); err != nil {
		t.Fatal(err)
	}
	if s.keys, err = privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("17", 32))}); err != nil {
		t.Fatal(err)
	}
	if source != primary {
		source.Sync(t)
	}
	return s
}

func (s *store) exec(t testing.TB, sql string) {
	t.Helper()
	if _, err := s.write.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (s *store) service(t testing.TB) *Service {
	t.Helper()
	level := slog.LevelError
	if os.Getenv("CDC_TEST_LOG") != "" {
		level = slog.LevelDebug
	}
	svc, err := New(s.cfg, Deps{Kafka: s.kafka, Source: SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}, Registry: s.registry,
		Keys: s.keys, Version: "test", Log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})),
		OnSlotWait: func(ctx context.Context) { _ = s.primary.LogStandbySnapshot(ctx) }})
	if err != nil {
		t.Fatal(err)
	}
	return svc
}

// running is a service that runs until stop.
type running struct {
	*Service
	stop func() error
}

func (s *store) start(t testing.TB) *running {
	t.Helper()
	return s.startWith(t, hooks{})
}

func (s *store) startWith(t testing.TB, h hooks) *running {
	t.Helper()
	svc := s.service(t)
	svc.hooks = h
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	stopped := false
	r := &running{Service: svc, stop: func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(20 * time.Second):
			return fmt.Errorf("the service does not stop")
		}
	}}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func waitFor(t testing.TB, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s", limit, what)
		}
	}
}

// quiet waits until everything that the primary has written is in Kafka.
func (s *store) quiet(t testing.TB, r *running) {
	t.Helper()
	lsn, err := pgoutput.ParseLSN(s.primary.LSN(t))
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		if c, _, live := r.state.claim(); live && c.SourceLSN >= int64(lsn) {
			return
		}
		if time.Now().After(deadline) {
			c, _, _ := r.state.claim()
			t.Fatalf("not captured up to %v, only %v: %v", lsn, pgoutput.LSN(c.SourceLSN), r.Ready())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// event is a record as an independent reader sees it.
type event struct {
	key       string
	keyFields map[string]any
	value     map[string]any // nil: a tombstone
	raw       []byte
	unchanged []string
	partition int32
	offset    int64
}

func (e event) source() map[string]any { return e.value["source"].(map[string]any) }
func (e event) seq() int64             { return e.source()["seq"].(int64) }
func (e event) op() string             { return e.value["op"].(string) }

// after is the row, with the unions taken off.
func (e event) row(which string) map[string]any {
	u, _ := e.value[which].(map[string]any)
	for _, v := range u {
		return flat(v.(map[string]any))
	}
	return nil
}

func flat(row map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range row {
		if u, ok := v.(map[string]any); ok && len(u) == 1 {
			for _, x := range u {
				v = x
			}
		}
		out[k] = v
	}
	return out
}

// events reads a topic with goavro, which shares no code with the encoder.
func (s *store) events(t testing.TB, topic string) []event {
	t.Helper()
	codecs := map[int]*goavro.Codec{}
	decode := func(data []byte) map[string]any {
		id, body, err := avro.Unframe(data)
		if err != nil {
			t.Fatal(err)
		}
		if codecs[id] == nil {
			schema, err := s.registry.Schema(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if codecs[id], err = goavro.NewCodec(schema.String()); err != nil {
				t.Fatal(err)
			}
		}
		native, rest, err := codecs[id].NativeFromBinary(body)
		if err != nil || len(rest) > 0 {
			t.Fatalf("topic %s: %v, %d bytes left", topic, err, len(rest))
		}
		return native.(map[string]any)
	}
	var out []event
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, _, err := scan(ctx, s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if r.Attrs.IsControl() {
			return
		}
		e := event{key: string(r.Key), keyFields: decode(r.Key), partition: r.Partition, offset: r.Offset}
		if r.Value != nil {
			e.value, e.raw = decode(r.Value), r.Value
		}
		if h := kafka.Header(r, HeaderUnchanged); h != nil {
			e.unchanged = strings.Split(string(h), ",")
		}
		out = append(out, e)
	}, s.kafka.Name("store.public."+topic))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// fold gives the rows by key, as a consumer that keeps the newest image has them, and checks on the way that a key's
// events are in order and none comes twice.
func (s *store) fold(t testing.TB, topic string) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	last := map[string]int64{}
	for _, e := range s.events(t, topic) {
		if e.value == nil {
			delete(out, e.key)
			continue
		}
		if e.seq() <= last[e.key] {
			t.Errorf("topic %s: seq %d of a key follows %d", topic, e.seq(), last[e.key])
		}
		last[e.key] = e.seq()
		if e.op() == "d" {
			delete(out, e.key)
			continue
		}
		row := e.row("after")
		for _, c := range e.unchanged {
			row[c] = out[e.key][c]
		}
		out[e.key] = row
	}
	return out
}

// matches compares the folded topic with the table, column by column as text.
func (s *store) matches(t testing.TB, table string, columns ...string) {
	t.Helper()
	var got, want []string
	for _, row := range s.fold(t, table) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, cell(row[c]))
		}
		got = append(got, strings.Join(cells, "|"))
	}
	var list []string
	for _, c := range columns {
		list = append(list, fmt.Sprintf(`CASE WHEN %[1]s IS NULL THEN '~' WHEN pg_typeof(%[1]s) = 'timestamptz'::regtype
			THEN (extract(epoch FROM %[1]s::text::timestamptz) * 1000000)::bigint::text ELSE %[1]s::text END`, c))
		if strings.HasPrefix(c, "ts") {
			continue
		}
		list[len(list)-1] = fmt.Sprintf("coalesce(%s::text, '~')", c)
	}
	rs, err := s.write.Query(t.Context(), "SELECT concat_ws('|', "+strings.Join(list, ", ")+") FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	want, err = pgx.CollectRows(rs, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if slices.Equal(got, want) {
		return
	}
	for i := range max(len(got), len(want)) {
		g, w := "(nothing)", "(nothing)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Fatalf("folded topic of %s has %d rows, the table %d; the first difference: %.200s, want %.200s", table, len(got), len(want), g, w)
		}
	}
}

func cell(v any) string {
	switch v := v.(type) {
	case nil:
		return "~"
	case time.Time:
		return fmt.Sprint(v.UnixMicro())
	case interface{ FloatString(int) string }:
		return v.FloatString(3)
	case []byte:
		return fmt.Sprintf("\\x%x", v)
	default:
		return fmt.Sprint(v)
	}
}
