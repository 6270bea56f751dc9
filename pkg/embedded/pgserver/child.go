package pgserver

import (
	"context"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// child is a started process that is being waited for.
type child struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended
	err  error         // what Wait said; read it after done
}

// command prepares a program of PostgreSQL. Its environment is fixed, so that the user's PG* variables, time zone and
// language cannot change what a server does. dir is the working directory: the caller's own may be closed to the account.
func (a account) command(dir, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...) //nolint:noctx // a server outlives the call that starts it; initdb is ended as a group
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"}
	cmd.SysProcAttr = attributes(a.credential)
	return cmd
}

// spawn starts the command. One goroutine on a thread of its own starts it and waits for it, because the kernel's
// signal at the parent's death is sent when the *thread* that forked ends. The goroutine ends with the process.
func spawn(cmd *exec.Cmd) (*child, error) {
	c := &child{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := cmd.Start()
		started <- err
		if err != nil {
			return
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return c, nil
}

func (c *child) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// signal reports nothing: a process that has ended meanwhile is what was wanted.
func (c *child) signal(sig syscall.Signal) { _ = c.cmd.Process.Signal(sig) }

// wait waits for the end, at most as long as given and as ctx allows.
func (c *child) wait(ctx context.Context, atMost time.Duration) bool {
	timer := time.NewTimer(atMost)
	defer timer.Stop()
	select {
	case <-c.done:
	case <-timer.C:
	case <-ctx.Done():
	}
	return c.ended()
}

// kill ends the process without ceremony and waits until it is gone.
func (c *child) kill() {
	c.signal(syscall.SIGQUIT) // PostgreSQL's immediate shutdown takes its own children along
	if !c.wait(context.Background(), immediateTimeout) {
		c.signal(syscall.SIGKILL)
		<-c.done
	}
}
