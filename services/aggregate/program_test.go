package aggregate

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// command runs one of the program's commands.
func command(t *testing.T, c app.Command, flags ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cc := &cobra.Command{Use: c.Use}
	if c.Flags != nil {
		c.Flags(cc)
	}
	must(t, cc.ParseFlags(flags))
	err := c.Run(t.Context(), app.Env{Out: &out, Runtime: &app.Runtime{Log: slog.New(slog.DiscardHandler)}, Command: cc}, nil)
	return out.String(), err
}

func TestCommands(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	set := &settings{Sales: postgres.SalesConfig{URL: config.Secret(b.dsn)}, Kafka: b.kafka, Aggregate: DefaultConfig()}
	must(t, ledger.Migrate(t.Context(), set.Sales.URL, slog.New(slog.DiscardHandler)))
	s, _ := b.service(t, "one")
	b.produce(t, salestest.History(6, 100)...)
	stop := run(t, s)
	pool := b.pool(t)
	eventually(t, "all are in", 15*time.Second, func() bool { return in(t, pool) == 100 })
	stop()

	if out, err := command(t, verifyCommand(set)); err != nil || !strings.Contains(out, "all equal") {
		t.Errorf("verify: %q, %v", out, err)
	}
	var usage *app.UsageError
	if _, err := command(t, resetCommand(set)); !errors.As(err, &usage) {
		t.Errorf("reset-offsets without --yes: %v", err)
	}
	if out, err := command(t, resetCommand(set), "--yes"); err != nil || !strings.Contains(out, "nothing to do") {
		t.Errorf("reset-offsets: %q, %v", out, err)
	}
	if out, err := command(t, resetCommand(set), "--yes", "--all"); err != nil || strings.Count(out, "from its start") != 18 {
		t.Errorf("reset-offsets --all: %q, %v", out, err)
	}
	_, err := pool.Exec(t.Context(), `UPDATE millrace.cells SET units = units + 1 WHERE ctid = (SELECT ctid FROM millrace.cells LIMIT 1)`)
	must(t, err)
	if out, err := command(t, verifyCommand(set)); !errors.Is(err, app.ErrDifferences) || !strings.HasPrefix(out, "cell: ") {
		t.Errorf("verify: %q, %v", out, err)
	}
	set.Sales.URL = ""
	if _, err := command(t, verifyCommand(set)); !errors.As(err, &usage) {
		t.Errorf("verify without a database: %v", err)
	}
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
	for key, wrong := range map[string]func(*Config){
		"batch_records":   func(c *Config) { c.BatchRecords = 0 },
		"session_timeout": func(c *Config) { c.SessionTimeout = 0 },
		"claim_wait":      func(c *Config) { c.ClaimWait = time.Hour },
	} {
		c := DefaultConfig()
		wrong(&c)
		if err := c.Validate(); err == nil || !strings.HasPrefix(err.Error(), key+":") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
