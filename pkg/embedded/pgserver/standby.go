package pgserver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// StandbyOptions say whom a standby follows.
type StandbyOptions struct {
	// Primary must run, with wal_level=logical: logical decoding on the standby needs it there.
	Primary *Server
	// Slot is the physical replication slot on the primary, which keeps the WAL that the standby still needs. It is made
	// when missing. Lower-case letters, digits and underscores. Each standby needs its own.
	Slot string
}

var slotName = regexp.MustCompile(`^[a-z0-9_]{1,63}$`)

// cannotFollowError says that only a new copy of the primary can help.
type cannotFollowError struct{ reason string }

func (e *cannotFollowError) Error() string {
	return "the standby cannot follow its primary: " + e.reason
}

// primaryFacts are what a standby must agree with.
type primaryFacts struct {
	systemID uint64
	// settings that a hot standby needs at least as large as its primary.
	settings map[string]string
}

// OpenStandby starts a hot standby and returns when it answers and streams from its primary. A new one begins with a
// copy of the primary. An existing one is used again; if it can no longer follow (WAL that is gone, another primary,
// damage), it is thrown away and copied anew, with a warning in the log, and then the logical slots on it are lost.
//
// It waits as long as ctx allows. Errors are those of [Open]; when it fails nothing is left running. When the primary
// later comes back on another port, stop the standby and open it again.
func OpenStandby(ctx context.Context, o Options, so StandbyOptions) (*Server, error) {
	if so.Primary == nil || !slotName.MatchString(so.Slot) {
		return nil, fmt.Errorf("standby %s: it needs a primary and a slot named with lower-case letters, digits and underscores", o.Name)
	}
	d, err := openDirectory(ctx, o, roleStandby)
	if err != nil {
		return nil, err
	}
	s, err := d.openStandby(ctx, so)
	if err != nil {
		d.lock.release()
		return nil, fmt.Errorf("%s: %w", d.opts.Name, err)
	}
	return s, nil
}

func (d *directory) openStandby(ctx context.Context, so StandbyOptions) (*Server, error) {
	facts, err := askPrimary(ctx, so)
	if err != nil {
		return nil, fmt.Errorf("ask the primary: %w", err)
	}
	if d.hasData() {
		s, err := d.reuse(ctx, so, facts)
		var cannot *cannotFollowError
		if !errors.As(err, &cannot) {
			return s, err
		}
		d.opts.Logger.Warn("rebuilding the standby; logical slots on it are lost", "server", d.opts.Name, "dir", d.path, "reason", cannot.reason)
		if err := os.RemoveAll(d.data()); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	err = d.create(func(dir string) error {
		if err := baseBackup(ctx, so.Primary.DSN("postgres", "postgres"), dir, d.opts.Progress); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("copy the primary to %s: %w%s", d.path, err, hint(err.Error()))
	}
	d.opts.Logger.Info("the primary is copied", "server", d.opts.Name, "dir", d.path, "took", time.Since(begin))
	return d.follow(ctx, so, facts)
}

// reuse starts an existing standby, or says by a cannotFollowError that it must be copied anew.
func (d *directory) reuse(ctx context.Context, so StandbyOptions, facts primaryFacts) (*Server, error) {
	id, err := controlSystemID(d.data())
	if err != nil {
		return nil, &cannotFollowError{reason: err.Error()}
	}
	if id != facts.systemID {
		return nil, &cannotFollowError{reason: "it is a copy of another primary"}
	}
	if _, err := os.Stat(filepath.Join(d.data(), "standby.signal")); err != nil {
		return nil, &cannotFollowError{reason: "it has been a server of its own meanwhile: " + err.Error()}
	}
	if err := d.checkVersion(); err != nil {
		return nil, &cannotFollowError{reason: err.Error()}
	}
	s, err := d.follow(ctx, so, facts)
	var start *startError
	// A full disk or a closed directory looks like damage too, but a new copy would not help and costs the slots.
	if errors.As(err, &start) && ctx.Err() == nil && hint(start.tail) == "" {
		if sign := findSign(start.tail, "", damageSigns); sign != "" {
			return nil, &cannotFollowError{reason: "its files are damaged: " + sign}
		}
	}
	return s, err
}

// controlSystemID reads the system identifier, the first field of the control file in all versions.
func controlSystemID(data string) (uint64, error) {
	f, err := os.Open(filepath.Join(data, "global", "pg_control"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [8]byte
	if _, err := io.ReadFull(f, b[:]); err != nil {
		return 0, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return binary.NativeEndian.Uint64(b[:]), nil
}

// follow starts the cluster as a standby and waits until it streams.
func (d *directory) follow(ctx context.Context, so StandbyOptions, facts primaryFacts) (*Server, error) {
	begin := int64(0)
	if info, err := os.Stat(d.logFile()); err == nil {
		begin = info.Size()
	}
	child, port, err := d.start(ctx, standbySettings(so, facts))
	if err != nil {
		return nil, err
	}
	if err := d.awaitStream(ctx, child, port, begin); err != nil {
		child.kill()
		return nil, err
	}
	return d.serve(child, port), nil
}

func standbySettings(so StandbyOptions, facts primaryFacts) map[string]string {
	settings := map[string]string{
		"primary_conninfo": fmt.Sprintf("host=%s port=%d user=postgres sslmode=disable application_name=%s",
			host, so.Primary.Port(), so.Slot),
		"primary_slot_name": so.Slot,
		// The primary keeps row versions that sessions and logical slots on the standby still need.
		"hot_standby_feedback": "on",
		// Logical slots need it on the standby as well as on the primary.
		"wal_level": "logical",
		// An idle link is heard: the receiver asks for an answer after half of its timeout, so at least every 2.5 s.
		"wal_receiver_status_interval": "1s",
		"wal_receiver_timeout":         "5s",
		"wal_retrieve_retry_interval":  "500ms", // a primary that comes back is found soon
		// How long replay waits for a query that is in its way. Feedback makes that rare; longer would stale all readers.
		"max_standby_streaming_delay": "30s",
	}
	maps.Copy(settings, facts.settings)
	return settings
}

// staleSigns are what a running standby logs, as FATAL, when the primary cannot give it what it needs, ever. A client's
// mistake may be worded alike, but is an ERROR.
var staleSigns = []string{
	"has already been removed",
	"is ahead of the WAL flush position",
	"database system identifier differs",
	"is not in this server's history",
	"is behind recovery timeline",
	"has been invalidated",
	"can no longer access replication slot",
}

// damageSigns are what a standby logs when it cannot start from its own files.
var damageSigns = []string{
	"PANIC:",
	"could not find the database system",
	"required WAL directory",
	"could not locate a valid checkpoint record",
	"could not locate required checkpoint record",
	"control file",
	"could not open file",
	"could not read file",
	"could not open directory",
	"could not access status of transaction",
	"invalid page in block",
	"is not a valid data directory",
}

// findSign gives the first line of that level (empty for any) that has one of the signs, empty for none.
func findSign(text, level string, signs []string) string {
	for line := range strings.Lines(text) {
		if !strings.Contains(line, level) {
			continue
		}
		for _, sign := range signs {
			if strings.Contains(line, sign) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// awaitStream waits until the standby receives WAL. What it logs after begin tells when that will never be.
func (d *directory) awaitStream(ctx context.Context, c *child, port int, begin int64) error {
	for {
		status, err := d.receiverStatus(ctx, port)
		if err == nil {
			if status == "streaming" {
				return nil
			}
			err = fmt.Errorf("its receiver's status is %q", status)
		}
		tail := logTail(d.logFile(), begin)
		if sign := findSign(tail, "FATAL:", staleSigns); sign != "" {
			return &cannotFollowError{reason: sign}
		}
		select {
		case <-c.done:
			return &startError{err: fmt.Errorf("postgres ended before it could follow its primary (%s)", c.cmd.ProcessState),
				tail: tail, log: d.logFile(), dir: d.data()}
		case <-ctx.Done():
			return &startError{err: fmt.Errorf("the standby does not reach its primary: %w (last look: %w)", ctx.Err(), err),
				tail: tail, log: d.logFile(), dir: d.data()}
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (d *directory) receiverStatus(ctx context.Context, port int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return queryValue(ctx, dsn(port, "postgres", "postgres"), "SELECT status FROM pg_stat_wal_receiver")
}

// askPrimary collects the facts and makes the slot, before the copy begins, so that no WAL of the time between is lost.
func askPrimary(ctx context.Context, so StandbyOptions) (primaryFacts, error) {
	conn, err := pgconn.Connect(ctx, so.Primary.DSN("postgres", "postgres"))
	if err != nil {
		return primaryFacts{}, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	facts := primaryFacts{settings: make(map[string]string)}
	rows, err := queryRows(ctx, conn, `SELECT 'system', system_identifier::text FROM pg_control_system()
		UNION ALL SELECT name, setting FROM pg_settings WHERE name IN ('wal_level', 'max_connections',
		'max_worker_processes', 'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction')`)
	if err != nil {
		return primaryFacts{}, err
	}
	for _, row := range rows {
		switch name, value := row[0], row[1]; name {
		case "system":
			// The function shows the number as signed.
			id, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return primaryFacts{}, err
			}
			facts.systemID = uint64(id)
		case "wal_level":
			if value != "logical" {
				return primaryFacts{}, fmt.Errorf("its wal_level is %s and must be logical: set it when opening the primary", value)
			}
		default:
			facts.settings[name] = value
		}
	}
	return facts, ensureSlot(ctx, conn, so.Slot)
}

// ensureSlot makes the physical slot when it is missing, and anew when it no longer holds its WAL. The name has been
// checked, so it can stand in the statement.
func ensureSlot(ctx context.Context, conn *pgconn.PgConn, slot string) error {
	rows, err := queryRows(ctx, conn, `SELECT slot_type, coalesce(wal_status, 'lost') FROM pg_replication_slots WHERE slot_name = '`+slot+`'`)
	if err != nil {
		return err
	}
	if len(rows) == 1 {
		if rows[0][0] != "physical" {
			return fmt.Errorf("its replication slot %s is a %s one and a physical one is needed: choose another name", slot, rows[0][0])
		}
		if rows[0][1] != "lost" {
			return nil
		}
		if _, err := queryRows(ctx, conn, `SELECT pg_drop_replication_slot('`+slot+`')`); err != nil {
			return err
		}
	}
	_, err = queryRows(ctx, conn, `SELECT pg_create_physical_replication_slot('`+slot+`', true)`)
	return err
}
