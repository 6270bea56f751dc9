package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/catalog"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// requests carries out what operators ask for in cdc.requests, each once: the position notes how far it has come in the
// same transaction that notes the effect.
func (m *jobs) requests(ctx context.Context) error {
	for {
		if err := m.follow(ctx); err != nil && ctx.Err() == nil {
			m.deps.Log.Warn("cannot read the requests, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(longestPause):
		}
	}
}

func (m *jobs) follow(ctx context.Context) error {
	var from int64
	err := m.beside.do(ctx, func(_ context.Context, t *transform) error { from = t.position.Requests; return nil })
	if err != nil {
		return err
	}
	decoder, err := avro.NewDecoder(m.deps.Registry, schemas.Latest(schemas.CDCRequests))
	if err != nil {
		return err
	}
	topic := m.deps.Kafka.Name(schemas.CDCRequests)
	client, err := m.deps.Kafka.Client("cdc-requests", m.deps.Log, nil, kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().At(from)}}))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		if errs := fetches.Errors(); len(errs) > 0 {
			return fmt.Errorf("read topic %s: %w", topic, errs[0].Err)
		}
		for _, rec := range fetches.Records() {
			if err := m.request(ctx, decoder, rec); err != nil {
				return err
			}
		}
	}
}

// request carries out one request. An error is one of Kafka or the source, and the request is taken up again.
func (m *jobs) request(ctx context.Context, decoder *avro.Decoder, rec *kgo.Record) error {
	var q schemas.CaptureRequest
	if err := decoder.Decode(ctx, rec.Value, &q); errors.Is(err, avro.ErrUnavailable) {
		return err
	} else if err != nil {
		m.deps.Log.Warn("a request cannot be read", "offset", rec.Offset, "error", err)
		return m.beside.do(ctx, func(_ context.Context, t *transform) error { return t.requested(rec.Offset) })
	}
	if q.Slot != m.cfg.Slot {
		return m.beside.do(ctx, func(_ context.Context, t *transform) error { return t.requested(rec.Offset) })
	}
	tables, refusals, err := m.judge(ctx, q)
	if err != nil {
		return err
	}
	m.deps.Log.Info("request", "kind", q.Kind, "tables", tables, "refused", len(refusals), "id", q.RequestID)
	m.notes.tell(schemas.CaptureNotification{Kind: schemas.NoteStarted, RequestID: q.RequestID, Message: "the request is taken",
		Details: map[string]string{"tables": fmt.Sprint(len(tables) + len(refusals))}})
	for _, name := range slices.Sorted(maps.Keys(refusals)) {
		m.notes.tell(schemas.CaptureNotification{Kind: schemas.NoteRefused, Table: name, RequestID: q.RequestID, Message: refusals[name]})
	}
	return m.beside.do(ctx, func(ctx context.Context, t *transform) error {
		for _, name := range tables {
			if err := t.ask(ctx, q, name); err != nil {
				return err
			}
		}
		return t.requested(rec.Offset)
	})
}

// requested notes that a request is done with.
func (t *transform) requested(offset int64) error {
	t.position.Requests = offset + 1
	t.keep()
	return nil
}

// judge tells the tables that the request is carried out for, and why not for the others.
func (m *jobs) judge(ctx context.Context, q schemas.CaptureRequest) (tables []string, refusals map[string]string, err error) {
	refusals = map[string]string{}
	switch q.Kind {
	case schemas.CaptureSnapshot, schemas.CaptureReconcile, schemas.CapturePause, schemas.CaptureResume:
	default:
		refusals[""] = fmt.Sprintf("a request of kind %q is not known to this version", q.Kind)
		return nil, refusals, nil
	}
	conn, err := m.connectWindow(ctx)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	published, err := catalog.Tables(ctx, conn, m.cfg.Publication)
	if err != nil {
		return nil, nil, err
	}
	known := map[string]catalog.Table{}
	for _, t := range published {
		if name := t.Schema + "." + t.Name; m.factory.captures(m.cfg, name) {
			known[name] = t
		}
	}
	asked := q.Tables
	if len(asked) == 0 {
		asked = slices.Sorted(maps.Keys(known))
	}
	var stopped map[string]string
	var poisoned map[string][][]byte
	err = m.beside.do(ctx, func(_ context.Context, t *transform) error {
		stopped, poisoned = t.position.Stopped, t.position.Poisoned
		return nil
	})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range asked {
		t, ok := known[name]
		why, stop := stopped[name]
		switch {
		case !ok:
			refusals[name] = fmt.Sprintf("%s is not captured: it is not in the publication %s, or cdc.tables leaves it out", name, m.cfg.Publication)
		case stop && q.Kind != schemas.CaptureResume:
			refusals[name] = fmt.Sprintf("%s is stopped (%s); cdc resume %s", name, why, name)
		case !stop && q.Kind == schemas.CaptureResume && len(poisoned[name]) == 0 && len(q.Tables) > 0:
			refusals[name] = name + " is not stopped"
		case !stop && q.Kind == schemas.CaptureResume && len(poisoned[name]) == 0: // all that are stopped were asked for
		default:
			reason, err := explain(ctx, conn.PgConn(), rows.Quote(t.Schema)+"."+rows.Quote(t.Name), q.Where)
			if err != nil {
				return nil, nil, err
			}
			if reason != "" {
				refusals[name] = reason
				continue
			}
			tables = append(tables, name)
		}
	}
	return tables, refusals, nil
}

// explain has the source parse a condition; the reason if it is none.
func explain(ctx context.Context, conn *pgconn.PgConn, ident, where string) (string, error) {
	if where == "" {
		return "", nil
	}
	if strings.Contains(where, ";") {
		return "the condition has a ';': write one SQL expression", nil
	}
	// What stands between parentheses and between brackets closes neither, so it is one expression.
	sql := "BEGIN READ ONLY; EXPLAIN SELECT FROM " + ident + " WHERE (\n" + where + "\n) AND ARRAY[\n" + where + "\n] IS NOT NULL; ROLLBACK"
	_, err := conn.Exec(ctx, sql).ReadAll()
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		if _, err := conn.Exec(ctx, "ROLLBACK").ReadAll(); err != nil {
			return "", fmt.Errorf("end the check of a condition: %w", err)
		}
		return fmt.Sprintf("the condition is not one that the source takes: %s (%s)", pg.Message, pg.Code), nil
	}
	if err != nil {
		return "", fmt.Errorf("check a condition: %w", err)
	}
	return "", nil
}

// pausedReason is why a table is stopped that somebody paused.
const pausedReason = "it was paused on request"

// ask carries out a request for one table.
func (t *transform) ask(ctx context.Context, q schemas.CaptureRequest, name string) error {
	note := schemas.CaptureNotification{Table: name, RequestID: q.RequestID}
	j := schemas.Job{ID: q.RequestID + "/" + name, Kind: q.Kind, Table: name, Where: q.Where, StartedAt: time.Now().UTC()}
	switch q.Kind {
	case schemas.CapturePause:
		t.stopTable(name, pausedReason)
		t.setJobs(slices.DeleteFunc(slices.Clone(t.position.Jobs), func(j schemas.Job) bool { return j.Table == name }))
		note.Kind, note.Message = schemas.NoteStopped, name+" is paused; its changes are dropped until `cdc resume "+name+"`, which brings them in"
		t.beside.tell(note)
		return nil
	case schemas.CaptureResume:
		if t.position.Stopped[name] != "" {
			j.Kind = schemas.CaptureReconcile
			if err := t.renew(ctx, name, q.Version); err != nil {
				return err
			}
			if err := t.resume(ctx, name); err != nil {
				return err
			}
			if why := t.position.Stopped[name]; why != "" {
				note.Kind, note.Message = schemas.NoteRefused, name+" stops again at once: "+why
				t.beside.tell(note)
				return nil
			}
		} else {
			j.Kind = schemas.CaptureKeys
		}
		note.Kind, note.Message = schemas.NoteResumed, name+" is captured again; what it missed is being read"
		t.beside.tell(note)
	}
	t.setJobs(withJob(t.position.Jobs, j))
	return nil
}

// renew has a table go on in another topic, which its job fills; 0 is the present one.
func (t *transform) renew(ctx context.Context, name string, version int32) error {
	if version == 0 {
		return nil
	}
	schema, table, _ := strings.Cut(name, ".")
	if _, err := t.newTopic(ctx, storeTopic(schema, table, version)); err != nil {
		return err
	}
	if t.position.Versions = maps.Clone(t.position.Versions); t.position.Versions == nil {
		t.position.Versions = map[string]int32{}
	}
	t.position.Versions[name] = version
	return nil
}

// parseVersion reads v2, v3 and so on; "" is 0, the present version.
func parseVersion(as string) (int32, error) {
	if as == "" {
		return 0, nil
	}
	digits, ok := strings.CutPrefix(as, "v")
	n, err := strconv.ParseInt(digits, 10, 32)
	if !ok || err != nil || n < 2 {
		return 0, fmt.Errorf("--as: %q must be v2 or later", as)
	}
	return int32(n), nil
}
