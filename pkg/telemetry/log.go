// Package telemetry makes what a process tells about itself: structured logs, the registry of its metrics and
// the W3C trace context that travels in headers.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// LogConfig is the log section.
type LogConfig struct {
	Level  string `yaml:"level" doc:"debug, info, warn or error"`
	Format string `yaml:"format" doc:"text for people, json for machines"`
}

// DefaultLogConfig is text at level info.
func DefaultLogConfig() LogConfig { return LogConfig{Level: "info", Format: "text"} }

// Validate names the key that is wrong.
func (c LogConfig) Validate() error {
	var l slog.Level
	if err := l.UnmarshalText([]byte(c.Level)); err != nil {
		return fmt.Errorf("level %q: must be debug, info, warn or error", c.Level)
	}
	if !slices.Contains([]string{"text", "json"}, c.Format) {
		return fmt.Errorf("format %q: must be text or json", c.Format)
	}
	return nil
}

// Logger writes to w as configured. Times are UTC.
func (c LogConfig) Logger(w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Time(slog.TimeKey, a.Value.Time().UTC())
		}
		return a
	}}
	if c.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// NewMetrics is a registry with the process's own metrics and its build.
func NewMetrics(program, version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "millrace_build_info", Help: "Always 1; the labels tell what runs.",
		ConstLabels: prometheus.Labels{"program": program, "version": version, "go": runtime.Version()},
	})
	build.Set(1)
	r.MustRegister(build, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
