package broker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rewriter copies a partition's batches into another directory without what
// retention and compaction remove.
//
// Below clean every transaction is decided: records of aborted ones go, records
// of committed ones become plain records without a producer, and markers go, so
// that nothing there can be mistaken again. Batches at or above clean are copied
// byte by byte. The map of keys is in memory, one partition at a time.
type rewriter struct {
	from, to        *partition
	logStart        int64
	clean           int64
	tombstonesBelow int64

	newest map[string]int64 // key → offset of its newest record below clean
	out    segmentWriter
	batch  pendingBatch
}

func (r *rewriter) run() (err error) {
	if r.clean > 0 {
		r.newest = make(map[string]int64)
		if err := r.each(r.collect); err != nil {
			return err
		}
	}
	r.out = segmentWriter{p: r.to}
	defer func() { err = errors.Join(err, r.out.close()) }()
	if err := r.each(r.keep); err != nil {
		return err
	}
	if err := r.flush(); err != nil {
		return err
	}
	if err := r.out.close(); err != nil {
		return err
	}
	return r.to.describe(r.logStart)
}

func (r *rewriter) each(fn func(b *batch, raw []byte) error) error {
	var end int64
	for _, s := range r.from.segments {
		got, err := readSegment(r.from.dir, s.base, end, fn)
		if err != nil {
			return err
		}
		if n := len(got.batches); n > 0 {
			end = got.batches[n-1].end()
		}
	}
	return nil
}

func (r *rewriter) collect(b *batch, raw []byte) error {
	if b.first >= r.clean || b.end() <= r.logStart || b.control() || r.from.isAborted(b) {
		return nil
	}
	return eachRecord(raw, func(rec *kmsg.Record) error {
		if rec.Key != nil {
			r.newest[string(rec.Key)] = b.first + int64(rec.OffsetDelta)
		}
		return nil
	})
}

func (r *rewriter) keep(b *batch, raw []byte) error {
	if b.end() <= r.logStart {
		return nil
	}
	if b.first >= r.clean {
		if err := r.flush(); err != nil {
			return err
		}
		return r.out.write(b, raw)
	}
	if b.control() || r.from.isAborted(b) {
		return nil
	}
	return eachRecord(raw, func(rec *kmsg.Record) error {
		offset := b.first + int64(rec.OffsetDelta)
		if rec.Key == nil || r.newest[string(rec.Key)] != offset {
			return nil
		}
		if rec.Value == nil && offset < r.tombstonesBelow {
			return nil
		}
		return r.add(b, rec, offset)
	})
}

const (
	rewrittenBatchBytes = 64 << 10
	maxOffsetSpan       = 1 << 30
)

// pendingBatch gathers surviving records of several batches into one: a batch
// costs memory in the running broker, however few records it has.
type pendingBatch struct {
	head    batch
	records []byte
}

func (r *rewriter) add(b *batch, rec *kmsg.Record, offset int64) error {
	ts := b.firstTS + rec.TimestampDelta64
	appendTime := b.attrs & attrLogAppendTime
	if appendTime != 0 {
		ts = b.maxTS
	}
	p, attrs := &r.batch, b.attrs&(attrCodec|attrLogAppendTime)
	if p.head.records > 0 && (p.head.leader != b.leader || p.head.attrs != attrs || len(p.records) >= rewrittenBatchBytes ||
		offset-p.head.first > maxOffsetSpan || appendTime != 0 && p.head.maxTS != ts) {
		if err := r.flush(); err != nil {
			return err
		}
	}
	if p.head.records == 0 {
		p.head = batch{first: offset, leader: b.leader, attrs: attrs, firstTS: ts, maxTS: ts, pid: -1, epoch: -1, firstSeq: -1}
	}
	p.head.records++
	p.head.lastDelta = int32(offset - p.head.first)
	p.head.maxTS = max(p.head.maxTS, ts)
	rec.OffsetDelta = p.head.lastDelta
	rec.TimestampDelta64 = ts - p.head.firstTS
	rec.TimestampDelta = int32(rec.TimestampDelta64)
	p.records = appendRecord(p.records, rec)
	return nil
}

func (r *rewriter) flush() error {
	p := &r.batch
	if p.head.records == 0 {
		return nil
	}
	records, codec, err := compress(p.records, p.head.attrs)
	if err != nil {
		return err
	}
	p.head.attrs = p.head.attrs&^attrCodec | codec
	raw := encodeBatch(&p.head, records)
	if err := r.out.write(&p.head, raw); err != nil {
		return err
	}
	p.head, p.records = batch{}, p.records[:0]
	return nil
}

// compress applies the codec that attrs names; the result may be another one
// if compressing does not pay.
func compress(records []byte, attrs int16) ([]byte, int16, error) {
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	codec := int(attrs & attrCodec)
	if codec == 0 || codec >= len(codecs) {
		return records, 0, nil
	}
	c, err := kgo.DefaultCompressor(codecs[codec])
	if err != nil {
		return nil, 0, err
	}
	out, used := c.Compress(new(bytes.Buffer), records)
	return out, int16(used), nil
}

// appendRecord encodes a record with its length.
func appendRecord(dst []byte, rec *kmsg.Record) []byte {
	rec.Length = 0
	body := rec.AppendTo(nil)[1:] // a length of 0 takes one byte
	dst = binary.AppendVarint(dst, int64(len(body)))
	return append(dst, body...)
}

// eachRecord decodes a batch's records one at a time; fn must not keep them.
func eachRecord(raw []byte, fn func(*kmsg.Record) error) error {
	var rb kmsg.RecordBatch
	if err := rb.ReadFrom(raw); err != nil {
		return fmt.Errorf("parse record batch: %w", err)
	}
	records, err := plainRecords(&rb)
	if err != nil {
		return err
	}
	for i := int32(0); i < rb.NumRecords; i++ {
		length, n := binary.Varint(records)
		if n <= 0 || length < 0 || length > int64(len(records)-n) || length > math.MaxInt32 {
			return fmt.Errorf("record %d of %d: bad length", i, rb.NumRecords)
		}
		whole := n + int(length)
		rec := kmsg.NewRecord()
		if err := rec.ReadFrom(records[:whole]); err != nil {
			return fmt.Errorf("record %d of %d: %w", i, rb.NumRecords, err)
		}
		if err := fn(&rec); err != nil {
			return err
		}
		records = records[whole:]
	}
	return nil
}

// segmentWriter writes batches into new segment files of a partition.
type segmentWriter struct {
	p *partition
	f *os.File
}

func (w *segmentWriter) write(b *batch, raw []byte) error {
	if w.f == nil || w.p.segments[len(w.p.segments)-1].size >= rewrittenSegmentSize {
		if err := w.close(); err != nil {
			return err
		}
		f, err := os.OpenFile(segmentPath(w.p.dir, b.first), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		w.f = f
		w.p.segments = append(w.p.segments, segment{base: b.first})
	}
	if _, err := w.f.Write(raw); err != nil {
		return err
	}
	s := &w.p.segments[len(w.p.segments)-1]
	kept := *b
	kept.pos, kept.size = s.size, int64(len(raw))
	s.batches = append(s.batches, kept)
	s.size += kept.size
	return nil
}

func (w *segmentWriter) close() error {
	if w.f == nil {
		return nil
	}
	f := w.f
	w.f = nil
	return errors.Join(f.Sync(), f.Close())
}
