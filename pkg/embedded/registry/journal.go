package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
)

// change is one line of the file.
type change struct {
	Op       string `json:"op"`
	Subject  string `json:"subject,omitempty"`
	ID       int    `json:"id,omitempty"`
	Version  int    `json:"version,omitempty"`
	Versions []int  `json:"versions,omitempty"`
	Schema   string `json:"schema,omitempty"`
	Value    string `json:"value,omitempty"`
}

// The kinds of change. A registration carries the schema and its place in one
// line, so it cannot be half there.
const (
	opRegister = "register"
	opSoft     = "soft_delete"
	opHard     = "hard_delete"
	opConfig   = "config" // Value empty: back to the default
	opMode     = "mode"   // likewise
)

const journalName = "schemas.jsonl"

// backing is the part of *os.File that a journal needs.
type backing interface {
	io.Writer
	io.Closer
	Truncate(size int64) error
	Sync() error
}

// journal appends changes durably. It is not safe for concurrent use.
type journal struct {
	f      backing
	size   int64
	broken error
}

// openJournal locks the file, replays it through apply and drops a last line
// that was cut short.
func openJournal(dir string, log *slog.Logger, apply func(change) error) (*journal, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("create registry directory %s: %w", dir, err)
	}
	path := filepath.Join(dir, journalName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open registry file: %w", err)
	}
	size, err := recoverJournal(f, log, apply)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open registry file %s: %w", path, err), f.Close())
	}
	return &journal{f: f, size: size}, nil
}

func recoverJournal(f *os.File, log *slog.Logger, apply func(change) error) (int64, error) {
	err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return 0, errors.New("it is in use by another process; stop it, or choose another directory")
	}
	if err != nil {
		return 0, fmt.Errorf("lock: %w", err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return 0, err
	}
	good, err := replay(data, apply)
	if err != nil {
		return 0, err
	}
	if good < int64(len(data)) {
		log.Warn("schema registry: dropped a last line that was cut short", "bytes", int64(len(data))-good)
		if err := f.Truncate(good); err != nil {
			return 0, fmt.Errorf("drop the last line: %w", err)
		}
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	d, err := os.Open(filepath.Dir(f.Name()))
	if err != nil {
		return 0, err
	}
	return good, errors.Join(d.Sync(), d.Close())
}

// replay applies the lines and returns how many bytes were whole lines. Only
// the last line may be damaged; damage before it is an error.
func replay(data []byte, apply func(change) error) (int64, error) {
	var good int64
	for n := 1; len(data) > 0; n++ {
		end := bytes.IndexByte(data, '\n')
		if end < 0 {
			return good, nil
		}
		var c change
		if err := json.Unmarshal(data[:end], &c); err != nil {
			if end == len(data)-1 {
				return good, nil
			}
			return 0, fmt.Errorf("line %d is damaged and is not the last: restore the file from a copy, or move it away and register the schemas again: %w", n, err)
		}
		if err := apply(c); err != nil {
			return 0, fmt.Errorf("line %d: %w", n, err)
		}
		good += int64(end + 1)
		data = data[end+1:]
	}
	return good, nil
}

// append writes one change and makes it durable. After an error nothing of it
// is in the file; if even that cannot be arranged, every later append fails.
func (j *journal) append(c change) error {
	if j == nil {
		return nil
	}
	if j.broken != nil {
		return j.broken
	}
	line, err := json.Marshal(c)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if _, err = j.f.Write(line); err == nil {
		err = j.f.Sync()
	}
	if err == nil {
		j.size += int64(len(line))
		return nil
	}
	if undo := errors.Join(j.f.Truncate(j.size), j.f.Sync()); undo != nil {
		j.broken = fmt.Errorf("the registry file could not be written and not be restored; free the disk and restart: %w", errors.Join(err, undo))
		return j.broken
	}
	return fmt.Errorf("write the registry file: %w", err)
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.f.Close()
}
