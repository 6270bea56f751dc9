package standalone

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/embedded/broker"
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
