package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// store is the directory around kfake's own:
//
//	LOCK             flock, holder's process id
//	CURRENT          the name of the generation in use, replaced atomically
//	RUNNING          present from before the first write until a clean Close
//	TRANSACTION      the commit being carried out (see txnrecord.go)
//	compactions.json when which offsets were compacted (see compact.go)
//	gen-000001/      kfake's data directory
//
// Compaction writes the next generation beside the current one and then
// replaces CURRENT, so a crash leaves the old one or the new one.
type store struct {
	root      string
	gen       string
	log       *slog.Logger
	lock      *dirLock
	txn       *txnFile
	clusterID string // of the contents found, empty for a new directory
	unclean   bool
	repaired  repairReport
	compacted compactReport
	prepTook  time.Duration
}

const (
	currentName = "CURRENT"
	runningName = "RUNNING"
	firstGen    = "gen-000001"
)

// openStore locks the directory, finds the current generation, repairs it and
// compacts it into a new one if that is worth it.
func openStore(ctx context.Context, o Options) (*store, error) {
	started := time.Now()
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	st := &store{root: o.Dir, log: o.Log, lock: lock}
	if err := st.prepare(ctx, o); err != nil {
		return nil, errors.Join(err, st.abandon())
	}
	st.prepTook = time.Since(started)
	return st, nil
}

func (st *store) prepare(ctx context.Context, o Options) error {
	if err := st.findGeneration(); err != nil {
		return err
	}
	_, err := os.Stat(st.path(runningName))
	st.unclean = err == nil
	if st.txn, err = openTxnFile(st.path(txnFileName)); err != nil {
		return err
	}
	if err := st.readMeta(); err != nil {
		return err
	}
	if st.clusterID == "" {
		// kfake writes meta.json first of all: without it nothing was ever
		// stored here, however the first run ended.
		st.unclean = false
		return nil
	}
	if st.repaired, err = repair(ctx, st.dataDir(), st.txn.last(), st.unclean); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if st.unclean {
		st.log.Warn("embedded broker: the last run did not stop cleanly; repaired",
			"truncated_bytes", st.repaired.TruncatedBytes, "transactions_committed", st.repaired.Committed, "transactions_aborted", st.repaired.Aborted)
	}
	if err := st.compactIfWorth(ctx, o); err != nil {
		return fmt.Errorf("compact: %w", err)
	}
	return nil
}

func (st *store) path(name string) string { return filepath.Join(st.root, name) }

// dataDir is kfake's directory.
func (st *store) dataDir() string { return filepath.Join(st.root, st.gen) }

// findGeneration reads CURRENT and removes what an interrupted compaction left.
func (st *store) findGeneration() error {
	b, err := os.ReadFile(st.path(currentName))
	switch {
	case err == nil:
		st.gen = strings.TrimSpace(string(b))
	case errors.Is(err, fs.ErrNotExist):
		st.gen = firstGen
		if err := st.setCurrent(firstGen); err != nil {
			return err
		}
	default:
		return fmt.Errorf("read the current generation: %w", err)
	}
	if _, err := genNumber(st.gen); err != nil {
		return fmt.Errorf("%s names %q, which is no generation of this directory: %w", st.path(currentName), st.gen, err)
	}
	return st.removeOthers()
}

// setCurrent makes a generation the current one, atomically and durably.
func (st *store) setCurrent(gen string) error {
	if err := writeFileAtomic(st.path(currentName), []byte(gen+"\n")); err != nil {
		return fmt.Errorf("switch to generation %s: %w", gen, err)
	}
	st.gen = gen
	return nil
}

func (st *store) removeOthers() error {
	entries, err := os.ReadDir(st.root)
	if err != nil {
		return fmt.Errorf("list generations: %w", err)
	}
	for _, e := range entries {
		if _, err := genNumber(e.Name()); err != nil || e.Name() == st.gen {
			continue
		}
		if err := os.RemoveAll(st.path(e.Name())); err != nil {
			return fmt.Errorf("remove the superseded generation %s: %w", e.Name(), err)
		}
	}
	return nil
}

func genNumber(name string) (int, error) {
	digits, ok := strings.CutPrefix(name, "gen-")
	if !ok {
		return 0, errors.New("no generation name")
	}
	return strconv.Atoi(digits)
}

func (st *store) nextGen() (string, error) {
	n, err := genNumber(st.gen)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("gen-%06d", n+1), nil
}

func (st *store) readMeta() error {
	var meta struct {
		ClusterID string `json:"cluster_id"`
	}
	ok, err := readJSON(filepath.Join(st.dataDir(), "meta.json"), &meta)
	if err != nil || !ok {
		return err
	}
	if meta.ClusterID == "" {
		return fmt.Errorf("%s has no cluster id: the directory was not written by this broker", filepath.Join(st.dataDir(), "meta.json"))
	}
	st.clusterID = meta.ClusterID
	return nil
}

// begin marks the directory as in use, durably, before anything is written.
func (st *store) begin() error {
	if err := writeFileAtomic(st.path(runningName), []byte(strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return fmt.Errorf("mark the directory as in use: %w", err)
	}
	return nil
}

// notBegun takes begin back after a start that failed before anything was
// written. A directory that was unclean stays so.
func (st *store) notBegun() error {
	if st.unclean {
		return nil
	}
	return os.Remove(st.path(runningName))
}

// end makes what was written durable, marks the directory clean and lets go.
func (st *store) end() error {
	err := syncTree(st.dataDir())
	if err == nil {
		err = st.txn.clear()
	}
	if err == nil {
		if err = os.Remove(st.path(runningName)); err == nil {
			err = syncDir(st.root)
		}
	}
	if err != nil {
		err = fmt.Errorf("close broker directory %s: %w; the next start repairs it and reports an unclean stop", st.root, err)
	}
	return errors.Join(err, st.abandon())
}

// abandon lets go of the directory without marking it clean.
func (st *store) abandon() error {
	var err error
	if st.txn != nil {
		err = st.txn.close()
	}
	return errors.Join(err, st.lock.release())
}

// readJSON reads a JSON file; ok is false if there is none.
func readJSON(path string, v any) (ok bool, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return false, fmt.Errorf("parse %s: %w", path, err)
	}
	return true, nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return writeFileAtomic(path, b)
}

// writeFileAtomic replaces a file so that a reader, or a machine that loses
// power, sees the old contents or the new.
func writeFileAtomic(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := writeFileSync(tmp, b); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeFileSync(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// syncTree makes every file and directory under root durable.
func syncTree(root string) error {
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return syncDir(path) // fsync is the same call for a file
	})
}
