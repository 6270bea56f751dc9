package export

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Cell is a value of a file.
type Cell struct {
	Text string
	Null bool
}

const (
	// longestRecord bounds what one record may take: a quote that is never closed would take the whole file.
	longestRecord = 64 << 20
	mostColumns   = 1600 // of a table in PostgreSQL
)

// csvReader reads RFC 4180, with a line feed as line end too. An empty field without quotes is null, one with quotes is the
// empty string: the standard library's reader does not tell them apart.
type csvReader struct {
	in   *bufio.Reader
	line int // of what is read next, from 1
	read int // bytes of the present record
	buf  []byte
}

func newCSV(in io.Reader) *csvReader { return &csvReader{in: bufio.NewReaderSize(in, 64<<10), line: 1} }

var (
	errQuoteOpen  = errors.New("the file ends within quotes")
	errQuoteStray = errors.New("a quote within a field that does not begin with one; write the field in quotes, and the quote twice")
	errQuoteAfter = errors.New("something follows a closing quote; write a quote within quotes twice")
	errNotUTF8    = errors.New("this is not UTF-8")
	errTooLong    = fmt.Errorf("one record is longer than %d MB; is a quote missing?", longestRecord>>20)
	errTooMany    = fmt.Errorf("more than %d columns", mostColumns)
	errNul        = errors.New("a zero byte, which PostgreSQL's text cannot hold")
)

// next reads a record into cells. line is where it begins. io.EOF tells that there are no more.
func (r *csvReader) next(cells []Cell) (out []Cell, line int, err error) {
	r.read = 0
	line = r.line
	if _, err := r.in.Peek(1); err != nil {
		return cells[:0], line, err
	}
	out = cells[:0]
	for {
		cell, last, err := r.field()
		if err != nil {
			return out, r.line, err
		}
		if out = append(out, cell); len(out) > mostColumns {
			return out, r.line, errTooMany
		}
		if last {
			return out, line, nil
		}
	}
}

// field reads one field and what ends it: a comma, or the record's end.
func (r *csvReader) field() (cell Cell, last bool, err error) {
	r.buf = r.buf[:0]
	c, err := r.byte()
	if err == nil && c == '"' {
		if err := r.quoted(); err != nil {
			return cell, false, err
		}
		last, err := r.end()
		if err == nil {
			cell, err = r.cell(false)
		}
		return cell, last, err
	}
	for ; ; c, err = r.byte() {
		switch {
		case errors.Is(err, io.EOF):
			cell, err = r.cell(true)
			return cell, true, err
		case err != nil:
			return cell, false, err
		case c == ',' || c == '\n':
			if n := len(r.buf); c == '\n' && n > 0 && r.buf[n-1] == '\r' {
				r.buf = r.buf[:n-1]
			}
			cell, err = r.cell(true)
			return cell, c == '\n', err
		case c == '"':
			return cell, false, errQuoteStray
		}
		r.buf = append(r.buf, c)
	}
}

// quoted reads up to the closing quote.
func (r *csvReader) quoted() error {
	for {
		c, err := r.byte()
		if errors.Is(err, io.EOF) {
			return errQuoteOpen
		}
		if err != nil {
			return err
		}
		if c == '"' {
			next, err := r.in.Peek(1)
			if err != nil || next[0] != '"' {
				return nil // an error other than the end comes again
			}
			if _, err := r.byte(); err != nil {
				return err
			}
		}
		r.buf = append(r.buf, c)
	}
}

// end reads what must follow a closing quote.
func (r *csvReader) end() (last bool, err error) {
	c, err := r.byte()
	if err == nil && c == '\r' {
		if c, err = r.byte(); err == nil && c != '\n' {
			return false, errQuoteAfter
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil:
		return false, err
	case c == '\n':
		return true, nil
	case c == ',':
		return false, nil
	}
	return false, errQuoteAfter
}

func (r *csvReader) cell(bare bool) (Cell, error) {
	if bare && len(r.buf) == 0 {
		return Cell{Null: true}, nil
	}
	return textCell(r.buf)
}

func textCell(b []byte) (Cell, error) {
	if !utf8.Valid(b) {
		return Cell{}, errNotUTF8
	}
	for _, c := range b {
		if c == 0 {
			return Cell{}, errNul
		}
	}
	return Cell{Text: string(b)}, nil
}

func (r *csvReader) byte() (byte, error) {
	c, err := r.in.ReadByte()
	if err != nil {
		return 0, err
	}
	if r.read++; r.read > longestRecord {
		return 0, errTooLong
	}
	if c == '\n' {
		r.line++
	}
	return c, nil
}
