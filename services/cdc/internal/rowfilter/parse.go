// Package rowfilter decides which rows of a table are captured: a small language of comparisons on columns, evaluated on
// PostgreSQL's text of a row, with SQL's logic of three values. It does no I/O, and no error of it repeats a value.
//
//	expression = expression OR expression | expression AND expression | NOT expression | ( expression ) | test
//	test       = column = literal            also <> != < <= > >=
//	           | column [NOT] IN (literal, …)
//	           | column IS [NOT] NULL
//	literal    = 12.50 | 'text' | true | false
//
// A column's name is folded to lower case unless it stands in double quotes. A number compares numerically, a text byte by
// byte: dates and times, which are text here, compare rightly from year 1 to 9999 when written as PostgreSQL writes them.
package rowfilter

import (
	"fmt"
	"slices"
	"strings"
)

// maxDepth bounds the nesting of an expression.
const maxDepth = 64

// Filter is a parsed expression. It is immutable and safe for concurrent use.
type Filter struct {
	text    string
	root    node
	columns []string
}

// String is the expression as it was written.
func (f *Filter) String() string { return f.text }

// Columns are the names of the columns that the expression reads, each once.
func (f *Filter) Columns() []string { return slices.Clone(f.columns) }

// node is a part of an expression.
type node struct {
	kind   nodeKind
	column string
	op     string    // of a comparison
	values []literal // one of a comparison, any number of a list
	parts  []node
}

type nodeKind uint8

const (
	both nodeKind = iota
	either
	negated
	comparison
	list
	isNull
)

type literalKind uint8

const (
	textLiteral literalKind = iota
	numberLiteral
	boolLiteral
)

type literal struct {
	kind literalKind
	text string // of a boolean: t or f, as PostgreSQL writes it
}

// Parse reads an expression. An error names the character, counted from 1, where it stops making sense.
func Parse(text string) (*Filter, error) {
	p := &parser{text: text}
	p.next()
	root, err := p.any(0)
	if err == nil && p.token.kind != endToken {
		err = p.expected("and, or, or the end")
	}
	if err != nil {
		return nil, err
	}
	return &Filter{text: text, root: root, columns: p.columns}, nil
}

type parser struct {
	text    string
	at      int
	token   token
	columns []string
}

type tokenKind uint8

const (
	endToken tokenKind = iota
	badToken
	nameToken   // a column, or a word of the language
	quotedToken // a column in double quotes
	textToken
	numberToken
	signToken
)

type token struct {
	kind tokenKind
	text string
	at   int
}

func (p *parser) expected(what string) error {
	if p.token.kind == badToken {
		return fmt.Errorf("at character %d: %s", p.token.at+1, p.token.text)
	}
	return fmt.Errorf("at character %d: expected %s", p.token.at+1, what)
}

func (p *parser) word(w string) bool { return p.token.kind == nameToken && p.token.text == w }

func (p *parser) sign(s string) bool { return p.token.kind == signToken && p.token.text == s }

// any is a chain of OR.
func (p *parser) any(depth int) (node, error) { return p.chain(depth, "or", either, p.all) }

// all is a chain of AND.
func (p *parser) all(depth int) (node, error) { return p.chain(depth, "and", both, p.one) }

func (p *parser) chain(depth int, word string, kind nodeKind, part func(int) (node, error)) (node, error) {
	first, err := part(depth)
	if err != nil || !p.word(word) {
		return first, err
	}
	out := node{kind: kind, parts: []node{first}}
	for p.word(word) {
		p.next()
		n, err := part(depth)
		if err != nil {
			return n, err
		}
		out.parts = append(out.parts, n)
	}
	return out, nil
}

func (p *parser) one(depth int) (node, error) {
	if depth > maxDepth {
		return node{}, fmt.Errorf("at character %d: nested deeper than %d", p.token.at+1, maxDepth)
	}
	switch {
	case p.word("not"):
		p.next()
		n, err := p.one(depth + 1)
		return node{kind: negated, parts: []node{n}}, err
	case p.sign("("):
		p.next()
		n, err := p.any(depth + 1)
		if err == nil && !p.sign(")") {
			err = p.expected("a closing parenthesis")
		}
		p.next()
		return n, err
	}
	return p.test()
}

func (p *parser) test() (node, error) {
	if p.token.kind != quotedToken && (p.token.kind != nameToken || reserved(p.token.text)) {
		return node{}, p.expected("a column")
	}
	column := p.token.text
	if !slices.Contains(p.columns, column) {
		p.columns = append(p.columns, column)
	}
	p.next()
	switch {
	case p.token.kind == signToken && isComparison(p.token.text):
		op := p.token.text
		if op == "!=" {
			op = "<>"
		}
		p.next()
		v, err := p.literal()
		return node{kind: comparison, column: column, op: op, values: []literal{v}}, err
	case p.word("is"):
		return p.null(column)
	case p.word("in"):
		return p.list(column)
	case p.word("not"):
		p.next()
		if !p.word("in") {
			return node{}, p.expected("in")
		}
		n, err := p.list(column)
		return node{kind: negated, parts: []node{n}}, err
	}
	return node{}, p.expected("a comparison, in, or is null")
}

func (p *parser) null(column string) (node, error) {
	p.next()
	n := node{kind: isNull, column: column}
	if p.word("not") {
		n = node{kind: negated, parts: []node{n}}
		p.next()
	}
	if !p.word("null") {
		return n, p.expected("null")
	}
	p.next()
	return n, nil
}

func (p *parser) list(column string) (node, error) {
	p.next()
	n := node{kind: list, column: column}
	if !p.sign("(") {
		return n, p.expected("a list in parentheses")
	}
	for {
		p.next()
		v, err := p.literal()
		if err != nil {
			return n, err
		}
		n.values = append(n.values, v)
		if p.sign(")") {
			p.next()
			return n, nil
		}
		if !p.sign(",") {
			return n, p.expected("a comma or a closing parenthesis")
		}
	}
}

func (p *parser) literal() (literal, error) {
	t := p.token
	switch {
	case t.kind == textToken:
		p.next()
		return literal{textLiteral, t.text}, nil
	case t.kind == numberToken:
		p.next()
		return literal{numberLiteral, t.text}, nil
	case p.word("true"), p.word("false"):
		p.next()
		return literal{boolLiteral, t.text[:1]}, nil
	case p.word("null"):
		return literal{}, fmt.Errorf("at character %d: nothing equals null; write IS NULL", t.at+1)
	}
	return literal{}, p.expected("a number, a text in single quotes, true or false")
}

func isComparison(s string) bool {
	return slices.Contains([]string{"=", "<>", "!=", "<", "<=", ">", ">="}, s)
}

func reserved(word string) bool {
	return slices.Contains([]string{"and", "or", "not", "in", "is", "null", "true", "false"}, word)
}

// next reads a token.
func (p *parser) next() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
	start := p.at
	p.token = token{at: start}
	if start == len(p.text) {
		return
	}
	c := p.text[start]
	switch {
	case c == '\'' || c == '"':
		p.quoted(c)
	case c >= '0' && c <= '9' || c == '-':
		p.number()
	case letter(c):
		for p.at < len(p.text) && (letter(p.text[p.at]) || p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '$') {
			p.at++
		}
		p.token.kind, p.token.text = nameToken, strings.ToLower(p.text[start:p.at])
	default:
		p.at++
		if p.at < len(p.text) && isComparison(p.text[start:p.at+1]) {
			p.at++
		}
		p.token.kind, p.token.text = signToken, p.text[start:p.at]
	}
}

func letter(c byte) bool {
	return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// quoted reads a text or a name in quotes; the quote is doubled within.
func (p *parser) quoted(quote byte) {
	var out []byte
	for p.at++; p.at < len(p.text); p.at++ {
		if p.text[p.at] != quote {
			out = append(out, p.text[p.at])
			continue
		}
		if p.at+1 < len(p.text) && p.text[p.at+1] == quote {
			out = append(out, quote)
			p.at++
			continue
		}
		p.at++
		p.token.text = string(out)
		if p.token.kind = textToken; quote == '"' {
			p.token.kind = quotedToken
		}
		return
	}
	p.token.kind, p.token.text = badToken, "a quote that is not closed"
}

// number reads digits with a sign and a point; the text is in the form that compare takes.
func (p *parser) number() {
	start := p.at
	for p.at++; p.at < len(p.text) && (p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '.'); p.at++ {
	}
	p.token.kind, p.token.text = numberToken, p.text[start:p.at]
	if _, ok := parseNumber([]byte(p.token.text)); !ok || p.at < len(p.text) && letter(p.text[p.at]) {
		p.token.kind, p.token.text = badToken, "this is no number; write digits, with a point if need be"
	}
}
