package cdc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/avro"

	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/image"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

func parseAvro(schema string) (*avro.Schema, error) {
	s, err := avro.Parse(schema)
	if err != nil {
		return nil, fmt.Errorf("schema of a key: %w", err)
	}
	return s, nil
}

// settling is a candidate while it is settled: the row as it was read, and the versions that the topic had around it.
type settling struct {
	candidate
	there     bool // in the table
	moving    bool // it was looked for in several reads, between which it may have moved
	sum       diff.Sum
	parts     []byte
	low, high pgoutput.LSN
	versions  []version
}

// add adds a later version of the topic.
func (s *settling) add(v version) {
	if len(s.versions) > 0 {
		last := s.versions[len(s.versions)-1]
		if !v.there && v.commit == 0 && !last.there {
			return // the tombstone of a delete
		}
		if last.there {
			image.Merge(last.parts, v.parts)
		}
	}
	s.versions = append(s.versions, v)
}

// verdict tells whether the row is equal to a version that was the topic's at some point between low and high. That the row
// was so at one of them is all that the read tells: nothing that ends after high was in it, everything up to low was.
func (s *settling) verdict() bool {
	first := 0
	for i, v := range s.versions {
		if v.commit != 0 && v.commit < int64(s.low) {
			first = i
		}
	}
	for i, v := range s.versions[first:] {
		if i > 0 && v.commit != 0 && v.commit >= int64(s.high) {
			break
		}
		if s.equals(v) || i > 0 && s.moving && !s.there {
			return true
		}
	}
	return false
}

func (s *settling) equals(v version) bool {
	if s.there != v.there {
		return false
	}
	return !s.there || s.sum == v.sum && image.Known(v.parts) && string(s.parts) == string(v.parts)
}

// kind is what is wrong with a key that is not equal.
func (s *settling) kind() diff.Kind {
	last := s.versions[len(s.versions)-1]
	switch {
	case s.there && !last.there:
		return diff.Missing
	case !s.there:
		return diff.Extra
	}
	return diff.Different
}

// settle decides the candidates that wait: their rows are read again, capture is awaited behind them, and the topic is
// read on from where it was folded.
func (c *comparison) settle(ctx context.Context) error {
	if len(c.pending) == 0 {
		return nil
	}
	all := make(map[string]*settling, len(c.pending))
	var told, untold []*settling
	for _, n := range c.pending {
		s := &settling{candidate: n, versions: []version{n.first}}
		all[n.key] = s
		if n.texts != nil {
			told = append(told, s)
		} else {
			untold = append(untold, s)
		}
	}
	c.pending, c.bytes = nil, 0
	for some := range slices.Chunk(told, keysAtATime) {
		if err := c.readKeys(ctx, all, some); err != nil {
			return err
		}
	}
	if len(untold) > 0 {
		if err := c.readAll(ctx, all, untold); err != nil {
			return err
		}
	}
	high := pgoutput.LSN(0)
	for _, s := range all {
		high = max(high, s.high)
	}
	if err := c.await(ctx, high); err != nil {
		return err
	}
	if err := c.scanTail(ctx, all); err != nil {
		return err
	}
	for _, s := range all {
		c.count(s)
	}
	return nil
}

func (c *comparison) count(s *settling) {
	if s.verdict() {
		c.out.Moved++
		return
	}
	kind := s.kind()
	switch kind {
	case diff.Missing:
		c.out.Missing++
	case diff.Extra:
		c.out.Extra++
	default:
		c.out.Different++
	}
	if c.Keys == 0 || len(c.out.Keys) < c.Keys {
		c.out.Keys = append(c.out.Keys, wanted{Kind: kind.String(), Key: keyName(c.keys, s.key)})
	}
}

// tries is how often a read is repeated when the table changed its shape in the middle of it.
const tries = 5

// read reads a selection, again if the source changed meanwhile.
func (c *comparison) read(ctx context.Context, s chunk.Selection) (*chunk.Chunk, error) {
	for try := 1; ; try++ {
		got, err := c.reader.Read(ctx, c.from, s)
		if err == nil || try == tries || errors.Is(err, chunk.ErrTooLarge) || ctx.Err() != nil {
			return got, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(try) * 100 * time.Millisecond):
		}
	}
}

// readKeys reads the rows of some keys, in halves if they are too large to be held together.
func (c *comparison) readKeys(ctx context.Context, all map[string]*settling, some []*settling) error {
	s := chunk.Selection{}
	for _, n := range some {
		s.Keys = append(s.Keys, n.texts)
	}
	got, err := c.read(ctx, s)
	if errors.Is(err, chunk.ErrTooLarge) && len(some) > 1 {
		if err := c.readKeys(ctx, all, some[:len(some)/2]); err != nil {
			return err
		}
		return c.readKeys(ctx, all, some[len(some)/2:])
	}
	if err != nil {
		return err
	}
	for _, n := range some {
		n.low, n.high = got.Low, got.High
	}
	return c.take(all, got)
}

// take notes the rows of a chunk.
func (c *comparison) take(all map[string]*settling, got *chunk.Chunk) error {
	for _, line := range got.Lines {
		e, err := c.sums.line(line)
		if errors.Is(err, errNotCaptured) {
			continue
		}
		if err != nil {
			return err
		}
		if s := all[string(e.Key)]; s != nil {
			s.there, s.sum, s.parts, s.low, s.high = true, e.Sum, slices.Clone(e.Extra), got.Low, got.High
		}
	}
	return nil
}

// readAll reads the whole table to find rows by keys that cannot be told: those of tokens. A row that is not found was not
// there at some point of the whole read, or moved in it, in which case the topic has a version of it.
func (c *comparison) readAll(ctx context.Context, all map[string]*settling, untold []*settling) error {
	step := int64(firstScan)
	var low, high pgoutput.LSN
	for from, blocks := int64(0), int64(1); from < blocks; {
		got, err := c.read(ctx, chunk.Selection{From: chunk.TID{Block: from}, To: chunk.TID{Block: from + step}})
		if errors.Is(err, chunk.ErrTooLarge) && step > 1 {
			step /= 2
			continue
		}
		if err != nil {
			return err
		}
		if low == 0 {
			low = got.Low
		}
		high, blocks, from = got.High, got.Blocks, from+step
		if err := c.take(all, got); err != nil {
			return err
		}
	}
	for _, n := range untold {
		if !n.there {
			n.low, n.high, n.moving = low, high, true
		}
	}
	return nil
}

// Waiting for capture.
const (
	lookAgain = 50 * time.Millisecond
	tellAfter = 2 * time.Second
	giveUp    = time.Minute
)

// await waits until capture has passed a position. It gives up when capture does not move.
func (c *comparison) await(ctx context.Context, high pgoutput.LSN) error {
	moved, told := time.Now(), false
	for at := int64(0); ; {
		p, _, err := readPosition(ctx, c.deps.Kafka, c.deps.Registry, c.deps.Log, settled, c.cfg.Slot)
		switch {
		case err != nil:
			return err
		case p.LSN >= int64(high):
			return nil
		case p.LSN > at:
			at, moved = p.LSN, time.Now()
		case time.Since(moved) > giveUp:
			return fmt.Errorf("capture is at %s and does not move, and rows were read at %s: is `cdc run` running?", pgoutput.LSN(at), high)
		case time.Since(moved) > tellAfter && !told:
			told = true
			c.deps.Log.Warn("waiting for capture to pass what was read; start `cdc run` if it is not running", "at", pgoutput.LSN(at), "read", high)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lookAgain):
		}
	}
}
