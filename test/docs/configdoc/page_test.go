package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
)

func TestThePageIsFresh(t *testing.T) {
	want, err := page(programs())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/config.md is stale: run `make generate`")
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	for _, p := range programs() {
		for _, k := range config.Keys(p.Settings) {
			if strings.TrimSpace(k.Doc) == "" {
				t.Errorf("%s: the key %s.%s has no doc tag", p.Name, k.Section, k.Name)
			}
		}
	}
}

// The example is accepted by every program that reads one of its sections.
func TestTheExampleWorks(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"privacy-key": strings.Repeat("0a", 32), "sales-url": "postgres://millrace@sales.example:5432/millrace", "source-url": "postgres://cdc@replica.example:5432/shop",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "millrace.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(example, "/run/secrets", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, p := range programs() {
		if err := config.Load(p.Settings, config.Sources{File: file}); err != nil {
			t.Errorf("%s: %v", p.Name, err)
		}
	}
}

type one struct {
	app.Common `yaml:",inline"`
	CDC        struct {
		Size int               `yaml:"queue_bytes" doc:"a | b"`
		Map  map[string]string `yaml:"map"`
	} `yaml:"cdc"`
}

type other struct {
	app.Common `yaml:",inline"`
	Nonsense   struct {
		A string `yaml:"a"`
	} `yaml:"nonsense"`
}

func TestRows(t *testing.T) {
	a, b, c := &one{}, &one{}, &one{}
	a.CDC.Size, b.CDC.Size, c.CDC.Size = 5, 3<<20, 3<<20
	sections, err := settingsOf([]app.Program{{Name: "a", Settings: a}, {Name: "b", Settings: b}, {Name: "c", Settings: c}})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{
		"| `queue_bytes` | `--cdc-queue-bytes` | `MILLRACE_CDC_QUEUE_BYTES` | `3145728` (3 MiB); a: `5` | a \\| b |\n",
		"| `map` | in the file only | in the file only | empty |  |\n",
	} {
		if got := sections["cdc"][i].row(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestASectionWithoutIntroductionIsAnError(t *testing.T) {
	_, err := page([]app.Program{{Name: "x", Settings: &other{}}})
	if err == nil || !strings.Contains(err.Error(), "section nonsense of x has no introduction") || !strings.Contains(err.Error(), "no program reads the section cdc") {
		t.Errorf("got %v", err)
	}
}
