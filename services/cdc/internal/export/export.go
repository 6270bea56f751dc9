// Package export reads a store's file export: CSV or NDJSON files, some of them compressed, in a directory or a bucket.
// Whatever is wrong with a file is an error that names file, line and column, and never the value.
package export

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Store is where the files are. Names use slashes.
type Store interface {
	// List names all files.
	List(ctx context.Context) ([]string, error)
	// Open begins to read a file.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// Error is what is wrong, and where.
type Error struct {
	File   string
	Line   int    // from 1; 0 if it is not about a line
	Column string // "" if it is not about a column
	Err    error
}

func (e *Error) Error() string {
	out := e.File
	if e.Line > 0 {
		out = fmt.Sprintf("%s, line %d", out, e.Line)
	}
	if e.Column != "" {
		out += fmt.Sprintf(", column %s", e.Column)
	}
	return out + ": " + e.Err.Error()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

type columnError struct {
	column string
	err    error
}

func (e *columnError) Error() string { return "column " + e.column + ": " + e.err.Error() }

// format of a file, by its name.
type format struct {
	json, gzip bool
	stem       string // the name without folder and endings
}

func formatOf(name string) (format, bool) {
	f := format{stem: path.Base(name)}
	f.stem, f.gzip = strings.CutSuffix(f.stem, ".gz")
	for _, ending := range []string{".csv", ".ndjson", ".jsonl", ".json"} {
		if stem, ok := strings.CutSuffix(f.stem, ending); ok {
			f.stem, f.json = stem, ending != ".csv"
			return f, true
		}
	}
	return f, false
}

// Assign says which files belong to which of the tables, named schema.table: those that are called so, or so and then '.',
// '-' or '_' and more; of several tables the one with the longest name. Files of other kinds do not count. A file of
// no table is an error, for its table may be called wrongly.
func Assign(names, tables []string) (map[string][]string, error) {
	out := map[string][]string{}
	var strays []string
	for _, name := range slices.Sorted(slices.Values(names)) {
		f, ok := formatOf(name)
		if !ok {
			continue
		}
		best := ""
		for _, t := range tables {
			rest, begins := strings.CutPrefix(f.stem, t)
			if begins && len(t) > len(best) && (rest == "" || strings.ContainsAny(rest[:1], ".-_")) {
				best = t
			}
		}
		if best == "" {
			strays = append(strays, name)
			continue
		}
		out[best] = append(out[best], name)
	}
	if len(strays) > 0 {
		return nil, fmt.Errorf("no captured table is called as these files are: %s; a file is called <schema>.<table>*.csv, .ndjson or .json, with .gz if compressed",
			strings.Join(strays[:min(5, len(strays))], ", "))
	}
	return out, nil
}

// Read reads one file of a table to its end. visit is called for each row with its line and its values in PostgreSQL's text
// form, in the order of the table's columns; both the row and what it points to are overwritten by the next. Errors but
// those of visit and of ctx wrap *Error.
func Read(ctx context.Context, store Store, name string, table rows.Table, visit func(line int, row []pgoutput.Datum) error) error {
	f, ok := formatOf(name)
	if !ok {
		return &Error{File: name, Err: errors.New("this is neither .csv nor .ndjson nor .json")}
	}
	in, err := store.Open(ctx, name)
	if err != nil {
		return &Error{File: name, Err: err}
	}
	defer in.Close()
	r := &fileReader{ctx: ctx, name: name, table: table, selected: table.Selected(), visit: visit, row: make([]pgoutput.Datum, len(table.Columns))}
	var body io.Reader = in
	if f.gzip {
		unzip, err := gzip.NewReader(in)
		if err != nil {
			return r.fault(0, "", damaged(err))
		}
		defer unzip.Close()
		body = unzip
	}
	text := bufio.NewReaderSize(body, 64<<10)
	if mark, err := text.Peek(3); err == nil && bytes.Equal(mark, []byte("\xef\xbb\xbf")) {
		_, _ = text.Discard(3) // they are there
	}
	if f.json {
		return r.ndjson(text)
	}
	return r.csv(text)
}

// damaged says what a compressed file that ends early is.
func damaged(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return errors.New("the file is cut off")
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum):
		return errors.New("the compressed file is damaged, or is no gzip file")
	}
	return err
}

type fileReader struct {
	ctx      context.Context
	name     string
	table    rows.Table
	selected []string
	visit    func(int, []pgoutput.Datum) error
	row      []pgoutput.Datum
	count    int
}

func (r *fileReader) fault(line int, column string, err error) error {
	var c *columnError
	if errors.As(err, &c) {
		column, err = c.column, c.err
	}
	return &Error{File: r.name, Line: line, Column: column, Err: err}
}

// column is the table's column that a file calls so, as the source or as Avro does; -1 if there is none.
func (r *fileReader) column(name string) int {
	at := slices.IndexFunc(r.table.Columns, func(c rows.Column) bool { return c.Name == name })
	if at < 0 {
		at = slices.IndexFunc(r.table.Columns, func(c rows.Column) bool { return c.Field == name })
	}
	return at
}

var (
	errUnknownColumn = errors.New("the table has no such column")
	errTwice         = errors.New("the column is there twice")
	errMissing       = errors.New("the column is missing")
)

func (r *fileReader) csv(text io.Reader) error {
	in := newCSV(text)
	header, line, err := in.next(nil)
	if errors.Is(err, io.EOF) {
		return r.fault(0, "", errors.New("the file is empty; the first line names the columns"))
	}
	if err != nil {
		return r.fault(line, "", damaged(err))
	}
	order, err := r.header(header)
	if err != nil {
		return r.fault(line, "", err)
	}
	cells := make([]Cell, 0, len(order))
	for {
		cells, line, err = in.next(cells)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && len(cells) < len(order):
			return r.fault(line, r.table.Columns[order[len(cells)]].Name, damaged(err))
		case err != nil:
			return r.fault(line, "", damaged(err))
		case len(cells) != len(order):
			return r.fault(line, "", fmt.Errorf("%d values, and the first line names %d columns", len(cells), len(order)))
		}
		for i, c := range cells {
			if err := r.set(order[i], c); err != nil {
				return r.fault(line, "", err)
			}
		}
		if err := r.give(line); err != nil {
			return err
		}
	}
}

// header says which column each value of a line is of.
func (r *fileReader) header(names []Cell) (order []int, err error) {
	for _, n := range names {
		at := r.column(n.Text)
		switch {
		case at < 0:
			return nil, &columnError{n.Text, errUnknownColumn}
		case slices.Contains(order, at):
			return nil, &columnError{n.Text, errTwice}
		}
		order = append(order, at)
	}
	for i, c := range r.table.Columns {
		if !slices.Contains(order, i) && !r.absent(i) {
			return nil, &columnError{c.Name, errMissing}
		}
	}
	return order, nil
}

func (r *fileReader) ndjson(text io.Reader) error {
	in := newJSON(text)
	seen := make([]bool, len(r.row))
	set := func(name string, c Cell) error {
		at := r.column(name)
		switch {
		case at < 0:
			return &columnError{name, errUnknownColumn}
		case seen[at] && !r.absent(at):
			return &columnError{name, errTwice}
		}
		seen[at] = true
		return r.set(at, c)
	}
	for {
		for i := range seen {
			seen[i] = r.absent(i)
			r.row[i] = pgoutput.Datum{Kind: pgoutput.Null}
		}
		line, err := in.next(set)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return r.fault(line, "", damaged(err))
		}
		if at := slices.Index(seen, false); at >= 0 {
			return r.fault(line, r.table.Columns[at].Name, fmt.Errorf("%w; write null if that is what it is", errMissing))
		}
		if err := r.give(line); err != nil {
			return err
		}
	}
}

// absent tells whether a file need not have a column: one that is not written, nor read by the row filter.
func (r *fileReader) absent(at int) bool {
	return !slices.Contains(r.selected, r.table.Columns[at].Name)
}

// set puts a value in the row, in PostgreSQL's form.
func (r *fileReader) set(at int, c Cell) error {
	column := r.table.Columns[at]
	if c.Null {
		if column.Key {
			return &columnError{column.Name, errors.New("a column of the key is null")}
		}
		r.row[at] = pgoutput.Datum{Kind: pgoutput.Null}
		return nil
	}
	text, err := valueText(column, c.Text)
	if err != nil {
		return &columnError{column.Name, err}
	}
	r.row[at] = pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(text)}
	return nil
}

func (r *fileReader) give(line int) error {
	if r.count++; r.count%1024 == 0 && r.ctx.Err() != nil {
		return r.ctx.Err()
	}
	return r.visit(line, r.row)
}

// directory is a Store.
type directory struct{ root *os.Root }

// OpenDirectory is the store of a directory and what is below it. Close it.
func OpenDirectory(dir string) (interface {
	Store
	io.Closer
}, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the export: %w", err)
	}
	return directory{root}, nil
}

func (d directory) Close() error { return d.root.Close() }

func (d directory) List(ctx context.Context) ([]string, error) {
	var out []string
	err := fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		if err == nil && !e.IsDir() {
			out = append(out, name)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list the export: %w", err)
	}
	return out, nil
}

func (d directory) Open(_ context.Context, name string) (io.ReadCloser, error) {
	return d.root.Open(name)
}
