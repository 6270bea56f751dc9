//go:build compose

package compose

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
)

// TestKilledServicesComeBack kills the process in each container while orders come in. (`docker kill` would not do: for
// the engine that is an operator's stop, which `unless-stopped` respects.)
func TestKilledServicesComeBack(t *testing.T) {
	for _, service := range []string{"aggregate", "cdc", "enrich", "recommend", "collect"} {
		t.Run(service, func(t *testing.T) {
			stop := keepSelling(t)
			before := inspect(t, service)
			start := time.Now()
			kill(t, service)
			healthy(t, service, before.restarts+1)
			t.Logf("healthy %v after kill -9", time.Since(start).Round(time.Millisecond))
			if sold := stop(); sold == 0 {
				t.Error("nothing was sold meanwhile")
			}
			totalsEqual(t)
		})
	}
}

// kill ends a container's processes with SIGKILL: in its process namespace, as its user, everything but the namespace's
// first process, the init. The init ends then and takes the namespace with it, and sometimes the killer, whose status is
// 137 then; that the service was restarted is looked at afterwards in any case.
func kill(t *testing.T, service string) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "docker", "run", "--rm", "--network", "none", "--pid", "container:"+container(service),
		"--user", "65532:65532", "--entrypoint", "bash", "postgres:18", "-c", "kill -KILL -1").CombinedOutput()
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() != 128+int(syscall.SIGKILL)) {
		t.Fatalf("kill %s: %v: %s", service, err, out)
	}
}

// TestPartsRestart: no service ends because something that it stands on does.
func TestPartsRestart(t *testing.T) {
	services := []string{"cdc", "collect", "enrich", "aggregate", "recommend", "dashboard", "demo"}
	for _, parts := range [][]string{{"kafka"}, {"replica", "salesdb", "registry"}, {"primary"}} {
		t.Run(strings.Join(parts, ","), func(t *testing.T) {
			before := map[string]state{}
			for _, s := range services {
				before[s] = inspect(t, s)
			}
			stop := func() int { return 1 }
			if parts[0] != "primary" {
				stop = keepSelling(t)
			}
			start := time.Now()
			docker(t, append([]string{"compose", "restart"}, parts...)...)
			for _, p := range parts {
				healthy(t, p, 0)
			}
			for _, s := range services {
				healthy(t, s, before[s].restarts)
			}
			t.Logf("all healthy %v after the restart was asked for", time.Since(start).Round(time.Millisecond))
			if sold := stop(); sold == 0 {
				t.Error("nothing was sold meanwhile")
			}
			totalsEqual(t)
		})
	}
	TestActivityChangesRecommendations(t)
}

// state is what the engine says of a container.
type state struct {
	restarts int
	running  bool
	health   string
}

func container(service string) string {
	return os.Getenv("COMPOSE_PROJECT_NAME") + "-" + service + "-1"
}

func inspect(t *testing.T, service string) state {
	t.Helper()
	answer := docker(t, "inspect", "--format", "{{.RestartCount}} {{.State.Running}} {{.State.Health.Status}}", container(service))
	var s state
	if _, err := fmt.Sscan(answer, &s.restarts, &s.running, &s.health); err != nil {
		t.Fatalf("docker inspect says of %s: %q: %v", service, answer, err)
	}
	return s
}

// healthy waits until a container that the engine has restarted so often in all is ready. The engine asks only now and
// then, so its last word on our services may be an old one; they are asked here.
func healthy(t *testing.T, service string, restarts int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	waitFor(ctx, t, func() error {
		s := inspect(t, service)
		if s.restarts != restarts || !s.running {
			return fmt.Errorf("%s was restarted %d times, want %d; running: %v", service, s.restarts, restarts, s.running)
		}
		if slices.Contains([]string{"kafka", "registry", "primary", "replica", "salesdb"}, service) {
			if s.health != "healthy" {
				return fmt.Errorf("%s is %s", service, s.health)
			}
			return nil
		}
		out, err := exec.CommandContext(ctx, "docker", "exec", container(service), service, "healthcheck").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s healthcheck: %w: %s", service, err, out)
		}
		return nil
	})
}

// docker runs a docker command and returns what it prints.
func docker(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "docker", args...)
	cmd.Dir = "../.." // where docker-compose.yml is
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out)
}

// keepSelling orders, corrects, cancels and deletes in the store until stop is called, which says how many orders were made.
func keepSelling(t *testing.T) (stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	conn := connect(ctx, t, primaryURL)
	type result struct {
		sold int
		err  error
	}
	done := make(chan result, 1)
	go func() {
		sold, err := sellUntil(ctx, conn)
		done <- result{sold, err}
	}()
	return func() int {
		cancel()
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		return r.sold
	}
}

// sellUntil makes about twenty orders a second until ctx ends. Each fourth order corrects the one before, or cancels or
// deletes it.
func sellUntil(ctx context.Context, conn *pgx.Conn) (sold int, err error) {
	product := "E2E_" + uuid.NewString()
	if err := newProduct(ctx, conn, product); err != nil {
		return 0, err
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sold, nil
		case <-tick.C:
		}
		// Not under ctx: what is begun is finished, so that an error is an error.
		unit, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		err := pgx.BeginFunc(unit, conn, func(tx pgx.Tx) error {
			number, err := newOrder(unit, tx, product, 1+sold%5)
			if err != nil {
				return err
			}
			return revise(unit, tx, sold, number-1)
		})
		cancel()
		if err != nil {
			return sold, err
		}
		sold++
	}
}

// revise changes an earlier order, in a way that the turn decides. The order may be the demo's, or not be there any more.
func revise(ctx context.Context, tx pgx.Tx, turn int, order int64) error {
	var errs error
	change := func(sql string) {
		_, err := tx.Exec(ctx, sql, order)
		errs = errors.Join(errs, err)
	}
	switch turn % 12 {
	case 3:
		change("UPDATE order_details SET quantity_ordered = quantity_ordered + 3 WHERE order_number = $1")
	case 7:
		change("UPDATE orders SET status = 'Cancelled' WHERE order_number = $1")
	case 11:
		change("DELETE FROM order_details WHERE order_number = $1")
		change("DELETE FROM orders WHERE order_number = $1")
	}
	if errs != nil {
		return fmt.Errorf("change an order: %w", errs)
	}
	return nil
}
