package enrich

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/schemas"
)

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"mapping": {func(c *Config) { c.Mapping = "demoo" }, "mapping"},
		"session": {func(c *Config) { c.SessionTimeout = time.Millisecond }, "session_timeout"},
	} {
		cfg := DefaultConfig()
		c.change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	cfg := DefaultConfig()
	cfg.MappingFile = "/nowhere/m.yaml"
	if _, err := New(cfg, Deps{Log: testLog(t), Registry: newWorld(t).avro(t), Keys: testKeys(t)}); err == nil || !strings.Contains(err.Error(), "enrich.mapping_file") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// The commands list what was refused and show the input only when asked to.
func TestQuarantineCommands(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	w.start(t, "a")
	src.open = append(src.open, change{table: "orders", key: "jane", op: "c", raw: []byte("secret bytes")})
	src.commit(true)
	w.quiet(t, src)
	id := readOf[schemas.Quarantined](t, w, schemas.Quarantine)[0].key
	set := &settings{Kafka: w.kafka("cli"), Registry: avro.Config{URL: config.Secret(w.registry)}, Privacy: privacy.Config{Key: config.Secret(strings.Repeat("ab", 32))}}
	group := quarantineCommand(set)
	run := func(at int, args ...string) (string, error) {
		var out bytes.Buffer
		cmd := &cobra.Command{}
		if f := group.Commands[at].Flags; f != nil {
			f(cmd)
		}
		if err := cmd.ParseFlags(args); err != nil {
			t.Fatal(err)
		}
		err := group.Commands[at].Run(t.Context(), app.Env{Out: &out, Runtime: &app.Runtime{Log: testLog(t)}, Command: cmd}, cmd.Flags().Args())
		return out.String(), err
	}
	for name, c := range map[string]struct {
		at   int
		args []string
	}{"list": {0, nil}, "show": {1, []string{id[:12]}}} {
		out, err := run(c.at, c.args...)
		if err != nil || !strings.Contains(out, id) || !strings.Contains(out, "decode_poison") || !strings.Contains(out, "not_framed") || !strings.Contains(out, "t.store.public.orders/") ||
			strings.Contains(out, "secret") || strings.Contains(out, "jane") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	if out, err := run(1, "--payload", id); err != nil || !strings.Contains(out, "secret bytes") || !strings.Contains(out, "jane") {
		t.Errorf("payload: %v\n%s", err, out)
	}
	if _, err := run(1, "nosuch"); err == nil {
		t.Error("an id that is not there is found")
	}
}
