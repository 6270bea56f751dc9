package cdc

import (
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// TestSnapshotSpeed compares the first snapshot with COPY of the same table in binary to nothing. It is a measurement, run
// by: go test -run SnapshotSpeed -v -speed ./services/cdc
func TestSnapshotSpeed(t *testing.T) {
	if !*speed {
		t.Skip("a measurement; ask for it with -speed")
	}
	primary, standby := pgtest.Pair(t)
	prepare(t, primary)
	s := newStore(t, primary, standby, brokerProcess(t), `CREATE TABLE lines (id bigint PRIMARY KEY, order_id bigint, product text, quantity int, price numeric(10,2), at timestamptz, note text);
		CREATE PUBLICATION millrace FOR TABLE lines`)
	const total = 1_000_000
	s.exec(t, `INSERT INTO lines SELECT -i, i / 5, 'S18_' || i % 997, 1 + i % 50, (i % 20000) / 100.0, now(), 'note ' || md5(i::text) FROM generate_series(1, 1000000) AS i`)
	standby.Sync(t)
	s.cfg.PositionInterval = DefaultConfig().PositionInterval
	s.cfg.ProgressInterval = 500 * time.Millisecond
	conn := pgtest.Connect(t, standby.DSN("postgres", s.database))
	plain := func() float64 {
		begin := time.Now()
		if _, err := conn.PgConn().CopyTo(t.Context(), nowhere{}, "COPY lines TO STDOUT (FORMAT binary)"); err != nil {
			t.Fatal(err)
		}
		return total / time.Since(begin).Seconds()
	}
	plain()
	before := plain()
	r := s.start(t)
	waitFor(t, "the slot", time.Minute, func() bool { return r.position().SnapshotLSN != 0 })
	begin := time.Now()
	waitFor(t, "the snapshot", time.Minute, func() bool { return r.Ready() == nil })
	took := time.Since(begin)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	after := plain()
	ours := total / took.Seconds()
	t.Logf("snapshot %.0f k rows/s, COPY binary to nothing %.0f and %.0f k/s, ratio %.2f", ours/1000, before/1000, after/1000, 2*ours/(before+after))
}

type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
