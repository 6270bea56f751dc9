package config

import (
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Secret is a setting that must not be shown: it prints as ***.
type Secret string

// String masks the value, so that a secret cannot reach a log by accident.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// MarshalYAML masks the value.
func (s Secret) MarshalYAML() (any, error) { return s.String(), nil }

// Reveal is the value itself, for the place that needs it.
func (s Secret) Reveal() string { return string(s) }

// A section is one part of the root struct.
type section struct {
	name  string
	value reflect.Value
}

// A key is one setting.
type key struct {
	section, name, doc, flag string
	value                    reflect.Value
}

func sectionsOf(root reflect.Value) []section {
	var out []section
	for i := range root.NumField() {
		f := root.Type().Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case opts == "inline":
			out = append(out, sectionsOf(root.Field(i))...)
		case name != "" && name != "-":
			out = append(out, section{name: name, value: root.Field(i)})
		}
	}
	return out
}

func keysOf(s section) []key {
	var out []key
	for i := range s.value.NumField() {
		f := s.value.Type().Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}
		flag := f.Tag.Get("flag")
		if flag == "" {
			flag = s.name + "-" + strings.ReplaceAll(name, "_", "-")
		}
		out = append(out, key{section: s.name, name: name, doc: f.Tag.Get("doc"), flag: flag, value: s.value.Field(i)})
	}
	return out
}

func keyNames(keys []key) []string {
	var out []string
	for _, k := range keys {
		out = append(out, k.name)
		if isSecret(k.value) {
			out = append(out, k.name+"_file")
		}
	}
	return out
}

// findKey finds a key by name; file tells that the name was KEY_file of a secret.
func findKey(keys []key, name string) (found key, file, ok bool) {
	for _, k := range keys {
		if k.name == name {
			return k, false, true
		}
		if isSecret(k.value) && k.name+"_file" == name {
			return k, true, true
		}
	}
	return key{}, false, false
}

func isSecret(v reflect.Value) bool { return v.Type() == reflect.TypeFor[Secret]() }

func isScalar(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint64, reflect.Float64:
		return true
	case reflect.Slice:
		return v.Type().Elem().Kind() == reflect.String
	}
	return false
}

// setText sets a key from text: a YAML scalar, an environment variable or a flag. Lists are separated by commas.
func setText(k key, text string, file bool) error {
	if file {
		data, err := os.ReadFile(text)
		if err != nil {
			return fmt.Errorf("cannot read the secret's file: %w", err)
		}
		text = strings.TrimRight(string(data), "\r\n")
	}
	v := k.value
	if v.Type() == reflect.TypeFor[time.Duration]() {
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is not a duration: write for example 500ms, 30s or 5m", text)
		}
		v.SetInt(int64(d))
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		b, err := strconv.ParseBool(text)
		if err != nil {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int32, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is not a whole number", text)
		}
		v.SetInt(n)
	case reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("%q is not a whole number of 0 or more", text)
		}
		v.SetUint(n)
	case reflect.Float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.String {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
			for part := range strings.SplitSeq(text, ",") {
				if part = strings.TrimSpace(part); part != "" {
					v.Set(reflect.Append(v, reflect.ValueOf(part).Convert(v.Type().Elem())))
				}
			}
			return nil
		}
		return fmt.Errorf("is structured: it can only be set in the configuration file")
	default:
		return fmt.Errorf("is structured: it can only be set in the configuration file")
	}
	return nil
}
