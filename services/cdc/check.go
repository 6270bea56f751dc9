package cdc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/cdc/internal/preflight"
)

// CheckReport is what `cdc check --json` writes. The form is stable: fields are added, not changed.
type CheckReport struct {
	Ready       bool                `json:"ready"` // no finding is a problem
	Version     int                 `json:"server_version_num"`
	Standby     bool                `json:"standby"`
	RDS         bool                `json:"rds"`
	Slot        string              `json:"slot"`
	Publication string              `json:"publication"`
	Tables      []string            `json:"tables"` // that would be captured, in order
	Findings    []preflight.Finding `json:"findings"`
}

// Check writes what it finds about the source to out. The error wraps app.ErrDifferences when capture cannot work.
func Check(ctx context.Context, out io.Writer, cfg Config, source SourceConfig) error {
	if len(cfg.Groups) > 0 {
		return checkGroups(ctx, out, cfg, source)
	}
	report, err := check(ctx, cfg, source)
	if err != nil {
		return err
	}
	for _, f := range report.Findings {
		if _, err := fmt.Fprintln(out, f); err != nil {
			return err
		}
	}
	if err := report.err(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "ready for capture: PostgreSQL %d, %d tables\n", report.Version/10000, len(report.Tables))
	return err
}

// CheckJSON is Check with a [CheckReport] as JSON; with groups of tables, a list of them, one for each group.
func CheckJSON(ctx context.Context, out io.Writer, cfg Config, source SourceConfig) error {
	if len(cfg.Groups) > 0 {
		return checkGroupsJSON(ctx, out, cfg, source)
	}
	report, err := check(ctx, cfg, source)
	if err != nil {
		return err
	}
	if err := writeJSON(out, report); err != nil {
		return err
	}
	return report.err()
}

func check(ctx context.Context, cfg Config, source SourceConfig) (CheckReport, error) {
	conn, err := connectSQL(ctx, source, "millrace-cdc-check")
	if err != nil {
		return CheckReport{}, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rules, err := cfg.policy()
	if err != nil {
		return CheckReport{}, err
	}
	result, err := preflight.Run(ctx, conn, preflight.Request{URL: source.URL.Reveal(), Slot: cfg.Slot, Publication: cfg.Publication,
		Tables: cfg.wanted(), Policy: rules, Options: cfg.options()})
	if err != nil {
		return CheckReport{}, err
	}
	result = cfg.settle(result)
	report := CheckReport{Ready: len(result.Problems(true)) == 0, Version: result.Version, Standby: result.Standby, RDS: result.RDS,
		Slot: cfg.Slot, Publication: cfg.Publication, Tables: []string{}, Findings: result.Findings}
	if report.Findings == nil {
		report.Findings = []preflight.Finding{}
	}
	for _, t := range result.Tables {
		report.Tables = append(report.Tables, t.Schema+"."+t.Name)
	}
	return report, nil
}

func (r CheckReport) err() error {
	if r.Ready {
		return nil
	}
	n := 0
	for _, f := range r.Findings {
		if f.Severity == preflight.Problem {
			n++
		}
	}
	return fmt.Errorf("%w: capture cannot work yet, problems: %d", app.ErrDifferences, n)
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	return nil
}
