//go:build unix && !linux

package harness

import (
	"os/exec"
	"syscall"
)

// ownGroup keeps Ctrl-C away from the child.
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
}
