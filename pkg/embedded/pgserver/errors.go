package pgserver

import (
	"fmt"
	"os"
	"strings"
)

// PortTakenError says that the wanted port of 127.0.0.1 is in use by something else. Name is [Options].Name, so that
// the caller can say which setting to change.
type PortTakenError struct {
	Port int
	Name string
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("%s: port %d of 127.0.0.1 is taken by another program: stop that program or choose another port (0 takes a free one)", e.Name, e.Port)
}

// InUseError says that a running process already serves the directory.
type InUseError struct {
	Dir string
	// Process is the id of that process in decimal, or "unknown".
	Process string
}

func (e *InUseError) Error() string {
	return fmt.Sprintf("directory %s is in use by process %s: stop it or choose another directory", e.Dir, e.Process)
}

// hint says what to do about the causes that have nothing to do with PostgreSQL. It begins with ": " or is empty.
func hint(text string) string {
	switch {
	case strings.Contains(text, "No space left on device"), strings.Contains(text, "no space left on device"):
		return ": the disk is full; free some space, or choose a directory on another disk"
	case strings.Contains(text, "could not resize shared memory"), strings.Contains(text, "could not map anonymous shared memory"):
		return ": there is too little shared memory; lower shared_buffers"
	case strings.Contains(text, "Permission denied"), strings.Contains(text, "permission denied"):
		return ": the directory is closed to this user; correct its permissions, or choose another directory"
	case strings.Contains(text, "Read-only file system"), strings.Contains(text, "read-only file system"):
		return ": the file system is read-only; choose a directory on another one"
	}
	return ""
}

// logTail is the last lines that were written to a log file after offset.
func logTail(path string, offset int64) string {
	const most = 8 << 10
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	from := max(offset, info.Size()-most)
	buf := make([]byte, max(0, info.Size()-from))
	n, _ := f.ReadAt(buf, from) // a file that grows meanwhile is no error
	return lastLines(string(buf[:n]), 10)
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
