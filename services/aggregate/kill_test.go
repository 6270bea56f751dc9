package aggregate

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/aggregate/internal/salestest"
)

// childEnv makes this test binary a process of the service, to be killed.
const childEnv = "MILLRACE_TEST_AGGREGATE_CHILD"

type childSpec struct {
	Kafka              kafka.Config
	Registry, DSN, Key string
}

// TestChild is not a test: it is the process that TestKilled starts.
func TestChild(t *testing.T) {
	text := os.Getenv(childEnv)
	if text == "" {
		t.Skip("only as a child")
	}
	var spec childSpec
	must(t, json.Unmarshal([]byte(text), &spec))
	registry, err := avro.NewRegistry(avro.Config{URL: config.Secret(spec.Registry)})
	must(t, err)
	keys, err := privacy.NewKeys(privacy.Config{Key: config.Secret(spec.Key)})
	must(t, err)
	s, err := New(DefaultConfig(), Deps{Log: slog.New(slog.NewTextHandler(os.Stderr, nil)), Kafka: spec.Kafka, Registry: registry,
		Sales: postgres.SalesConfig{URL: config.Secret(spec.DSN)}, Keys: keys})
	must(t, err)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	must(t, s.Run(ctx))
}

func (b *bench) child(t *testing.T) *exec.Cmd {
	t.Helper()
	spec, err := json.Marshal(childSpec{b.kafka, b.registry, b.dsn, strings.Repeat("ab", 32)})
	must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+string(spec))
	cmd.Stderr = t.Output()
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // most are killed already
		_ = cmd.Wait()
	})
	return cmd
}

// With default settings a killed process is back at work in less than 5 s, and nothing is lost or counted twice.
func TestKilled(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(9, 3000)
	pool := b.pool(t)
	m := salestest.NewModel()
	m.See(history...)
	sent := int64(0)
	send := func(n int) {
		b.produce(t, history[:n]...)
		history = history[n:]
		sent += int64(n)
	}
	send(500)
	cmd := b.child(t)
	eventually(t, "the first records are in", 20*time.Second, func() bool { return in(t, pool) == sent })
	for range 3 {
		before := sent
		send(600)
		eventually(t, "it is in the middle", 10*time.Second, func() bool { return in(t, pool) > before })
		must(t, cmd.Process.Kill())
		killed := time.Now()
		send(100)
		cmd = b.child(t)
		eventually(t, "all is in", 20*time.Second, func() bool { return in(t, pool) >= sent })
		took := time.Since(killed)
		t.Logf("back at work, and through with 700 records, %v after the kill", took)
		if took > 5*time.Second {
			t.Errorf("back at work after %v, 5 s are promised", took)
		}
	}
	if n := in(t, pool); n != sent {
		t.Errorf("%d records are counted, %d were sent", n, sent)
	}
	send(len(history))
	eventually(t, "the rest is in", 20*time.Second, func() bool { return in(t, pool) >= sent })
	b.check(t, pool, m)
}

// A process that is killed while the database works on a long statement for it leaves nothing behind: the statement
// ends with it, and the next process does not wait for it.
func TestKilledInTheMiddleOfAStatement(t *testing.T) {
	t.Parallel()
	b := newBench(t, pgtest.Database(t))
	history := salestest.History(10, 600)
	pool := b.pool(t)
	b.produce(t, history[:300]...)
	cmd := b.child(t)
	eventually(t, "the first records are in", 20*time.Second, func() bool { return in(t, pool) == 300 })
	_, err := pool.Exec(t.Context(), `CREATE TABLE slow AS SELECT 1;
		CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF EXISTS (SELECT FROM public.slow) THEN PERFORM pg_sleep(50); END IF; RETURN NEW; END $$;
		CREATE TRIGGER slowly BEFORE INSERT OR UPDATE ON millrace.cells FOR EACH ROW EXECUTE FUNCTION slowly()`)
	must(t, err)
	b.produce(t, history[300:]...)
	asleep := func() (n int) {
		_ = pool.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'`).Scan(&n)
		return n
	}
	eventually(t, "a statement takes long", 10*time.Second, func() bool { return asleep() == 1 })
	must(t, cmd.Process.Kill())
	killed := time.Now()
	eventually(t, "the server notices that its client is dead", 4*time.Second, func() bool { return asleep() == 0 })
	t.Logf("the statement ended %v after its process", time.Since(killed))
	_, err = pool.Exec(t.Context(), `DELETE FROM slow`)
	must(t, err)
	b.child(t)
	eventually(t, "the rest is in", 20*time.Second, func() bool { return in(t, pool) == 600 })
	took := time.Since(killed)
	t.Logf("back at work %v after the kill", took)
	if took > 5*time.Second {
		t.Errorf("back at work after %v, 5 s are promised", took)
	}
	m := salestest.NewModel()
	m.See(history...)
	b.check(t, pool, m)
}
