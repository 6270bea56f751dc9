package pgserver

import "syscall"

// attributes: the kernel stops the child at once (SIGQUIT is PostgreSQL's immediate shutdown) when we die, however we
// die. A process group of its own keeps a ^C in the terminal for us: we stop the servers in order.
func attributes(c *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: c, Setpgid: true, Pdeathsig: syscall.SIGQUIT}
}
