//go:build real

package interop

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
	"github.com/millrace-io/millrace/test/realparts"
)

//go:embed testdata/store.sql
var storeSQL string

//go:embed testdata/rows.sql
var rowsSQL string

//go:embed testdata/changes.sql
var changesSQL string

// tables of store.sql.
var tables = []string{"kinds", "items", "documents", "sessions"}

// shop is a store whose every change is captured into Kafka, and a worker for the consumers.
type shop struct {
	primary, standby *pgtest.Server
	source           *pgx.Conn // the store's database
	kafka            *realparts.Broker
	registry         *realparts.Registry
	connect          *realparts.Connect
	cdc              *harness.Process
}

// TestConsumersNobodyHereWrote captures a store, gives what comes out to each consumer, and changes the store while
// they read.
func TestConsumersNobodyHereWrote(t *testing.T) {
	s := open(t)
	apply(t, s.source, rowsSQL)
	s.startCapture(t)

	copied, flat, made := s.database(t, "copied", storeSQL), s.database(t, "flat", storeSQL), s.database(t, "made", "")
	all := strings.Join(tables, "|")
	s.jdbcSink(t, "copied", all, route())
	t.Run("JDBC sink, snapshot", func(t *testing.T) { s.sameTables(t, "copied", copied) })
	s.jdbcSink(t, "flat", all, unwrap(""))
	s.jdbcSink(t, "made", "items", route(), map[string]string{"schema.evolution": "basic"})
	lines := filepath.Join(t.TempDir(), "items.txt")
	s.fileSink(t, lines)

	apply(t, s.source, changesSQL)
	t.Run("JDBC sink, stream", func(t *testing.T) { s.sameTables(t, "copied", copied) })
	t.Run("JDBC sink, flat rows", func(t *testing.T) { s.sameTables(t, "flat", flat) })
	t.Run("JDBC sink, tables that it makes", func(t *testing.T) { s.sameItems(t, "made", made) })
	t.Run("file sink, flat rows", func(t *testing.T) { s.sameLines(t, lines) })
	t.Run("Python", s.python)
}

// open starts everything but cdc and makes the store's empty tables. What is missing is told before anything runs.
func open(t *testing.T) *shop {
	t.Helper()
	t.Setenv("PYTHONPATH", realparts.Python(t))
	s := &shop{registry: realparts.ApicurioRegistry(t), kafka: realparts.Kafka(t, realparts.Options{})}
	s.connect = realparts.ConnectWorker(t, realparts.ConnectOptions{
		Brokers:    s.kafka.Seeds(),
		Plugins:    []realparts.Plugin{realparts.DebeziumJDBC, realparts.ApicurioConverter, realparts.ConnectFile},
		Properties: s.registry.AvroConverter(),
	})
	s.primary, s.standby = pgtest.Pair(t, "timezone", "UTC")
	s.source = s.database(t, "shop", storeSQL+"; CREATE ROLE cdc LOGIN REPLICATION; GRANT SELECT ON ALL TABLES IN SCHEMA public TO cdc;"+
		"CREATE PUBLICATION millrace FOR TABLE "+strings.Join(tables, ", "))
	return s
}

// database makes a database on the primary.
func (s *shop) database(t *testing.T, name, setup string) *pgx.Conn {
	t.Helper()
	s.primary.Exec(t, "CREATE DATABASE "+name)
	conn := s.primary.Connect(t, name)
	apply(t, conn, setup)
	return conn
}

func apply(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
		t.Fatal(err)
	}
}

// startCapture runs cdc as it comes.
func (s *shop) startCapture(t *testing.T) {
	t.Helper()
	s.standby.Sync(t)
	harness.Busy(t, s.primary)
	var env []string
	for k, v := range map[string]string{
		"KAFKA_BROKERS": strings.Join(s.kafka.Seeds(), ","), "REGISTRY_URL": s.registry.URL, "SOURCE_URL": s.standby.DSN("cdc", "shop"),
		"PRIVACY_KEY_FILE": harness.KeyFile(t), "LOG_LEVEL": "warn",
	} {
		env = append(env, "MILLRACE_"+k+"="+v)
	}
	s.cdc = harness.Start(t, "cdc", env)
	s.cdc.Ready(t, time.Minute)
}

// route names tables as the store does.
func route() map[string]string {
	return map[string]string{
		"transforms":                   "route",
		"transforms.route.type":        "org.apache.kafka.connect.transforms.RegexRouter",
		"transforms.route.regex":       `store\.public\.(.*)`,
		"transforms.route.replacement": "$1",
	}
}

// unwrap makes flat rows of events, as it comes when mode is "".
func unwrap(mode string) map[string]string {
	out := route()
	out["transforms"] = "unwrap,route"
	out["transforms.unwrap.type"] = "io.debezium.transforms.ExtractNewRecordState"
	if mode != "" {
		out["transforms.unwrap.delete.tombstone.handling.mode"] = mode
	}
	return out
}

// jdbcSink has Debezium's JDBC sink write topics into a database.
func (s *shop) jdbcSink(t *testing.T, database, topics string, config ...map[string]string) {
	t.Helper()
	all := map[string]string{
		"connector.class": "io.debezium.connector.jdbc.JdbcSinkConnector",
		"topics.regex":    `store\.public\.(` + topics + ")",
		// PostgreSQL's driver sends strings as such unless told to let the column decide: without this no sink writes an
		// inet, a range or a numeric without a scale.
		"connection.url":      "jdbc:postgresql://" + strings.SplitAfter(s.primary.DSN("postgres", database), "@")[1] + "&stringtype=unspecified",
		"connection.username": "postgres",
		"connection.password": "unused",
		"insert.mode":         "upsert",
		"delete.enabled":      "true",
		"primary.key.mode":    "record_key",
		"schema.evolution":    "none",
		// Kafka Connect's own consumers look for new topics every five minutes.
		"consumer.override.metadata.max.age.ms": "500",
	}
	for _, c := range config {
		maps.Copy(all, c)
	}
	s.create(t, database, all)
}

// fileSink has Kafka's sink write flat rows, a line for each; deletes are rows with a mark.
func (s *shop) fileSink(t *testing.T, path string) {
	t.Helper()
	config := unwrap("rewrite")
	config["connector.class"] = "org.apache.kafka.connect.file.FileStreamSinkConnector"
	config["topics"] = "store.public.items"
	config["file"] = path
	s.create(t, "lines", config)
}

func (s *shop) create(t *testing.T, name string, config map[string]string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.connect.Create(ctx, name, config); err != nil {
		t.Fatal(err)
	}
}

// rowsOf reads a query's only column, sorted.
func rowsOf(t *testing.T, conn *pgx.Conn, sql string) []string {
	t.Helper()
	rs, err := conn.Query(t.Context(), sql)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rs, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// await waits until what a connector has made equals what the source has.
func (s *shop) await(t *testing.T, connector string, got func() []string, want []string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		is := got()
		if slices.Equal(is, want) {
			t.Logf("%d rows are equal", len(want))
			return
		}
		if _, err := s.connect.Running(t.Context(), connector); err != nil {
			t.Fatalf("%s\n%v", difference(is, want), err)
		}
		if time.Now().After(deadline) {
			t.Fatal(difference(is, want))
		}
		time.Sleep(100 * time.Millisecond) // the pace of asking; the deadline decides
	}
}

// difference names the first row that only one side has.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		g, w := "(no more)", "(no more)"
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			return fmt.Sprintf("%d rows, want %d; the first difference:\n%.2000s\nwant\n%.2000s", len(got), len(want), g, w)
		}
	}
	return "no difference"
}

// wholeRows prints every column of a table as PostgreSQL does.
func wholeRows(table string) string { return "SELECT t::text FROM " + table + " AS t" }

func (s *shop) sameTables(t *testing.T, connector string, copied *pgx.Conn) {
	t.Helper()
	for _, table := range tables {
		t.Run(table, func(t *testing.T) {
			s.await(t, connector, func() []string { return rowsOf(t, copied, wholeRows(table)) }, rowsOf(t, s.source, wholeRows(table)))
		})
	}
}

// sameItems compares with a table whose columns the sink has chosen.
func (s *shop) sameItems(t *testing.T, connector string, made *pgx.Conn) {
	t.Helper()
	const columns = "SELECT concat_ws('|', order_number, line, product, quantity, price) FROM items"
	s.await(t, connector, func() []string { return rowsOf(t, made, columns) }, rowsOf(t, s.source, columns))
}

// sameLines folds the file: the last line of a key is its row.
func (s *shop) sameLines(t *testing.T, path string) {
	t.Helper()
	want := rowsOf(t, s.source, "SELECT format('order_number=%s,line=%s,product=%s,quantity=%s', order_number, line, product, quantity) FROM items")
	s.await(t, "lines", func() []string {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil // not yet
		}
		return foldLines(t, string(data))
	}, want)
}

// flatRow is how Kafka Connect prints a row that the transform has made.
var flatRow = regexp.MustCompile(`^Struct\{((order_number=\d+,line=\d+)(,product=.*,quantity=\d+)?)(,price=[\d.]+)?,__deleted=(true|false)\}$`)

func foldLines(t *testing.T, text string) []string {
	t.Helper()
	rows := map[string]string{}
	for line := range strings.Lines(text) {
		m := flatRow.FindStringSubmatch(strings.TrimSpace(line))
		switch {
		case m == nil:
			if strings.HasSuffix(line, "\n") { // else it is being written
				t.Fatalf("a line is not a flat row: %s", line)
			}
		case m[5] == "true":
			delete(rows, m[2])
		default:
			rows[m[2]] = m[1]
		}
	}
	return slices.Sorted(maps.Values(rows))
}

//go:embed testdata/consume.py
var consumer []byte

// python reads all topics with Confluent's client and loads what it has understood into tables like the store's.
func (s *shop) python(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	args := []string{"-", strings.Join(s.kafka.Seeds(), ","), s.registry.URL}
	for _, table := range tables {
		args = append(args, "store.public."+table)
	}
	cmd := exec.CommandContext(ctx, "python3", args...)
	cmd.Stdin = bytes.NewReader(consumer)
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the consumer in Python: %v\n%s", err, problems.String())
	}
	loaded := s.database(t, "python", storeSQL)
	for line := range bytes.Lines(out) {
		load(t, loaded, line)
	}
	// JSON is text to the consumer, which makes strings of it.
	apply(t, loaded, "UPDATE kinds SET doc = (doc #>> '{}')::json, body = (body #>> '{}')::jsonb")
	for _, table := range tables {
		if got, want := rowsOf(t, loaded, wholeRows(table)), rowsOf(t, s.source, wholeRows(table)); !slices.Equal(got, want) {
			t.Errorf("%s: %s", table, difference(got, want))
		}
	}
}

// load inserts a row that the consumer in Python has printed.
func load(t *testing.T, conn *pgx.Conn, line []byte) {
	t.Helper()
	var r struct {
		Topic string
		Row   json.RawMessage
	}
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	table := pgx.Identifier{strings.TrimPrefix(r.Topic, "store.public.")}.Sanitize()
	if _, err := conn.Exec(t.Context(), fmt.Sprintf("INSERT INTO %[1]s SELECT * FROM json_populate_record(NULL::%[1]s, $1)", table), string(r.Row)); err != nil {
		t.Fatalf("%v: %s", err, r.Row)
	}
}
