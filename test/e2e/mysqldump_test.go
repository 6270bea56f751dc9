//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

var insertStatement = regexp.MustCompile("(?i)^insert\\s+into\\s+`(\\w+)`\\(([^)]*)\\)\\s+values\\s*")

// loadDump copies the rows of a MySQL dump into tables that exist already, in the order given. Names become lower case.
func loadDump(t testing.TB, p *pgxpool.Pool, path string, tables ...string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	type block struct {
		columns []string
		rows    [][]any
	}
	blocks := map[string]*block{}
	rest := string(text)
	for {
		at := strings.Index(rest, "insert ")
		if at < 0 {
			break
		}
		rest = rest[at:]
		m := insertStatement.FindStringSubmatch(rest)
		if m == nil {
			rest = rest[len("insert "):]
			continue
		}
		name := strings.ToLower(m[1])
		b := blocks[name]
		if b == nil {
			b = &block{columns: strings.Split(strings.ToLower(strings.ReplaceAll(m[2], "`", "")), ",")}
			blocks[name] = b
		}
		var rows [][]any
		rows, rest, err = parseTuples(rest[len(m[0]):])
		if err != nil {
			t.Fatalf("table %s: %v", name, err)
		}
		b.rows = append(b.rows, rows...)
	}
	for _, name := range tables {
		b := blocks[name]
		if b == nil {
			t.Fatalf("the dump has no table %s", name)
		}
		insertAll(t, p, name, b.columns, b.rows)
	}
}

// insertAll lets PostgreSQL read each value's text as the column's type.
func insertAll(t testing.TB, p *pgxpool.Pool, table string, columns []string, rows [][]any) {
	t.Helper()
	params := make([]string, len(columns))
	for i := range params {
		params[i] = fmt.Sprintf("$%d", i+1)
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ","), strings.Join(params, ","))
	tx, err := p.Begin(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if _, err := tx.Exec(context.Background(), sql, append([]any{pgx.QueryExecModeSimpleProtocol}, r...)...); err != nil {
			t.Fatalf("table %s: %v", table, err)
		}
	}
	if err := tx.Commit(context.Background()); err != nil {
		t.Fatal(err)
	}
}

// escapes are MySQL's; every other letter after a backslash stands for itself.
var escapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t'}

// parseTuples reads "(…),(…);" with MySQL's escapes and returns what follows.
func parseTuples(s string) (rows [][]any, rest string, err error) {
	var row []any
	var value strings.Builder
	inRow, quoted, wasQuoted := false, false, false
	flush := func() {
		text := value.String()
		value.Reset()
		if !wasQuoted && strings.EqualFold(strings.TrimSpace(text), "null") {
			row = append(row, nil)
		} else if wasQuoted {
			row = append(row, text)
		} else {
			row = append(row, strings.TrimSpace(text))
		}
		wasQuoted = false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quoted && c == '\\' && i+1 < len(s):
			i++
			if special, ok := escapes[s[i]]; ok {
				value.WriteByte(special)
			} else {
				value.WriteByte(s[i])
			}
		case quoted && c == '\'' && i+1 < len(s) && s[i+1] == '\'':
			i++
			value.WriteByte('\'')
		case quoted && c == '\'':
			quoted = false
		case quoted:
			value.WriteByte(c)
		case c == '\'':
			quoted, wasQuoted = true, true
		case c == '(' && !inRow:
			inRow = true
		case c == ',' && inRow:
			flush()
		case c == ')' && inRow:
			flush()
			rows = append(rows, row)
			row, inRow = nil, false
		case c == ';' && !inRow:
			return rows, s[i+1:], nil
		case inRow && !wasQuoted:
			value.WriteByte(c)
		}
	}
	return nil, "", fmt.Errorf("a statement has no end")
}
