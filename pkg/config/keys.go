package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Key is one setting as documentation shows it.
type Key struct {
	Section, Name string
	Flag          string // without dashes; empty for a structured key, which can only be set in the file
	Env           string // environment variable; empty for a structured key
	Default       string // as it would be written in the file; of a secret, masked
	Doc           string
	Secret        bool // can be given as Name_file, Flag-file and Env_FILE as well

	value string
}

// Reveal is Default with a secret's value in it. It is for documentation made from a program's defaults: never
// call it on settings that were loaded.
func (k Key) Reveal() string { return k.value }

// Keys lists the settings of target, a pointer to a root struct that holds the defaults, in the order of its fields.
func Keys(target any) []Key {
	var out []Key
	for _, s := range sectionsOf(reflect.ValueOf(target).Elem()) {
		for _, k := range keysOf(s) {
			shown := Key{Section: s.name, Name: k.name, Doc: k.doc, Secret: isSecret(k.value), value: textOf(k.value)}
			if isScalar(k.value) {
				shown.Flag, shown.Env = k.flag, strings.ToUpper(envPrefix+s.name+"_"+k.name)
			}
			shown.Default = shown.value
			if shown.Secret {
				shown.Default = Secret(shown.value).String()
			}
			out = append(out, shown)
		}
	}
	return out
}

// textOf writes a value so that setText would read it back; of structured values, it is Go's own form.
func textOf(v reflect.Value) string {
	switch x := v.Interface().(type) {
	case time.Duration:
		return durationText(x)
	case Secret:
		return x.Reveal()
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	}
	if v.Kind() == reflect.Slice && isScalar(v) {
		var parts []string
		for i := range v.Len() {
			parts = append(parts, v.Index(i).String())
		}
		return strings.Join(parts, ",")
	}
	if !isScalar(v) && v.IsZero() {
		return ""
	}
	return fmt.Sprint(v.Interface())
}

// durationText leaves out the parts that are zero: 1m instead of 1m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
