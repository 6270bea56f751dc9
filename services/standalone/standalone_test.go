package standalone

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/cdc"
)

func TestEmbeddedPortsAreChecked(t *testing.T) {
	f := func(change func(*EmbeddedConfig), want string) {
		t.Helper()
		c := DefaultEmbeddedConfig()
		change(&c)
		err := c.Validate()
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	f(func(*EmbeddedConfig) {}, "")
	f(func(c *EmbeddedConfig) { c.KafkaPort, c.SalesPort = 0, 0 }, "")
	f(func(c *EmbeddedConfig) { c.KafkaPort = 70000 }, "kafka_port: 70000 is not a port")
	f(func(c *EmbeddedConfig) { c.SalesPort = c.PrimaryPort }, "sales_port: 5433 is already primary_port")
	f(func(c *EmbeddedConfig) { c.PostgresVersion = "" }, "postgres_version")
}

func TestResetRemovesOnlyWhatIsOurs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	var out bytes.Buffer
	if err := os.MkdirAll(filepath.Join(dir, "photos"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := reset(&out, dir); err != nil || !strings.Contains(out.String(), "nothing of ours") {
		t.Fatal(err, out.String())
	}
	b, err := broker.Open(t.Context(), broker.Options{Dir: filepath.Join(dir, "kafka")})
	if err != nil {
		t.Fatal(err)
	}
	if err := reset(&out, dir); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Fatal("removed while in use", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := reset(&out, dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kafka")); !os.IsNotExist(err) {
		t.Fatal("kafka is still there")
	}
	if _, err := os.Stat(filepath.Join(dir, "photos")); err != nil {
		t.Fatal("what is not ours was removed")
	}
}

func TestProgressIsSpokenSeldom(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	for i := range int64(1000) {
		p.report("loading", i, 1000)
	}
	p.report("loading", 1000, 1000)
	p.report("loading", 1000, 1000)
	if got := out.String(); got != "  loading: 0 %\n  loading: done\n" {
		t.Fatalf("%q", got)
	}
}

// TestATrialLeavesNoSlot ends a trial on somebody's own database while Kafka is gone already.
func TestATrialLeavesNoSlot(t *testing.T) {
	server := pgtest.Primary(t)
	server.Exec(t, "SELECT pg_create_logical_replication_slot('millrace', 'pgoutput')")
	kcfg := kafka.DefaultConfig()
	kcfg.Brokers = []string{"127.0.0.1:1"}
	registry, err := avro.NewRegistry(avro.Config{URL: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(strings.Repeat("17", 32))})
	if err != nil {
		t.Fatal(err)
	}
	capture, err := cdc.New(cdc.DefaultConfig(), cdc.Deps{Kafka: kcfg, Registry: registry, Keys: keys, Log: slog.New(slog.DiscardHandler),
		Source: cdc.SourceConfig{URL: config.Secret(server.DSN("postgres", "postgres"))}})
	if err != nil {
		t.Fatal(err)
	}
	if err := leaveNoSlot(capture)(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := server.Query(t, "SELECT count(*) FROM pg_replication_slots"); n != "0" {
		t.Errorf("%s slots are left", n)
	}
	server.Kill()
	if err := leaveNoSlot(capture)(t.Context()); err == nil || !strings.Contains(err.Error(), "pg_drop_replication_slot('millrace')") {
		t.Errorf("without the server: %v", err)
	}
}
