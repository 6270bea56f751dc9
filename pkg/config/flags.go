package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
)

// flagDef is the flag of one key.
type flagDef struct {
	Name string
	key  key
	file bool
}

func flagsOf(root reflect.Value) []flagDef {
	var out []flagDef
	for _, s := range sectionsOf(root) {
		for _, k := range keysOf(s) {
			if !isScalar(k.value) {
				continue
			}
			out = append(out, flagDef{Name: k.flag, key: k})
			if isSecret(k.value) {
				out = append(out, flagDef{Name: k.flag + "-file", key: k, file: true})
			}
		}
	}
	return out
}

// AddFlags adds a flag for every scalar key of target, a pointer to a root struct that holds the defaults.
// Read them with [SetFlags]. The flags' values are text, checked by [Load], so that a bad value reads the
// same from a file, the environment and the command line.
func AddFlags(fs *pflag.FlagSet, target any) {
	for _, f := range flagsOf(reflect.ValueOf(target).Elem()) {
		doc := f.key.doc
		if f.file {
			doc = "file that holds --" + f.key.flag
		}
		fs.String(f.Name, "", doc+defaultOf(f))
		if f.key.value.Kind() == reflect.Bool {
			fs.Lookup(f.Name).NoOptDefVal = "true"
		}
	}
}

func defaultOf(f flagDef) string {
	if f.file || isSecret(f.key.value) || f.key.value.IsZero() {
		return ""
	}
	if f.key.value.Kind() == reflect.Slice {
		return fmt.Sprintf(" (default %s)", strings.Join(f.key.value.Interface().([]string), ","))
	}
	return fmt.Sprintf(" (default %v)", f.key.value.Interface())
}

// SetFlags are the flags that were given, for [Sources].
func SetFlags(fs *pflag.FlagSet) map[string]string {
	set := map[string]string{}
	fs.Visit(func(f *pflag.Flag) { set[f.Name] = f.Value.String() })
	return set
}

// Print renders the effective settings as YAML, secrets masked.
func Print(target any) (string, error) {
	text, err := yaml.Marshal(target)
	if err != nil {
		return "", fmt.Errorf("render the configuration: %w", err)
	}
	return string(text), nil
}
