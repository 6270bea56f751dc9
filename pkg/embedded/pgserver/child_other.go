//go:build !linux

package pgserver

import "syscall"

// attributes: a process group of its own keeps a ^C in the terminal for us: we stop the servers in order. Nothing here
// ends the child when we are killed; the next start finds and ends it.
func attributes(c *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: c, Setpgid: true}
}
