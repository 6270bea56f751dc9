// Package harness runs Millrace's built programs as processes of their own, as a user does, for tests and benchmarks of
// the whole system: start, wait until ready, kill -9, start again, and read what they cost in memory and processor time.
//
// The programs are those of bin/ (make build). They end with the test, and on Linux also when the test is killed.
package harness

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BinVariable is the environment variable with the directory of the programs, in place of bin/: for programs that were
// built otherwise, with profiling or the race detector.
const BinVariable = "MILLRACE_TEST_BIN"

// Process is one program that a test runs, kills and starts again. Its methods may be called from several goroutines;
// those with a testing.TB only from the test's own.
type Process struct {
	Name string
	Addr string // HTTP, host:port

	args []string
	env  []string
	log  *os.File

	mu   sync.Mutex
	cmd  *exec.Cmd
	done chan struct{}
	peak int64 // bytes, over all its lives
}

// Root is the top of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

func bin() string {
	if dir := os.Getenv(BinVariable); dir != "" {
		return dir
	}
	return filepath.Join(Root(), "bin")
}

// Start runs "bin/<name> run" with a free HTTP port and nothing of the test's environment but PATH, HOME and env. The
// process ends with the test; if the test failed, the end of the log is printed.
func Start(t testing.TB, name string, env []string, args ...string) *Process {
	t.Helper()
	p := &Process{Name: name, args: args, env: env, Addr: FreeAddress(t)}
	log, err := os.Create(filepath.Join(t.TempDir(), name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p.log = log
	t.Cleanup(func() {
		p.Stop(syscall.SIGTERM)
		if t.Failed() {
			t.Logf("the end of %s's log:\n%s", name, p.Tail(40))
		}
		_ = log.Close() // it is only read
	})
	p.Launch(t)
	return p
}

// Launch starts the program again, after Stop.
func (p *Process) Launch(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd := exec.Command(filepath.Join(bin(), p.Name), append([]string{"run", "--http-address", p.Addr}, p.args...)...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, p.env...)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	ownGroup(cmd)
	started := make(chan error, 1)
	done := make(chan struct{})
	go func() { // the signal of a parent's death is tied to the thread that forks: it must live as long as the child
		runtime.LockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s (make build makes it): %v", p.Name, err)
	}
	p.cmd, p.done = cmd, done
}

// Stop sends the signal and waits until the process is gone; after 30 seconds it is killed.
func (p *Process) Stop(sig syscall.Signal) {
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

// Kill is kill -9 followed by a new start.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.Stop(syscall.SIGKILL)
	p.Launch(t)
}

// PID is the process's id; of the last life, if it is not running.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Pid
}

// Answers tells whether /readyz says yes now.
func (p *Process) Answers() bool {
	code, _ := p.readyz(time.Second)
	return code == http.StatusOK
}

// Ready waits until /readyz says yes, and fails the test when it does not in time.
func (p *Process) Ready(t testing.TB, within time.Duration) {
	t.Helper()
	last := "no answer"
	Eventually(t, within, func() bool {
		select {
		case <-p.ended():
			t.Fatalf("%s ended:\n%s", p.Name, p.Tail(20))
		default:
		}
		code, body := p.readyz(2 * time.Second)
		if code != 0 {
			last = body
		}
		return code == http.StatusOK
	}, func() string { return p.Name + " does not get ready: " + last + "\n" + p.Tail(20) })
}

func (p *Process) ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// readyz asks once; the code is 0 when there was no answer.
func (p *Process) readyz(within time.Duration) (code int, body string) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.Addr+"/readyz", nil)
	if err != nil {
		return 0, err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body) // half an answer says enough
	return resp.StatusCode, string(text)
}

// Tail is the end of the log.
func (p *Process) Tail(lines int) string {
	data, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(data)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
