//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// root is the top of the repository.
func root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// process is one program that a test runs, kills and starts again.
type process struct {
	name string
	args []string
	env  []string
	addr string // HTTP

	log  *os.File
	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	peak int64 // bytes, over all its lives
}

// start runs bin/<name> with a free HTTP port. The log stays when the test fails.
func start(t *testing.T, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{name: name, args: args, env: env, addr: freeAddress(t)}
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p.log = log
	t.Cleanup(func() {
		p.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, p.tail(40))
		}
		log.Close()
	})
	p.launch(t)
	return p
}

func (p *process) launch(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(filepath.Join(root(), "bin", p.name), append([]string{"run", "--http-address", p.addr}, p.args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	done := make(chan struct{})
	go func() { // Pdeathsig is tied to the thread that forks: it must live as long as the child
		runtime.LockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s (make build makes it): %v", p.name, err)
	}
	p.cmd, p.done = cmd, done
}

// stop ends the process and waits until it is gone.
func (p *process) stop(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notePeak()
	select {
	case <-p.done:
		return
	default:
	}
	_ = p.cmd.Process.Signal(sig) // it may end by itself in between
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// kill is kill -9 followed by a new start.
func (p *process) kill(t testing.TB) {
	t.Helper()
	p.stop(syscall.SIGKILL)
	p.launch(t)
}

func (p *process) notePeak() {
	p.peak = max(p.peak, peakRSS(p.cmd.Process.Pid))
}

// memory is the most that the process ever held, in MiB.
func (p *process) memory() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notePeak()
	return p.peak >> 20
}

func peakRSS(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(data), "VmHWM:")
	if !ok {
		return 0
	}
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// answers tells whether /readyz says yes now.
func (p *process) answers() bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// ready waits until /readyz says yes.
func (p *process) ready(t testing.TB, within time.Duration) {
	t.Helper()
	last := "no answer"
	eventually(t, within, func() bool {
		select {
		case <-p.done:
			t.Fatalf("%s ended:\n%s", p.name, p.tail(20))
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.addr+"/readyz", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		last = string(body)
		return resp.StatusCode == http.StatusOK
	}, func() string { return p.name + " does not get ready: " + last + "\n" + p.tail(20) })
}

func (p *process) tail(lines int) string {
	data, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// eventually waits for a condition, not for luck: it fails the test when the condition does not come true in time.
func eventually(t testing.TB, within time.Duration, cond func() bool, say func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, say())
		}
		time.Sleep(20 * time.Millisecond) // the pace of asking; the deadline decides
	}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// data finds a file of the real input, which is not part of the repository because of its licences. It is looked for
// in $MILLRACE_TEST_DATA and in ../shared/data beside the repository. Elsewhere the test is skipped, except in CI.
func data(t testing.TB, name string) string {
	t.Helper()
	places := []string{os.Getenv("MILLRACE_TEST_DATA"), filepath.Join(root(), "..", "shared", "data")}
	for _, p := range places {
		if p == "" {
			continue
		}
		path := filepath.Join(p, name)
		if _, err := os.Stat(path); err == nil {
			return path
		} else if !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	say := "SKIPPED: real input " + name + " is not in $MILLRACE_TEST_DATA nor in ../shared/data: NOTHING WAS CHECKED"
	if os.Getenv("CI") != "" {
		t.Fatal(say)
	}
	t.Skip(say)
	return ""
}
