package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestKeys(t *testing.T) {
	r := root{CDC: cdcSection{Slot: "s", Tables: []string{"a.*", "b"}, URL: "postgres://u:hunter2@h/db", Every: 90 * time.Minute, Rate: 0.000001}}
	keys := Keys(&r)
	want := []Key{
		{Section: "cdc", Name: "slot", Flag: "cdc-slot", Env: "MILLRACE_CDC_SLOT", Default: "s", Doc: "replication slot"},
		{Section: "cdc", Name: "tables", Flag: "cdc-tables", Env: "MILLRACE_CDC_TABLES", Default: "a.*,b"},
		{Section: "cdc", Name: "url", Flag: "cdc-url", Env: "MILLRACE_CDC_URL", Default: "***", Secret: true},
		{Section: "cdc", Name: "every", Flag: "cdc-every", Env: "MILLRACE_CDC_EVERY", Default: "1h30m"},
		{Section: "cdc", Name: "rate", Flag: "pace", Env: "MILLRACE_CDC_RATE", Default: "0.000001"},
		{Section: "cdc", Name: "enabled", Flag: "cdc-enabled", Env: "MILLRACE_CDC_ENABLED", Default: "false"},
		{Section: "cdc", Name: "nested"},
	}
	for i, k := range keys {
		if k.Secret == (k.Reveal() == k.Default) {
			t.Errorf("%s: revealed as %q, shown as %q", k.Name, k.Reveal(), k.Default)
		}
		k.value = ""
		if i >= len(want) || k != want[i] {
			t.Errorf("got %+v", k)
		}
	}
	if len(keys) != len(want) {
		t.Errorf("%d keys, want %d", len(keys), len(want))
	}
}

// What the documentation shows as flag, variable and default is what Load understands.
func TestKeysCanBeSetAsShown(t *testing.T) {
	from := root{CDC: cdcSection{Slot: "s", Tables: []string{"a.*", "b"}, URL: "postgres://h/db", Every: time.Hour + time.Second, Rate: 1e21, Enabled: true}}
	var byEnv, byFlag root
	var environ []string
	flags := map[string]string{}
	for _, k := range Keys(&from) {
		if k.Env != "" {
			environ, flags[k.Flag] = append(environ, k.Env+"="+k.Reveal()), k.Reveal()
		}
	}
	if err := Load(&byEnv, Sources{Environ: environ}); err != nil {
		t.Fatal(err)
	}
	if err := Load(&byFlag, Sources{Flags: flags}); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(from, byEnv) || !reflect.DeepEqual(from, byFlag) {
		t.Errorf("got %+v and %+v of %s", byEnv, byFlag, strings.Join(environ, " "))
	}
}

func TestDurationText(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", time.Second: "1s", time.Minute: "1m", 10 * time.Minute: "10m", time.Hour: "1h", 100 * time.Hour: "100h",
		90 * time.Second: "1m30s", time.Hour + 30*time.Second: "1h0m30s", 500 * time.Millisecond: "500ms",
	} {
		if got := durationText(d); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}
