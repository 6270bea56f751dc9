package cdc

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/chunk"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/image"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// VerifyOptions say what to compare.
type VerifyOptions struct {
	Tables []string // schema.table; empty for all that are captured
	Rate   int      // rows a second that the source is read with at most; 0 for no limit
	Sample float64  // share of the keys that is compared, over 0 and up to 1
	Keys   int      // keys that are named at most for each table; 0 for all
	JSON   bool     // write one JSON object instead of text
}

// Validate names the option that is wrong.
func (o VerifyOptions) Validate() error {
	switch {
	case o.Rate < 0:
		return fmt.Errorf("rate: %d must not be negative", o.Rate)
	case o.Sample <= 0 || o.Sample > 1:
		return fmt.Errorf("sample: %v must be over 0 and at most 1", o.Sample)
	case o.Keys < 0:
		return fmt.Errorf("keys: %d must not be negative", o.Keys)
	}
	return nil
}

// States of a verified table.
const (
	verifiedEqual      = "equal"
	verifiedDifferent  = "different"
	verifiedIncomplete = "incomplete"
)

// verified is what was found about one table.
type verified struct {
	Table  string `json:"table"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"` // of being incomplete
	diff.Counts
	Moved int64    `json:"moved"` // keys that first looked different, for they changed meanwhile
	Keys  []wanted `json:"keys,omitempty"`
}

// wanted is a key on which table and topic do not agree.
type wanted struct {
	Kind string `json:"kind"`
	Key  string `json:"key"` // column=value, as the topic has them: tokens are tokens
}

// Verify compares tables with their topics at positions that they have in common, while capture goes on, and writes what it
// finds to out. The error wraps app.ErrDifferences if a table differs or is incomplete. It writes nothing else anywhere.
func (s *Service) Verify(ctx context.Context, out io.Writer, o VerifyOptions) error {
	if err := o.Validate(); err != nil {
		return &app.UsageError{Err: err}
	}
	v, err := s.newVerifier(ctx, out, o)
	if err != nil {
		return err
	}
	defer v.close(ctx)
	tables, err := v.tables(ctx)
	if err != nil {
		return err
	}
	var all []verified
	for _, t := range tables {
		r, err := v.table(ctx, t)
		if err != nil {
			return fmt.Errorf("verify %s.%s: %w", t.Schema, t.Name, err)
		}
		all = append(all, r)
		if err := v.print(r); err != nil {
			return err
		}
	}
	return v.conclude(all)
}

// verifier is one run of Verify. It is for one goroutine.
type verifier struct {
	*Service
	VerifyOptions
	out      io.Writer
	sql      *pgx.Conn
	reader   *chunk.Reader
	position schemas.Position
	folder   folder
}

// settleLimit bounds the rows that are read to settle candidates, in bytes.
const settleLimit = 16 << 20

func (s *Service) newVerifier(ctx context.Context, out io.Writer, o VerifyOptions) (*verifier, error) {
	p, have, err := readPosition(ctx, s.deps.Kafka, s.deps.Registry, s.deps.Log, settled, s.cfg.Slot)
	if errors.Is(err, kerr.UnknownTopicOrPartition) || err == nil && (!have || p.Snapshot == snapshotNone) {
		return nil, errNothingCaptured
	}
	if err != nil {
		return nil, err
	}
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-verify")
	if err != nil {
		return nil, err
	}
	v := &verifier{Service: s, VerifyOptions: o, out: out, sql: sql, position: p, folder: s.newFolder()}
	v.reader = &chunk.Reader{Limit: settleLimit, Timeout: 30 * time.Second,
		Connect: func(ctx context.Context) (*pgx.Conn, error) {
			return connectSQL(ctx, s.deps.Source, "millrace-cdc-verify")
		},
		Replicate: func(ctx context.Context) (*replica.Conn, error) {
			return replica.Connect(ctx, s.deps.Source.URL.Reveal(), "millrace-cdc-verify")
		}}
	var system string
	err = sql.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system)
	switch {
	case err != nil:
		err = fmt.Errorf("ask the source which system it is: %w", err)
	case system != p.SystemID:
		err = fmt.Errorf("the position is one of system %s, and the source is system %s: nothing can be compared", p.SystemID, system)
	}
	if err != nil {
		v.close(ctx)
		return nil, err
	}
	return v, nil
}

func (v *verifier) close(ctx context.Context) {
	v.reader.Close()
	_ = v.sql.Close(context.WithoutCancel(ctx)) // it has only read
}

// tables are those to compare.
func (v *verifier) tables(ctx context.Context) ([]catalog.Table, error) {
	all, err := catalog.Tables(ctx, v.sql, v.cfg.Publication)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(t catalog.Table) bool { return !v.captured(t.Schema + "." + t.Name) })
	if len(v.Tables) == 0 {
		return all, nil
	}
	var out []catalog.Table
	for _, name := range v.Tables {
		i := slices.IndexFunc(all, func(t catalog.Table) bool { return t.Schema+"."+t.Name == name })
		if i < 0 {
			return nil, &app.UsageError{Err: fmt.Errorf("%s is not captured: it is not in the publication %s, or not in cdc.tables", name, v.cfg.Publication)}
		}
		out = append(out, all[i])
	}
	return out, nil
}

// notWhole is why a table cannot be equal; "" if it can.
func notWhole(p schemas.Position, table string) string {
	if reason, ok := p.Stopped[table]; ok {
		return "stopped: " + reason
	}
	for _, j := range p.Jobs {
		if j.Table == table {
			return "a " + j.Kind + " of it is running"
		}
	}
	if n := len(p.Poisoned[table]); n > 0 {
		return fmt.Sprintf("%d rows are in quarantine; `cdc resume %s` reads them again", n, table)
	}
	if p.Snapshot == snapshotRunning {
		return "the first snapshot is not done"
	}
	return ""
}

// table compares one table.
func (v *verifier) table(ctx context.Context, t catalog.Table) (verified, error) {
	name := t.Schema + "." + t.Name
	out := verified{Table: name, State: verifiedIncomplete, Reason: notWhole(v.position, name)}
	if out.Reason != "" && len(v.position.Poisoned[name]) == 0 {
		return out, nil
	}
	tables := &factory{registry: v.deps.Registry, keys: v.deps.Keys, log: v.deps.Log, name: v.deps.Kafka.Name, policy: v.policy, options: v.cfg.options()}
	version := v.position.Versions[name]
	shape, err := tables.ofCatalog(ctx, t, version)
	if err != nil {
		return out, err
	}
	if err := shape.Validate(); err != nil {
		out.Reason = err.Error()
		return out, nil
	}
	topic := tables.topicOf(t.Schema, t.Name, version)
	keyID, err := v.deps.Registry.Lookup(ctx, topic+"-key", shape.KeySchema())
	if errors.Is(err, avro.ErrUnknownSchema) {
		out.Reason = "its key is another one than that of its topic"
		return out, nil
	}
	if err != nil {
		return out, err
	}
	c := &comparison{verifier: v, out: &out, topic: topic, from: chunkTable(t, shape),
		encoder: rows.NewEncoder(shape, rows.Origin{}, v.deps.Keys, keyID, 0)}
	if err := c.run(ctx); err != nil {
		return out, err
	}
	if out.State = verifiedEqual; out.Differences() > 0 {
		out.State = verifiedDifferent
	} else if out.Reason != "" {
		out.State = verifiedIncomplete
	}
	return out, nil
}

// comparison compares one table with its topic.
type comparison struct {
	*verifier
	out     *verified
	topic   string
	from    chunk.Table
	encoder *rows.Encoder
	sums    *rowSums
	folded  *folded
	keys    *image.KeyLayout
	pending []candidate
	bytes   int
}

// candidate is a key whose row and image were not equal when they were looked at, one after the other.
type candidate struct {
	key   string
	texts []pgoutput.Datum // of the key's columns; nil if they cannot be told
	first version          // what the topic had
}

// How many candidates are settled together.
const (
	mostCandidates     = 20_000
	mostCandidateBytes = 8 << 20
	keysAtATime        = 500
)

func (c *comparison) run(ctx context.Context) (err error) {
	if c.folded, err = c.folder.fold(ctx, c.topic, imageReader(c.encoder.Table), c.sampled); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.folded.set.Close()) }()
	if c.sums, err = newRowSums(c.encoder, c.folded.reader); err != nil {
		return err
	}
	if c.keys, err = keyLayout(c.encoder.Table); err != nil {
		return err
	}
	table := c.folder.space.NewSet(nil)
	defer func() { err = errors.Join(err, table.Close()) }()
	scan := tableScan{conn: c.sql, from: c.from, rate: c.Rate, each: func(line []byte) error {
		e, err := c.sums.line(line)
		if errors.Is(err, errNotCaptured) {
			return nil
		}
		if err != nil || !c.sampled(e.Key) {
			return err
		}
		return table.Put(e)
	}}
	if err := scan.run(ctx); err != nil {
		return err
	}
	// Candidates are not counted before they are settled.
	counts, err := diff.Compare(ctx, table, c.folded.set, sameImage, func(d diff.Difference) error { return c.candidate(ctx, d) })
	if err == nil {
		err = c.settle(ctx)
	}
	c.out.Source, c.out.Target = counts.Source, counts.Target
	c.out.Equal = counts.Equal + c.out.Moved
	return err
}

// sampled tells whether a key is among those that are compared.
func (c *comparison) sampled(key []byte) bool {
	if c.Sample >= 1 {
		return true
	}
	sum := diff.SumOf(key)
	return float64(binary.BigEndian.Uint32(sum[:])) < c.Sample*(1<<32)
}

func (c *comparison) candidate(ctx context.Context, d diff.Difference) error {
	if slices.ContainsFunc(c.position.Poisoned[c.out.Table], func(k []byte) bool { return string(k) == string(d.Key()) }) {
		return nil
	}
	n := candidate{key: string(d.Key()), texts: textsOf(c.encoder, d.Key())}
	if d.Kind != diff.Missing {
		at := len(d.Target.Extra) - commitSize
		n.first = version{there: true, sum: d.Target.Sum, parts: d.Target.Extra[:at], commit: int64(binary.BigEndian.Uint64(d.Target.Extra[at:]))}
	}
	c.pending = append(c.pending, n)
	c.bytes += 3*len(n.key) + len(n.first.parts) + 200
	if len(c.pending) < mostCandidates && c.bytes < mostCandidateBytes {
		return nil
	}
	return c.settle(ctx)
}

func keyLayout(t rows.Table) (*image.KeyLayout, error) {
	schema, err := parseAvro(t.KeySchema())
	if err != nil {
		return nil, err
	}
	return image.CompileKey(schema)
}

// textsOf are the texts of a key's columns, as PostgreSQL knows them; nil if they cannot be told, as of tokens.
func textsOf(e *rows.Encoder, key []byte) []pgoutput.Datum {
	if len(key) < keyFrame || string(e.AppendKeyFrame(nil)) != string(key[:keyFrame]) {
		return nil
	}
	columns, ok := e.Table.KeyTexts(key[keyFrame:])
	if !ok {
		return nil
	}
	return columns
}

// keyName is a key for people.
func keyName(keys *image.KeyLayout, key string) string {
	if len(key) < keyFrame {
		return fmt.Sprintf("%x", key)
	}
	columns, err := keys.Read([]byte(key[keyFrame:]))
	if err != nil {
		return fmt.Sprintf("%x", key)
	}
	var parts []string
	for _, c := range columns {
		parts = append(parts, c.Field+"="+c.Text)
	}
	return strings.Join(parts, " ")
}

func (v *verifier) print(r verified) error {
	if v.JSON {
		return nil
	}
	var err error
	line := func(format string, args ...any) {
		if err == nil {
			_, err = fmt.Fprintf(v.out, format, args...)
		}
	}
	line("%-10s %s: %d rows in the table, %d in the topic", r.State, r.Table, r.Source, r.Target)
	if r.Differences() > 0 {
		line(", missing %d, extra %d, different %d", r.Missing, r.Extra, r.Different)
	}
	if r.Reason != "" {
		line(" (%s)", r.Reason)
	}
	line("\n")
	for _, k := range r.Keys {
		line("  %-10s %s\n", k.Kind, k.Key)
	}
	if left := r.Differences() - int64(len(r.Keys)); left > 0 {
		line("  and %d more\n", left)
	}
	return err
}

func (v *verifier) conclude(all []verified) error {
	var different, incomplete []string
	for _, r := range all {
		switch r.State {
		case verifiedDifferent:
			different = append(different, r.Table)
		case verifiedIncomplete:
			incomplete = append(incomplete, r.Table)
		}
	}
	if v.JSON {
		encoder := json.NewEncoder(v.out)
		encoder.SetIndent("", "  ")
		err := encoder.Encode(map[string]any{"equal": len(different)+len(incomplete) == 0, "position": pgoutput.LSN(v.position.LSN).String(), "tables": all})
		if err != nil {
			return err
		}
	}
	switch {
	case len(different) > 0:
		return fmt.Errorf("%w: %s; `cdc reconcile %s` writes what differs", app.ErrDifferences, strings.Join(different, ", "), strings.Join(different, " "))
	case len(incomplete) > 0:
		return fmt.Errorf("%w: %s cannot be compared yet; `cdc status` says more", app.ErrDifferences, strings.Join(incomplete, ", "))
	}
	return nil
}

// scanTail reads the versions of some keys since the topic was folded.
func (c *comparison) scanTail(ctx context.Context, of map[string]*settling) error {
	images := newImages(c.deps.Registry, c.folded.reader)
	_, _, err := scanFrom(ctx, c.deps.Kafka, c.deps.Log, settled,
		func(p partition, start, _ int64) int64 { return max(start, c.folded.ends[p]) },
		func(r *kgo.Record) error {
			s := of[string(r.Key)]
			if s == nil || r.Attrs.IsControl() {
				return nil
			}
			v, err := images.read(ctx, r)
			if err != nil {
				return err
			}
			v.parts = slices.Clone(v.parts)
			s.add(v)
			return nil
		}, c.topic)
	return err
}
