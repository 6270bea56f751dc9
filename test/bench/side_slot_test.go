//go:build bench

package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// publication lists the tables that the benchmarks write.
const publication = "bench"

// readSlot reads a logical slot to nothing: what cdc does, without encoding and without Kafka.
func (s side) readSlot(ctx context.Context) (cost, error) {
	var w stopwatch
	rows, bytes := 0, int64(0)
	err := eachInsert(ctx, s.DSN, s.Slot, func() { w = startWatch() }, func(row []byte) bool {
		rows++
		bytes += int64(len(row))
		return rows < s.Wanted
	})
	return w.cost(rows, bytes), err
}

// eachInsert calls row with the columns of every inserted row, until it returns false or ctx ends. begin is called when
// the stream is about to start.
func eachInsert(ctx context.Context, dsn, slot string, begin func(), row func(columns []byte) bool) error {
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return err
	}
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	h, err := conn.Hijack()
	if err != nil {
		return err
	}
	defer h.Conn.Close()
	if err := h.Conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.Conn.Close() })
	defer stop()
	begin()
	h.Frontend.Send(&pgproto3.Query{String: fmt.Sprintf(
		`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')`, slot, publication)})
	if err := h.Frontend.Flush(); err != nil {
		return err
	}
	acked := time.Now()
	for {
		msg, err := h.Frontend.Receive()
		if err != nil {
			return err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			const header, insert = 25, 8 // of the stream's message; of the plugin's: 'I', relation, 'N', number of columns
			if len(m.Data) > header+insert && m.Data[0] == 'w' && m.Data[header] == 'I' && !row(m.Data[header+insert:]) {
				return nil
			}
			if len(m.Data) < 18 || time.Since(acked) < 25*time.Millisecond && m.Data[0] != 'k' {
				continue
			}
			if err := ackSlot(h, binary.BigEndian.Uint64(m.Data[1:])); err != nil {
				return err
			}
			acked = time.Now()
		case *pgproto3.CopyDone:
			return errors.New("the server ended the stream")
		}
	}
}

func ackSlot(h *pgconn.HijackedConn, lsn uint64) error {
	b := append(make([]byte, 0, 39), 'd', 0, 0, 0, 38, 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, lsn)
	}
	b = append(b, make([]byte, 9)...)
	_, err := h.Conn.Write(b)
	return err
}
