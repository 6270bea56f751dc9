package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Memory is the most that the process ever held, over all its lives, in MiB. It is 0 where there is no /proc.
func (p *Process) Memory() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notePeak()
	return p.peak >> 20
}

// Resident is what the process holds now, in MiB. It is 0 where there is no /proc.
func (p *Process) Resident() int64 { return statusBytes(p.PID(), "VmRSS:") >> 20 }

func (p *Process) notePeak() {
	p.peak = max(p.peak, statusBytes(p.cmd.Process.Pid, "VmHWM:"))
}

func statusBytes(pid int, field string) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(data), field)
	if !ok {
		return 0
	}
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		return 0
	}
	return kib << 10
}

// CPU is the processor time, user and system, that the present life of the process has used, to 10 ms. It is 0 where
// there is no /proc.
func (p *Process) CPU() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID()))
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(data), ") ") // the name may hold blanks
	fields := strings.Fields(after)
	if !ok || len(fields) < 13 {
		return 0
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err1 != nil || err2 != nil {
		return 0
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	return time.Duration(user+system) * tick
}
