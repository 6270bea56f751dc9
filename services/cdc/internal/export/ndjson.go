package export

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// jsonReader reads one object a line.
type jsonReader struct {
	in   *bufio.Reader
	line int
	buf  []byte
}

func newJSON(in io.Reader) *jsonReader { return &jsonReader{in: bufio.NewReaderSize(in, 64<<10)} }

var errNotObject = errors.New("the line is not one JSON object")

// next reads a line; empty ones are passed over. set is called for each member. io.EOF tells that there are no more.
func (r *jsonReader) next(set func(name string, c Cell) error) (line int, err error) {
	for {
		text, err := r.readLine()
		if err != nil {
			return r.line, err
		}
		if len(bytes.TrimSpace(text)) > 0 {
			return r.line, object(text, set)
		}
	}
}

// readLine reads up to a line feed or the end of the file.
func (r *jsonReader) readLine() ([]byte, error) {
	r.line++
	r.buf = r.buf[:0]
	for {
		part, err := r.in.ReadSlice('\n')
		r.buf = append(r.buf, part...)
		switch {
		case len(r.buf) > longestRecord:
			return nil, errTooLong
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(r.buf) > 0:
			return r.buf, nil
		case err != nil:
			return nil, err
		}
		return r.buf, nil
	}
}

// object reads the members of the one object that text is.
func object(text []byte, set func(string, Cell) error) error {
	if !utf8.Valid(text) {
		return errNotUTF8
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errNotObject
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return jsonError(err)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return jsonError(err)
		}
		key, _ := name.(string)
		cell, err := jsonCell(raw)
		if err != nil {
			return &columnError{key, err}
		}
		if err := set(key, cell); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return jsonError(err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errNotObject
	}
	return nil
}

// jsonError tells where, and not what: the library's errors repeat the input.
func jsonError(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("broken JSON at byte %d of the line", syntax.Offset)
	}
	return errors.New("broken JSON: the line is cut off")
}

// jsonCell is a JSON value as PostgreSQL would be given it: strings as they are, numbers with all their digits, what is nested
// in the form of jsonb.
func jsonCell(raw json.RawMessage) (Cell, error) {
	switch raw[0] {
	case 'n':
		return Cell{Null: true}, nil
	case '"':
		if loneSurrogate(raw) {
			return Cell{}, errSurrogate
		}
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return Cell{}, jsonError(err)
		}
		return textCell([]byte(s))
	case '{', '[':
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		var v any
		if err := d.Decode(&v); err != nil {
			return Cell{}, jsonError(err)
		}
		text, err := appendJSONB(nil, v)
		return Cell{Text: string(text)}, err
	}
	return Cell{Text: string(raw)}, nil
}

var errSurrogate = errors.New(`half a surrogate pair (\ud800 to \udfff by itself), which is no character`)

// loneSurrogate tells whether a JSON string has an escape that the library would silently replace.
func loneSurrogate(raw []byte) bool {
	pending := false // a high half came just before
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' || i+1 >= len(raw) {
			if pending {
				return true
			}
			continue
		}
		i++
		half := raw[i] == 'u' && i+2 < len(raw) && (raw[i+1] == 'd' || raw[i+1] == 'D')
		low := half && strings.IndexByte("cdefCDEF", raw[i+2]) >= 0
		high := half && strings.IndexByte("89abAB", raw[i+2]) >= 0
		if low != pending {
			return true
		}
		pending = high
		if raw[i] == 'u' {
			i += 4
		}
	}
	return pending
}

// appendJSONB writes a value as PostgreSQL prints jsonb: keys by length, then by their bytes; a space after colon and comma.
func appendJSONB(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return fmt.Appendf(dst, "%t", v), nil
	case json.Number:
		n, err := plainNumber(string(v))
		return append(dst, n...), err
	case string:
		return appendJSONString(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			if dst, err = appendJSONB(dst, e); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		return appendObject(dst, v)
	}
	return dst, errNotObject
}

func appendObject(dst []byte, m map[string]any) ([]byte, error) {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	dst = append(dst, '{')
	var err error
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		if dst, err = appendJSONString(dst, k); err != nil {
			return dst, err
		}
		if dst, err = appendJSONB(append(dst, ": "...), m[k]); err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

func appendJSONString(dst []byte, s string) ([]byte, error) {
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == 0:
			return dst, errNul
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			if at := strings.IndexByte("\b\f\n\r\t", c); at >= 0 {
				dst = append(dst, '\\', "bfnrt"[at])
			} else {
				dst = fmt.Appendf(dst, `\u%04x`, c)
			}
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"'), nil
}

// widestExponent bounds what a number with an exponent may be written out to.
const widestExponent = 400

var errNumber = errors.New("this is not a number that PostgreSQL's numeric can be given")

// plainNumber writes a JSON number without exponent, all digits kept.
func plainNumber(text string) (string, error) {
	mantissa, exponent, ok := strings.Cut(strings.ToLower(text), "e")
	if !ok {
		if strings.Trim(text, "-0.") == "" { // PostgreSQL's numeric knows no negative zero
			text = strings.TrimPrefix(text, "-")
		}
		return text, nil
	}
	e, fine := new(big.Int).SetString(exponent, 10)
	if !fine || !e.IsInt64() || e.Int64() > widestExponent || e.Int64() < -widestExponent || !digitsOnly(mantissa) {
		return "", errNumber
	}
	neg := strings.HasPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(strings.TrimPrefix(mantissa, "-"), ".")
	point := len(whole) + int(e.Int64())
	digits := whole + fraction
	if point < 1 {
		digits, point = strings.Repeat("0", 1-point)+digits, 1
	}
	if point > len(digits) {
		digits += strings.Repeat("0", point-len(digits))
	}
	out := strings.TrimLeft(digits[:point], "0")
	if out == "" {
		out = "0"
	}
	if point < len(digits) {
		out += "." + digits[point:]
	}
	if neg && strings.Trim(out, "0.") != "" {
		out = "-" + out
	}
	return out, nil
}

func digitsOnly(text string) bool {
	text = strings.TrimPrefix(text, "-")
	whole, fraction, point := strings.Cut(text, ".")
	if whole == "" || point && fraction == "" {
		return false
	}
	for _, c := range whole + fraction {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}
