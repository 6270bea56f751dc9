package cdc

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// Status writes what Kafka and the source know as text. What is known is written even if one of them does not answer,
// which is an error.
func (s *Service) Status(ctx context.Context, out io.Writer) error {
	if s.groups != nil {
		return s.statusGroups(ctx, out)
	}
	report, err := s.Report(ctx)
	if _, failed := out.Write(report.text(time.Now())); failed != nil {
		return failed
	}
	return err
}

// StatusJSON is Status with a [StatusReport] as JSON; with groups of tables, a list of them, one for each group.
func (s *Service) StatusJSON(ctx context.Context, out io.Writer) error {
	if s.groups != nil {
		return s.statusGroupsJSON(ctx, out)
	}
	report, err := s.Report(ctx)
	if failed := writeJSON(out, report); failed != nil {
		return failed
	}
	return err
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func (r *StatusReport) text(now time.Time) []byte {
	var b bytes.Buffer
	if r.Kafka != nil {
		r.Kafka.text(&b, now)
	} else {
		fmt.Fprintf(&b, "kafka      does not answer: %s\n", r.KafkaError)
	}
	if r.Source != nil {
		r.Source.text(&b, r.Slot)
	} else {
		fmt.Fprintf(&b, "source     does not answer: %s\n", r.SourceError)
	}
	for _, l := range r.Lag {
		fmt.Fprintf(&b, "lag        %-8s %d bytes\n", l.Stage, l.Bytes)
	}
	if r.Waiting != "" {
		fmt.Fprintf(&b, "waiting    %s\n", r.Waiting)
	}
	if g := r.Gap; g != nil {
		fmt.Fprintf(&b, "gap        %s: %s\n", g.Cause, g.What)
		if g.First != "" {
			fmt.Fprintf(&b, "first      %s\n", g.First)
		}
		fmt.Fprintf(&b, "next       %s\n", g.Next)
	}
	return b.Bytes()
}

func (r *RecordedStatus) text(b *bytes.Buffer, now time.Time) {
	if r.Position == "" {
		fmt.Fprintf(b, "position   none\n")
		return
	}
	ago := func(t *time.Time) string { return now.Sub(*t).Round(time.Second).String() + " ago" }
	fmt.Fprintf(b, "position   %s, recorded %s\ncommitted  %s\n", r.Position, ago(r.RecordedAt), r.CommitTime.Format(time.RFC3339Nano))
	if r.ClaimedAt != nil {
		fmt.Fprintf(b, "progress   claimed %s\n", ago(r.ClaimedAt))
	}
	fmt.Fprintf(b, "snapshot   %s\nsystem     %s, timeline %d\nseq        %d\n", r.Snapshot, r.SystemID, r.Timeline, r.Seq)
	for _, j := range r.Jobs {
		fmt.Fprintf(b, "job        %s of %s: %d rows, %.0f a second", j.Kind, j.Table, j.Rows, j.RowsPerSecond)
		if j.Done != nil {
			fmt.Fprintf(b, ", %.0f %%", 100**j.Done)
		}
		if j.SecondsLeft != nil {
			fmt.Fprintf(b, ", about %v left", time.Duration(*j.SecondsLeft*float64(time.Second)).Round(time.Second))
		}
		fmt.Fprintln(b)
	}
	for _, s := range r.Stopped {
		fmt.Fprintf(b, "stopped    %s: %s; next: %s\n", s.Table, s.Reason, s.Next)
	}
	for _, t := range sortedKeys(r.Poisoned) {
		fmt.Fprintf(b, "poisoned   %s: %d rows in quarantine\n", t, r.Poisoned[t])
	}
	for _, t := range sortedKeys(r.Versions) {
		fmt.Fprintf(b, "version    %s: %d\n", t, r.Versions[t])
	}
}

func (r *SourceStatus) text(b *bytes.Buffer, slot string) {
	kind := "primary"
	if r.Standby {
		kind = "replica"
	}
	fmt.Fprintf(b, "source     %s of system %s, timeline %d, replayed %s\n", kind, r.SystemID, r.Timeline, r.Replayed)
	switch s := r.Slot; {
	case s == nil:
		fmt.Fprintf(b, "slot       %s does not exist\n", slot)
	case s.Invalidated != "":
		meaning, _ := invalidation(s.Invalidated)
		fmt.Fprintf(b, "slot       %s is lost (%s: %s)\n", slot, s.Invalidated, meaning)
	default:
		reader := "read by nobody"
		if s.ReaderPID != 0 {
			reader = fmt.Sprintf("read by process %d", s.ReaderPID)
		}
		fmt.Fprintf(b, "slot       %s, confirmed %s, %s, keeps %d bytes of log", slot, s.Confirmed, reader, s.RetainedBytes)
		if s.SafeBytes != nil {
			fmt.Fprintf(b, ", lost after %d more", *s.SafeBytes)
		}
		fmt.Fprintf(b, ", catalog of %d transactions\n", s.XminAge)
	}
	if !r.Publication {
		fmt.Fprintf(b, "publication does not exist on the source: `cdc check`\n")
	}
}
