package pgserver_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// helperDir names the directory that TestHelperProcess serves; without it that test is none.
const helperDir = "MILLRACE_TEST_HELPER_DIR"

// TestHelperProcess is the parent that other tests kill: it opens a server, prints its process and waits for the end.
func TestHelperProcess(t *testing.T) {
	dir := os.Getenv(helperDir)
	if dir == "" {
		t.Skip("not a test: the helper of others")
	}
	s := open(t, options(t, dir))
	exec(t, s, "CREATE TABLE t AS SELECT 'kept' AS v")
	fmt.Printf("pid %d\n", s.Pid())
	<-s.Done()
}

func TestKilledParentTakesTheServerAlong(t *testing.T) {
	dir := pgtest.Dir(t)
	helper := osexec.Command(os.Args[0], "-test.run=^TestHelperProcess$")
	helper.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := helper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := helper.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "pid %d", &pid)
	}
	if err := helper.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = helper.Wait() // "signal: killed"
	if pid == 0 {
		t.Fatal("the helper did not start a server")
	}
	begin := time.Now()
	s := open(t, options(t, dir)) // at once, while the old server may still be ending
	t.Logf("start after kill -9 of the parent: %v", time.Since(begin))
	if got := query(t, s, "SELECT v FROM t"); got != "kept" {
		t.Errorf("the row is %q", got)
	}
	if works(pid, dir) {
		t.Errorf("the old server, process %d, still runs", pid)
	}
}

// works says whether the process runs in the server's directory.
func works(pid int, dir string) bool {
	cwd, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "cwd"))
	return err == nil && strings.HasPrefix(cwd, dir)
}

// startByHand runs a postgres on an existing cluster as somebody else would, or as a run without the death signal.
func startByHand(t *testing.T, dir, clusterName string) *osexec.Cmd {
	t.Helper()
	data := filepath.Join(dir, "data")
	info, err := os.Stat(data)
	if err != nil {
		t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	cmd := osexec.Command(filepath.Join(pgtest.Installation(t).Dir, "bin", "postgres"), "-D", data,
		"-c", "port="+strconv.Itoa(freePort(t)), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
		"-c", "cluster_name="+clusterName)
	cmd.Dir = data
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGQUIT) // it may have ended
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready to accept connections") {
			go func() { _, _ = io.Copy(io.Discard, log) }() // ends with the process
			return cmd
		}
	}
	t.Fatal("the server started by hand did not come up")
	return nil
}

func freePort(t *testing.T) int {
	t.Helper()
	s := pgtest.Primary(t)
	s.Kill()
	return s.Port()
}

func TestOrphanIsEnded(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	stop(t, open(t, o))
	orphan := startByHand(t, o.Dir, "millrace-embedded")
	ended := make(chan error, 1)
	go func() { ended <- orphan.Wait() }() // as init would
	log := &warnings{}
	o.Logger = slog.New(log)
	begin := time.Now()
	open(t, o)
	t.Logf("start over an orphan: %v", time.Since(begin))
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the orphan still runs")
	}
	if len(log.texts) == 0 {
		t.Error("ending the orphan was not logged")
	}
}

func TestServerOfSomebodyElseIsLeftRunning(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	stop(t, open(t, o))
	foreign := startByHand(t, o.Dir, "mine")
	_, err := pgserver.Open(t.Context(), o)
	var inUse *pgserver.InUseError
	if !errors.As(err, &inUse) || !strings.Contains(inUse.Process, strconv.Itoa(foreign.Process.Pid)) {
		t.Errorf("got %v, want an InUseError of process %d", err, foreign.Process.Pid)
	}
	if !works(foreign.Process.Pid, o.Dir) {
		t.Error("the other server was ended")
	}
}

func TestStalePidFileOfAReusedNumber(t *testing.T) {
	o := options(t, pgtest.Dir(t))
	stop(t, open(t, o))
	// The number of a living process that is no PostgreSQL: postgres itself would refuse to start.
	stranger := osexec.Command("sleep", "60")
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = stranger.Process.Kill()
		_ = stranger.Wait()
	}()
	content := fmt.Sprintf("%d\n%s/data\n1\n1\n\n127.0.0.1\n0 0\nready\n", stranger.Process.Pid, o.Dir)
	if err := os.WriteFile(filepath.Join(o.Dir, "data", "postmaster.pid"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	open(t, o)
	if err := stranger.Process.Signal(syscall.Signal(0)); err != nil {
		t.Error("the stranger was ended")
	}
}

func TestFullDiskSaysWhatToDo(t *testing.T) {
	dir := filepath.Join(pgtest.Dir(t), "small")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,mode=0755"); err != nil {
		t.Skipf("SKIPPED: a small file system needs root and mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	o := options(t, dir)
	o.Template = ""
	_, err := pgserver.Open(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "the disk is full; free some space") || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want the directory and what to do", err)
	}
	primary := pgtest.Primary(t)
	if err := os.Remove(filepath.Join(dir, "role")); err != nil {
		t.Fatal(err)
	}
	_, err = pgserver.OpenStandby(t.Context(), options(t, dir), pgserver.StandbyOptions{Primary: primary.Server, Slot: "s"})
	if err == nil || !strings.Contains(err.Error(), "the disk is full; free some space") {
		t.Errorf("standby: got %v, want what to do", err)
	}
}

// TestAsOrdinaryUser runs the tests that start servers once more as a user without rights, when we are root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIPPED: the tests already run as an ordinary user, so the part as root was not tried")
	}
	in := pgtest.Installation(t)
	dir := pgtest.Dir(t)
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(dir, "test")
	if err := os.WriteFile(test, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o700); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	if err := os.Chown(work, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	cmd := osexec.CommandContext(t.Context(), test, "-test.v",
		"-test.run=^(TestColdStart|TestUnexpectedDeath|TestKilledParent|TestUnreachable|TestStandbyFollows)")
	cmd.Dir = work
	// The binaries are read from root's cache, which this user cannot write.
	cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + work, "HOME=" + work, "CI=1",
		"XDG_CACHE_HOME=" + filepath.Dir(filepath.Dir(in.Dir))}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "--- PASS") < 5 {
		t.Errorf("as user %d: %v\n%s", nobody, err, out)
	}
	t.Logf("%s", out)
}
