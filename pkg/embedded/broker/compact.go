package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// compactReport says what a compaction did.
type compactReport struct {
	// ReclaimedBytes is by how much the segments shrank.
	ReclaimedBytes int64
}

const (
	passesName           = "compactions.json"
	defaultCompactAfter  = 4 << 20
	defaultDeleteKeep    = 24 * time.Hour
	defaultRetention     = 7 * 24 * time.Hour
	maxRememberedPasses  = 1000
	rewrittenSegmentSize = 16 << 20
)

// passes is what earlier compactions looked at, kept in the generation's
// directory so that it changes with it.
type passes struct {
	// Bytes is the size of all segments after the last one.
	Bytes int64 `json:"bytes"`
	// Partitions holds, by directory name, the passes over a partition.
	Partitions map[string][]pass `json:"partitions"`
}

// pass says that at a time every record below an offset had been compacted. A
// tombstone goes only if a pass saw it delete.retention.ms ago: the time runs
// from when it could first be missed, not from when it was written, because a
// laptop may have been off in between.
type pass struct {
	At   time.Time `json:"at"`
	UpTo int64     `json:"up_to"`
}

// compactIfWorth compacts the current generation into the next one and switches
// to it, if the segments grew enough since the last time.
func (st *store) compactIfWorth(ctx context.Context, o Options) error {
	after := o.CompactAfterBytes
	if after == 0 {
		after = defaultCompactAfter
	}
	if after < 0 {
		return nil
	}
	seen := passes{Partitions: make(map[string][]pass)}
	if _, err := readJSON(filepath.Join(st.dataDir(), passesName), &seen); err != nil {
		return err
	}
	before, err := dirBytes(filepath.Join(st.dataDir(), "partitions"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && before-seen.Bytes < after {
		return nil
	}
	if err != nil {
		return err
	}
	next, err := st.nextGen()
	if err != nil {
		return err
	}
	c := &compaction{from: st.dataDir(), to: st.path(next), now: time.Now().UTC(), seen: seen}
	if err := c.run(ctx); err != nil {
		return errors.Join(err, os.RemoveAll(c.to))
	}
	st.compacted.ReclaimedBytes = before - c.seen.Bytes
	old := st.dataDir()
	if err := st.setCurrent(next); err != nil {
		return err
	}
	st.log.Info("embedded broker: compacted", "bytes_before", before, "bytes_after", c.seen.Bytes)
	if err := os.RemoveAll(old); err != nil {
		return fmt.Errorf("remove the superseded generation: %w", err)
	}
	return nil
}

// compaction builds a generation from another one. Offsets, high watermarks and
// log starts stay; nothing in the source changes.
type compaction struct {
	from, to string
	now      time.Time
	seen     passes
}

func (c *compaction) run(ctx context.Context) error {
	if err := os.RemoveAll(c.to); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(c.to, "partitions"), 0o755); err != nil {
		return err
	}
	if err := linkFiles(c.from, c.to); err != nil {
		return err
	}
	topics, err := readTopics(c.from)
	if err != nil {
		return err
	}
	kept := make(map[string][]pass)
	for i := range topics {
		for _, id := range topics[i].ids() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.partition(id, &topics[i]); err != nil {
				return fmt.Errorf("partition %s: %w", id.dirName(), err)
			}
			if ps := c.seen.Partitions[id.dirName()]; len(ps) > 0 {
				kept[id.dirName()] = ps
			}
		}
	}
	c.seen.Partitions = kept
	if c.seen.Bytes, err = dirBytes(filepath.Join(c.to, "partitions")); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(c.to, passesName), c.seen); err != nil {
		return err
	}
	return syncTree(c.to)
}

func (c *compaction) partition(id partitionID, t *topic) error {
	p, err := scanPartition(c.from, id)
	if err != nil {
		return err
	}
	if _, err := os.Stat(p.dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	to := filepath.Join(c.to, "partitions", id.dirName())
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	policy := t.Configs["cleanup.policy"]
	logStart := p.old.LogStartOffset
	if policy == "" || hasPolicy(policy, "delete") {
		logStart = max(logStart, c.retained(p, t))
	}
	clean := int64(0)
	if hasPolicy(policy, "compact") {
		clean = c.cleanEnd(p, t)
	}
	if logStart == p.old.LogStartOffset && clean <= logStart {
		return linkFiles(p.dir, to)
	}
	r := &rewriter{from: p, to: &partition{id: id, dir: to, old: p.old, aborted: p.aborted, open: p.open}, logStart: logStart, clean: clean}
	r.tombstonesBelow = c.tombstonesBelow(id, t)
	if err := r.run(); err != nil {
		return err
	}
	if clean > 0 {
		c.remember(id, clean, t)
	}
	return nil
}

// retained returns the log start that retention.ms and retention.bytes ask
// for. Batches go from the front, up to the first one that stays; the last
// batch always stays, it carries the high watermark.
func (c *compaction) retained(p *partition, t *topic) int64 {
	keep := configMillis(t, "retention.ms", defaultRetention)
	limit := configInt(t, "retention.bytes", -1)
	var total int64
	for _, s := range p.segments {
		total += s.size
	}
	start, last, stable := p.old.LogStartOffset, p.lastBatch(), p.stableEnd()
	for _, s := range p.segments {
		for i := range s.batches {
			b := &s.batches[i]
			expired := keep >= 0 && c.now.Sub(time.UnixMilli(b.maxTS)) >= keep
			if !expired && (limit < 0 || total <= limit) || b.first == last.first || b.end() > stable {
				return start
			}
			total -= b.size
			start = b.end()
		}
	}
	return start
}

// cleanEnd returns the offset up to which a partition may be compacted: not the
// last batch, nothing at or above the last stable offset, nothing younger than
// min.compaction.lag.ms.
func (c *compaction) cleanEnd(p *partition, t *topic) int64 {
	lag := configMillis(t, "min.compaction.lag.ms", 0)
	last, stable := p.lastBatch(), p.stableEnd()
	end := int64(0)
	for _, s := range p.segments {
		for i := range s.batches {
			b := &s.batches[i]
			if b.first == last.first || b.end() > stable || lag > 0 && c.now.Sub(time.UnixMilli(b.maxTS)) < lag {
				return end
			}
			end = b.end()
		}
	}
	return end
}

// tombstonesBelow returns the offset below which tombstones were seen by a pass
// at least delete.retention.ms ago.
func (c *compaction) tombstonesBelow(id partitionID, t *topic) int64 {
	keep := configMillis(t, "delete.retention.ms", defaultDeleteKeep)
	var below int64
	for _, p := range c.seen.Partitions[id.dirName()] {
		if c.now.Sub(p.At) >= keep {
			below = max(below, p.UpTo)
		}
	}
	return below
}

// remember adds a pass and forgets the ones that a later old one covers.
func (c *compaction) remember(id partitionID, upTo int64, t *topic) {
	keep := configMillis(t, "delete.retention.ms", defaultDeleteKeep)
	ps := c.seen.Partitions[id.dirName()]
	for len(ps) > 1 && (c.now.Sub(ps[1].At) >= keep || len(ps) >= maxRememberedPasses) {
		ps = ps[1:]
	}
	c.seen.Partitions[id.dirName()] = append(ps, pass{At: c.now, UpTo: upTo})
}

// configInt reads a topic's integer setting; what is not set or no number is
// the default.
func configInt(t *topic, name string, def int64) int64 {
	n, err := strconv.ParseInt(t.Configs[name], 10, 64)
	if err != nil {
		return def
	}
	return n
}

// configMillis is configInt for durations; -1 stays negative, and what does not
// fit a time.Duration is the longest one.
func configMillis(t *topic, name string, def time.Duration) time.Duration {
	n := configInt(t, name, def.Milliseconds())
	if n > cleanerNever.Milliseconds() {
		return cleanerNever
	}
	return time.Duration(n) * time.Millisecond
}

// linkFiles gives the files of one directory a second name in another. They are
// not written to until one of the two directories is gone.
func linkFiles(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == passesName {
			continue
		}
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if os.Link(src, dst) == nil {
			continue
		}
		if err := copyFile(src, dst); err != nil { // a file system without links
			return err
		}
	}
	return nil
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
