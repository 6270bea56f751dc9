package plan

import (
	"fmt"
	"strings"
)

// statement is a part of a script that is run by itself.
type statement struct {
	text string
	at   int // its first byte in the script
}

// blank are the characters that PostgreSQL takes for white space.
const blank = " \t\r\n\v\f"

// split cuts a script at its semicolons, with an eye for comments, quotes and dollar quotes.
func split(script string) []statement {
	var out []statement
	start := 0
	flush := func(end int) {
		text := script[start:end]
		lead := leading(text)
		if text = strings.TrimRight(text[lead:], blank); text != "" {
			out = append(out, statement{text: text, at: start + lead})
		}
		start = end + 1
	}
	for i := 0; i < len(script); {
		if script[i] == ';' {
			flush(i)
			i++
			continue
		}
		n, _ := skip(script[i:], i > 0 && wordByte(script[i-1]))
		i += n
	}
	if start < len(script) {
		flush(len(script))
	}
	return out
}

// leading is the length of the white space and comments that a text begins with.
func leading(text string) int {
	at := 0
	for at < len(text) {
		n, comment := skip(text[at:], false)
		if !comment && strings.IndexByte(blank, text[at]) < 0 {
			break
		}
		at += n
	}
	return at
}

// withoutComments is a statement with a space for each comment.
func withoutComments(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); {
		n, comment := skip(text[i:], i > 0 && wordByte(text[i-1]))
		if comment {
			out.WriteByte(' ')
		} else {
			out.WriteString(text[i : i+n])
		}
		i += n
	}
	return out.String()
}

// skip is the length of what stands together at the start of a text: a comment, something in quotes, or one byte. inWord
// tells that a letter or digit comes before.
func skip(s string, inWord bool) (n int, comment bool) {
	switch {
	case strings.HasPrefix(s, "--"):
		return until(s, "\n", 2), true
	case strings.HasPrefix(s, "/*"):
		return nestedComment(s), true
	case s[0] == '\'' || s[0] == '"':
		return until(s, s[:1], 1), false // a doubled quote is two texts in a row
	case !inWord && (s[0] == 'e' || s[0] == 'E') && strings.HasPrefix(s[1:], "'"):
		return escaped(s), false
	case s[0] == '$' && !inWord:
		if tag := dollarTag(s); tag != "" {
			return until(s, tag, len(tag)), false
		}
	}
	return 1, false
}

// until is the length up to and including the next end after from; all, if there is none.
func until(s, end string, from int) int {
	if i := strings.Index(s[from:], end); i >= 0 {
		return from + i + len(end)
	}
	return len(s)
}

func nestedComment(s string) int {
	depth := 0
	for i := 0; i+1 < len(s); i++ {
		switch s[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
		}
		if depth == 0 {
			return i + 1
		}
	}
	return len(s)
}

// escaped is the length of a text in which a backslash takes the next character.
func escaped(s string) int {
	for i := 2; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '\'':
			return i + 1
		}
	}
	return len(s)
}

// dollarTag is the $tag$ that a text begins with.
func dollarTag(s string) string {
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '$':
			return s[:i+1]
		case !wordByte(s[i]) || i == 1 && s[i] >= '0' && s[i] <= '9':
			return ""
		}
	}
	return ""
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// fate is what becomes of a statement.
type fate uint8

const (
	run fate = iota
	pass
	refuse
)

// judge looks at a statement's first words: what only grants or comments is passed over, what would reach beyond the
// scratch database is refused.
func (s statement) judge() fate {
	words := strings.Fields(strings.ToUpper(withoutComments(s.text)))
	words = append(words, "", "")
	first, second := words[0], words[1]
	switch first {
	case "GRANT", "REVOKE", "COMMENT", "VACUUM", "ANALYZE", "SECURITY":
		return pass
	case "CREATE", "ALTER", "DROP":
		switch second {
		case "DATABASE", "ROLE", "USER", "GROUP", "TABLESPACE", "SYSTEM", "SUBSCRIPTION", "SERVER":
			return refuse
		}
	case "COPY", "LISTEN", "NOTIFY", "CHECKPOINT", "LOAD", "DO", "CALL":
		return refuse
	}
	if first == "ALTER" && len(words) > 6 && words[len(words)-5] == "OWNER" {
		return pass
	}
	return run
}

// place is where a byte of the script is, for people.
func place(script string, at int) string {
	at = min(at, len(script))
	line := strings.Count(script[:at], "\n") + 1
	column := len([]rune(script[strings.LastIndexByte(script[:at], '\n')+1:at])) + 1
	return fmt.Sprintf("line %d, column %d", line, column)
}
