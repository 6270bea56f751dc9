package chunk

import (
	"bytes"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// Split appends the columns of a line of COPY's text format to row, undoing the line's escapes in place: a line can be
// split once.
func Split(row []pgoutput.Datum, line []byte) []pgoutput.Datum {
	escaped := bytes.IndexByte(line, '\\') >= 0
	for {
		i := bytes.IndexByte(line, '\t')
		field := line
		if i >= 0 {
			field = line[:i]
		}
		switch {
		case !escaped:
			row = append(row, pgoutput.Datum{Kind: pgoutput.Text, Data: field})
		case len(field) == 2 && field[0] == '\\' && field[1] == 'N':
			row = append(row, pgoutput.Datum{Kind: pgoutput.Null})
		default:
			row = append(row, pgoutput.Datum{Kind: pgoutput.Text, Data: unescape(field)})
		}
		if i < 0 {
			return row
		}
		line = line[i+1:]
	}
}

func unescape(field []byte) []byte {
	i := bytes.IndexByte(field, '\\')
	if i < 0 {
		return field
	}
	out := field[:i]
	for ; i < len(field); i++ {
		c := field[i]
		if c == '\\' && i+1 < len(field) {
			i++
			c = unescaped(field[i])
		}
		out = append(out, c)
	}
	return out
}

// unescaped is the byte that a backslash and c stand for.
func unescaped(c byte) byte {
	switch c {
	case 'b':
		return '\b'
	case 'f':
		return '\f'
	case 'n':
		return '\n'
	case 'r':
		return '\r'
	case 't':
		return '\t'
	case 'v':
		return '\v'
	}
	return c
}

// lines gathers the lines of a COPY up to a limit of bytes; beyond it they are only counted, for breaking a COPY off
// would cost the connection.
type lines struct {
	limit int
	one   bool // a first line larger than the limit is kept
	buf   []byte
	ends  []int
	seen  int // bytes
	over  bool
}

// Write takes a piece of the copied text.
func (l *lines) Write(data []byte) (int, error) {
	l.seen += len(data)
	if l.over {
		return len(data), nil
	}
	from := len(l.buf)
	l.buf = append(l.buf, data...)
	for {
		i := bytes.IndexByte(l.buf[from:], '\n') // a line feed within a value is written as \n
		if i < 0 {
			break
		}
		from += i + 1
		l.ends = append(l.ends, from)
	}
	if held := len(l.buf) + lineBytes*len(l.ends); held > l.limit && (!l.one || len(l.ends) > 1) {
		l.over, l.buf, l.ends = true, nil, nil
	}
	return len(data), nil
}

// lineBytes is what a line takes beside its bytes.
const lineBytes = 32

func (l *lines) split() [][]byte {
	out := make([][]byte, len(l.ends))
	from := 0
	for i, end := range l.ends {
		out[i] = l.buf[from : end-1 : end-1]
		from = end
	}
	return out
}
