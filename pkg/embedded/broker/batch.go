package broker

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// batch is the header of a record batch in a segment file (magic 2).
type batch struct {
	pos       int64 // in its segment
	size      int64
	first     int64 // offset of the first record
	lastDelta int32
	records   int32
	attrs     int16
	leader    int32 // leader epoch
	firstTS   int64
	maxTS     int64
	pid       int64
	epoch     int16
	firstSeq  int32
}

const (
	batchHeaderSize = 61
	batchLengthSize = 12 // what the length field does not count
	crcFrom         = 21 // the CRC covers what follows it

	attrCodec         = 0x0007
	attrLogAppendTime = 0x0008
	attrTransactional = 0x0010
	attrControl       = 0x0020
)

func (b *batch) end() int64          { return b.first + int64(b.lastDelta) + 1 }
func (b *batch) control() bool       { return b.attrs&attrControl != 0 }
func (b *batch) transactional() bool { return b.attrs&attrTransactional != 0 && !b.control() }

// parseBatch reads the batch at the start of raw; ok is false if there is no
// whole, intact one.
func parseBatch(raw []byte) (b batch, ok bool) {
	if len(raw) < batchHeaderSize {
		return batch{}, false
	}
	be := binary.BigEndian
	length := int64(int32(be.Uint32(raw[8:])))
	size := length + batchLengthSize
	if size < batchHeaderSize || size > int64(len(raw)) || raw[16] != 2 {
		return batch{}, false
	}
	if crc32.Checksum(raw[crcFrom:size], castagnoli()) != be.Uint32(raw[17:]) {
		return batch{}, false
	}
	return batch{
		size: size, first: int64(be.Uint64(raw)), leader: int32(be.Uint32(raw[12:])),
		attrs: int16(be.Uint16(raw[21:])), lastDelta: int32(be.Uint32(raw[23:])),
		firstTS: int64(be.Uint64(raw[27:])), maxTS: int64(be.Uint64(raw[35:])),
		pid: int64(be.Uint64(raw[43:])), epoch: int16(be.Uint16(raw[51:])),
		firstSeq: int32(be.Uint32(raw[53:])), records: int32(be.Uint32(raw[57:])),
	}, true
}

// markerIsCommit reads the only record of a control batch. What cannot be read
// counts as an abort, as in kfake.
func markerIsCommit(raw []byte) bool {
	rest := raw[batchHeaderSize:]
	for field := range 5 { // length, attributes, timestamp delta, offset delta, key length
		if field == 1 {
			if len(rest) < 1 {
				return false
			}
			rest = rest[1:]
			continue
		}
		_, n := binary.Varint(rest)
		if n <= 0 {
			return false
		}
		rest = rest[n:]
	}
	return len(rest) >= 4 && binary.BigEndian.Uint16(rest[2:]) == 1
}

// segment is a .dat file with its batches; the .idx beside it can be derived.
type segment struct {
	base    int64
	size    int64 // of the whole, intact batches
	cut     int64 // bytes after them
	batches []batch
}

func segmentPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+".dat")
}

func indexPath(dir string, base int64) string {
	return filepath.Join(dir, strconv.FormatInt(base, 10)+".idx")
}

// segmentBases lists a partition directory's segments, oldest first.
func segmentBases(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var bases []int64
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".dat")
		if !ok {
			continue
		}
		if base, err := strconv.ParseInt(name, 10, 64); err == nil {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases, nil
}

// readSegment reads one segment file whole and calls each with every intact
// batch and its bytes. Batches must not go back in offset: from says where the
// previous segment ended.
func readSegment(dir string, base, from int64, each func(b *batch, raw []byte) error) (segment, error) {
	data, err := os.ReadFile(segmentPath(dir, base))
	if err != nil {
		return segment{}, err
	}
	s := segment{base: base}
	for s.size < int64(len(data)) {
		b, ok := parseBatch(data[s.size:])
		if !ok || b.first < from || b.lastDelta < 0 {
			break
		}
		b.pos = s.size
		if err := each(&b, data[s.size:s.size+b.size]); err != nil {
			return segment{}, fmt.Errorf("%s at byte %d: %w", segmentPath(dir, base), s.size, err)
		}
		s.batches = append(s.batches, b)
		s.size += b.size
		from = b.end()
	}
	s.cut = int64(len(data)) - s.size
	return s, nil
}

// indexEntry is kfake's entry for a batch: version, checksum, epoch, running
// maximum timestamp (kfake recomputes it), flags.
func indexEntry(b *batch) [15]byte {
	var e [15]byte
	e[0] = 1
	binary.LittleEndian.PutUint32(e[2:], uint32(b.leader))
	binary.LittleEndian.PutUint64(e[6:], uint64(b.maxTS))
	if b.transactional() {
		e[14] = 1
	}
	e[1] = byte(crc32.Checksum(e[2:], castagnoli()))
	return e
}

func indexBytes(batches []batch) []byte {
	out := make([]byte, 0, len(batches)*15)
	for i := range batches {
		e := indexEntry(&batches[i])
		out = append(out, e[:]...)
	}
	return out
}

// marker encodes a batch that ends a transaction at an offset.
func marker(offset int64, leader int32, pid int64, epoch int16, commit bool, nowMillis int64) []byte {
	kind := byte(0)
	if commit {
		kind = 1
	}
	// length 16, no attributes, deltas 0, key of 4 bytes, value of 6 bytes
	// (version 0, coordinator epoch 0), no headers; lengths are zigzag varints.
	record := []byte{32, 0, 0, 0, 8, 0, 0, 0, kind, 12, 0, 0, 0, 0, 0, 0, 0}
	b := batch{
		first: offset, leader: leader, attrs: attrControl | attrTransactional,
		firstTS: nowMillis, maxTS: nowMillis, pid: pid, epoch: epoch, firstSeq: -1, records: 1,
	}
	return encodeBatch(&b, record)
}

// encodeBatch writes a batch with its length and checksum.
func encodeBatch(b *batch, records []byte) []byte {
	out := make([]byte, batchHeaderSize, batchHeaderSize+len(records))
	be := binary.BigEndian
	be.PutUint64(out, uint64(b.first))
	be.PutUint32(out[8:], uint32(batchHeaderSize-batchLengthSize+len(records)))
	be.PutUint32(out[12:], uint32(b.leader))
	out[16] = 2
	be.PutUint16(out[21:], uint16(b.attrs))
	be.PutUint32(out[23:], uint32(b.lastDelta))
	be.PutUint64(out[27:], uint64(b.firstTS))
	be.PutUint64(out[35:], uint64(b.maxTS))
	be.PutUint64(out[43:], uint64(b.pid))
	be.PutUint16(out[51:], uint16(b.epoch))
	be.PutUint32(out[53:], uint32(b.firstSeq))
	be.PutUint32(out[57:], uint32(b.records))
	out = append(out, records...)
	be.PutUint32(out[17:], crc32.Checksum(out[crcFrom:], castagnoli()))
	b.size = int64(len(out))
	return out
}
