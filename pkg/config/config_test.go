package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

type cdcSection struct {
	Slot    string        `yaml:"slot" doc:"replication slot"`
	Tables  []string      `yaml:"tables"`
	URL     Secret        `yaml:"url"`
	Every   time.Duration `yaml:"every"`
	Rate    float64       `yaml:"rate" flag:"pace"`
	Enabled bool          `yaml:"enabled"`
	Nested  struct {
		A string `yaml:"a"`
	} `yaml:"nested"`
}

func (c *cdcSection) Validate() error {
	if c.Slot == "bad" {
		return &Error{Where: "slot", What: "must not be bad"}
	}
	return nil
}

type root struct {
	CDC cdcSection `yaml:"cdc"`
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "millrace.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPrecedence(t *testing.T) {
	r := root{CDC: cdcSection{Slot: "default", Every: time.Second}}
	path := file(t, "cdc:\n  slot: from-file\n  tables: [a, b]\n  rate: 2\n  nested: {a: x}\nenrich:\n  anything: 1\n")
	err := Load(&r, Sources{File: path,
		Environ: []string{"MILLRACE_CDC_SLOT=from-env", "MILLRACE_CDC_EVERY=3s", "HOME=/x", "MILLRACE_ENRICH_FOO=1"},
		Flags:   map[string]string{"cdc-slot": "from-flag", "pace": "2.5"}})
	if err != nil {
		t.Fatal(err)
	}
	if r.CDC.Slot != "from-flag" || r.CDC.Every != 3*time.Second || r.CDC.Rate != 2.5 || len(r.CDC.Tables) != 2 || r.CDC.Nested.A != "x" {
		t.Fatalf("got %+v", r.CDC)
	}
}

func TestMistakesAreNamed(t *testing.T) {
	f := func(yaml string, environ []string, flags map[string]string, want ...string) {
		t.Helper()
		r := root{}
		src := Sources{Environ: environ, Flags: flags}
		if yaml != "" {
			src.File = file(t, yaml)
		}
		err := Load(&r, src)
		if err == nil {
			t.Fatalf("%q was accepted", yaml)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q lacks %q", err, w)
			}
		}
	}
	f("cdc:\n  slto: x\n", nil, nil, ":2: cdc.slto", "unknown key; did you mean slot?")
	f("cdd:\n  slot: x\n", nil, nil, "unknown section; did you mean cdc?")
	f("cdc:\n  every: soon\n", nil, nil, "not a duration", "30s")
	f("cdc:\n  nested: {b: 1}\n", nil, nil, "nested", "b")
	f("cdc: [1]\n", nil, nil, "must be a mapping")
	f("{", nil, nil, "not valid YAML")
	f("", []string{"MILLRACE_CDC_SLOTT=x"}, nil, "MILLRACE_CDC_SLOTT", "did you mean slot?")
	f("", []string{"MILLRACE_CDC_URL_FILE=/does/not/exist"}, nil, "secret's file")
	f("", nil, map[string]string{"pace": "fast"}, "flag --pace", "not a number")
	f("", nil, map[string]string{"cdc-slot": "bad"}, "cdc", "must not be bad")
}

func TestMissingFile(t *testing.T) {
	err := Load(&root{}, Sources{File: "/does/not/exist.yaml"})
	if err == nil || !strings.Contains(err.Error(), "cannot read the configuration file") {
		t.Fatal(err)
	}
}

func TestSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte("postgres://u:hunter2@h/db\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := root{}
	if err := Load(&r, Sources{File: file(t, "cdc:\n  url_file: "+path+"\n")}); err != nil {
		t.Fatal(err)
	}
	if r.CDC.URL.Reveal() != "postgres://u:hunter2@h/db" {
		t.Fatalf("got %q", r.CDC.URL.Reveal())
	}
	text, err := Print(&r)
	if err != nil || strings.Contains(text, "hunter2") || !strings.Contains(text, "***") {
		t.Fatalf("printed %s, %v", text, err)
	}
}

func TestFlags(t *testing.T) {
	r := root{CDC: cdcSection{Slot: "millrace"}}
	fs := pflag.NewFlagSet("x", pflag.ContinueOnError)
	AddFlags(fs, &r)
	if err := fs.Parse([]string{"--cdc-enabled", "--pace=7"}); err != nil {
		t.Fatal(err)
	}
	if err := Load(&r, Sources{Flags: SetFlags(fs)}); err != nil {
		t.Fatal(err)
	}
	if !r.CDC.Enabled || r.CDC.Rate != 7 || r.CDC.Slot != "millrace" {
		t.Fatalf("got %+v", r.CDC)
	}
	if fs.Lookup("cdc-url-file") == nil || !strings.Contains(fs.FlagUsages(), "(default millrace)") {
		t.Fatal(fs.FlagUsages())
	}
}
