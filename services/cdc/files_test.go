package cdc

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/app"
)

const manyRows = `INSERT INTO items SELECT i, 'a' || i, i * 1.125, i % 2 = 0, now(), 'b', '{"x": 1}' FROM generate_series(1, 500) i;
	INSERT INTO notes SELECT 'k', i, 'body' FROM generate_series(1, 20) i`

func snapshotMark(e event) any { return e.source()["snapshot"].(map[string]any)["string"] }

// export writes the tables as files, as a store's daily export does.
func (s *store) export(t testing.TB, dir string) {
	t.Helper()
	s.exec(t, "SET TimeZone = 'UTC'")
	for name, sql := range map[string]string{
		"public.items-1.csv": "COPY (SELECT * FROM items WHERE id < 200) TO STDOUT (FORMAT csv, HEADER)",
		"b/public.items.csv": "COPY (SELECT * FROM items WHERE id >= 200) TO STDOUT (FORMAT csv, HEADER)",
		"_SUCCESS":           "COPY (SELECT 1) TO STDOUT",
	} {
		var b bytes.Buffer
		if _, err := s.write.PgConn().CopyTo(t.Context(), &b, sql); err != nil {
			t.Fatal(err)
		}
		s.file(t, dir, name, b.String())
	}
	rs := s.write.PgConn().Exec(t.Context(), "SELECT row_to_json(notes) FROM notes")
	results, err := rs.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, row := range results[0].Rows {
		lines.Write(append(row[0], '\n'))
	}
	s.file(t, dir, "public.notes.ndjson", lines.String())
}

func (s *store) file(t testing.TB, dir, name, content string) {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// files runs ReconcileFiles.
func (s *store) files(t testing.TB, o FilesOptions) (string, error) {
	t.Helper()
	var out bytes.Buffer
	o.MaxDeletes = 0.5
	err := s.service(t).ReconcileFiles(t.Context(), &out, o)
	return out.String(), err
}

func filesInstead(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	dir := t.TempDir()
	if _, err := s.files(t, FilesOptions{From: dir}); !errors.Is(err, errNothingCaptured) {
		t.Error(err)
	}
	s.exec(t, manyRows)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	before := len(s.events(t, "items"))
	s.exec(t, `INSERT INTO items VALUES (901, '', NULL, NULL, '2024-02-29 12:00:00.5+02'); UPDATE items SET a = 'c "q", d' WHERE id IN (3, 4); DELETE FROM items WHERE id = 9;
		INSERT INTO notes VALUES ('é', 900, E'two\nlines')`)
	s.export(t, dir)
	out, err := s.files(t, FilesOptions{From: dir, DryRun: true, Keys: 10})
	if !errors.Is(err, app.ErrDifferences) || !strings.Contains(out, "1 missing, 2 different; deleted: 1") || !strings.Contains(out, "missing    id=901") ||
		!strings.Contains(out, "extra      id=9") || !strings.Contains(out, "missing    k=é m=900") {
		t.Errorf("%v: %s", err, out)
	}
	if n := len(s.events(t, "items")); n != before {
		t.Errorf("a dry run wrote %d records", n-before)
	}
	if out, err = s.files(t, FilesOptions{From: dir}); err != nil {
		t.Fatal(err, out)
	}
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
	s.matches(t, "notes", "k", "m", "body")
	events := s.events(t, "items")
	if n := len(events) - before; n != 5 {
		t.Errorf("%d records for 3 rows and a delete with its tombstone", n)
	}
	for _, e := range events {
		if e.value != nil && e.keyFields["id"] == int32(901) && (e.op() != "r" || snapshotMark(e) != markFiles) {
			t.Errorf("a row of a file has op %s, snapshot %v", e.op(), snapshotMark(e))
		}
	}
	if out, err := s.files(t, FilesOptions{From: dir, DryRun: true}); err != nil {
		t.Errorf("the same files again: %v: %s", err, out)
	}
	s.exec(t, "UPDATE items SET a = 'later' WHERE id = 10")
	p.standby.Sync(t)
	r = s.start(t)
	s.quiet(t, r)
	s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
}

// An export that is older than what was captured is put right by the source when it is there again.
func filesTooOld(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, manyRows)
	p.standby.Sync(t)
	dir := t.TempDir()
	s.export(t, dir)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "UPDATE items SET a = 'new' WHERE id < 5; DELETE FROM items WHERE id = 6; INSERT INTO items VALUES (903)")
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	if out, err := s.files(t, FilesOptions{From: dir}); err != nil {
		t.Fatal(err, out)
	}
	found, err := s.verify(t)
	if err == nil || found["items"].State != verifiedIncomplete {
		t.Errorf("%v: %+v", err, found["items"])
	}
}

func filesBad(t *testing.T, p *pair) {
	s := p.store(t, itemsTable)
	s.exec(t, manyRows)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	before := len(s.events(t, "items")) + len(s.events(t, "notes"))
	good := t.TempDir()
	s.exec(t, "UPDATE items SET a = 'x' WHERE id < 50")
	s.export(t, good)
	header := "id,a,n,ok,ts,big,j\n"
	for _, c := range []struct{ name, file, content, want string }{
		{"broken line", "public.notes.ndjson", "{\"k\":\"k\",\"m\":1,\"body\":\"b\"}\n{\"k\":", "public.notes.ndjson, line 2: broken JSON"},
		{"missing column", "public.items-2.csv", "id,a\n", "public.items-2.csv, line 1, column n: the column is missing"},
		{"duplicate key", "public.items-9.csv", header + "3,x,,,,,\n", "public.items-9.csv, line 2: the key id=3 is in public.items-1.csv, line "},
		{"does not fit", "public.items-2.csv", header + "x,x,,,,,\n", "public.items-2.csv, line 2: column id"},
		{"many deletes", "public.notes.ndjson", "", "public.notes: 20 of 20 rows are not in the files"},
		{"file of no table", "public.itemz.csv", header, "public.itemz.csv"},
	} {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(good)); err != nil {
			t.Fatal(err)
		}
		s.file(t, dir, c.file, c.content)
		if out, err := s.files(t, FilesOptions{From: dir}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
	}
	if out, err := s.files(t, FilesOptions{From: good, Tables: []string{"public.none"}}); err == nil {
		t.Errorf("a table that is not captured: %s", out)
	}
	if after := len(s.events(t, "items")) + len(s.events(t, "notes")); after != before {
		t.Errorf("%d records were written", after-before)
	}
}
