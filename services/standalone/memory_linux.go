package standalone

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// resident is the proportional memory of a process in bytes: shared pages are divided among those who share them, so
// that the sum over PostgreSQL's processes is what they really take.
func resident(pid int) int64 {
	return kilobytes(fmt.Sprintf("/proc/%d/smaps_rollup", pid), "Pss:")
}

// residentTree is resident summed over a process and its children.
func residentTree(pid int) int64 {
	sum := resident(pid)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return sum
	}
	for child := range strings.FieldsSeq(string(data)) {
		if n, err := strconv.Atoi(child); err == nil {
			sum += residentTree(n)
		}
	}
	return sum
}

func kilobytes(file, name string) int64 {
	data, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	_, after, ok := strings.Cut(string(data), name)
	if !ok {
		return 0
	}
	fields := strings.Fields(after)
	if len(fields) == 0 {
		return 0
	}
	n, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return 0
	}
	return n << 10
}
