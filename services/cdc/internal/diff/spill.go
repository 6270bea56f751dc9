package diff

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// spill is a file of entries that is only appended to. It is removed from its directory as soon as it is open, so that
// nothing of it is left whatever becomes of the process; little content never gets to the disk.
type spill struct {
	dir  string
	buf  []byte
	file *os.File
	size int64
}

const (
	spillBuffer = 32 << 10
	readBuffer  = 64 << 10
	// longestPart bounds what a length in a spilled file may say: no key or extra is nearly as long.
	longestPart = 64 << 20
)

// append writes an entry: twice the key's length, plus one when the key is gone; the key; and unless it is gone the sum, the
// extra's length and the extra.
func (s *spill) append(e Entry, gone bool) error {
	head := uint64(len(e.Key)) << 1
	if gone {
		head |= 1
	}
	s.buf = append(binary.AppendUvarint(s.buf, head), e.Key...)
	if !gone {
		s.buf = append(s.buf, e.Sum[:]...)
		s.buf = append(binary.AppendUvarint(s.buf, uint64(len(e.Extra))), e.Extra...)
	}
	if len(s.buf) < spillBuffer {
		return nil
	}
	return s.flush()
}

func (s *spill) flush() error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "millrace-cdc-*.spill")
		if err != nil {
			return diskError(s.dir, err)
		}
		if err := os.Remove(f.Name()); err != nil {
			return errors.Join(diskError(s.dir, err), f.Close())
		}
		s.file = f
	}
	n, err := s.file.Write(s.buf)
	s.size += int64(n)
	s.buf = s.buf[:0]
	if err != nil {
		return diskError(s.dir, err)
	}
	return nil
}

// diskError says which setting to change.
func diskError(dir string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("the disk of %s is full: rows are compared there; name a directory with more room in cdc.spill_dir (%w)", dir, err)
	}
	return fmt.Errorf("compare rows in %s (cdc.spill_dir): %w", dir, err)
}

// bytes is how much has been written.
func (s *spill) bytes() int64 { return s.size + int64(len(s.buf)) }

// each reads all entries in the order they were written. What each is handed is overwritten by the next.
func (s *spill) each(visit func(e Entry, gone bool) error) error {
	var disk io.Reader = eofReader{}
	if s.file != nil {
		disk = io.NewSectionReader(s.file, 0, s.size)
	}
	r := &entryReader{in: bufio.NewReaderSize(io.MultiReader(disk, bytes.NewReader(s.buf)), int(min(readBuffer, s.bytes()+16)))}
	for left := s.bytes(); left > 0; {
		n, err := r.next()
		if err != nil {
			return fmt.Errorf("read what was spilled to %s: %w", s.dir, err)
		}
		if left -= n; left < 0 {
			return fmt.Errorf("read what was spilled to %s: %w", s.dir, errSpoilt)
		}
		if err := visit(r.entry, r.gone); err != nil {
			return err
		}
	}
	return nil
}

func (s *spill) close() error {
	s.buf, s.size = nil, 0
	if s.file == nil {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

var errSpoilt = errors.New("the file is not as it was written")

type eofReader struct{}

func (eofReader) Read([]byte) (int, error) { return 0, io.EOF }

// entryReader decodes entries into buffers that it reuses.
type entryReader struct {
	in    *bufio.Reader
	entry Entry
	gone  bool
}

// next reads an entry and returns its length in the file.
func (r *entryReader) next() (int64, error) {
	head, read, err := r.uvarint()
	if err != nil {
		return 0, err
	}
	r.gone = head&1 == 1
	if r.entry.Key, err = r.part(r.entry.Key, head>>1); err != nil {
		return 0, err
	}
	read += int64(len(r.entry.Key))
	if r.gone {
		r.entry.Sum, r.entry.Extra = Sum{}, r.entry.Extra[:0]
		return read, nil
	}
	if _, err := io.ReadFull(r.in, r.entry.Sum[:]); err != nil {
		return 0, spoilt(err)
	}
	length, n, err := r.uvarint()
	if err != nil {
		return 0, err
	}
	if r.entry.Extra, err = r.part(r.entry.Extra, length); err != nil {
		return 0, err
	}
	return read + int64(len(r.entry.Sum)) + n + int64(len(r.entry.Extra)), nil
}

func (r *entryReader) uvarint() (v uint64, n int64, err error) {
	v, err = binary.ReadUvarint(r.in)
	if err != nil {
		return 0, 0, errSpoilt // a length is cut off or too long
	}
	return v, int64(len(binary.AppendUvarint(nil, v))), nil
}

func (r *entryReader) part(buf []byte, n uint64) ([]byte, error) {
	if n > longestPart {
		return buf, errSpoilt
	}
	if uint64(cap(buf)) < n {
		buf = make([]byte, n)
	}
	buf = buf[:n]
	if _, err := io.ReadFull(r.in, buf); err != nil {
		return buf, spoilt(err)
	}
	return buf, nil
}

// spoilt makes an early end, of which the length knew nothing, what it is.
func spoilt(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errSpoilt
	}
	return err
}
