// Package chunk reads a part of one table beside the stream of its changes, together with the two positions of the
// source's log between which the rows were as they were read. It writes nothing and asks for no transaction ids: on a
// standby what is visible follows the replay of the log, so the replay position before the read and the receive position
// after its snapshot are the bounds. On a primary that does not hold; there the snapshot is that of a temporary slot.
package chunk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

var (
	// ErrTooLarge: the selection has more bytes than the limit; select less.
	ErrTooLarge = errors.New("the selected rows are larger than a chunk may be")
	// ErrChanged: the source changed in the middle of the read (it was promoted, or the table was rewritten); read again.
	ErrChanged = errors.New("the source changed while a chunk was read")
)

// Table is what is read from.
type Table struct {
	OID         uint32
	Ident       string // quoted
	Partitioned bool
	Query       bool     // COPY of the table itself does not give all of List
	List        string   // SQL: the columns, in the order of the stream
	Key         []string // columns of the key, in that order
	Filter      string   // SQL; "" for all rows
}

// TID is a place in a table: a line of a block.
type TID struct{ Block, Line int64 }

func (t TID) String() string { return fmt.Sprintf("'(%d,%d)'::pg_catalog.tid", t.Block, t.Line) }

// Selection is the rows to read: a range of the table's places, or the rows of some keys. Of a partitioned table a range
// is that range of every partition.
type Selection struct {
	From, To TID                // half open
	Where    string             // SQL; "" for all
	Keys     [][]pgoutput.Datum // if not nil, instead of the range: the values of the key's columns
}

// Chunk is what was read.
type Chunk struct {
	Low, High pgoutput.LSN // transactions that end at or before Low are in it, those that end after High are not
	Lines     [][]byte     // COPY's text format; see Split
	Bytes     int
	FileNode  int64  // identifies the table's files: another one means that rows have moved unseen
	Blocks    int64  // of the table, or of its largest partition
	Shape     string // columns and key of the table as it was read
	Time      int64  // of the source's clock, Unix microseconds
	Took      time.Duration
}

// Reader reads chunks over connections of its own, made when they are needed and again after an error. It is for one
// goroutine.
type Reader struct {
	// Connect opens a connection for queries, with replica.Settings.
	Connect func(context.Context) (*pgx.Conn, error)
	// Replicate opens a replication connection, for a source that is not in recovery.
	Replicate func(context.Context) (*replica.Conn, error)
	Limit     int           // bytes of a chunk; a single row may be larger
	Timeout   time.Duration // of every statement
	sql       *pgx.Conn
}

// NewReader makes a reader that only describes, over a connection that stays the caller's.
func NewReader(conn *pgx.Conn) *Reader { return &Reader{sql: conn} }

// Close ends the connection.
func (r *Reader) Close() {
	if r.sql != nil {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = r.sql.Close(ctx) // it has only read
		r.sql = nil
	}
}

// Read reads a selection. After any error the next Read uses a new connection.
func (r *Reader) Read(ctx context.Context, t Table, s Selection) (*Chunk, error) {
	begin := time.Now()
	c, err := r.read(ctx, t, s)
	if err != nil {
		if !errors.Is(err, ErrTooLarge) {
			r.Close()
		}
		return nil, fmt.Errorf("read a part of %s: %w", t.Ident, err)
	}
	c.Took = time.Since(begin)
	return c, nil
}

func (r *Reader) read(ctx context.Context, t Table, s Selection) (*Chunk, error) {
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	before, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	if !before.recovery {
		return r.fromPrimary(ctx, t, s)
	}
	c := &Chunk{Low: before.replay}
	after, err := r.transaction(ctx, t, s, "", c)
	if err != nil {
		return nil, err
	}
	if c.High, err = r.high(ctx, after); err != nil {
		return nil, err
	}
	end, err := r.look(ctx)
	if err != nil {
		return nil, err
	}
	if !after.recovery || !end.recovery || end.timeline != before.timeline {
		return nil, fmt.Errorf("%w: it was promoted or follows another primary", ErrChanged)
	}
	return c, nil
}

// Describe tells what a Chunk tells but for its rows and positions.
func (r *Reader) Describe(ctx context.Context, t Table) (*Chunk, error) {
	if err := r.connect(ctx); err != nil {
		return nil, err
	}
	c := &Chunk{}
	if err := r.describe(ctx, t, c); err != nil {
		r.Close()
		return nil, fmt.Errorf("describe %s: %w", t.Ident, err)
	}
	return c, nil
}

func (r *Reader) connect(ctx context.Context) error {
	if r.sql != nil {
		return nil
	}
	conn, err := r.Connect(ctx)
	if err != nil {
		return err
	}
	r.sql = conn
	if _, err := conn.Exec(ctx, fmt.Sprintf("SET statement_timeout = %d", r.Timeout.Milliseconds())); err != nil {
		r.Close()
		return err
	}
	return nil
}

// place is where the source is.
type place struct {
	recovery        bool
	timeline        string
	receive, replay pgoutput.LSN
	time            time.Time
}

// look asks where the source is. Its functions tell the present, whatever snapshot the transaction has.
func (r *Reader) look(ctx context.Context) (p place, err error) {
	var receive, replay int64
	err = r.sql.QueryRow(ctx, `SELECT pg_is_in_recovery(),
		(SELECT timeline_id FROM pg_control_checkpoint())::text || '/' || (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
		coalesce(pg_last_wal_receive_lsn() - '0/0', 0)::bigint, coalesce(pg_last_wal_replay_lsn() - '0/0', 0)::bigint, clock_timestamp()`).
		Scan(&p.recovery, &p.timeline, &receive, &replay, &p.time)
	p.receive, p.replay = pgoutput.LSN(receive), pgoutput.LSN(replay)
	return p, err
}

// settled is how long a replay position stays in an archive's recovery before nothing can be in flight.
const settled = 5 * time.Second

// high is the position behind which nothing was visible to a snapshot taken before p. A record is visible a moment before
// its replay is told, but it was received by then. Without a receiver only the record in flight can be ahead: the next
// position covers it.
func (r *Reader) high(ctx context.Context, p place) (pgoutput.LSN, error) {
	if p.receive >= p.replay {
		return p.receive, nil
	}
	for deadline := time.Now().Add(settled); time.Now().Before(deadline); {
		now, err := r.look(ctx)
		if err != nil {
			return 0, err
		}
		if now.replay > p.replay {
			return now.replay, nil
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return p.replay, nil
}

// fromPrimary reads under the snapshot of a temporary slot, which is exact at the slot's consistent point.
func (r *Reader) fromPrimary(ctx context.Context, t Table, s Selection) (*Chunk, error) {
	conn, err := r.Replicate(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Close() // the slot with it
	at, snapshot, err := conn.CreateTemporarySlot(ctx, fmt.Sprintf("millrace_window_%d", conn.PID()))
	if err != nil {
		return nil, err
	}
	c := &Chunk{Low: at, High: at}
	if _, err = r.transaction(ctx, t, s, snapshot, c); err != nil {
		return nil, err
	}
	return c, nil
}

// transaction reads the selection in one short transaction. place is the source's after the snapshot was taken.
func (r *Reader) transaction(ctx context.Context, t Table, s Selection, snapshot string, c *Chunk) (p place, err error) {
	pg := r.sql.PgConn()
	begin := []string{"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"}
	if snapshot != "" {
		begin = append(begin, "SET TRANSACTION SNAPSHOT '"+strings.ReplaceAll(snapshot, "'", "''")+"'")
	}
	// With the lock before the snapshot no rewrite of the table, which knows no snapshots, comes between the two.
	begin = append(begin, "LOCK TABLE "+t.from()+" IN ACCESS SHARE MODE")
	if _, err := pg.Exec(ctx, strings.Join(begin, "; ")).ReadAll(); err != nil {
		return p, gone(err)
	}
	if err := r.describe(ctx, t, c); err != nil { // takes the snapshot
		return p, err
	}
	if p, err = r.look(ctx); err != nil {
		return p, err
	}
	c.Time = p.time.UnixMicro()
	l := &lines{limit: r.Limit, one: true}
	if _, err := pg.CopyTo(ctx, l, s.SQL(t)); err != nil {
		return p, err
	}
	if _, err := pg.Exec(ctx, "COMMIT").ReadAll(); err != nil {
		return p, err
	}
	if l.over {
		return p, fmt.Errorf("%d bytes: %w", l.seen, ErrTooLarge)
	}
	c.Lines, c.Bytes = l.split(), len(l.buf)+lineBytes*len(l.ends)
	return p, nil
}

// gone says that a table is not there any more in the terms of this package.
func gone(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42P01" {
		return fmt.Errorf("%w: %w", ErrChanged, err)
	}
	return err
}

const describeSQL = `WITH leaf AS (SELECT $1::oid AS oid WHERE NOT $2 UNION ALL SELECT relid FROM pg_partition_tree($1::oid::regclass) WHERE $2 AND isleaf)
SELECT coalesce(max(pg_relation_size(l.oid)), 0) / current_setting('block_size')::bigint,
       coalesce(hashtextextended(string_agg(l.oid || ':' || c.relfilenode, ',' ORDER BY l.oid), 0), 0),
       coalesce(bool_and(c.relfilenode = pg_relation_filenode(l.oid)), true),
       coalesce((SELECT string_agg(a.attnum || ' ' || a.attname || ' ' || a.atttypid || ' ' || a.atttypmod, ',' ORDER BY a.attnum)
                 FROM pg_attribute a WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped), '') || ';' ||
       coalesce((SELECT r.relreplident::text || ' ' || coalesce(i.indkey::text, '') FROM pg_class r LEFT JOIN pg_index i ON i.indrelid = r.oid
                 AND CASE r.relreplident WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END WHERE r.oid = $1), 'gone')
FROM leaf l JOIN pg_class c ON c.oid = l.oid`

func (r *Reader) describe(ctx context.Context, t Table, c *Chunk) error {
	var same bool
	err := r.sql.QueryRow(ctx, describeSQL, t.OID, t.Partitioned).Scan(&c.Blocks, &c.FileNode, &same, &c.Shape)
	if err != nil {
		return err
	}
	if !same {
		return fmt.Errorf("%w: the table was rewritten", ErrChanged)
	}
	return nil
}

func (t Table) from() string {
	if t.Partitioned {
		return t.Ident
	}
	return "ONLY " + t.Ident
}

// SQL is the COPY of the selection.
func (s Selection) SQL(t Table) string {
	var where []string
	if t.Filter != "" {
		where = append(where, "("+t.Filter+")")
	}
	if s.Keys != nil {
		where = append(where, keysSQL(t.Key, s.Keys))
	} else {
		where = append(where, "ctid >= "+s.From.String(), "ctid < "+s.To.String())
	}
	if s.Where != "" {
		where = append(where, "(\n"+s.Where+"\n)")
	}
	return "COPY (SELECT " + t.List + " FROM " + t.from() + " WHERE " + strings.Join(where, " AND ") + ") TO STDOUT"
}

// keysSQL compares the key's columns with literals, which take the columns' types.
func keysSQL(key []string, keys [][]pgoutput.Datum) string {
	var b strings.Builder
	list := make([]string, len(key))
	for i, k := range key {
		list[i] = rows.Quote(k)
	}
	var partly [][]pgoutput.Datum // with nulls, which IN does not find
	b.WriteString("((" + strings.Join(list, ", ") + ") IN (")
	n := 0
	for _, row := range keys {
		if slices.ContainsFunc(row, func(d pgoutput.Datum) bool { return d.Kind != pgoutput.Text }) {
			partly = append(partly, row)
			continue
		}
		if n++; n > 1 {
			b.WriteByte(',')
		}
		b.WriteByte('(')
		for j, v := range row {
			if j > 0 {
				b.WriteByte(',')
			}
			literal(&b, v.Data)
		}
		b.WriteByte(')')
	}
	out := "(false"
	if n > 0 {
		out = b.String() + ")"
	}
	for _, row := range partly {
		out += " OR (" + partlySQL(list, row) + ")"
	}
	return out + ")"
}

// partlySQL compares with a key that has nulls.
func partlySQL(list []string, row []pgoutput.Datum) string {
	var b strings.Builder
	for i, v := range row {
		if i > 0 {
			b.WriteString(" AND ")
		}
		if b.WriteString(list[i]); v.Kind != pgoutput.Text {
			b.WriteString(" IS NULL")
			continue
		}
		b.WriteString(" =")
		literal(&b, v.Data)
	}
	return b.String()
}

// literal writes a string constant that means the same whatever standard_conforming_strings is.
func literal(b *strings.Builder, v []byte) {
	b.WriteString(" E'")
	for _, c := range v {
		if c == '\'' || c == '\\' {
			b.WriteByte(c)
		}
		b.WriteByte(c)
	}
	b.WriteByte('\'')
}

// CopyAll is the COPY of the whole table. It is faster than the same through a query.
func (t Table) CopyAll() string {
	switch {
	case t.Filter != "":
		return "COPY (SELECT " + t.List + " FROM " + t.from() + " WHERE " + t.Filter + ") TO STDOUT"
	case t.Partitioned || t.Query:
		return "COPY (SELECT " + t.List + " FROM " + t.from() + ") TO STDOUT"
	}
	return "COPY " + t.Ident + " (" + t.List + ") TO STDOUT"
}

// Lock keeps the table's files as they are until conn's transaction ends, and describes the table. An error that wraps
// ErrChanged says that it has other files by now than under the transaction's snapshot.
func Lock(ctx context.Context, conn *pgx.Conn, t Table) (*Chunk, error) {
	if _, err := conn.Exec(ctx, "LOCK TABLE "+t.from()+" IN ACCESS SHARE MODE"); err != nil {
		return nil, gone(err)
	}
	c := &Chunk{}
	return c, (&Reader{sql: conn}).describe(ctx, t, c)
}
