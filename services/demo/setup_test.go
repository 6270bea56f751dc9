package demo

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

var tables = []string{"offices", "employees", "customers", "product_lines", "products", "orders", "order_details", "ratings"}

// contents is a checksum of all tables.
func contents(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	var all strings.Builder
	for _, table := range tables {
		all.WriteString(query[string](t, conn, "SELECT coalesce(md5(string_agg(x::text, '' ORDER BY x::text)), '-') FROM "+table+" x"))
	}
	return all.String()
}

func TestSetup(t *testing.T) {
	dsn := pgtest.Database(t)
	conn := pgtest.Connect(t, dsn)
	var last, total int64
	begin := time.Now()
	err := Setup(t.Context(), dsn, Options{Seed: 1, Rate: 0.2, Now: testNow, Progress: func(d, n int64) {
		if d < last {
			t.Errorf("progress went from %d to %d", last, d)
		}
		last, total = d, n
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows in %s", total, time.Since(begin))
	if last != total || total < 100000 {
		t.Errorf("progress ended at %d of %d", last, total)
	}
	if lines := query[int](t, conn, "SELECT count(*) FROM order_details"); lines < 70000 || lines > 90000 {
		t.Errorf("%d order lines", lines)
	}
	if n := query[int](t, conn, "SELECT count(*) FROM pg_publication_tables WHERE pubname = 'millrace' AND schemaname = 'public'"); n != len(tables) {
		t.Errorf("the publication has %d tables, want %d", n, len(tables))
	}
	if !query[bool](t, conn, "SELECT pubviaroot FROM pg_publication WHERE pubname = 'millrace'") {
		t.Error("the publication does not publish via the partition root")
	}
	if !query[bool](t, conn, "SELECT rolreplication AND rolcanlogin AND NOT rolsuper AND pg_has_role('cdc', 'pg_read_all_stats', 'MEMBER') FROM pg_roles WHERE rolname = 'cdc'") {
		t.Error("the role cdc is not as it should be")
	}
	for _, table := range tables {
		if !query[bool](t, conn, "SELECT has_table_privilege('cdc', 'public."+table+"', 'SELECT') AND NOT has_table_privilege('cdc', 'public."+table+"', 'INSERT, UPDATE, DELETE, TRUNCATE')") {
			t.Errorf("rights of cdc on %s are wrong", table)
		}
	}

	// Another database, the same seed: the same rows.
	other := pgtest.Database(t)
	if err := Setup(t.Context(), other, Options{Seed: 1, Rate: 0.2, Now: testNow}); err != nil {
		t.Fatal(err)
	}
	before := contents(t, conn)
	if contents(t, pgtest.Connect(t, other)) != before {
		t.Error("the same seed gave other rows")
	}

	// Again, with other options: nothing changes.
	exec(t, conn, "UPDATE customers SET city = 'Elsewhere' WHERE customer_number = 1500")
	before = contents(t, conn)
	called := false
	if err := Setup(t.Context(), dsn, Options{Seed: 99, Rate: 9, Now: time.Now(), Progress: func(_, _ int64) { called = true }}); err != nil {
		t.Fatal(err)
	}
	if contents(t, conn) != before || called {
		t.Error("an existing store was not left alone")
	}
}

func TestSetupKilledInTheMiddleIsRedone(t *testing.T) {
	dsn := pgtest.Database(t)
	conn := pgtest.Connect(t, dsn)
	err := Setup(t.Context(), dsn, Options{Seed: 1, HistoryDays: 5, Rate: 0.05, Now: testNow, Progress: func(done, total int64) {
		if done > total/2 { // what a kill of the process or of the server looks like from the database
			_, err := conn.Exec(context.Background(), "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'millrace-demo-setup' AND datname = current_database()")
			if err != nil {
				t.Error(err)
			}
		}
	}})
	if err == nil {
		t.Fatal("a set-up whose connection was cut said that all went well")
	}
	if n := query[int](t, conn, "SELECT count(*) FROM pg_class WHERE relname IN ('orders', 'store')"); n != 0 {
		t.Errorf("%d tables of half a store were left", n)
	}
	if err := Setup(t.Context(), dsn, Options{Seed: 1, HistoryDays: 5, Rate: 0.05, Now: testNow}); err != nil {
		t.Fatal(err)
	}
	clean := pgtest.Database(t)
	if err := Setup(t.Context(), clean, Options{Seed: 1, HistoryDays: 5, Rate: 0.05, Now: testNow}); err != nil {
		t.Fatal(err)
	}
	if contents(t, conn) != contents(t, pgtest.Connect(t, clean)) {
		t.Error("the store that was redone differs from one made at once")
	}
}

func TestTwoSetupsAtOnce(t *testing.T) {
	dsn := pgtest.Database(t)
	done := make(chan error, 2)
	for range 2 {
		go func() { done <- Setup(t.Context(), dsn, Options{Seed: 1, HistoryDays: 3, Now: testNow}) }()
	}
	if err := errors.Join(<-done, <-done); err != nil {
		t.Fatal(err)
	}
	if n := query[int](t, pgtest.Connect(t, dsn), "SELECT count(*) FROM demo.store"); n != 1 {
		t.Errorf("%d marks", n)
	}
}

func TestSetupRefusesAnotherVersion(t *testing.T) {
	dsn := pgtest.Database(t)
	exec(t, pgtest.Connect(t, dsn), "CREATE SCHEMA demo; CREATE TABLE demo.store AS SELECT 999 AS version")
	if err := Setup(t.Context(), dsn, Options{Now: testNow}); err == nil || !strings.Contains(err.Error(), "999") {
		t.Errorf("got %v", err)
	}
	if err := Setup(t.Context(), "not a url \x00", Options{Now: testNow}); err == nil {
		t.Error("a wrong address was accepted")
	}
}
