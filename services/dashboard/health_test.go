package dashboard

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/millrace-io/millrace/pkg/postgres"
)

// A wait is a warning only when it is longer than a start takes, and is not told again and again.
func TestWaitingBecomesAWarningWhenItLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		s, err := New(DefaultConfig(), Deps{Log: log, Sales: postgres.SalesConfig{URL: "postgres://u@127.0.0.1:1/d"}})
		if err != nil {
			t.Fatal(err)
		}
		says := func(want ...string) {
			t.Helper()
			got := strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\n' })
			if out.Reset(); !slices.Equal(got, want) {
				t.Fatalf("the log has %q, want %q", got, want)
			}
		}
		if says(); s.Ready() == nil {
			t.Fatal("ready before it has asked")
		}
		away, empty := errors.New("away"), errors.New("empty")
		for range 5 {
			s.setHealth(away)
			time.Sleep(patience / 6)
		}
		says(`level=INFO msg="the dashboard waits" reason=away`)
		s.setHealth(empty)
		says(`level=INFO msg="the dashboard waits" reason=empty`)
		time.Sleep(patience / 6)
		for range 5 {
			s.setHealth(empty)
			time.Sleep(time.Second)
		}
		says(`level=WARN msg="the dashboard waits" reason=empty`)
		if err := s.Ready(); err == nil || err.Error() != "empty" {
			t.Fatal(err)
		}
		s.setHealth(nil)
		s.setHealth(nil)
		says(`level=INFO msg="the sales database answers"`)
		if err := s.Ready(); err != nil {
			t.Fatal(err)
		}
		s.setHealth(away) // a wait of its own
		says(`level=INFO msg="the dashboard waits" reason=away`)
	})
}
