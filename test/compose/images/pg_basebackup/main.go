// Command pg_basebackup is the part of PostgreSQL's tool that docker-compose.yml needs to make a standby. The
// stand-in image carries it, because the freely redistributable server binaries come without client tools:
//
//	pg_basebackup -h primary -U replicator -D DIR -R -X stream -C -S slot
//
// Flags that it does not know are refused. It takes no password: the connection must be trusted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/jackc/pgx/v5/pgconn"
)

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "pg_basebackup:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	host := flag.String("h", "", "host of the primary")
	user := flag.String("U", "postgres", "role with REPLICATION")
	dir := flag.String("D", "", "data directory to make")
	slot := flag.String("S", "", "physical slot of the standby")
	create := flag.Bool("C", false, "create the slot")
	write := flag.Bool("R", false, "write standby.signal and primary_conninfo")
	wal := flag.String("X", "stream", "how WAL is included; only stream, and what it needs is always included")
	flag.Parse()
	if *host == "" || *dir == "" || *wal != "stream" || flag.NArg() > 0 {
		return errors.New("usage: pg_basebackup -h HOST -U USER -D DIR [-R] [-X stream] [-C] [-S SLOT]")
	}
	conninfo := fmt.Sprintf("host=%s port=5432 user=%s", *host, *user)
	if err := os.MkdirAll(*dir, 0o700); err != nil {
		return err
	}
	if *create {
		if err := createSlot(ctx, conninfo, *slot); err != nil {
			return fmt.Errorf("create the slot %s: %w", *slot, err)
		}
	}
	if err := baseBackup(ctx, conninfo, *dir); err != nil {
		return fmt.Errorf("copy the primary: %w", err)
	}
	if *write {
		return writeRecovery(*dir, conninfo, *slot)
	}
	return nil
}

func createSlot(ctx context.Context, conninfo, slot string) error {
	conn, err := pgconn.Connect(ctx, conninfo+" replication=true")
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE_REPLICATION_SLOT "+slot+" PHYSICAL (RESERVE_WAL true)").ReadAll()
	return errors.Join(err, conn.Close(ctx))
}

// writeRecovery makes the copy a standby of the primary.
func writeRecovery(dir, conninfo, slot string) error {
	f, err := os.OpenFile(filepath.Join(dir, "postgresql.auto.conf"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "primary_conninfo = '%s'\nprimary_slot_name = '%s'\n", conninfo, slot)
	return errors.Join(err, f.Close(), os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
}
