package registry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/sr"
)

const (
	v1        = `{"type":"record","name":"r","fields":[{"name":"a","type":"string"}]}`
	v1spaced  = `{ "name": "r", "type": "record", "fields": [ { "type": {"type":"string"}, "name": "a" } ] }`
	v2        = `{"type":"record","name":"r","fields":[{"name":"a","type":"string"},{"name":"b","type":"int","default":0}]}`
	v2default = `{"type":"record","name":"r","fields":[{"name":"a","type":"string"},{"name":"b","type":"int","default":1}]}`
	required  = `{"type":"record","name":"r","fields":[{"name":"a","type":"string"},{"name":"b","type":"int"}]}`
)

func serve(t *testing.T, h http.Handler) (*sr.Client, string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	cl, err := sr.NewClient(sr.URLs(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	return cl, s.URL
}

func open(t *testing.T, dir string) *Registry {
	t.Helper()
	r, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func register(t *testing.T, cl *sr.Client, subject, text string) int {
	t.Helper()
	id, err := cl.RegisterSchema(t.Context(), subject, sr.Schema{Schema: text}, -1, -1)
	if err != nil {
		t.Fatalf("register %s: %v", subject, err)
	}
	return id
}

// code is Confluent's code of an error, 0 for none.
func code(err error) int {
	var re *sr.ResponseError
	if errors.As(err, &re) {
		return re.ErrorCode
	}
	if err != nil {
		return -1
	}
	return 0
}

func TestRegisterAndRead(t *testing.T) {
	cl, _ := serve(t, NewMemory())
	ctx := t.Context()
	id := register(t, cl, "topic/with slash-value", v1)
	if again := register(t, cl, "topic/with slash-value", v1spaced); again != id {
		t.Errorf("the same schema in another layout has id %d, want %d", again, id)
	}
	if other := register(t, cl, "other-value", v1); other != id {
		t.Errorf("under another subject it has id %d, want %d", other, id)
	}
	id2 := register(t, cl, "other-value", v2)
	if id2 == id || register(t, cl, "other-value", v2default) == id2 {
		t.Error("schemas that differ by a field or a default share an id")
	}
	if s, err := cl.SchemaByID(ctx, id2); err != nil || s.Schema != v2 {
		t.Errorf("by id: %q, %v", s.Schema, err)
	}
	if s, err := cl.SchemaByVersion(ctx, "other-value", 2); err != nil || s.ID != id2 || s.Version != 2 || s.Subject != "other-value" {
		t.Errorf("by version: %+v, %v", s, err)
	}
	if s, err := cl.SchemaByVersion(ctx, "other-value", -1); err != nil || s.Version != 3 {
		t.Errorf("latest: %+v, %v", s, err)
	}
	if text, err := cl.SchemaTextByVersion(ctx, "other-value", 1); err != nil || text != v1 {
		t.Errorf("text: %q, %v", text, err)
	}
	if s, err := cl.LookupSchema(ctx, "other-value", sr.Schema{Schema: v2}); err != nil || s.Version != 2 {
		t.Errorf("look-up: %+v, %v", s, err)
	}
	if subs, err := cl.Subjects(ctx); err != nil || !reflect.DeepEqual(subs, []string{"other-value", "topic/with slash-value"}) {
		t.Errorf("subjects %v, %v", subs, err)
	}
	if vs, err := cl.SubjectVersions(ctx, "other-value"); err != nil || !reflect.DeepEqual(vs, []int{1, 2, 3}) {
		t.Errorf("versions %v, %v", vs, err)
	}
	if vs, err := cl.SchemaVersionsByID(ctx, id); err != nil || len(vs) != 2 {
		t.Errorf("uses of a schema: %v, %v", vs, err)
	}
	if subs, err := cl.SubjectsByID(ctx, id); err != nil || len(subs) != 2 {
		t.Errorf("subjects of a schema: %v, %v", subs, err)
	}
	if types, err := cl.SupportedTypes(ctx); err != nil || len(types) != 1 || types[0] != sr.TypeAvro {
		t.Errorf("types %v, %v", types, err)
	}
	if all, err := cl.AllSchemas(ctx); err != nil || len(all) != 4 {
		t.Errorf("all schemas: %d, %v", len(all), err)
	}
}

func TestErrorCodes(t *testing.T) {
	cl, url := serve(t, NewMemory())
	ctx := t.Context()
	register(t, cl, "s", v1)
	reg := func(s sr.Schema) error { _, err := cl.RegisterSchema(ctx, "s", s, -1, -1); return err }
	_, noSubject := cl.SchemaByVersion(ctx, "nobody", 1)
	_, noVersion := cl.SchemaByVersion(ctx, "s", 9)
	_, noSchema := cl.SchemaByID(ctx, 99)
	_, badVersion := cl.SchemaByVersion(ctx, "s", -7)
	_, notThere := cl.LookupSchema(ctx, "s", sr.Schema{Schema: v2})
	_, hard := cl.DeleteSubject(ctx, "s", sr.HardDelete)
	_, givenID := cl.RegisterSchema(ctx, "s", sr.Schema{Schema: v2}, 7, -1)
	for name, c := range map[string]struct {
		err  error
		want int
	}{
		"unknown subject":        {noSubject, 40401},
		"unknown version":        {noVersion, 40402},
		"unknown schema":         {noSchema, 40403},
		"schema not in subject":  {notThere, 40403},
		"bad version":            {badVersion, 42202},
		"hard delete first":      {hard, 40405},
		"version hard first":     {cl.DeleteSchema(ctx, "s", 1, sr.HardDelete), 40407},
		"no level":               {cl.Compatibility(ctx, "s")[0].Err, 40408},
		"no mode":                {cl.Mode(ctx, "s")[0].Err, 40409},
		"not JSON":               {reg(sr.Schema{Schema: "{"}), 42201},
		"not Avro":               {reg(sr.Schema{Schema: `{"type":"nothing"}`}), 42201},
		"empty":                  {reg(sr.Schema{}), 42201},
		"other type":             {reg(sr.Schema{Schema: v1, Type: sr.TypeProtobuf}), 42201},
		"reference":              {reg(sr.Schema{Schema: v2, References: []sr.SchemaReference{{Name: "x", Subject: "s", Version: 1}}}), 42201},
		"incompatible":           {reg(sr.Schema{Schema: required}), 409},
		"import mode":            {cl.SetMode(ctx, sr.ModeImport)[0].Err, 42204},
		"an id of one's own":     {givenID, 42205},
		"a schema too large":     {reg(sr.Schema{Schema: `{"type":"string","doc":"` + strings.Repeat("x", maxSchema) + `"}`}), 42209},
		"a request still larger": {reg(sr.Schema{Schema: strings.Repeat("x", maxBody)}), 42209},
	} {
		if got := code(c.err); got != c.want {
			t.Errorf("%s: code %d (%v), want %d", name, got, c.err, c.want)
		}
	}
	req, _ := http.NewRequestWithContext(ctx, http.MethodPut, url+"/config", strings.NewReader(`{"compatibility":"SOMETIMES"}`))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnprocessableEntity || resp.Header.Get("Content-Type") != contentType {
		t.Errorf("bad level: %s, %s", resp.Status, resp.Header.Get("Content-Type"))
	}
	if vs, _ := cl.SubjectVersions(ctx, "s"); len(vs) != 1 {
		t.Errorf("refused requests made versions: %v", vs)
	}
}

func TestCompatibilityLevels(t *testing.T) {
	// Adding a required field can be read by nobody but old readers; adding an
	// optional one by all.
	for lvl, want := range map[sr.CompatibilityLevel]bool{
		sr.CompatNone: true, sr.CompatBackward: false, sr.CompatBackwardTransitive: false, sr.CompatForward: true,
		sr.CompatForwardTransitive: true, sr.CompatFull: false, sr.CompatFullTransitive: false,
	} {
		cl, _ := serve(t, NewMemory())
		ctx := t.Context()
		register(t, cl, "s", v1)
		if r := cl.SetCompatibility(ctx, sr.SetCompatibility{Level: lvl}, "s")[0]; r.Err != nil || r.Level != lvl {
			t.Fatalf("%v: %+v", lvl, r)
		}
		if r := cl.Compatibility(ctx, "s")[0]; r.Err != nil || r.Level != lvl {
			t.Errorf("%v: reads back as %v, %v", lvl, r.Level, r.Err)
		}
		for _, version := range []int{1, -1, -2} {
			got, err := cl.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), "s", version, sr.Schema{Schema: required})
			if err != nil || got.Is != want || want != (len(got.Messages) == 0) {
				t.Errorf("%v, version %d: %+v, %v; want %v", lvl, version, got, err, want)
			}
		}
		_, err := cl.RegisterSchema(ctx, "s", sr.Schema{Schema: required}, -1, -1)
		if (err == nil) != want {
			t.Errorf("%v: registering: %v", lvl, err)
		}
	}
}

func TestTransitiveLooksFurtherBack(t *testing.T) {
	// v1 → v2 drops the default in the next step: only v1's data is unreadable.
	for lvl, want := range map[sr.CompatibilityLevel]int{sr.CompatBackward: 0, sr.CompatBackwardTransitive: 409} {
		cl, _ := serve(t, NewMemory())
		register(t, cl, "s", v1)
		register(t, cl, "s", v2)
		cl.SetCompatibility(t.Context(), sr.SetCompatibility{Level: lvl})
		_, err := cl.RegisterSchema(t.Context(), "s", sr.Schema{Schema: required}, -1, -1)
		if code(err) != want {
			t.Errorf("%v: %v, want code %d", lvl, err, want)
		}
	}
}

func TestConfigAndModeFallBack(t *testing.T) {
	cl, _ := serve(t, NewMemory())
	ctx := t.Context()
	if r := cl.Compatibility(ctx)[0]; r.Level != sr.CompatBackward {
		t.Errorf("default level %v", r.Level)
	}
	cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatFull})
	if r := cl.Compatibility(sr.WithParams(ctx, sr.DefaultToGlobal), "s")[0]; r.Level != sr.CompatFull {
		t.Errorf("a subject without a level has %v, %v", r.Level, r.Err)
	}
	cl.ResetCompatibility(ctx)
	if r := cl.Compatibility(ctx)[0]; r.Level != sr.CompatBackward {
		t.Errorf("level after a reset %v", r.Level)
	}
	cl.SetMode(ctx, sr.ModeReadOnly, "s")
	_, err := cl.RegisterSchema(ctx, "s", sr.Schema{Schema: v1}, -1, -1)
	if code(err) != 42205 {
		t.Errorf("writing to a read-only subject: %v", err)
	}
	cl.ResetMode(ctx, "s")
	register(t, cl, "s", v1)
}

func TestDeleting(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	cl, _ := serve(t, r)
	ctx := t.Context()
	id := register(t, cl, "s", v1)
	id2 := register(t, cl, "s", v2)
	if err := cl.DeleteSchema(ctx, "s", 2, sr.SoftDelete); err != nil {
		t.Fatal(err)
	}
	if vs, _ := cl.SubjectVersions(ctx, "s"); !reflect.DeepEqual(vs, []int{1}) {
		t.Errorf("versions %v", vs)
	}
	if _, err := cl.SchemaByID(ctx, id2); err != nil {
		t.Errorf("data written with a softly deleted schema cannot be read: %v", err)
	}
	if got := register(t, cl, "s", v2); got != id2 {
		t.Errorf("id %d after registering again, want %d", got, id2)
	}
	if vs, _ := cl.SubjectVersions(ctx, "s"); !reflect.DeepEqual(vs, []int{1, 3}) {
		t.Errorf("versions %v", vs)
	}
	if vs, err := cl.DeleteSubject(ctx, "s", sr.SoftDelete); err != nil || !reflect.DeepEqual(vs, []int{1, 3}) {
		t.Errorf("%v, %v", vs, err)
	}
	if _, err := cl.DeleteSubject(ctx, "s", sr.SoftDelete); code(err) != 40404 {
		t.Errorf("soft delete twice: %v", err)
	}
	if vs, err := cl.SubjectVersions(sr.WithParams(ctx, sr.ShowDeleted), "s"); err != nil || len(vs) != 3 {
		t.Errorf("deleted versions %v, %v", vs, err)
	}
	if vs, err := cl.DeleteSubject(ctx, "s", sr.HardDelete); err != nil || len(vs) != 3 {
		t.Errorf("%v, %v", vs, err)
	}
	if _, err := cl.SchemaByID(ctx, id); code(err) != 40403 {
		t.Errorf("after a hard delete: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cl, _ = serve(t, open(t, dir))
	if got := register(t, cl, "new", `"long"`); got <= id2 {
		t.Errorf("id %d was given twice", got)
	}
	if got := register(t, cl, "s", v1); got != id {
		t.Errorf("id %d for a schema that had %d", got, id)
	}
}

func TestRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	cl, _ := serve(t, r)
	ctx := t.Context()
	id := register(t, cl, "s", v1)
	id2 := register(t, cl, "s", v2)
	cl.SetCompatibility(ctx, sr.SetCompatibility{Level: sr.CompatForward}, "s")
	if _, err := Open(ctx, Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second opener got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	cl, _ = serve(t, open(t, dir))
	if a, b := register(t, cl, "s", v1), register(t, cl, "t", v2); a != id || b != id2 {
		t.Errorf("ids %d, %d after a restart, want %d, %d", a, b, id, id2)
	}
	if got := cl.Compatibility(ctx, "s")[0].Level; got != sr.CompatForward {
		t.Errorf("level %v after a restart", got)
	}
}

func TestHalfWrittenLine(t *testing.T) {
	whole := func(dir string) string { return filepath.Join(dir, journalName) }
	for name, tail := range map[string]string{
		"cut": `{"op":"register","subject":"s","id":2,"ver`, "zeros": "\x00\x00\x00\n", "cut in the first line": "",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := open(t, dir)
			cl, _ := serve(t, r)
			id := register(t, cl, "s", v1)
			_ = r.Close()
			data, err := os.ReadFile(whole(dir))
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, tail...)
			if tail == "" {
				data = data[:len(data)-1]
			}
			if err := os.WriteFile(whole(dir), data, 0o644); err != nil {
				t.Fatal(err)
			}
			r = open(t, dir)
			cl, _ = serve(t, r)
			if got := register(t, cl, "s", v1); got != id {
				t.Errorf("id %d, want %d", got, id)
			}
			register(t, cl, "s", v2)
			_ = r.Close()
			cl, _ = serve(t, open(t, dir))
			if vs, err := cl.SubjectVersions(t.Context(), "s"); err != nil || len(vs) != 2 {
				t.Errorf("versions %v, %v", vs, err)
			}
		})
	}
	dir := t.TempDir()
	if err := os.WriteFile(whole(dir), []byte("garbage\n{\"op\":\"config\",\"value\":\"FULL\"}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("damage before the last line: %v", err)
	}
}

// fullDisk takes a part of the next write and then fails, as often as told.
type fullDisk struct {
	backing
	failWrite, failSync, failTruncate bool
}

var errFull = errors.New("no space left on device")

func (f *fullDisk) Write(b []byte) (int, error) {
	if f.failWrite {
		n, _ := f.backing.Write(b[:len(b)/2])
		return n, errFull
	}
	return f.backing.Write(b)
}

func (f *fullDisk) Sync() error {
	if f.failSync {
		return errFull
	}
	return f.backing.Sync()
}

func (f *fullDisk) Truncate(n int64) error {
	if f.failTruncate {
		return errFull
	}
	return f.backing.Truncate(n)
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	r := open(t, dir)
	disk := &fullDisk{backing: r.journal.f}
	r.journal.f = disk
	cl, _ := serve(t, r)
	ctx := t.Context()
	id := register(t, cl, "s", v1)
	try := func() error {
		_, err := cl.RegisterSchema(ctx, "s", sr.Schema{Schema: v2}, -1, -1)
		return err
	}
	disk.failWrite = true
	if err := try(); code(err) != 50001 {
		t.Errorf("on a full disk: %v", err)
	}
	if vs, _ := cl.SubjectVersions(ctx, "s"); len(vs) != 1 {
		t.Errorf("half registered: %v", vs)
	}
	disk.failWrite = false
	id2 := register(t, cl, "s", v2)

	disk.failSync, disk.failTruncate = true, true
	if _, err := cl.RegisterSchema(ctx, "u", sr.Schema{Schema: v1}, -1, -1); code(err) != 50001 {
		t.Errorf("on a broken disk: %v", err)
	}
	disk.failSync, disk.failTruncate = false, false
	if _, err := cl.RegisterSchema(ctx, "u", sr.Schema{Schema: v1}, -1, -1); code(err) != 50001 {
		t.Errorf("after a file that could not be restored: %v", err)
	}
	if got, err := cl.SchemaByID(ctx, id); err != nil || got.Schema != v1 {
		t.Errorf("reading does not work any more: %v", err)
	}
	_ = r.Close()
	cl, _ = serve(t, open(t, dir))
	if got := register(t, cl, "s", v2); got != id2 {
		t.Errorf("id %d, want %d", got, id2)
	}
}

func TestConcurrentRegistration(t *testing.T) {
	r := open(t, t.TempDir())
	cl, _ := serve(t, r)
	const workers, schemas = 8, 20
	ids := make([][schemas]int, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range schemas {
				text := fmt.Sprintf(`{"type":"record","name":"r%d","fields":[]}`, i)
				id, err := cl.RegisterSchema(context.Background(), fmt.Sprintf("s%d", i), sr.Schema{Schema: text}, -1, -1)
				if err != nil {
					t.Error(err)
				}
				ids[w][i] = id
			}
		})
	}
	wg.Wait()
	seen := make(map[int]bool)
	for i := range schemas {
		seen[ids[0][i]] = true
		for w := range workers {
			if ids[w][i] != ids[0][i] {
				t.Errorf("schema %d has ids %d and %d", i, ids[0][i], ids[w][i])
			}
		}
	}
	if len(seen) != schemas {
		t.Errorf("%d ids for %d schemas", len(seen), schemas)
	}
}

func TestLogicalTypesAreNoMatterOfCompatibility(t *testing.T) {
	parse := func(precision string) *schema {
		s, err := parseSchema(`{"type":"record","name":"r","fields":[{"name":"n","type":["null",{"type":"bytes","logicalType":"decimal","precision":` + precision + `,"scale":2}],"default":null}]}`)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	few, many := parse("6"), parse("12")
	if got := levelFull.check(many, []numbered{{1, few}}); len(got) > 0 || few.key == many.key {
		t.Errorf("%v; the same schema: %v", got, few.key == many.key)
	}
}
