package cdc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/evolve"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Every table that is encoded passes through here, whether it was read or streamed: this is where it gets to know its
// columns' past, their treatment and its row filter.

// ofCatalog is a table of the catalog in the form that encoders are made of.
func (f *factory) ofCatalog(ctx context.Context, t catalog.Table, version int32) (rows.Table, error) {
	names := make([]string, len(t.Columns))
	numbers := map[string]int16{}
	for i, c := range t.Columns {
		names[i], numbers[c.Name] = c.Name, c.Number
	}
	lineage, err := f.trace(ctx, f.topicOf(t.Schema, t.Name, version), names, numbers)
	if err != nil {
		return rows.Table{}, err
	}
	return f.finished(t.Rows(f.treat(lineage), f.options), lineage), nil
}

// ofRelation is a table of the stream in the form that encoders are made of.
func (f *factory) ofRelation(ctx context.Context, conn *pgx.Conn, r pgoutput.Relation, key []string, types *catalog.Types, version int32) (rows.Table, error) {
	names := make([]string, len(r.Columns))
	for i, c := range r.Columns {
		names[i] = c.Name
	}
	numbers, err := catalog.Numbers(ctx, conn, r.ID)
	if err != nil {
		return rows.Table{}, err
	}
	lineage, err := f.trace(ctx, f.topicOf(r.Schema, r.Name, version), names, numbers)
	if err != nil {
		return rows.Table{}, err
	}
	return f.finished(catalog.FromRelation(r, key, types, f.treat(lineage), f.options), lineage), nil
}

func (f *factory) finished(t rows.Table, lineage rows.Lineage) rows.Table {
	t.Lineage, t.Filter = lineage, f.policy.Filter(t.Schema, t.Name)
	return t
}

// treat is the policy, knowing the columns' earlier names.
func (f *factory) treat(l rows.Lineage) catalog.Treat {
	return func(schema, table, column string) rows.Treatment {
		return f.policy.Column(schema, table, column, l.Formerly[column]...)
	}
}

// trace finds out where the columns of a topic's table come from.
func (f *factory) trace(ctx context.Context, topic string, columns []string, numbers map[string]int16) (rows.Lineage, error) {
	history, err := f.history(ctx, topic)
	if err != nil {
		return rows.Lineage{}, err
	}
	return evolve.Trace(columns, numbers, last(history)), nil
}

// history are the versions of a topic's table that the registry has, oldest first. It waits as long as the registry is away.
func (f *factory) history(ctx context.Context, topic string) ([]evolve.Version, error) {
	var texts []string
	err := f.patiently(ctx, func() (err error) {
		texts, err = f.registry.Versions(ctx, topic+"-value")
		return err
	})
	var out []evolve.Version
	for i, text := range texts {
		v, err := evolve.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("version %d of subject %s-value: %w", i+1, topic, err)
		}
		out = append(out, v)
	}
	return out, err
}

func last(history []evolve.Version) *evolve.Version {
	if len(history) == 0 {
		return nil
	}
	return &history[len(history)-1]
}

// follow compares a table with its topic's versions so far. An error that wraps avro.ErrIncompatible is the table's.
func (f *factory) follow(ctx context.Context, topic string, t rows.Table) ([]evolve.Change, error) {
	next, err := evolve.Parse(t.SchemaIn(f.origin.Form))
	if err != nil {
		return nil, err
	}
	history, err := f.history(ctx, topic)
	if err != nil || len(history) == 0 {
		return nil, err
	}
	if err := evolve.Check(history, next); err != nil {
		return nil, fmt.Errorf("%w: %w", avro.ErrIncompatible, err)
	}
	return evolve.Diff(*last(history), next), nil
}

// tell says what changed about a table, and which of its columns are held back.
func (f *factory) tell(topic string, t rows.Table, changes []evolve.Change) {
	name := t.Schema + "." + t.Name
	withheld := strings.Join(t.Withheld(), ", ")
	if withheld != "" {
		f.log.Warn("columns are withheld until somebody says what they are; name each in cdc.clear, cdc.tokenise, cdc.mask or cdc.exclude_columns",
			"table", name, "columns", withheld)
	}
	if len(changes) == 0 {
		return
	}
	var texts []string
	for _, c := range changes {
		texts = append(texts, c.String())
	}
	what := strings.Join(texts, "; ")
	f.log.Info("table changed", "table", name, "changes", what)
	details := map[string]string{"topic": topic, "changes": what}
	if withheld != "" {
		details["withheld"] = withheld
	}
	f.notify(schemas.CaptureNotification{At: time.Now().UTC(), Kind: schemas.NoteSchemaChanged, Table: name,
		Message: "the table changed: " + what, Details: details})
}

// notifyPatience bounds the writing of one notification: what it tells is in the log too.
const notifyPatience = 5 * time.Second

// notifier writes notifications about this slot, whether or not ctx has ended. What cannot be written is in the log alone.
func (s *Service) notifier(ctx context.Context) func(schemas.CaptureNotification) {
	ctx = context.WithoutCancel(ctx)
	return func(note schemas.CaptureNotification) {
		if err := s.notify(ctx, note); err != nil {
			s.deps.Log.Warn("cannot write a notification", "kind", note.Kind, "table", note.Table, "error", err)
		}
	}
}

func (s *Service) notify(ctx context.Context, note schemas.CaptureNotification) error {
	ctx, cancel := context.WithTimeout(ctx, notifyPatience)
	defer cancel()
	note.Slot = s.cfg.Slot
	topic := s.deps.Kafka.Name(schemas.CDCNotifications)
	encoder, err := avro.NewEncoder(ctx, s.deps.Registry, schemas.Subject(topic), schemas.Latest(schemas.CDCNotifications))
	if err != nil {
		return err
	}
	value, err := encoder.Append(nil, note)
	if err != nil {
		return err
	}
	client, err := s.deps.Kafka.Client("cdc-notifications", s.deps.Log, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte(note.Slot), Value: value}).FirstErr()
}
