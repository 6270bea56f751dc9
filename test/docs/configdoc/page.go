package main

import (
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/config"
)

//go:embed intro.md
var intro string

// example is a configuration file of a real installation.
//
//go:embed millrace.yaml
var example string

// chapter is a section of the configuration with the line that introduces it.
type chapter struct{ section, about string }

// chapters are the sections in the order of the page.
func chapters() []chapter {
	return []chapter{
		{"http", "The HTTP server that every long-running program has: its API, `/metrics`, `/healthz` and `/readyz`."},
		{"log", "What is written to standard error."},
		{"kafka", "The Kafka cluster. All programs of an installation need the same `topic_prefix`."},
		{"registry", "The schema registry."},
		{"privacy", "The key that turns personal data into tokens and seals quarantined records. All programs need the same one."},
		{"sales", "The database that hourly sales are kept in."},
		{"source", "The database to capture from."},
		{"cdc", "Capture of the source into Kafka."},
		{"collect", "The API that takes activity."},
		{"enrich", "From tables to orders, lines, customers and products."},
		{"aggregate", "Hourly sales."},
		{"recommend", "The recommendation API."},
		{"dashboard", "The sales page and its API."},
		{"demo", "The demo store. It has no place in a real installation."},
		{"standalone", "Everything in one process."},
		{"embedded", "The parts that `standalone` starts itself."},
	}
}

// setting is one key with the programs that read it.
type setting struct {
	config.Key
	// programs and values go together: the default that each program has.
	programs, values []string
}

// settingsOf merges the keys of all programs, by section, in the order in which they are declared.
func settingsOf(programs []app.Program) (map[string][]*setting, error) {
	sections := map[string][]*setting{}
	for _, p := range programs {
		for _, k := range config.Keys(p.Settings) {
			list := sections[k.Section]
			at := slices.IndexFunc(list, func(s *setting) bool { return s.Name == k.Name })
			if at < 0 {
				at, list = len(list), append(list, &setting{Key: k})
				sections[k.Section] = list
			}
			s := list[at]
			if s.Doc != k.Doc || s.Flag != k.Flag {
				return nil, fmt.Errorf("%s.%s means one thing in %s and another in %s", k.Section, k.Name, s.programs[0], p.Name)
			}
			s.programs, s.values = append(s.programs, p.Name), append(s.values, k.Reveal())
		}
	}
	return sections, nil
}

// page is the whole of docs/config.md.
func page(programs []app.Program) (string, error) {
	sections, err := settingsOf(programs)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(intro)
	var errs []error
	for _, c := range chapters() {
		list := sections[c.section]
		delete(sections, c.section)
		if len(list) == 0 {
			errs = append(errs, fmt.Errorf("no program reads the section %s", c.section))
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s Read by %s.\n\n", c.section, c.about, readers(list[0].programs, len(programs)))
		b.WriteString("| key | flag | environment | default | meaning |\n|---|---|---|---|---|\n")
		for _, s := range list {
			if !slices.Equal(s.programs, list[0].programs) {
				errs = append(errs, fmt.Errorf("%s.%s is read by %v, the rest of the section by %v", c.section, s.Name, s.programs, list[0].programs))
			}
			b.WriteString(s.row())
		}
	}
	for name, list := range sections {
		errs = append(errs, fmt.Errorf("the section %s of %s has no introduction: add it to chapters", name, list[0].programs[0]))
	}
	fmt.Fprintf(&b, "\n## Example\n\nA file for all services of an installation:\n\n```yaml\n%s```\n", example)
	return b.String(), errors.Join(errs...)
}

func readers(names []string, all int) string {
	if len(names) == all {
		return "all programs"
	}
	return strings.Join(names, ", ")
}

func (s *setting) row() string {
	name := code(s.Name)
	if s.Secret {
		name += " (secret)"
	}
	flag, env := "in the file only", "in the file only"
	if s.Flag != "" {
		flag, env = code("--"+s.Flag), code(s.Env)
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %s |\n", name, flag, env, s.defaults(), cell(s.Doc))
}

// defaults is the default that most programs have, followed by those that have another.
func (s *setting) defaults() string {
	count := map[string]int{}
	usual := s.values[0]
	for _, v := range s.values {
		if count[v]++; count[v] > count[usual] {
			usual = v
		}
	}
	text := s.value(usual)
	for i, v := range s.values {
		if v != usual {
			text += fmt.Sprintf("; %s: %s", s.programs[i], s.value(v))
		}
	}
	return text
}

// value shows one default. Sizes in bytes are told in units that people read, too.
func (s *setting) value(v string) string {
	if v == "" {
		return "empty"
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || !strings.HasSuffix(s.Name, "bytes") {
		return code(v)
	}
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 20, "MiB"}, {1 << 10, "KiB"}} {
		if n >= unit.size && n%unit.size == 0 {
			return fmt.Sprintf("%s (%d %s)", code(v), n/unit.size, unit.name)
		}
	}
	return code(v)
}

func code(s string) string { return "`" + cell(s) + "`" }

// cell keeps a text within its cell of the table.
func cell(s string) string { return strings.NewReplacer("|", `\|`, "\n", " ").Replace(s) }
