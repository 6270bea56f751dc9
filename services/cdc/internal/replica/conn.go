// Package replica speaks PostgreSQL's replication protocol with a standby or a primary: identifying it, logical slots,
// and the stream of changes with its acknowledgements.
package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
)

// Settings are the session's settings under which values are turned into text: they must be the same for the stream and
// for reading tables, whatever the database and the role have. They are all on which the text of a type depends.
func Settings() map[string]string {
	return map[string]string{
		"client_encoding": "UTF8", "DateStyle": "ISO, YMD", "IntervalStyle": "iso_8601", "TimeZone": "UTC",
		"extra_float_digits": "3", "bytea_output": "hex", "lc_monetary": "C",
		"search_path": "pg_catalog", "quote_all_identifiers": "off", // names of regclass and the like
	}
}

// Conn is a connection for replication commands. It is for one goroutine.
type Conn struct{ pg *pgconn.PgConn }

// Connect opens a connection for replication commands.
func Connect(ctx context.Context, url, application string) (*Conn, error) {
	cfg, err := pgconn.ParseConfig(url)
	if err != nil {
		return nil, errors.New("source.url is not a PostgreSQL connection URL")
	}
	for name, value := range Settings() {
		cfg.RuntimeParams[name] = value
	}
	cfg.RuntimeParams["application_name"] = application
	cfg.RuntimeParams["replication"] = "database"
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the source at %s:%d for replication: %w", cfg.Host, cfg.Port, postgres.Cause(err))
	}
	return &Conn{pg: pg}, nil
}

// Close ends the connection; a snapshot that it exported ends with it.
func (c *Conn) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.pg.Close(ctx) // the server may be gone; nothing is left to save
}

// PID is the server's process.
func (c *Conn) PID() uint32 { return c.pg.PID() }

// System identifies the source.
type System struct {
	ID       string
	Timeline int32
	LSN      pgoutput.LSN
	Database string
}

func (c *Conn) row(ctx context.Context, command string, columns int) ([]string, error) {
	results, err := c.pg.Exec(ctx, command).ReadAll()
	if err != nil {
		return nil, err
	}
	if len(results) == 0 || len(results[0].Rows) != 1 || len(results[0].Rows[0]) < columns {
		return nil, errors.New("unexpected answer of the server")
	}
	var out []string
	for _, v := range results[0].Rows[0] {
		out = append(out, string(v))
	}
	return out, nil
}

// Identify asks the server which system it is.
func (c *Conn) Identify(ctx context.Context) (System, error) {
	row, err := c.row(ctx, "IDENTIFY_SYSTEM", 4)
	if err != nil {
		return System{}, fmt.Errorf("identify the source: %w", err)
	}
	timeline, err := strconv.ParseInt(row[1], 10, 32)
	if err != nil {
		return System{}, fmt.Errorf("identify the source: timeline: %w", err)
	}
	lsn, err := pgoutput.ParseLSN(row[2])
	if err != nil {
		return System{}, fmt.Errorf("identify the source: %w", err)
	}
	return System{ID: row[0], Timeline: int32(timeline), LSN: lsn, Database: row[3]}, nil
}

// Timelines are where the history of a server left its earlier timelines.
type Timelines map[int32]pgoutput.LSN

// Timelines is the history of timeline current; the first one has none.
func (c *Conn) Timelines(ctx context.Context, current int32) (Timelines, error) {
	out := Timelines{}
	if current <= 1 {
		return out, nil
	}
	row, err := c.row(ctx, "TIMELINE_HISTORY "+strconv.Itoa(int(current)), 2)
	if err != nil {
		return nil, fmt.Errorf("read the history of timeline %d: %w", current, err)
	}
	for line := range strings.Lines(row[1]) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		timeline, err := strconv.ParseInt(fields[0], 10, 32)
		if err != nil {
			continue // a comment
		}
		if out[int32(timeline)], err = pgoutput.ParseLSN(fields[1]); err != nil {
			return nil, fmt.Errorf("read the history of timeline %d: %w", current, err)
		}
	}
	return out, nil
}

// CreateSlot makes a logical slot and exports its snapshot, which lives until the next command or the connection's end.
func (c *Conn) CreateSlot(ctx context.Context, slot string) (consistent pgoutput.LSN, snapshot string, err error) {
	return c.createSlot(ctx, slot, "")
}

// CreateTemporarySlot is CreateSlot for a slot that ends with the connection. It waits until the transactions that are
// running have ended.
func (c *Conn) CreateTemporarySlot(ctx context.Context, slot string) (consistent pgoutput.LSN, snapshot string, err error) {
	return c.createSlot(ctx, slot, "TEMPORARY ")
}

func (c *Conn) createSlot(ctx context.Context, slot, kind string) (consistent pgoutput.LSN, snapshot string, err error) {
	row, err := c.row(ctx, "CREATE_REPLICATION_SLOT "+quote(slot)+" "+kind+"LOGICAL pgoutput (SNAPSHOT 'export')", 3)
	if err != nil {
		return 0, "", fmt.Errorf("create the slot %s: %w", slot, err)
	}
	if consistent, err = pgoutput.ParseLSN(row[1]); err != nil {
		return 0, "", fmt.Errorf("create the slot %s: %w", slot, err)
	}
	return consistent, row[2], nil
}

// DropSlot drops the slot; one that is not there is no error.
func (c *Conn) DropSlot(ctx context.Context, slot string) error {
	_, err := c.pg.Exec(ctx, "DROP_REPLICATION_SLOT "+quote(slot)).ReadAll()
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42704" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop the slot %s: %w", slot, err)
	}
	return nil
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// readBytes is how much of the stream is read at once: the server sends each change by itself.
const readBytes = 128 << 10

// Option is an option of the stream.
type Option string

// WithMessages asks for what pg_logical_emit_message sends.
const WithMessages Option = "messages 'true'"

// Start begins the stream at a position. The connection belongs to the stream from then on.
func (c *Conn) Start(ctx context.Context, slot, publication string, at pgoutput.LSN, options ...Option) (*Stream, error) {
	command := fmt.Sprintf("START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names '%s'",
		quote(slot), at, strings.ReplaceAll(quote(publication), "'", "''"))
	for _, o := range options {
		command += ", " + string(o)
	}
	command += ")"
	// Nothing may be in the connection's own buffers, for ours takes their place.
	err := c.pg.SyncConn(ctx)
	var h *pgconn.HijackedConn
	if err == nil {
		h, err = c.pg.Hijack()
	}
	if err != nil {
		return nil, fmt.Errorf("start the stream of slot %s: %w", slot, err)
	}
	buffer := bufio.NewReaderSize(h.Conn, readBytes)
	h.Frontend = pgproto3.NewFrontend(buffer, h.Conn)
	stop := context.AfterFunc(ctx, func() { _ = h.Conn.SetReadDeadline(time.Now()) })
	defer stop()
	h.Frontend.Send(&pgproto3.Query{String: command})
	if err := h.Frontend.Flush(); err != nil {
		_ = h.Conn.Close()
		return nil, fmt.Errorf("start the stream of slot %s: %w", slot, err)
	}
	for {
		msg, err := h.Frontend.Receive()
		if err != nil {
			_ = h.Conn.Close()
			return nil, fmt.Errorf("start the stream of slot %s: %w", slot, err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyBothResponse:
			return newStream(h, buffer, at), nil
		case *pgproto3.ErrorResponse:
			_ = h.Conn.Close()
			return nil, fmt.Errorf("start the stream of slot %s: %w", slot, pgconn.ErrorResponseToPgError(m))
		}
	}
}
