package avro_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
)

const (
	v1 = `{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}`
	v2 = `{"type":"record","name":"R","fields":[{"name":"a","type":"string"},{"name":"b","type":"long","default":7}]}`
)

type record struct {
	A string `avro:"a"`
	B int64  `avro:"b"`
}

// server is a registry that can be switched off, and that counts.
func server(t *testing.T) (r *avro.Registry, down *atomic.Bool, asked *atomic.Int64) {
	t.Helper()
	down, asked = new(atomic.Bool), new(atomic.Int64)
	backend := registry.NewMemory()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	return client(t, srv.URL), down, asked
}

func client(t *testing.T, url string) *avro.Registry {
	t.Helper()
	r, err := avro.NewRegistry(avro.Config{URL: config.Secret(url)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOlderWritersAreRead(t *testing.T) {
	r, _, asked := server(t)
	enc, err := avro.NewEncoder(t.Context(), r, "s-value", v1)
	if err != nil {
		t.Fatal(err)
	}
	data, err := enc.Append(nil, &record{A: "x"})
	if err != nil || data[0] != 0 {
		t.Fatal(data, err)
	}
	dec, err := avro.NewDecoder(r, v2)
	if err != nil {
		t.Fatal(err)
	}
	var first int64
	for i := range 3 {
		if i == 1 {
			first = asked.Load()
		}
		var got record
		if err := dec.Decode(t.Context(), data, &got); err != nil || got != (record{A: "x", B: 7}) {
			t.Fatal(got, err)
		}
	}
	if n := asked.Load(); n > first {
		t.Errorf("asked the registry %d times more: schemas are not cached", n-first)
	}
}

func TestWhoIsToBlame(t *testing.T) {
	r, down, asked := server(t)
	enc, err := avro.NewEncoder(t.Context(), r, "s-value", v1)
	if err != nil {
		t.Fatal(err)
	}
	good, err := enc.Append(nil, &record{A: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	dec, err := avro.NewDecoder(r, v1)
	if err != nil {
		t.Fatal(err)
	}
	f := func(data []byte, want error, bad bool) {
		t.Helper()
		err := dec.Decode(t.Context(), data, &record{})
		if !errors.Is(err, want) || avro.Bad(err) != bad {
			t.Errorf("got %v, want %v", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("the error repeats the record: %v", err)
		}
	}
	f(good, nil, false)
	f(nil, avro.ErrFraming, true)
	f([]byte("secret text"), avro.ErrFraming, true)
	f(append([]byte{}, good[:len(good)-2]...), avro.ErrCorrupt, true)
	f(append(append([]byte{}, good...), 1), avro.ErrCorrupt, true)
	f(append(avro.AppendFrame(nil, 9999), 2, 'x'), avro.ErrUnknownSchema, true)
	before := asked.Load()
	f(append(avro.AppendFrame(nil, 9999), 2, 'x'), avro.ErrUnknownSchema, true)
	if asked.Load() != before {
		t.Error("an unknown id is asked for again and again")
	}
	down.Store(true)
	f(good, nil, false) // cached
	f(append(avro.AppendFrame(nil, 77), 2, 'x'), avro.ErrUnavailable, false)
}

// TestWrongRegistryIsNotTheRecordsFault: what answers in the registry's place must not send good records to quarantine.
func TestWrongRegistryIsNotTheRecordsFault(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"a proxy that knows no such host": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>no such host</html>", http.StatusNotFound)
		},
		"another API": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"status":"ok"}`)) },
		"a page":      func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`<html>hello</html>`)) },
		"a wrong path": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"error_code":404,"message":"HTTP 404 Not Found"}`))
		},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(answer)
			defer srv.Close()
			dec, err := avro.NewDecoder(client(t, srv.URL), v1)
			if err != nil {
				t.Fatal(err)
			}
			err = dec.Decode(t.Context(), append(avro.AppendFrame(nil, 1), 2, 'x'), &record{})
			if !errors.Is(err, avro.ErrUnavailable) || avro.Bad(err) {
				t.Errorf("%v", err)
			}
			if _, err := avro.NewEncoder(t.Context(), client(t, strings.Replace(srv.URL, "http://", "http://user:hunter2@", 1)), "s-value", v1); err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a schema was registered there, or the error shows the password: %v", err)
			}
		})
	}
}

func TestIncompatibleSchemaIsRefused(t *testing.T) {
	r, _, _ := server(t)
	if _, err := r.Register(t.Context(), "s-value", v1); err != nil {
		t.Fatal(err)
	}
	if err := r.SetCompatibility(t.Context(), "s-value", "FULL_TRANSITIVE"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Register(t.Context(), "s-value", `{"type":"record","name":"R","fields":[{"name":"c","type":"string"}]}`)
	if !errors.Is(err, avro.ErrIncompatible) {
		t.Fatal(err)
	}
	if _, err := r.Register(t.Context(), "s-value", v2); err != nil {
		t.Fatal(err)
	}
	if err := r.SetCompatibility(t.Context(), "s-value", "SOMEHOW"); err == nil {
		t.Fatal("an unknown level was accepted")
	}
}

// TestPasswordOfTheAddressIsUsed: it is sent, though it is not part of the address that errors quote.
func TestPasswordOfTheAddressIsUsed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, word, ok := r.BasicAuth(); !ok || user != "user" || word != "hunter2" {
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"id":1}`))
	}))
	defer srv.Close()
	if _, err := client(t, strings.Replace(srv.URL, "http://", "http://user:hunter2@", 1)).Register(t.Context(), "s-value", v1); err != nil {
		t.Error(err)
	}
	if _, err := client(t, srv.URL).Register(t.Context(), "s-value", v1); err == nil {
		t.Error("the registry was reached without the password")
	}
}

func TestUnreachableRegistryIsNamedWithoutPassword(t *testing.T) {
	_, err := client(t, "http://user:hunter2@127.0.0.1:1").Register(t.Context(), "s-value", v1)
	if !errors.Is(err, avro.ErrUnavailable) || !strings.Contains(err.Error(), "127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
		t.Fatal(err)
	}
}

func TestRegistryTellsVersionsAndCompatibility(t *testing.T) {
	server := httptest.NewServer(registry.NewMemory())
	defer server.Close()
	r, err := avro.NewRegistry(avro.Config{URL: config.Secret(server.URL)})
	if err != nil {
		t.Fatal(err)
	}
	schema := func(kind string) string {
		return `{"type":"record","name":"r","fields":[{"name":"a","type":"` + kind + `"}]}`
	}
	if got, err := r.Versions(t.Context(), "s"); err != nil || got != nil {
		t.Errorf("an unknown subject: %v, %v", got, err)
	}
	if err := r.Compatible(t.Context(), "s", schema("int")); err != nil {
		t.Errorf("anything fits a subject that is not there: %v", err)
	}
	for _, kind := range []string{"int", "long"} {
		if _, err := r.Register(t.Context(), "s", schema(kind)); err != nil {
			t.Fatal(err)
		}
	}
	got, err := r.Versions(t.Context(), "s")
	if err != nil || len(got) != 2 || !strings.Contains(got[0], `"int"`) || !strings.Contains(got[1], `"long"`) {
		t.Errorf("%v, %v", got, err)
	}
	if err := r.Compatible(t.Context(), "s", schema("double")); err != nil {
		t.Errorf("long to double: %v", err)
	}
	if err := r.Compatible(t.Context(), "s", schema("string")); !errors.Is(err, avro.ErrIncompatible) || !strings.Contains(err.Error(), "version") {
		t.Errorf("long to string: %v", err)
	}
	if got, _ := r.Versions(t.Context(), "s"); len(got) != 2 {
		t.Errorf("asking has registered: %d versions", len(got))
	}
	server.Close()
	if err := r.Compatible(t.Context(), "s", schema("int")); !errors.Is(err, avro.ErrUnavailable) {
		t.Errorf("a registry that is away: %v", err)
	}
}
