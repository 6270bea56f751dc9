package cdc

import (
	"testing"

	"github.com/millrace-io/millrace/pkg/embedded/broker/brokertest"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

const itemsTable = `CREATE TABLE items (id int PRIMARY KEY, a text, n numeric(12,3), ok boolean, ts timestamptz, big text, j jsonb);
	CREATE TABLE notes (k text, m int, body text, PRIMARY KEY (k, m)); ALTER TABLE notes REPLICA IDENTITY FULL;
	CREATE PUBLICATION millrace FOR TABLE items, notes WITH (publish_via_partition_root = true)`

func TestCapture(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	brokers := brokertest.New(t)
	t.Run("snapshot and stream", func(t *testing.T) {
		s := newStore(t, primary, standby, brokers, itemsTable)
		s.exec(t, `INSERT INTO items SELECT i, 'a' || i, i * 1.125, i % 2 = 0, now(), 'b', '{"x": 1}' FROM generate_series(1, 500) i;
			INSERT INTO notes VALUES ('x', 1, E'tab\there\nand a \\ backslash'), ('y', 2, NULL)`)
		standby.Sync(t)
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, `UPDATE items SET a = NULL, n = -n WHERE id % 3 = 0; DELETE FROM items WHERE id % 5 = 0; UPDATE items SET id = id + 1000 WHERE id % 7 = 0;
			BEGIN; INSERT INTO items VALUES (5000, 'kept'); SAVEPOINT a; INSERT INTO items VALUES (5001, 'dropped'); ROLLBACK TO a; COMMIT`)
		s.quiet(t, r)
		s.matches(t, "items", "id", "a", "n", "ok", "ts", "big", "j")
		s.matches(t, "notes", "k", "m", "body")
	})
}
