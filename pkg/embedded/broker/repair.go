package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// repairReport says what a repair did.
type repairReport struct {
	// TruncatedBytes were at the end of files and no whole entries.
	TruncatedBytes int64
	// Committed and Aborted count the markers written, one per transaction and
	// partition.
	Committed, Aborted int64
}

const sessionName = "session_state.json"

// repair brings a data directory into a state that kfake loads without
// guessing: whole batches only, an index that fits, every transaction ended. It
// can be interrupted anywhere and repeated: producers are fenced last, and until
// then the same transaction is found to be in doubt.
//
// After a clean stop it does nothing, unless a client left a transaction open:
// that one is aborted, because whoever held it is gone.
func repair(ctx context.Context, dataDir string, rec *txnRecord, unclean bool) (repairReport, error) {
	var report repairReport
	topics, err := readTopics(dataDir)
	if err != nil {
		return report, err
	}
	if err := removeOrphans(dataDir, topics); err != nil {
		return report, err
	}
	if !unclean {
		open, err := forgetSessions(dataDir)
		if err != nil {
			return report, err
		}
		if !open {
			return report, keepEmptied(dataDir, topics)
		}
	}
	pidsLog, groupsLog := filepath.Join(dataDir, "pids.log"), filepath.Join(dataDir, "groups.log")
	ps, cut, err := readProducers(pidsLog)
	if err != nil {
		return report, fmt.Errorf("read producers: %w", err)
	}
	report.TruncatedBytes += cut
	if _, cut, err = readLog(groupsLog); err != nil {
		return report, fmt.Errorf("read groups: %w", err)
	}
	report.TruncatedBytes += cut

	decided := ps.inDoubt(rec)
	parts, err := repairPartitions(ctx, dataDir, topics, decided, &report)
	if err != nil {
		return report, err
	}
	if err := appendLog(groupsLog, commitEntries(decided, time.Now())); err != nil {
		return report, fmt.Errorf("commit positions: %w", err)
	}
	if unclean {
		if err := writeWindows(dataDir, parts); err != nil {
			return report, err
		}
	}
	if err := keepEmptied(dataDir, topics); err != nil {
		return report, err
	}
	if err := appendLog(pidsLog, ps.fence(decided)); err != nil {
		return report, fmt.Errorf("fence producers: %w", err)
	}
	if err := removeIfExists(filepath.Join(dataDir, sessionName)); err != nil {
		return report, err
	}
	return report, syncTree(dataDir)
}

func repairPartitions(ctx context.Context, dataDir string, topics []topic, decided *txnRecord, report *repairReport) ([]*partition, error) {
	var parts []*partition
	for i := range topics {
		for _, id := range topics[i].ids() {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p, err := scanPartition(dataDir, id)
			if err == nil && len(p.segments) > 0 {
				err = errors.Join(p.truncate(report), p.closeTxns(decided, report))
				if err == nil {
					err = p.describe(p.old.LogStartOffset)
				}
			}
			if err != nil {
				return nil, fmt.Errorf("partition %s: %w", id.dirName(), err)
			}
			p.segments = nil // only the producers are needed from here on
			parts = append(parts, p)
		}
	}
	return parts, nil
}

// removeOrphans removes partition directories of topics that are gone: kfake
// would append to them if the topic were made again.
func removeOrphans(dataDir string, topics []topic) error {
	known := make(map[string]bool)
	for i := range topics {
		for _, id := range topics[i].ids() {
			known[id.dirName()] = true
		}
	}
	dir := filepath.Join(dataDir, "partitions")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !known[e.Name()] {
			if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("remove the partition of a deleted topic: %w", err)
			}
		}
	}
	return nil
}

// forgetSessions drops the members of groups and the fetch sessions that kfake
// saved when it stopped: they are dead, and a rebalance would wait for them. It
// reports whether a transaction was open.
func forgetSessions(dataDir string) (open bool, err error) {
	path := filepath.Join(dataDir, sessionName)
	var state map[string]json.RawMessage
	ok, err := readJSON(path, &state)
	if err != nil {
		// Damaged: whatever it said, a full repair is safe.
		return true, removeIfExists(path)
	}
	if !ok {
		return false, nil
	}
	_, open = state["inProgressTxns"]
	if open {
		// The repair removes the file as its last step, so that one that is
		// interrupted is done again.
		return true, nil
	}
	for k := range state {
		if k != "shutdownAt" && k != "groupConfigs" && k != "clientMetrics" {
			delete(state, k)
		}
	}
	return false, writeJSON(path, state)
}

// keepEmptied puts a marker nobody reads into partitions whose records were all
// deleted: kfake takes the high watermark from the last batch and would number
// from 0 again.
func keepEmptied(dataDir string, topics []topic) error {
	for i := range topics {
		for _, id := range topics[i].ids() {
			dir := filepath.Join(dataDir, "partitions", id.dirName())
			snap, err := readSnapshot(dir)
			if err != nil || snap.HighWatermark == 0 {
				if err != nil {
					return err
				}
				continue
			}
			bases, err := segmentBases(dir)
			if err != nil {
				return err
			}
			if len(bases) > 0 {
				continue
			}
			if err := writePlaceholder(dir, id, snap); err != nil {
				return fmt.Errorf("partition %s: %w", id.dirName(), err)
			}
		}
	}
	return nil
}

func writePlaceholder(dir string, id partitionID, snap snapshot) error {
	raw := marker(snap.HighWatermark-1, snap.Epoch, -1, -1, false, time.Now().UnixMilli())
	b, _ := parseBatch(raw)
	p := &partition{id: id, dir: dir, old: snap, segments: []segment{{base: b.first, size: b.size, batches: []batch{b}}}}
	if err := writeFileSync(segmentPath(dir, b.first), raw); err != nil {
		return err
	}
	return p.describe(snap.HighWatermark)
}
