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

// PeakMemory is the most that a running process has held, in MiB. It is 0 where there is no /proc.
func PeakMemory(pid int) int64 { return statusBytes(pid, "VmHWM:") >> 20 }

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
func (p *Process) CPU() time.Duration { return readStat(p.PID()).own }

// TreeCPU is the processor time, user and system, of a process, its children and those that it had, to 10 ms: of a
// server that forks. It is 0 where there is no /proc.
func TreeCPU(pid int) time.Duration {
	root := readStat(pid)
	sum := root.own + root.ended
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s := readStat(child); s.parent == pid {
			sum += s.own
		}
	}
	return sum
}

// stat is a part of /proc/<pid>/stat.
type stat struct {
	parent int
	own    time.Duration
	ended  time.Duration // of children that have ended
}

// readStat gives the zero stat when the process is gone.
func readStat(pid int) stat {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}
	}
	_, after, ok := strings.Cut(string(data), ") ") // the name may hold blanks
	fields := strings.Fields(after)
	if !ok || len(fields) < 15 {
		return stat{}
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux that Go runs on
	var n [15]int64
	for _, i := range []int{1, 11, 12, 13, 14} {
		if n[i], err = strconv.ParseInt(fields[i], 10, 64); err != nil {
			return stat{}
		}
	}
	return stat{parent: int(n[1]), own: time.Duration(n[11]+n[12]) * tick, ended: time.Duration(n[13]+n[14]) * tick}
}
