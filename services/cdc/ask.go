package cdc

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
)

// answerWithin is how long a running cdc may take to answer a request.
const answerWithin = 10 * time.Second

// errRequestRefused: a running cdc said no.
var errRequestRefused = errors.New("refused")

// Ask writes a request for the cdc of the slot and, unless detach, follows its answers on out until it is done. The
// request's id, slot and time are filled in. A request that no cdc answers is kept for the next one that runs.
func (s *Service) Ask(ctx context.Context, out io.Writer, q schemas.CaptureRequest, detach bool) error {
	if strings.Contains(q.Where, ";") {
		return &app.UsageError{Err: errors.New("--where has a ';': write one SQL expression")}
	}
	for _, t := range q.Tables {
		if !strings.Contains(t, ".") {
			return &app.UsageError{Err: fmt.Errorf("%q is no table; write schema.table", t)}
		}
	}
	if s.groups != nil {
		return s.askGroups(ctx, out, q, detach)
	}
	q.RequestID, q.Slot, q.RequestedAt = rand.Text(), s.cfg.Slot, time.Now().UTC()
	client, err := s.deps.Kafka.Client("cdc-ask", s.deps.Log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := s.deps.Kafka.EnsureTopics(ctx, client, ownTopics()...); err != nil {
		return err
	}
	notes := s.deps.Kafka.Name(schemas.CDCNotifications)
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx, notes)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("find the end of %s: %w", notes, err)
	}
	if err := s.write(ctx, client, q); err != nil {
		return err
	}
	fmt.Fprintf(out, "request %s is written\n", q.RequestID)
	if detach {
		return nil
	}
	end, _ := ends.Lookup(notes, 0)
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{notes: {0: kgo.NewOffset().At(end.Offset)}})
	return s.followAnswers(ctx, out, client, q)
}

// askGroups asks each group for its tables.
func (s *Service) askGroups(ctx context.Context, out io.Writer, q schemas.CaptureRequest, detach bool) error {
	tables := q.Tables
	for _, g := range s.groups {
		q.Tables = slices.DeleteFunc(slices.Clone(tables), func(t string) bool { return !g.cfg.ours(t) })
		if len(tables) > 0 && len(q.Tables) == 0 {
			continue
		}
		if err := g.Ask(ctx, out, q, detach); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) write(ctx context.Context, client *kgo.Client, q schemas.CaptureRequest) error {
	cfg := s.deps.Kafka
	encoder, err := avro.NewEncoder(ctx, s.deps.Registry, cfg.Name(schemas.Subject(schemas.CDCRequests)), schemas.Latest(schemas.CDCRequests))
	if err != nil {
		return err
	}
	value, err := encoder.Append(nil, q)
	if err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	rec := &kgo.Record{Topic: cfg.Name(schemas.CDCRequests), Key: []byte(q.RequestID), Value: value}
	if err := client.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return fmt.Errorf("write the request: %w", err)
	}
	return nil
}

// answers is what has been answered to a request.
type answers struct {
	kind    string
	tables  int // -1: not taken yet
	ended   int
	refused int
}

// followAnswers prints what is told about a request until it is told about all of its tables.
func (s *Service) followAnswers(ctx context.Context, out io.Writer, client *kgo.Client, q schemas.CaptureRequest) error {
	decoder, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.CDCNotifications))
	if err != nil {
		return err
	}
	a := answers{kind: q.Kind, tables: -1}
	deadline := time.Now().Add(answerWithin)
	for a.tables < 0 || a.ended < a.tables {
		poll, cancel := ctx, context.CancelFunc(func() {})
		if a.tables < 0 {
			poll, cancel = context.WithDeadline(ctx, deadline)
		}
		fetches := client.PollFetches(poll)
		cancel()
		if err := ctx.Err(); err != nil {
			return err
		}
		if a.tables < 0 && time.Now().After(deadline) {
			return fmt.Errorf("no cdc of slot %s answers within %v; the request is kept, cdc run takes it when it starts", s.cfg.Slot, answerWithin)
		}
		for _, rec := range fetches.Records() {
			var note schemas.CaptureNotification
			if err := decoder.Decode(ctx, rec.Value, &note); err != nil {
				return fmt.Errorf("read an answer: %w", err)
			}
			if note.RequestID == q.RequestID {
				a.take(note)
				fmt.Fprintf(out, "%-9s %s %s\n", note.Kind, note.Table, note.Message)
			}
		}
	}
	if a.refused > 0 {
		return fmt.Errorf("%w for %d of %d tables", errRequestRefused, a.refused, a.tables)
	}
	return nil
}

func (a *answers) take(note schemas.CaptureNotification) {
	switch {
	case note.Kind == schemas.NoteStarted && note.Table == "":
		if _, err := fmt.Sscan(note.Details["tables"], &a.tables); err != nil {
			a.tables = 1
		}
	case note.Kind == schemas.NoteRefused:
		a.ended++
		a.refused++
	case note.Kind == schemas.NoteDone, note.Kind == schemas.NoteStopped && a.kind == schemas.CapturePause:
		a.ended++
	}
}
