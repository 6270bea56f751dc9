package cdc

import (
	"context"
	"fmt"
	"io"

	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// Release drops our slot on the source, so that it keeps no log any more; one that is not there is no error. It does not
// ask Kafka: the position stays, and does not fit the source any more. It fails while a cdc is running.
func (s *Service) Release(ctx context.Context) error {
	if s.groups != nil {
		return s.eachGroup(func(g *Service) error { return g.Release(ctx) })
	}
	_, err := s.release(ctx)
	return err
}

// release is Release; it gives the slot as it was before.
func (s *Service) release(ctx context.Context) (slotInfo, error) {
	sql, err := connectSQL(ctx, s.deps.Source, "millrace-cdc-release")
	if err != nil {
		return slotInfo{}, err
	}
	defer sql.Close(context.WithoutCancel(ctx))
	slot, err := readSlot(ctx, sql, s.cfg.Slot)
	if err != nil || !slot.exists {
		return slot, err
	}
	if err := slot.foreign(s.cfg.Slot, sql.Config().Database); err != nil {
		return slot, err
	}
	if err := s.awaitFree(ctx, sql); err != nil {
		return slot, fmt.Errorf("%w; stop it first", err)
	}
	return slot, s.dropSlot(ctx)
}

// Uninstall is Release, and writes to out what is left of capture and how to remove it.
func (s *Service) Uninstall(ctx context.Context, out io.Writer) error {
	if s.groups != nil {
		return s.eachGroup(func(g *Service) error { return g.Uninstall(ctx, out) })
	}
	slot, err := s.release(ctx)
	if err != nil {
		return err
	}
	said := fmt.Sprintf("the slot %s is not on the source", s.cfg.Slot)
	if slot.exists {
		said = fmt.Sprintf("dropped the slot %s, which kept %d bytes of log", s.cfg.Slot, slot.retained)
	}
	_, err = fmt.Fprintf(out, "%s\nleft on the primary, for its DBA:\n  DROP PUBLICATION %s;  -- and the role, and wal_level, if nothing else needs them\n"+
		"left in Kafka: the topics %s, and the position in %s\nto capture again: cdc reset --yes && cdc run\n",
		said, rows.Quote(s.cfg.Publication), s.deps.Kafka.Name("store.*"), s.deps.Kafka.Name("cdc.position"))
	return err
}
