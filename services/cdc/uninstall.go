package cdc

import (
	"context"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Uninstall drops the slot, if it is there, and writes to out what is left of capture and how to remove it. It does not
// ask Kafka, and fails while a cdc is running.
func (s *Service) Uninstall(ctx context.Context, out io.Writer) error {
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-uninstall")
	if err != nil {
		return err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := readSlot(ctx, sql, s.cfg.Slot)
	if err != nil {
		return err
	}
	var database string
	if err := sql.QueryRow(ctx, "SELECT current_database()").Scan(&database); err != nil {
		return fmt.Errorf("ask the source for its database: %w", err)
	}
	said := fmt.Sprintf("the slot %s is not on the source", s.cfg.Slot)
	if slot.exists {
		if slot.plugin != "pgoutput" || slot.database != database {
			return &app.UsageError{Err: fmt.Errorf("the slot %s is one of plugin %q and database %q, not ours: correct cdc.slot or source.url", s.cfg.Slot, slot.plugin, slot.database)}
		}
		if err := s.awaitFree(ctx, sql); err != nil {
			return fmt.Errorf("%w; stop it first", err)
		}
		if err := s.dropSlot(ctx); err != nil {
			return err
		}
		said = fmt.Sprintf("dropped the slot %s, which kept %d bytes of log", s.cfg.Slot, slot.retained)
	}
	_, err = fmt.Fprintf(out, "%s\nleft on the primary, for its DBA:\n  DROP PUBLICATION %s;  -- and the role, and wal_level, if nothing else needs them\n"+
		"left in Kafka: the topics %s, and the position in %s\nto capture again: cdc reset --yes && cdc run\n",
		said, rows.Quote(s.cfg.Publication), s.deps.Kafka.Name("store.*"), s.deps.Kafka.Name("cdc.position"))
	return err
}
