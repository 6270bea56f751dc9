package enrich

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/enrich/internal/reference"
)

// follow starts to follow the reference tables, and our own topics of state.
func (s *session) follow(work *errgroup.Group, ctx context.Context) error {
	var topics []string
	for _, t := range s.set.Tables {
		if t.Reference >= 0 {
			topics = append(topics, s.deps.Kafka.Name(t.Topic))
		}
	}
	rows := newRows(s.deps.Registry, s.status, partReference, s.log)
	if len(topics) > 0 {
		s.refFollower = kafka.NewFollower(s.deps.Kafka, "enrich-reference", s.log,
			func(ctx context.Context, records []*kgo.Record) error { return s.applyReference(ctx, rows, records) }, topics...)
		work.Go(func() error { return s.refFollower.Run(ctx) })
	}
	progress, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.Progress))
	if err != nil {
		return err
	}
	waiting, err := avro.NewDecoder(s.deps.Registry, schemas.Latest(schemas.EnrichWaiting))
	if err != nil {
		return err
	}
	s.ownFollower = kafka.NewFollower(s.deps.Kafka, "enrich-state", s.log,
		func(ctx context.Context, records []*kgo.Record) error {
			return s.applyOwn(ctx, waiting, progress, records)
		},
		s.deps.Kafka.Name(schemas.EnrichWaiting), s.deps.Kafka.Name(schemas.Progress))
	work.Go(func() error { return s.ownFollower.Run(ctx) })
	return nil
}

// applyReference takes over rows of reference tables and then tells those who wait for them. A record that cannot be
// read is left out here: as an input of the group it is quarantined.
func (s *session) applyReference(ctx context.Context, rows *rows, records []*kgo.Record) error {
	changes := make([]reference.Change, 0, len(records))
	for _, r := range records {
		t := s.tables[r.Topic]
		if r.Value == nil {
			continue
		}
		row, err := rows.decode(ctx, t, r.Value)
		if err != nil {
			if _, _, bad := verdict(err); bad && ctx.Err() == nil {
				s.metrics.skipped.WithLabelValues(s.plain(r.Topic)).Inc()
				continue
			}
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if row.Op == 't' {
			continue
		}
		faults := shapeFaults(row)
		var key string
		if faults == nil {
			key, faults = t.Key(row)
		}
		if len(faults) > 0 {
			s.metrics.skipped.WithLabelValues(s.plain(r.Topic)).Inc()
			continue
		}
		changes = append(changes, t.Change(row, key))
	}
	s.refs.Apply(changes)
	s.tellWaiting(changes)
	for _, t := range s.set.Tables {
		if t.Reference >= 0 {
			s.metrics.rows.WithLabelValues(t.Name).Set(float64(s.refs.Len(t.Reference)))
		}
	}
	s.wake() // a claim may be met now
	return nil
}

func (s *session) tellWaiting(changes []reference.Change) {
	if s.waiting.len() == 0 {
		return
	}
	names := make([]string, s.set.References())
	for _, t := range s.set.Tables {
		if t.Reference >= 0 {
			names[t.Reference] = t.Name
		}
	}
	for _, c := range changes {
		if !c.Gone {
			s.waiting.arrived(names[c.Table] + "/" + c.Key)
		}
	}
}

// applyOwn takes over images that wait, and cdc's claims.
func (s *session) applyOwn(ctx context.Context, waiting, progress *avro.Decoder, records []*kgo.Record) error {
	for _, r := range records {
		var err error
		switch s.plain(r.Topic) {
		case schemas.EnrichWaiting:
			err = s.applyWaiting(ctx, waiting, r)
		case schemas.Progress:
			err = s.applyClaim(ctx, progress, r)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("topic %s, partition %d, offset %d: %w", r.Topic, r.Partition, r.Offset, err)
		}
	}
	s.metrics.waiting.Set(float64(s.waiting.len()))
	s.wake()
	return nil
}

func (s *session) applyWaiting(ctx context.Context, dec *avro.Decoder, r *kgo.Record) error {
	if r.Value == nil {
		s.waiting.followed(string(r.Key), nil, r.Offset)
		return nil
	}
	var entry schemas.Waiting
	if err := s.decodeOwn(ctx, dec, r.Value, &entry); err != nil {
		return err
	}
	s.waiting.followed(string(r.Key), &entry, r.Offset)
	return nil
}

func (s *session) applyClaim(ctx context.Context, dec *avro.Decoder, r *kgo.Record) error {
	if r.Value == nil || !strings.HasPrefix(string(r.Key), cdcStage+"/") {
		return nil
	}
	var claim schemas.Claim
	if err := s.decodeOwn(ctx, dec, r.Value, &claim); err != nil {
		return err
	}
	s.claims.add(claim)
	return nil
}

func (s *session) decodeOwn(ctx context.Context, dec *avro.Decoder, value []byte, into any) error {
	return s.status.retry(ctx, partReference, func() (bool, error) {
		err := dec.Decode(ctx, value, into)
		return avro.Bad(err), err
	})
}
