package intake

import (
	"bytes"
	"encoding/json"
	"iter"
)

// The functions of this file walk JSON that json.Valid has accepted, without building values. They do not recurse,
// so nesting costs nothing.

// members gives the members of an object: keys unquoted, values as JSON.
func members(object []byte) iter.Seq2[[]byte, []byte] {
	return func(yield func(key, value []byte) bool) {
		i := skipSpace(object, 1)
		for object[i] != '}' {
			end := valueEnd(object, i)
			key := unquoteBytes(object[i:end])
			i = skipSpace(object, end)
			i = skipSpace(object, i+1) // the colon
			end = valueEnd(object, i)
			if !yield(key, object[i:end]) {
				return
			}
			i = next(object, end)
		}
	}
}

// elements gives the elements of an array as JSON.
func elements(array []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i := skipSpace(array, 1)
		for array[i] != ']' {
			end := valueEnd(array, i)
			if !yield(array[i:end]) {
				return
			}
			i = next(array, end)
		}
	}
}

// next is where the following member or element, or the closing bracket, begins.
func next(b []byte, end int) int {
	i := skipSpace(b, end)
	if b[i] == ',' {
		i = skipSpace(b, i+1)
	}
	return i
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

func trimSpace(b []byte) []byte { return bytes.Trim(b, " \n\t\r") }

// valueEnd is the end of the value that begins at i.
func valueEnd(b []byte, i int) int {
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '{', '[':
		depth := 0
		for {
			switch b[i] {
			case '"':
				i = stringEnd(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			i++
			if depth == 0 {
				return i
			}
		}
	}
	for i < len(b) {
		switch b[i] {
		case ',', '}', ']', ' ', '\n', '\t', '\r':
			return i
		}
		i++
	}
	return i
}

func stringEnd(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquoteBytes is the text of a JSON string; without escapes it is a part of the input.
func unquoteBytes(quoted []byte) []byte {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return inner // cannot be: the input is valid JSON
	}
	return []byte(s)
}
