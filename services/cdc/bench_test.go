package cdc

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/replica"
)

var speed = flag.Bool("speed", false, "measure the speed of capture")

// TestStreamingSpeed compares capture with reading a second slot, made at the same point, to nothing. It is a
// measurement, run by: go test -run StreamingSpeed -v -speed ./services/cdc
func TestStreamingSpeed(t *testing.T) {
	if !*speed {
		t.Skip("a measurement; ask for it with -speed")
	}
	primary, standby := pgtest.Pair(t)
	prepare(t, primary)
	s := newStore(t, primary, standby, brokerProcess(t), `CREATE TABLE lines (id bigint PRIMARY KEY, product text, quantity int, price numeric(10,2), at timestamptz, note text);
		CREATE PUBLICATION millrace FOR TABLE lines`)
	s.cfg.ProgressInterval = 500 * time.Millisecond
	s.cfg.TransactionInterval = DefaultConfig().TransactionInterval
	r := s.start(t)
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	conn, err := replica.Connect(t.Context(), standby.DSN("cdc", s.database), "bench")
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				_ = primary.LogStandbySnapshot(t.Context())
			}
		}
	}()
	at, _, err := conn.CreateSlot(t.Context(), "bench")
	close(stop)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1000, 1} {
		const total = 300_000
		rows := total
		if size == 1 {
			rows = total / 5
		}
		s.exec(t, fmt.Sprintf(`DO $$ BEGIN FOR i IN 1..%d LOOP INSERT INTO lines SELECT %d + i * %d + j, 'S18_' || j, j, 99.95, now(), 'some text of a line'
			FROM generate_series(0, %d) j; COMMIT; END LOOP; END $$`, rows/size, size*1_000_000_000, size, size-1))
		standby.Sync(t)
		end, err := pgoutput.ParseLSN(primary.LSN(t))
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		stream, err := conn.Start(t.Context(), "bench", "millrace", at)
		if err != nil {
			t.Fatal(err)
		}
		read := 0
		for {
			m, err := stream.Receive()
			if err != nil {
				t.Fatal(err)
			}
			if m.Keepalive && m.LSN >= end {
				stream.Ack(end)
				break
			}
			if !m.Keepalive && m.Data[0] == pgoutput.KindInsert {
				read++
			}
		}
		raw := time.Since(begin)
		at = end
		stream.Close()
		begin = time.Now()
		r := s.start(t)
		s.quiet(t, r)
		took := time.Since(begin)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		t.Logf("transactions of %d rows: %d rows, capture %.0f k/s with its start, to nothing %.0f k/s, ratio %.2f", size, read,
			float64(read)/took.Seconds()/1000, float64(read)/raw.Seconds()/1000, raw.Seconds()/took.Seconds())
		if conn, err = replica.Connect(t.Context(), standby.DSN("cdc", s.database), "bench"); err != nil {
			t.Fatal(err)
		}
	}
	conn.Close()
}
