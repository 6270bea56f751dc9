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
	cfg, err := pgconn.ParseConfig(s.DSN)
	if err != nil {
		return cost{}, err
	}
	cfg.RuntimeParams["replication"] = "database"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return cost{}, err
	}
	h, err := conn.Hijack()
	if err != nil {
		return cost{}, err
	}
	defer h.Conn.Close()
	if err := h.Conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return cost{}, err
	}
	w := startWatch()
	h.Frontend.Send(&pgproto3.Query{String: fmt.Sprintf(
		`START_REPLICATION SLOT %s LOGICAL 0/0 (proto_version '1', publication_names '%s')`, s.Slot, publication)})
	if err := h.Frontend.Flush(); err != nil {
		return cost{}, err
	}
	rows, bytes := 0, int64(0)
	acked := time.Now()
	for rows < s.Wanted {
		msg, err := h.Frontend.Receive()
		if err != nil {
			return cost{}, err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return cost{}, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData:
			bytes += int64(len(m.Data))
			if len(m.Data) > 25 && m.Data[0] == 'w' && m.Data[25] == 'I' {
				rows++
			}
			if len(m.Data) < 18 || time.Since(acked) < 25*time.Millisecond && m.Data[0] != 'k' {
				continue
			}
			if err := ackSlot(h, binary.BigEndian.Uint64(m.Data[1:])); err != nil {
				return cost{}, err
			}
			acked = time.Now()
		case *pgproto3.CopyDone:
			return cost{}, errors.New("the server ended the stream")
		}
	}
	return w.cost(rows, bytes), nil
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
