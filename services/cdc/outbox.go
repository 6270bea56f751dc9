package cdc

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/preflight"
)

// Headers of outbox records.
const (
	HeaderOutboxID   = "id"
	HeaderOutboxType = "type"
	HeaderOutboxSeq  = "seq"
	// HeaderOutboxAggregate and HeaderOutboxRefused are on the records of the topic of the refused: the aggregate type as
	// it was given, and why its topic did not get the event.
	HeaderOutboxAggregate = "aggregatetype"
	HeaderOutboxRefused   = "refused"
)

// refusedTopic follows the prefix in the name of the topic of the refused.
const refusedTopic = "refused"

// maxTopicName is the longest name of a topic that Kafka allows.
const maxTopicName = 249

var (
	outboxPrefix  = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*\.$`)
	aggregateType = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)
)

const byteaOID = 17

func (c Config) validateOutbox() error {
	if c.Outbox != "" && strings.Count(c.Outbox, ".") != 1 {
		return fmt.Errorf("outbox: %q must be schema.table", c.Outbox)
	}
	if c.OutboxMessages == annotationPrefix {
		return fmt.Errorf("outbox_messages: the prefix %s is that of annotations", annotationPrefix)
	}
	if len(c.OutboxColumns) != 5 || slices.Contains(c.OutboxColumns, "") {
		return fmt.Errorf("outbox_columns: %q must name five columns: id, aggregate type, aggregate id, type, payload", c.OutboxColumns)
	}
	if !outboxPrefix.MatchString(c.OutboxPrefix) || len(c.OutboxPrefix) > 100 {
		return fmt.Errorf("outbox_prefix: %q must be made of letters, digits, '.', '_', '-' and end with '.'", c.OutboxPrefix)
	}
	own := []string{schemas.StorePrefix}
	for _, t := range schemas.Topics() {
		own = append(own, t.Name)
	}
	for _, name := range own {
		if strings.HasPrefix(name, c.OutboxPrefix) || strings.HasPrefix(c.OutboxPrefix, schemas.StorePrefix) {
			return fmt.Errorf("outbox_prefix: topics that begin with %q are Millrace's own, such as %s; take another", c.OutboxPrefix, name)
		}
	}
	if c.OutboxMaxTopics < 1 || c.OutboxMaxTopics > 10_000 {
		return fmt.Errorf("outbox_max_topics: %d must be between 1 and 10000", c.OutboxMaxTopics)
	}
	return nil
}

// wanted are the tables to look for in the publication; empty for all.
func (c Config) wanted() []string {
	if len(c.Tables) == 0 || c.Outbox == "" || slices.Contains(c.Tables, c.Outbox) {
		return c.Tables
	}
	return append(slices.Clip(c.Tables), c.Outbox)
}

// settle takes the outbox and the tables of other groups out of what is captured row by row, and says what is wrong
// with them.
func (c Config) settle(r preflight.Result) preflight.Result {
	published := false
	kept := r.Tables[:0:0]
	for _, t := range r.Tables {
		name := t.Schema + "." + t.Name
		if name == c.Outbox {
			published = true
			r.Findings = append(r.Findings, c.outboxFindings(func(column string) bool {
				for _, have := range t.Columns {
					if have.Name == column {
						return true
					}
				}
				return false
			})...)
		}
		if c.ours(name) {
			kept = append(kept, t)
		}
	}
	r.Tables = kept
	if c.Outbox != "" && len(c.Tables) == 0 && !published {
		r.Findings = append(r.Findings, preflight.Finding{Severity: preflight.Problem, On: "primary",
			What: fmt.Sprintf("the outbox table %s is not in the publication %s", c.Outbox, c.Publication),
			Mend: fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s", c.Publication, c.Outbox)})
	}
	if c.Envelope == envelopeNone {
		r.Findings = append(r.Findings, preflight.Finding{Severity: preflight.Note,
			What: "cdc.envelope is none: enrich, and with it all of Millrace that is made from store.*, needs debezium"})
	}
	return r
}

func (c Config) outboxFindings(has func(string) bool) []preflight.Finding {
	var out []preflight.Finding
	for _, column := range c.OutboxColumns {
		if !has(column) {
			out = append(out, preflight.Finding{Severity: preflight.Problem, On: "primary",
				What: fmt.Sprintf("the outbox table %s has no published column %s, which cdc.outbox_columns names", c.Outbox, column),
				Mend: fmt.Sprintf("add the column %s to %s, or correct cdc.outbox_columns", column, c.Outbox)})
		}
	}
	return out
}

// outbox makes the topics of the outbox. It is for the stream's goroutine.
type outbox struct {
	prefix string // with the prefix of all topics
	limit  int
	have   map[string]bool // by full name; nil until they are listed
	told   map[string]bool // reasons that were logged
	list   func(context.Context) ([]string, error)
	make   func(context.Context, string) error // by full name
}

func (s *session) newOutbox() *outbox {
	cfg := s.deps.Kafka
	prefix := cfg.Name(s.cfg.OutboxPrefix)
	return &outbox{prefix: prefix, limit: s.cfg.OutboxMaxTopics, told: map[string]bool{},
		list: func(ctx context.Context) ([]string, error) {
			listed, err := kadm.NewClient(s.client).ListTopics(ctx)
			if err != nil {
				return nil, fmt.Errorf("list the topics: %w", err)
			}
			return listed.Names(), nil
		},
		make: func(ctx context.Context, name string) error {
			return s.ensure(ctx, []kafka.Topic{schemas.OutboxTopic(strings.TrimPrefix(name, cfg.TopicPrefix))})
		}}
}

// topic is the topic of an aggregate type, which is made if need be. With a reason, it is the topic of the refused.
func (o *outbox) topic(ctx context.Context, aggregate string) (name, reason string, err error) {
	if o.have == nil {
		names, err := o.list(ctx)
		if err != nil {
			return "", "", err
		}
		o.have = map[string]bool{}
		for _, n := range names {
			if strings.HasPrefix(n, o.prefix) {
				o.have[n] = true
			}
		}
	}
	name = o.prefix + aggregate
	others := len(o.have)
	if o.have[o.prefix+refusedTopic] {
		others--
	}
	switch {
	case aggregate == "":
		reason = "no aggregate type"
	case !aggregateType.MatchString(aggregate) || len(name) > maxTopicName || aggregate == refusedTopic:
		reason = "aggregate type is not a topic's name"
	case !o.have[name] && others >= o.limit:
		reason = "cdc.outbox_max_topics"
	}
	if reason != "" {
		name = o.prefix + refusedTopic
	}
	if o.have[name] {
		return name, reason, nil
	}
	if err := o.make(ctx, name); err != nil {
		return "", "", err
	}
	o.have[name] = true
	return name, reason, nil
}

// outboxTable is where an outbox table has its columns, in the order of Config.OutboxColumns; -1 for one that is missing.
type outboxTable struct {
	columns [5]int
	binary  [5]bool // bytea
}

func (c Config) outboxTable(r pgoutput.Relation) *outboxTable {
	out := &outboxTable{columns: [5]int{-1, -1, -1, -1, -1}}
	for i, have := range r.Columns {
		if at := slices.Index(c.OutboxColumns, have.Name); at >= 0 {
			out.columns[at], out.binary[at] = i, have.Type == byteaOID
		}
	}
	return out
}

// outboxEvent is what an application has put into its outbox. Fields are nil where it put null.
type outboxEvent struct{ id, aggregateType, aggregateID, kind, payload []byte }

// route sends an insert into the outbox table on.
func (x *extras) route(ctx context.Context, rel *relation, c *pgoutput.Change) error {
	var fields [5][]byte
	for i, at := range rel.outbox.columns {
		if at < 0 || at >= len(c.New) || c.New[at].Kind != pgoutput.Text {
			continue
		}
		fields[i] = c.New[at].Data
		if rel.outbox.binary[i] {
			raw, err := hex.DecodeString(string(bytes.TrimPrefix(fields[i], []byte(`\x`))))
			if err != nil {
				return fmt.Errorf("a value of the outbox table %s is not in bytea's hex form: %w", rel.name, pgoutput.ErrMalformed)
			}
			fields[i] = raw
		}
	}
	reason := ""
	if slices.Contains(rel.outbox.columns[:], -1) {
		reason = "the outbox table lacks a column"
	}
	return x.send(ctx, outboxEvent{fields[0], fields[1], fields[2], fields[3], fields[4]}, reason)
}

// sendMessage sends on an outbox event that came as a logical message: a JSON object with the names of Debezium's columns.
// A payload that is a JSON string is the string; any other is its JSON text.
func (x *extras) sendMessage(ctx context.Context, content []byte) error {
	var msg struct {
		ID            string          `json:"id"`
		AggregateType string          `json:"aggregatetype"`
		AggregateID   string          `json:"aggregateid"`
		Type          string          `json:"type"`
		Payload       json.RawMessage `json:"payload"`
	}
	if err := json.Unmarshal(content, &msg); err != nil {
		return x.send(ctx, outboxEvent{payload: content}, "message is not a JSON object of id, aggregatetype, aggregateid, type and payload")
	}
	ev := outboxEvent{[]byte(msg.ID), []byte(msg.AggregateType), []byte(msg.AggregateID), []byte(msg.Type), msg.Payload}
	var text *string
	if err := json.Unmarshal(msg.Payload, &text); err == nil {
		ev.payload = nil
		if text != nil {
			ev.payload = []byte(*text)
		}
	}
	return x.send(ctx, ev, "")
}

// send adds an outbox event to its topic, or, with a reason, to that of the refused: never to a wrong one.
func (x *extras) send(ctx context.Context, ev outboxEvent, reason string) error {
	o := x.outbox
	aggregate := string(ev.aggregateType)
	size := len(ev.payload) + len(ev.id) + len(ev.kind) + len(ev.aggregateID) + len(aggregate) + maxAnnotations
	if reason == "" && size > maxRecord {
		reason = "larger than a record can be"
	}
	named := aggregate
	if reason != "" {
		named = refusedTopic
	}
	topic, why, err := o.topic(ctx, named)
	if err != nil {
		return err
	}
	if reason == "" {
		reason = why
	}
	x.position.Seq++
	// Headers outlive the source's message, which the event points into; key and value are copied.
	headers := []kgo.RecordHeader{{Key: HeaderOutboxID, Value: bytes.Clone(ev.id)}, {Key: HeaderOutboxType, Value: bytes.Clone(ev.kind)},
		{Key: HeaderOutboxSeq, Value: strconv.AppendInt(nil, x.position.Seq, 10)}}
	if reason != "" {
		x.refuse(reason)
		headers = append(headers, kgo.RecordHeader{Key: HeaderOutboxAggregate, Value: []byte(aggregate)},
			kgo.RecordHeader{Key: HeaderOutboxRefused, Value: []byte(reason)})
		if size > maxRecord { // what is left says that there was one
			headers = headers[len(headers)-1:]
			ev = outboxEvent{aggregateID: ev.aggregateID[:min(len(ev.aggregateID), maxPrefix)]}
		}
	}
	return x.record(ctx, &kgo.Record{Topic: topic, Key: ev.aggregateID, Value: ev.payload, Headers: append(headers, x.headers...)})
}

// refuse counts a refused event, and says each reason once.
func (x *extras) refuse(reason string) {
	x.metrics.refused.WithLabelValues("outbox").Inc()
	o := x.outbox
	if o.told[reason] {
		return
	}
	o.told[reason] = true
	x.log.Error("outbox events are refused: they go to the topic of the refused, with the reason in a header", "topic", o.prefix+refusedTopic, "reason", reason)
}
