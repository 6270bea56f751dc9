// Package config loads a program's settings: defaults, then one YAML file shared by all services (a section
// each), then the environment (MILLRACE_<SECTION>_<KEY>), then flags. It is the only package that reads the
// environment.
//
// Settings are plain structs. The root's fields are the sections, named by their yaml tag; a section's fields
// are its keys:
//
//	type Settings struct {
//		HTTP httpapi.Config `yaml:"http"`
//		CDC  cdc.Config     `yaml:"cdc"`
//	}
//
// Field tags: `yaml:"key"` names the key, `doc:"..."` explains it in --help, `flag:"name"` replaces the flag's
// name (default --section-key). Keys of type [Secret] are masked wherever settings are printed, and each of
// them can be given as KEY_file: the name of a file that holds the value.
package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Sections are the names that a configuration file may contain, whichever program reads it: one file serves
// all services, and each program checks the keys of those sections that it has itself.
var sections = []string{
	"aggregate", "cdc", "collect", "dashboard", "demo", "embedded", "enrich", "http", "kafka", "lake", "log",
	"privacy", "recommend", "registry", "sales", "source", "standalone", "train",
}

// Error is a mistake in the configuration: it says where, what and what would be right.
type Error struct {
	Where string // "millrace.yaml: cdc.slot", "environment MILLRACE_CDC_SLOT", "flag --cdc-slot"
	What  string
}

func (e *Error) Error() string { return e.Where + ": " + e.What }

// Validator is implemented by sections that check themselves; the error names the key.
type Validator interface{ Validate() error }

// Sources are the places that settings come from, weakest first.
type Sources struct {
	File    string            // path of the YAML file; empty for none
	Environ []string          // KEY=value, as os.Environ gives it
	Flags   map[string]string // flag name without dashes → value, only those that were set
}

// Environ is the process's environment, for Sources.
func Environ() []string { return os.Environ() }

// Load fills target, a pointer to a root struct that holds the defaults, and validates each section.
// Every mistake found is reported, joined into one error whose parts are *Error.
func Load(target any, src Sources) error {
	root := reflect.ValueOf(target).Elem()
	var errs []error
	if src.File != "" {
		errs = append(errs, loadFile(root, src.File)...)
	}
	errs = append(errs, loadEnviron(root, src.Environ)...)
	errs = append(errs, loadFlags(root, src.Flags)...)
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	return validate(root)
}

func validate(root reflect.Value) error {
	var errs []error
	for _, s := range sectionsOf(root) {
		if v, ok := s.value.Addr().Interface().(Validator); ok {
			if err := v.Validate(); err != nil {
				errs = append(errs, &Error{Where: s.name, What: err.Error()})
			}
		}
	}
	return errors.Join(errs...)
}

func loadFile(root reflect.Value, path string) []error {
	data, err := os.ReadFile(path)
	if err != nil {
		return []error{&Error{Where: "--config", What: fmt.Sprintf("cannot read the configuration file: %v", err)}}
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return []error{&Error{Where: path, What: fmt.Sprintf("not valid YAML: %v", err)}}
	}
	if len(doc.Content) == 0 {
		return nil
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return []error{&Error{Where: path, What: "the file must be a mapping of sections, such as 'cdc:'"}}
	}
	own := sectionsOf(root)
	var errs []error
	for i := 0; i+1 < len(top.Content); i += 2 {
		name, body := top.Content[i], top.Content[i+1]
		where := fmt.Sprintf("%s:%d: %s", path, name.Line, name.Value)
		at := slices.IndexFunc(own, func(s section) bool { return s.name == name.Value })
		switch {
		case at >= 0:
			errs = append(errs, loadSection(own[at], body, path)...)
		case !slices.Contains(sections, name.Value):
			errs = append(errs, &Error{Where: where, What: "unknown section" + suggest(name.Value, sections)})
		}
	}
	return errs
}

func loadSection(s section, body *yaml.Node, path string) []error {
	if body.Kind == yaml.ScalarNode && body.Tag == "!!null" {
		return nil
	}
	if body.Kind != yaml.MappingNode {
		return []error{&Error{Where: fmt.Sprintf("%s:%d: %s", path, body.Line, s.name), What: "must be a mapping of keys"}}
	}
	var errs []error
	keys := keysOf(s)
	for i := 0; i+1 < len(body.Content); i += 2 {
		name, val := body.Content[i], body.Content[i+1]
		where := fmt.Sprintf("%s:%d: %s.%s", path, name.Line, s.name, name.Value)
		k, file, ok := findKey(keys, name.Value)
		if !ok {
			errs = append(errs, &Error{Where: where, What: "unknown key" + suggest(name.Value, keyNames(keys))})
			continue
		}
		var err error
		if file || (val.Kind == yaml.ScalarNode && isScalar(k.value)) {
			err = setText(k, val.Value, file)
		} else {
			err = decodeStrict(val, k.value.Addr().Interface())
		}
		if err != nil {
			errs = append(errs, &Error{Where: where, What: err.Error()})
		}
	}
	return errs
}

// decodeStrict refuses unknown keys inside structured values as well.
func decodeStrict(n *yaml.Node, into any) error {
	text, err := yaml.Marshal(n)
	if err != nil {
		return fmt.Errorf("cannot read the value: %w", err)
	}
	d := yaml.NewDecoder(strings.NewReader(string(text)))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("cannot read the value: %w", err)
	}
	return nil
}

const envPrefix = "MILLRACE_"

func loadEnviron(root reflect.Value, environ []string) []error {
	own := sectionsOf(root)
	var errs []error
	for _, kv := range environ {
		name, val, _ := strings.Cut(kv, "=")
		rest, ok := strings.CutPrefix(name, envPrefix)
		if !ok {
			continue
		}
		where := "environment " + name
		sec, key, _ := strings.Cut(strings.ToLower(rest), "_")
		at := slices.IndexFunc(own, func(s section) bool { return s.name == sec })
		if at < 0 {
			if !slices.Contains(sections, sec) {
				errs = append(errs, &Error{Where: where, What: "unknown section " + sec + suggest(sec, sections)})
			}
			continue
		}
		keys := keysOf(own[at])
		k, file, ok := findKey(keys, key)
		if !ok {
			errs = append(errs, &Error{Where: where, What: "unknown key " + sec + "." + key + suggest(key, keyNames(keys))})
			continue
		}
		if err := setText(k, val, file); err != nil {
			errs = append(errs, &Error{Where: where, What: err.Error()})
		}
	}
	return errs
}

func loadFlags(root reflect.Value, flags map[string]string) []error {
	var errs []error
	for _, f := range flagsOf(root) {
		val, ok := flags[f.Name]
		if !ok {
			continue
		}
		if err := setText(f.key, val, f.file); err != nil {
			errs = append(errs, &Error{Where: "flag --" + f.Name, What: err.Error()})
		}
	}
	return errs
}
