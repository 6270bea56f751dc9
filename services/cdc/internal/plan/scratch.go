package plan

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// ErrScript: the SQL to rehearse cannot be run. The error says where in it.
var ErrScript = errors.New("the SQL cannot be rehearsed")

// scratch is a database of our own on a server that is not the source.
type scratch struct {
	server *pgx.Conn // to make and drop the database
	conn   *pgx.Conn // to it
	name   string
}

// patience bounds a statement in the scratch database, whose tables are empty.
const patience = time.Minute

// openScratch makes the database. system is the source's identifier: a server of the same one is the source itself, its
// primary or another standby of it.
func openScratch(ctx context.Context, url, system string) (*scratch, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, errors.New("the scratch server's address is not a PostgreSQL connection URL")
	}
	cfg.RuntimeParams["application_name"] = "millrace-cdc-plan"
	cfg.RuntimeParams["client_min_messages"] = "error"
	cfg.RuntimeParams["statement_timeout"] = fmt.Sprint(patience.Milliseconds())
	server, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	s := &scratch{server: server}
	var id string
	if err = server.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&id); err == nil && id == system {
		err = errors.New("the scratch server is the source, or of one cluster with it; name another one: a rehearsal writes")
	}
	var random [6]byte
	rand.Read(random[:]) // never fails, by its contract
	name := "millrace_plan_" + hex.EncodeToString(random[:])
	if err == nil {
		_, err = server.Exec(ctx, "CREATE DATABASE "+name+" TEMPLATE template0 ENCODING 'UTF8'")
	}
	if err != nil {
		_ = server.Close(context.WithoutCancel(ctx)) // nothing was made
		return nil, fmt.Errorf("make a database on the scratch server %s:%d: %w", cfg.Host, cfg.Port, postgres.Cause(err))
	}
	s.name = name
	cfg.Database = name
	if s.conn, err = connect(ctx, cfg); err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

func connect(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 5 * time.Second
	}
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to the scratch server at %s:%d: %w", cfg.Host, cfg.Port, postgres.Cause(err))
	}
	return conn, nil
}

// close drops the database, whatever has happened.
func (s *scratch) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if s.conn != nil {
		_ = s.conn.Close(ctx) // the database goes in any case
	}
	_, err := s.server.Exec(ctx, "DROP DATABASE IF EXISTS "+s.name+" WITH (FORCE)")
	if err = errors.Join(err, s.server.Close(ctx)); err != nil {
		return fmt.Errorf("drop the database %s of the scratch server: %w", s.name, err)
	}
	return nil
}

// build makes what the source has. What cannot be made, though others need it, is made last; what cannot be made at all
// is an error if it is required.
func (s *scratch) build(ctx context.Context, objects []object) (left []string, err error) {
	for len(objects) > 0 {
		var again []object
		for _, o := range objects {
			if o.err = s.exec(ctx, o.sql); o.err != nil {
				again = append(again, o)
			}
		}
		if len(again) == len(objects) {
			break
		}
		objects = again
	}
	for _, o := range objects {
		if o.err == nil {
			continue
		}
		if o.required {
			return nil, fmt.Errorf("the scratch database cannot be made like the source: %s: %w", o.what, o.err)
		}
		left = append(left, fmt.Sprintf("%s (%v)", o.what, o.err))
	}
	return left, nil
}

func (s *scratch) exec(ctx context.Context, sql string) error {
	_, err := s.conn.PgConn().Exec(ctx, sql).ReadAll()
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return errors.New(pg.Message) // without the statement's text and position: it is ours
	}
	return err
}

// rehearse runs the script. The error wraps ErrScript when the script is at fault.
func (s *scratch) rehearse(ctx context.Context, script string) (passed []string, err error) {
	if err := s.exec(ctx, "SET search_path = \"$user\", public"); err != nil {
		return nil, err
	}
	for _, st := range split(script) {
		switch st.judge() {
		case pass:
			passed = append(passed, place(script, st.at))
			continue
		case refuse:
			return nil, fmt.Errorf("%w: %s: such a statement could reach beyond the scratch database; leave it out of the rehearsal", ErrScript, place(script, st.at))
		}
		if _, err := s.conn.PgConn().Exec(ctx, st.text).ReadAll(); err != nil {
			return nil, s.at(script, st, err)
		}
	}
	if status := s.conn.PgConn().TxStatus(); status != 'I' {
		return nil, fmt.Errorf("%w: it ends within a transaction; add COMMIT", ErrScript)
	}
	return passed, s.exec(ctx, "RESET ALL; SET search_path = pg_catalog")
}

// at is a statement's error with its place in the script.
func (s *scratch) at(script string, st statement, err error) error {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return fmt.Errorf("run the SQL in the scratch database: %w", err)
	}
	where := st.at
	if pg.Position > 0 {
		where += len(string([]rune(st.text)[:min(int(pg.Position)-1, len([]rune(st.text)))]))
	}
	hint := ""
	switch pg.Code {
	case "42883", "42P13":
		hint = "; functions of the source are not in the scratch database: create them at the start of the script"
	case "58P01", "0A000":
		hint = "; install it on the scratch server, or take one that has it"
	case "42704":
		hint = "; roles and objects other than tables, types and views of the source are not in the scratch database"
	}
	return fmt.Errorf("%w: %s: %s (%s)%s", ErrScript, place(script, where), pg.Message, pg.Code, hint)
}

// ident quotes a name within a schema.
func ident(schema, name string) string { return rows.Quote(schema) + "." + rows.Quote(name) }
