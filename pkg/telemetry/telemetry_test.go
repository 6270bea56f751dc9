package telemetry

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestTraceIsCarriedOrBegun(t *testing.T) {
	const good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	if got := Trace(WithTrace(context.Background(), good)); got != good {
		t.Fatalf("got %q", got)
	}
	for _, bad := range []string{
		"", "x", strings.ToUpper(good), "ff" + good[2:], good + "0",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
	} {
		got := Trace(WithTrace(context.Background(), bad))
		if got == bad || !validTraceParent(got) {
			t.Errorf("%q became %q", bad, got)
		}
	}
	if Trace(context.Background()) != "" {
		t.Error("a context without a trace has one")
	}
}

func TestLogConfig(t *testing.T) {
	for _, bad := range []LogConfig{{Level: "loud", Format: "text"}, {Level: "info", Format: "xml"}} {
		if bad.Validate() == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
	var out bytes.Buffer
	LogConfig{Level: "warn", Format: "json"}.Logger(&out).Info("hidden")
	LogConfig{Level: "warn", Format: "json"}.Logger(&out).Warn("shown")
	if s := out.String(); strings.Contains(s, "hidden") || !strings.Contains(s, `"msg":"shown"`) || !strings.Contains(s, `Z"`) {
		t.Fatal(s)
	}
}
