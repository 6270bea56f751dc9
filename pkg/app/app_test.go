package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
)

type settings struct {
	Common `yaml:",inline"`
	X      struct {
		Value string `yaml:"value" doc:"a value"`
	} `yaml:"cdc"`
}

func program(build func(context.Context, *Runtime) error, commands ...Command) Program {
	s := &settings{Common: DefaultCommon()}
	s.HTTP.Address = "127.0.0.1:0"
	s.Log.Level = "error"
	return Program{Name: "thing", Version: "1.2.3", Short: "does things", Settings: s, Build: build, Commands: commands}
}

func exec(t *testing.T, p Program, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = p.run(t.Context(), args, nil, &out, &errs)
	return code, out.String(), errs.String()
}

type part struct {
	run   func(context.Context) error
	ready func() error
}

func (p part) Run(ctx context.Context) error { return p.run(ctx) }
func (p part) Ready() error {
	if p.ready == nil {
		return nil
	}
	return p.ready()
}
func (p part) Routes(r chi.Router) {
	r.Get("/boom", func(http.ResponseWriter, *http.Request) { panic("customer 103 is secret") })
}

func waits(ctx context.Context) error { <-ctx.Done(); return nil }

func TestExitCodes(t *testing.T) {
	fails := Command{Use: "fails", Run: func(context.Context, Env, []string) error { return errors.New("cannot") }}
	differs := Command{Use: "differs", Run: func(context.Context, Env, []string) error { return fmt.Errorf("2 rows: %w", ErrDifferences) }}
	nested := Command{Use: "group", Commands: []Command{{Use: "do", Run: func(_ context.Context, env Env, _ []string) error {
		fmt.Fprint(env.Out, "did")
		return nil
	}}}}
	f := func(want int, says string, args ...string) {
		t.Helper()
		code, out, errs := exec(t, program(nil, fails, differs, nested), args...)
		if code != want || !strings.Contains(out+errs, says) {
			t.Errorf("%v: code %d, want %d; printed %q %q", args, code, want, out, errs)
		}
	}
	f(ExitDone, "does things", "--help")
	f(ExitDone, "does things")
	f(ExitDone, "thing 1.2.3", "--version")
	f(ExitDone, "did", "group", "do")
	f(ExitFailed, "cannot", "fails")
	f(ExitDifferences, "2 rows", "differs")
	f(ExitUsage, "unknown command", "nonsense")
	f(ExitUsage, "unknown flag", "fails", "--nonsense")
	f(ExitUsage, "unknown command", "fails", "too", "many")
	f(ExitUsage, "must be debug", "fails", "--log-level=loud")
	f(ExitUsage, "cannot read the configuration file", "fails", "--config=/does/not/exist")
	f(ExitDone, "level: error", "config", "print")
}

func TestConfigReachesTheProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(path, []byte("cdc:\n  value: from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, _ := exec(t, program(nil), "config", "print", "--config", path)
	if code != 0 || !strings.Contains(out, "value: from-file") {
		t.Fatal(code, out)
	}
	code, out, _ = exec(t, program(nil), "config", "print", "--config", path, "--cdc-value", "from-flag")
	if code != 0 || !strings.Contains(out, "value: from-flag") {
		t.Fatal(code, out)
	}
}

func TestOneFailureStopsAll(t *testing.T) {
	var order []string
	var mu sync.Mutex
	note := func(s string) { mu.Lock(); order = append(order, s); mu.Unlock() }
	p := program(func(_ context.Context, rt *Runtime) error {
		rt.OnStop(func(context.Context) error { note("closed first opened"); return nil })
		rt.OnStop(func(context.Context) error { note("closed last opened"); return nil })
		rt.Add("good", part{run: func(ctx context.Context) error { <-ctx.Done(); note("good drained"); return nil }})
		rt.Add("bad", part{run: func(context.Context) error { return errors.New("broke") }})
		return nil
	})
	code, _, errs := exec(t, p, "run")
	if code != ExitFailed || !strings.Contains(errs, "bad: broke") {
		t.Fatal(code, errs)
	}
	if got := strings.Join(order, ", "); got != "good drained, closed last opened, closed first opened" {
		t.Fatal(got)
	}
}

func TestAServiceThatEndsByItselfIsAFailure(t *testing.T) {
	p := program(func(_ context.Context, rt *Runtime) error {
		rt.Add("short", part{run: func(context.Context) error { return nil }})
		return nil
	})
	if code, _, errs := exec(t, p, "run"); code != ExitFailed || !strings.Contains(errs, "short: ended by itself") {
		t.Fatal(code, errs)
	}
}

func TestClosersRunWhenBuildFails(t *testing.T) {
	closed := false
	p := program(func(_ context.Context, rt *Runtime) error {
		rt.OnStop(func(context.Context) error { closed = true; return nil })
		return errors.New("no database")
	})
	if code, _, errs := exec(t, p, "run"); code != ExitFailed || !closed || !strings.Contains(errs, "no database") {
		t.Fatal(code, closed, errs)
	}
}

func TestLifeOfAServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan struct{})
	url := make(chan string, 1)
	allReady := make(chan struct{})
	p := program(func(_ context.Context, rt *Runtime) error {
		rt.OnReady(func() { close(allReady) })
		rt.Add("slow", part{run: waits, ready: func() error {
			select {
			case <-ready:
				return nil
			default:
				return errors.New("still reading products")
			}
		}})
		url <- rt.HTTP.URL()
		return nil
	})
	done := make(chan int, 1)
	go func() { done <- p.run(ctx, []string{"run"}, nil, io.Discard, io.Discard) }()
	base := <-url
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.Get(base + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(body)
	}
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "slow: not ready: still reading products") {
		t.Fatal(code, body)
	}
	if code, _ := get("/healthz"); code != 200 {
		t.Fatal("not alive")
	}
	close(ready)
	<-allReady
	if code, body := get("/readyz"); code != 200 || !strings.Contains(body, "slow: ready") {
		t.Fatal(code, body)
	}
	if code, body := get("/metrics"); code != 200 || !strings.Contains(body, `millrace_build_info{`) {
		t.Fatal(code, body)
	}
	if code, body := get("/boom"); code != 500 || strings.Contains(body, "103") || !strings.Contains(body, "Internal Server Error") {
		t.Fatal(code, body)
	}
	if code, body := get("/nothing"); code != 404 || !strings.Contains(body, "openapi.json") {
		t.Fatal(code, body)
	}
	if code, _ := get("/openapi.json"); code != 200 {
		t.Fatal("no OpenAPI document")
	}
	if code, body := get("/docs"); code != 200 || !strings.Contains(body, "API</h1>") {
		t.Fatal(code, body)
	}
	health := program(waitsBuild)
	if code, out, _ := exec(t, health, "healthcheck", "--http-address", strings.TrimPrefix(base, "http://")); code != 0 || !strings.Contains(out, "slow: ready") {
		t.Fatal("healthcheck", code, out)
	}
	cancel()
	select {
	case code := <-done:
		if code != 0 {
			t.Fatal("stopped with", code)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("does not stop")
	}
	if code, _, _ := exec(t, health, "healthcheck", "--http-address", strings.TrimPrefix(base, "http://")); code != ExitFailed {
		t.Fatal("healthcheck of a stopped process says", code)
	}
}

func waitsBuild(_ context.Context, rt *Runtime) error { rt.Add("x", part{run: waits}); return nil }

func TestTakenPortIsNamed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, errs := exec(t, program(waitsBuild), "run", "--http-address", l.Addr().String())
	if code != ExitFailed || !strings.Contains(errs, l.Addr().String()) || !strings.Contains(errs, "--http-address") {
		t.Fatal(code, errs)
	}
}
