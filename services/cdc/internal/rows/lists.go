package rows

import "bytes"

// list takes an array of one dimension, whose elements are written by elem. More dimensions, and lower bounds other than
// 1, do not fit: a list would not tell them.
func list(delimiter byte, elem appendFunc) appendFunc {
	return func(dst, text []byte) ([]byte, error) {
		count, ok := countElements(text, delimiter)
		if !ok {
			return dst, ErrDoesNotFit
		}
		if count == 0 {
			return append(dst, 0), nil
		}
		dst = appendLong(dst, int64(count))
		rest := text[1:]
		for range count {
			var e element
			e, rest, _ = nextElement(rest, delimiter)
			rest = rest[1:] // the delimiter, or the end
			if e.null {
				dst = append(dst, 0)
				continue
			}
			var err error
			if dst, err = elem(append(dst, 2), e.value()); err != nil {
				return dst, err
			}
		}
		return append(dst, 0), nil
	}
}

// countElements counts the elements of an array's text; false if it is not one of a single dimension.
func countElements(text []byte, delimiter byte) (int, bool) {
	if len(text) < 2 || text[0] != '{' {
		return 0, false
	}
	if string(text) == "{}" {
		return 0, true
	}
	rest := text[1:]
	for count := 1; ; count++ {
		var ok bool
		if _, rest, ok = nextElement(rest, delimiter); !ok || len(rest) == 0 {
			return 0, false
		}
		if rest[0] == '}' {
			return count, len(rest) == 1
		}
		rest = rest[1:]
	}
}

// element is one element's text.
type element struct {
	text    []byte
	escaped bool // it has backslashes to be taken off
	null    bool
}

// value is the element's own text. Only one with escapes is copied: the text may be read again.
func (e element) value() []byte {
	if !e.escaped {
		return e.text
	}
	out := make([]byte, 0, len(e.text))
	for i := 0; i < len(e.text); i++ {
		if e.text[i] == '\\' {
			i++ // quoted has seen that something follows
		}
		out = append(out, e.text[i])
	}
	return out
}

// nextElement reads an element up to the delimiter or the closing brace, with which rest begins.
func nextElement(text []byte, delimiter byte) (e element, rest []byte, ok bool) {
	if len(text) > 0 && text[0] == '"' {
		return quoted(text)
	}
	for i, c := range text {
		switch c {
		case delimiter, '}':
			e.text = text[:i]
			e.null = string(e.text) == "NULL"
			return e, text[i:], i > 0
		case '{', '"', '\\':
			return e, nil, false
		}
	}
	return e, nil, false
}

// quoted reads a text in double quotes, in which a backslash takes the next byte as it is.
func quoted(text []byte) (e element, rest []byte, ok bool) {
	if len(text) == 0 || text[0] != '"' {
		return e, nil, false
	}
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			e.escaped = true
			i++
		case '"':
			e.text = text[1:i]
			return e, text[i+1:], true
		}
	}
	return e, nil, false
}

// appendHstore writes a map of nullable strings from hstore's text: "key"=>"value", "other"=>NULL.
func appendHstore(dst, text []byte) ([]byte, error) {
	count := 0
	for rest := text; len(rest) > 0; count++ {
		var ok bool
		if _, _, rest, ok = nextPair(rest); !ok {
			return dst, ErrDoesNotFit
		}
	}
	if count == 0 {
		return append(dst, 0), nil
	}
	dst = appendLong(dst, int64(count))
	for rest := text; len(rest) > 0; {
		var key, value element
		key, value, rest, _ = nextPair(rest)
		var err error
		if dst, err = appendText(dst, key.value()); err != nil {
			return dst, err
		}
		if value.null {
			dst = append(dst, 0)
			continue
		}
		if dst, err = appendText(append(dst, 2), value.value()); err != nil {
			return dst, err
		}
	}
	return append(dst, 0), nil
}

func nextPair(text []byte) (key, value element, rest []byte, ok bool) {
	key, rest, ok = quoted(text)
	if !ok || !bytes.HasPrefix(rest, []byte("=>")) {
		return key, value, nil, false
	}
	rest = rest[2:]
	if bytes.HasPrefix(rest, []byte("NULL")) {
		value.null, rest = true, rest[4:]
	} else if value, rest, ok = quoted(rest); !ok {
		return key, value, nil, false
	}
	if len(rest) == 0 {
		return key, value, nil, true
	}
	if !bytes.HasPrefix(rest, []byte(", ")) || len(rest) == 2 {
		return key, value, nil, false
	}
	return key, value, rest[2:], true
}

// appendVector writes pgvector's "[1,2.5]" as a list of floats, none of which is null.
func appendVector(dst, text []byte) ([]byte, error) {
	if len(text) < 2 || text[0] != '[' || text[len(text)-1] != ']' {
		return dst, ErrDoesNotFit
	}
	text = text[1 : len(text)-1]
	if len(text) == 0 {
		return append(dst, 0), nil
	}
	dst = appendLong(dst, int64(bytes.Count(text, []byte{','})+1))
	for more := true; more; {
		var number []byte
		number, text, more = bytes.Cut(text, []byte{','})
		var err error
		if dst, err = appendFloat4(dst, number); err != nil {
			return dst, err
		}
	}
	return append(dst, 0), nil
}
