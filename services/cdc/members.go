package cdc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// What the ids of jobs begin with that nobody asked for.
const (
	jobFirst  = "first/"  // what is left of the first snapshot
	jobOwed   = "owed/"   // of rows whose large values the stream does not repeat
	jobJoined = "joined/" // of a table that joined the publication
)

// membersEvery is how often the publication is looked at.
const membersEvery = 10 * time.Second

// removedReason is why a table is stopped that left the publication.
const removedReason = "it was removed from the publication; once it is added again, it is read as a whole"

// readMembers are the tables of the publication with the object ids of their memberships; 0 for a table that is a member
// because all tables are, or its schema is.
func readMembers(ctx context.Context, conn *pgx.Conn, publication string) (map[string]int64, error) {
	rs, err := conn.Query(ctx, `SELECT p.schemaname || '.' || p.tablename, coalesce(r.oid, 0)::bigint FROM pg_publication_tables p
		JOIN pg_publication b ON b.pubname = p.pubname
		JOIN pg_namespace n ON n.nspname = p.schemaname
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
		LEFT JOIN pg_publication_rel r ON r.prpubid = b.oid AND r.prrelid = c.oid WHERE p.pubname = $1`, publication)
	if err != nil {
		return nil, fmt.Errorf("read the members of publication %s: %w", publication, err)
	}
	out := map[string]int64{}
	var name string
	var id int64
	if _, err = pgx.ForEachRow(rs, []any{&name, &id}, func() error { out[name] = id; return nil }); err != nil {
		return nil, fmt.Errorf("read the members of publication %s: %w", publication, err)
	}
	return out, nil
}

// published tells whether the stream has changes of a table under its own name. The partitions of a table that is
// published as a whole are described in the stream too, but it has no changes of theirs.
func (t *transform) published(ctx context.Context, table uint32) (yes bool, err error) {
	err = t.conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_get_publication_tables($1) WHERE relid = $2)", t.cfg.Publication, table).Scan(&yes)
	if err != nil {
		return false, fmt.Errorf("look for a table in publication %s: %w", t.cfg.Publication, err)
	}
	return yes, nil
}

// members looks at the publication from time to time: tables join it and leave it while changes stream.
func (m *jobs) members(ctx context.Context) error {
	tick := time.NewTicker(m.membersEvery())
	defer tick.Stop()
	for {
		if err := m.lookAtMembers(ctx); err != nil && ctx.Err() == nil {
			m.deps.Log.Warn("cannot look at the publication, trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (m *jobs) membersEvery() time.Duration {
	if m.hooks.members > 0 {
		return m.hooks.members
	}
	return membersEvery
}

func (m *jobs) lookAtMembers(ctx context.Context) error {
	conn, err := m.connectWindow(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	now, err := readMembers(ctx, conn, m.cfg.Publication)
	if err != nil {
		return err
	}
	return m.beside.do(ctx, func(ctx context.Context, t *transform) error { return t.setMembers(ctx, now) })
}

// captures tells whether a table, schema.table, is selected by the configuration and is not the outbox or another group's.
func (f *factory) captures(cfg Config, name string) bool {
	schema, table, _ := strings.Cut(name, ".")
	return cfg.ours(name) && f.policy.Captured(schema, table)
}

// setMembers compares the publication's members with the position's.
func (t *transform) setMembers(ctx context.Context, now map[string]int64) error {
	for name, id := range now {
		was, member := t.position.Members[name]
		switch {
		case !t.factory.captures(t.cfg, name):
		case !member:
			if err := t.join(ctx, name, id); err != nil {
				return err
			}
			if err := t.describeAgain(ctx, name); err != nil { // it may have been described when it was no member
				return err
			}
		case was == 0 && id != 0: // the stream saw it first
			t.member(name, id)
		case was != id:
			t.member(name, id)
			t.stopTable(name, removedReason)
			if err := t.join(ctx, name, id); err != nil {
				return err
			}
		}
	}
	for name := range t.position.Members {
		if _, still := now[name]; !still && t.position.Stopped[name] == "" && t.factory.captures(t.cfg, name) {
			t.stopTable(name, removedReason)
			t.beside.tell(schemas.CaptureNotification{Kind: schemas.NoteStopped, Table: name, Message: removedReason})
		}
		if _, still := now[name]; !still {
			t.member(name, -1)
		}
	}
	return nil
}

// member notes a table's membership; -1: it is none.
func (t *transform) member(name string, id int64) {
	t.position.Members = maps.Clone(t.position.Members)
	if t.position.Members == nil {
		t.position.Members = map[string]int64{}
	}
	if t.position.Members[name] = id; id < 0 {
		delete(t.position.Members, name)
	}
	t.keep()
}

// join begins to capture a table that joined the publication: its changes from here on, and a job for the rows that it
// has. A topic that is filled already is made right by difference.
func (t *transform) join(ctx context.Context, name string, id int64) error {
	schema, table, _ := strings.Cut(name, ".")
	fresh, err := t.newTopic(ctx, storeTopic(schema, table, t.position.Versions[name]))
	if err != nil {
		return err
	}
	t.member(name, id)
	kind := schemas.CaptureReconcile
	if fresh {
		kind = schemas.CaptureSnapshot
	}
	t.log.Info("a table joined the publication", "table", name, "job", kind)
	t.setJobs(withJob(t.position.Jobs, schemas.Job{ID: jobJoined + name, Kind: kind, Table: name, StartedAt: time.Now().UTC()}))
	if t.position.Stopped[name] == removedReason {
		return t.resume(ctx, name)
	}
	return nil
}

// resume lets a stopped table's changes through again; its job brings in what was dropped.
func (t *transform) resume(ctx context.Context, name string) error {
	t.position.Stopped = maps.Clone(t.position.Stopped)
	delete(t.position.Stopped, name)
	t.keep()
	t.metrics.stopped.Set(float64(len(t.position.Stopped)))
	return t.describeAgain(ctx, name)
}

// describeAgain has a table captured that the stream has described while it was not: it describes a table once.
func (t *transform) describeAgain(ctx context.Context, name string) error {
	for _, rel := range t.relations {
		if rel.name == name && rel.message != nil && rel.encoder == nil {
			return t.onRelation(ctx, rel.message)
		}
	}
	return nil
}

// olderEvery is how often the slot is looked at while older transactions are waited for.
const olderEvery = 100 * time.Millisecond

// awaitOlder waits until no transaction is open that began before now: what it did to the table before the table joined
// is not streamed, and no window sees it either until it ends. The slot keeps the log from the begin of the oldest one.
// On a primary each window's slot waits for them by itself.
func (r *jobRun) awaitOlder(ctx context.Context) error {
	if !r.found.Standby {
		return nil
	}
	conn, err := r.connectWindow(ctx)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var now int64
	if err := conn.QueryRow(ctx, "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint").Scan(&now); err != nil {
		return fmt.Errorf("read the replay position: %w", err)
	}
	tick := time.NewTicker(olderEvery)
	defer tick.Stop()
	for begin := time.Now(); ; {
		slot, err := readSlot(ctx, conn, r.cfg.Slot)
		if err != nil {
			return err
		}
		if slot.restart >= pgoutput.LSN(now) {
			return nil
		}
		if time.Since(r.told) > 10*time.Second {
			r.told = time.Now()
			r.deps.Log.Info("waiting for transactions to end that began before the table joined; the primary logs the running ones every 15 s",
				"table", r.table.Name, "since", time.Since(begin).Round(time.Second))
		}
		if r.deps.OnSlotWait != nil {
			r.deps.OnSlotWait(ctx)
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err())
		case <-tick.C:
		}
	}
}
