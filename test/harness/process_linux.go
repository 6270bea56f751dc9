package harness

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C away from the child and ends it when the test is killed.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
