package broker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// topic is an entry of kfake's topics.json, as far as it matters here.
type topic struct {
	Name       string            `json:"name"`
	Partitions int               `json:"partitions"`
	Configs    map[string]string `json:"configs"`
}

// partitionID names a partition.
type partitionID struct {
	topic     string
	partition int32
}

// dirName is kfake's name for the partition's directory.
func (p partitionID) dirName() string {
	return fmt.Sprintf("%s-%d", url.PathEscape(p.topic), p.partition)
}

func readTopics(dataDir string) ([]topic, error) {
	var f struct {
		Topics []topic `json:"topics"`
	}
	_, err := readJSON(filepath.Join(dataDir, "topics.json"), &f)
	return f.Topics, err
}

func (t *topic) ids() []partitionID {
	ids := make([]partitionID, t.Partitions)
	for i := range ids {
		ids[i] = partitionID{t.Name, int32(i)}
	}
	return ids
}

// snapshot is kfake's snapshot.json of a partition. With one that fits the
// segment files kfake does not guess at transactions when it loads.
type snapshot struct {
	Version          int           `json:"version"`
	HighWatermark    int64         `json:"high_watermark"`
	LastStableOffset int64         `json:"last_stable_offset"`
	LogStartOffset   int64         `json:"log_start_offset"`
	Epoch            int32         `json:"epoch"`
	LeaderNode       int32         `json:"leader_node,omitempty"`
	MaxTimestamp     int64         `json:"max_timestamp"`
	CreatedAt        time.Time     `json:"created_at"`
	AbortedTxns      []abortedTxn  `json:"aborted_txns,omitempty"`
	Segments         []segmentInfo `json:"segments"`
}

type abortedTxn struct {
	ProducerID  int64 `json:"producer_id"`
	FirstOffset int64 `json:"first_offset"`
	LastOffset  int64 `json:"last_offset"` // of the abort marker
}

type segmentInfo struct {
	BaseOffset int64 `json:"base_offset"`
	Size       int64 `json:"size"`
	MinEpoch   int32 `json:"min_epoch,omitempty"`
	MaxEpoch   int32 `json:"max_epoch,omitempty"`
}

const snapshotName = "snapshot.json"

// readSnapshot returns the zero snapshot if there is none, or none that can be
// read: it only ever adds to what the segments say.
func readSnapshot(dir string) (snapshot, error) {
	var s snapshot
	b, err := os.ReadFile(filepath.Join(dir, snapshotName))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return snapshot{}, nil
	}
	return s, nil
}

// partition is what a scan of a partition's segments found.
type partition struct {
	id       partitionID
	dir      string
	segments []segment
	aborted  []abortedTxn
	open     map[int64]openTxn // by producer id
	windows  map[int64]*window // by producer id
	old      snapshot
}

// openTxn is a transaction without a marker.
type openTxn struct {
	epoch int16
	first int64
}

// window is what a partition knows of a producer's last batches, to recognise
// a batch that is sent again.
type window struct {
	epoch int16
	last  []sent // at most windowSize, oldest first
}

type sent struct {
	firstSeq, nextSeq int32
	offset            int64
}

const windowSize = 5

// scanPartition reads all segments of a partition, one file in memory at a
// time. A partition nothing was ever written to has no directory.
func scanPartition(dataDir string, id partitionID) (*partition, error) {
	p := &partition{
		id: id, dir: filepath.Join(dataDir, "partitions", id.dirName()),
		open: make(map[int64]openTxn), windows: make(map[int64]*window),
	}
	bases, err := segmentBases(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if p.old, err = readSnapshot(p.dir); err != nil {
		return nil, err
	}
	var end int64
	for _, base := range bases {
		s, err := readSegment(p.dir, base, end, func(b *batch, raw []byte) error {
			p.follow(b, raw)
			return nil
		})
		if err != nil {
			return nil, err
		}
		p.segments = append(p.segments, s)
		if n := len(s.batches); n > 0 {
			end = s.batches[n-1].end()
		}
	}
	return p, nil
}

// follow keeps track of transactions and producers.
func (p *partition) follow(b *batch, raw []byte) {
	if b.control() {
		if txn, ok := p.open[b.pid]; ok {
			delete(p.open, b.pid)
			if !markerIsCommit(raw) {
				p.aborted = append(p.aborted, abortedTxn{b.pid, txn.first, b.first})
			}
		}
		return
	}
	if b.transactional() {
		txn, ok := p.open[b.pid]
		if !ok {
			txn.first = b.first
		}
		txn.epoch = b.epoch
		p.open[b.pid] = txn
	}
	if b.pid < 0 {
		return
	}
	w := p.windows[b.pid]
	if w == nil || w.epoch != b.epoch {
		w = &window{epoch: b.epoch}
		p.windows[b.pid] = w
	}
	next := int32((int64(b.firstSeq) + int64(b.records)) % math.MaxInt32)
	if w.last = append(w.last, sent{b.firstSeq, next, b.first}); len(w.last) > windowSize {
		w.last = w.last[1:]
	}
}

// lastBatch returns the last batch, or nil if there is none.
func (p *partition) lastBatch() *batch {
	for _, s := range slices.Backward(p.segments) {
		if n := len(s.batches); n > 0 {
			return &s.batches[n-1]
		}
	}
	return nil
}

// highWatermark is the offset the next record will get. Without batches only
// the snapshot knows.
func (p *partition) highWatermark() int64 {
	if b := p.lastBatch(); b != nil {
		return b.end()
	}
	return p.old.HighWatermark
}

// stableEnd is the last stable offset.
func (p *partition) stableEnd() int64 {
	end := p.highWatermark()
	for _, txn := range p.open {
		end = min(end, txn.first)
	}
	return end
}

// isAborted reports whether a batch belongs to an aborted transaction.
func (p *partition) isAborted(b *batch) bool {
	i, _ := slices.BinarySearchFunc(p.aborted, b.first, func(a abortedTxn, o int64) int { return cmp.Compare(a.LastOffset, o) })
	for _, a := range p.aborted[i:] {
		if a.ProducerID == b.pid && b.first >= a.FirstOffset {
			return b.transactional()
		}
	}
	return false
}

// closeTxns ends every open transaction with a marker in the last segment: a
// commit for the one that was decided, an abort for the rest.
func (p *partition) closeTxns(decided *txnRecord, report *repairReport) error {
	if len(p.open) == 0 {
		return nil
	}
	last := &p.segments[len(p.segments)-1]
	f, err := os.OpenFile(segmentPath(p.dir, last.base), os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	leader := p.lastBatch().leader
	for _, pid := range slices.Sorted(maps.Keys(p.open)) {
		epoch := p.open[pid].epoch
		commit := decided != nil && decided.ProducerID == pid && decided.Epoch == epoch
		raw := marker(p.highWatermark(), leader, pid, epoch, commit, now)
		if _, err := f.Write(raw); err != nil {
			return errors.Join(fmt.Errorf("end a transaction in %s: %w", p.dir, err), f.Close())
		}
		b, _ := parseBatch(raw)
		b.pos = last.size
		last.batches = append(last.batches, b)
		last.size += b.size
		p.follow(&b, raw)
		if commit {
			report.Committed++
		} else {
			report.Aborted++
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// truncate cuts off what is not a whole batch and rewrites the index files from
// the segments; segments without any batch go.
func (p *partition) truncate(report *repairReport) error {
	kept := p.segments[:0]
	for _, s := range p.segments {
		report.TruncatedBytes += s.cut
		if len(s.batches) == 0 {
			if err := errors.Join(os.Remove(segmentPath(p.dir, s.base)), removeIfExists(indexPath(p.dir, s.base))); err != nil {
				return err
			}
			continue
		}
		if s.cut > 0 {
			if err := os.Truncate(segmentPath(p.dir, s.base), s.size); err != nil {
				return err
			}
			s.cut = 0
		}
		kept = append(kept, s)
	}
	p.segments = kept
	return nil
}

// describe writes the index files and the snapshot that fit the segments.
func (p *partition) describe(logStart int64) error {
	now := time.Now().UTC()
	snap := snapshot{
		Version: 1, HighWatermark: p.highWatermark(), LastStableOffset: p.stableEnd(),
		LogStartOffset: min(logStart, p.highWatermark()), Epoch: p.old.Epoch, LeaderNode: p.old.LeaderNode,
		CreatedAt: p.old.CreatedAt, AbortedTxns: p.aborted,
	}
	if snap.CreatedAt.IsZero() {
		snap.CreatedAt = now
	}
	for _, s := range p.segments {
		if err := writeFileSync(indexPath(p.dir, s.base), indexBytes(s.batches)); err != nil {
			return err
		}
		info := segmentInfo{BaseOffset: s.base, Size: s.size, MinEpoch: math.MaxInt32}
		for i := range s.batches {
			b := &s.batches[i]
			info.MinEpoch, info.MaxEpoch = min(info.MinEpoch, b.leader), max(info.MaxEpoch, b.leader)
			snap.MaxTimestamp = max(snap.MaxTimestamp, b.maxTS)
			snap.Epoch = max(snap.Epoch, b.leader)
		}
		snap.Segments = append(snap.Segments, info)
	}
	return writeJSON(filepath.Join(p.dir, snapshotName), snap)
}

func removeIfExists(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
