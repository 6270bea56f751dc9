package cdc

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
)

// TestTypes holds the tests of types that need the whole way from the source to the topics: keys and schemas.
func TestTypes(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "20", "max_wal_senders", "20")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"keys of many types", keysOfManyTypes},
		{"the whole row as key", wholeRowKey},
		{"a table without key is refused with the SQL that mends it", keylessRefused},
		{"replica identities", replicaIdentities},
		{"types that change under a table", typesThatChange},
		{"columns as text take every value", columnsAsText},
		{"generated columns", generatedColumns},
		{"modes", modesOfTypes},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// nothingStopped fails if a table was stopped.
func nothingStopped(t *testing.T, r *running) {
	t.Helper()
	if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
		t.Fatalf("stopped: %v", c.Incomplete)
	}
}

// Every type with an order may be a key: rows are inserted, changed, given new keys, deleted and truncated.
func keysOfManyTypes(t *testing.T, p *pair) {
	types := []struct{ sql, first, second string }{
		{"numeric", "1.10", "NaN"}, {"numeric(8,3)", "1.5", "-2"}, {"money", "1.00", "-2.00"}, {"float4", "1.5", "NaN"}, {"float8", "-0.1", "Infinity"}, {"boolean", "t", "f"},
		{"uuid", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"}, {"date", "2024-02-29", "infinity"}, {"time", "24:00", "12:00"},
		{"timetz", "12:00+02", "13:00-05"}, {"timestamp", "2024-05-06 07:08:09", "0044-03-15 12:00 BC"}, {"timestamptz", "2024-05-06 07:08:09+02", "-infinity"},
		{"interval", "1 mon", "02:00"}, {"bytea", `\x00ff`, `\x`}, {"bit(3)", "101", "111"}, {"inet", "::1", "10.0.0.0/8"}, {"text[]", `{a,NULL,"b,c"}`, "{}"},
		{"int[]", "{1,2}", "{}"}, {"hstore", `"a"=>"1"`, ""}, {"citext", "A", "b"}, {"mood", "sad", "ok"}, {"cents", "1", "2"}, {"int4range", "[1,5)", "empty"},
		{"int4multirange", "{[1,2)}", "{}"}, {"jsonb", `{"a": 1}`, "null"}, {"address", "(x,1)", "(,)"}, {"oid", "1", "4294967295"}, {"pg_lsn", "0/1", "16/B374D848"}, {"tsvector", "a:1", ""},
	}
	setup := []string{"CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN cents AS bigint; CREATE TYPE address AS (street text, number int)"}
	var tables []string
	for i, c := range types {
		name := fmt.Sprintf("k%d", i)
		tables = append(tables, name)
		setup = append(setup, fmt.Sprintf("CREATE TABLE %s (n int, k %s, PRIMARY KEY (k, n)); INSERT INTO %[1]s VALUES (1, '%[3]s'), (2, '%[4]s')", name, c.sql, c.first, c.second))
	}
	s := p.store(t, strings.Join(setup, "; ")+"; CREATE PUBLICATION millrace FOR TABLE "+strings.Join(tables, ", "))
	r := s.start(t)
	s.quiet(t, r)
	for i, c := range types {
		s.exec(t, fmt.Sprintf(`INSERT INTO %[1]s VALUES (3, '%[2]s'), (4, '%[2]s'), (5, '%[3]s'); UPDATE %[1]s SET k = '%[3]s' WHERE n = 3; UPDATE %[1]s SET n = 6 WHERE n = 4; DELETE FROM %[1]s WHERE n IN (1, 5)`,
			tables[i], c.first, c.second))
	}
	s.quiet(t, r)
	nothingStopped(t, r)
	for i, c := range types {
		keys := map[int32]string{}
		for _, row := range s.fold(t, tables[i]) {
			keys[row["n"].(int32)] = fmt.Sprint(row["k"])
		}
		if len(keys) != 3 || keys[2] != keys[3] || keys[6] == keys[2] {
			t.Errorf("%s: the rows are %v", c.sql, keys)
		}
	}
	s.exec(t, "TRUNCATE "+strings.Join(tables, ", "))
	s.quiet(t, r)
	nothingStopped(t, r)
	for i, c := range types {
		if rows := s.fold(t, tables[i]); len(rows) > 0 {
			t.Errorf("%s: after TRUNCATE there is %v", c.sql, rows)
		}
		for _, e := range s.events(t, tables[i]) {
			if e.value != nil && e.op() == "d" && fmt.Sprint(e.row("before")["k"]) != fmt.Sprint(flat(e.keyFields)["k"]) {
				t.Errorf("%s: the deleted row %v has the key %v", c.sql, e.row("before"), e.keyFields)
			}
		}
	}
}

const looseTable = `CREATE TABLE loose (a int, b text, tags text[], at timestamptz, big text); ALTER TABLE loose ALTER big SET STORAGE EXTERNAL;
	ALTER TABLE loose REPLICA IDENTITY FULL; CREATE PUBLICATION millrace FOR TABLE loose`

func wholeRowKey(t *testing.T, p *pair) {
	s := p.store(t, looseTable)
	s.cfg.Keyless = keylessRow
	s.exec(t, `INSERT INTO loose VALUES (1, 'x', '{p,NULL}', now(), repeat('large', 2000)), (2, NULL, NULL, NULL, NULL), (3, '', '{}', 'infinity', '')`)
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.matches(t, "loose", "a", "b", "big")
	s.exec(t, `UPDATE loose SET b = 'y' WHERE a = 1; UPDATE loose SET b = '' WHERE a = 2; UPDATE loose SET b = NULL WHERE a = 3; INSERT INTO loose VALUES (4), (4), (5); DELETE FROM loose WHERE a = 5`)
	s.quiet(t, r)
	nothingStopped(t, r)
	rows := s.fold(t, "loose")
	if len(rows) != 4 { // equal rows are one
		t.Errorf("%d rows, want 4: %v", len(rows), rows)
	}
	s.exec(t, "DELETE FROM loose WHERE a = 4")
	s.quiet(t, r)
	s.matches(t, "loose", "a", "b", "big")
	s.exec(t, "TRUNCATE loose; INSERT INTO loose VALUES (7)")
	s.quiet(t, r)
	s.matches(t, "loose", "a", "b", "big")
	nothingStopped(t, r)
}

func keylessRefused(t *testing.T, p *pair) {
	s := p.store(t, looseTable+`; CREATE TABLE bare (a int); ALTER PUBLICATION millrace ADD TABLE bare`)
	check := func(want ...string) {
		t.Helper()
		var out strings.Builder
		if err := Check(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}); err == nil {
			t.Error("the check finds nothing")
		}
		for _, w := range want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("not said: %s\nin\n%s", w, &out)
			}
		}
	}
	check(`ALTER TABLE "public"."loose" ADD PRIMARY KEY`, `ALTER TABLE "public"."bare" ADD PRIMARY KEY`, "set cdc.keyless to row")
	s.cfg.Keyless = keylessRow
	check(`on the primary: ALTER TABLE "public"."bare" REPLICA IDENTITY FULL`)
}

func replicaIdentities(t *testing.T, p *pair) {
	var setup, names []string
	for _, identity := range []string{"DEFAULT", "FULL", "USING INDEX x_other", "NOTHING"} {
		name := "t_" + strings.ToLower(strings.Fields(identity)[0])
		names = append(names, name)
		setup = append(setup, fmt.Sprintf("CREATE TABLE %s (id int PRIMARY KEY, other text NOT NULL, v int)", name))
		if strings.HasPrefix(identity, "USING") {
			setup = append(setup, "CREATE UNIQUE INDEX x_other ON "+name+" (other)", "ALTER TABLE "+name+" REPLICA IDENTITY "+identity)
		} else if identity == "FULL" {
			setup = append(setup, "ALTER TABLE "+name+" REPLICA IDENTITY FULL")
		}
		setup = append(setup, "INSERT INTO "+name+" VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3)")
	}
	s := p.store(t, strings.Join(setup, "; ")+"; CREATE PUBLICATION millrace FOR TABLE "+strings.Join(names, ", "))
	r := s.start(t)
	s.quiet(t, r)
	for _, name := range names[:3] {
		s.exec(t, "UPDATE "+name+" SET v = 10 WHERE id = 1; UPDATE "+name+" SET id = 20, other = 'B' WHERE id = 2; DELETE FROM "+name+" WHERE id = 3; INSERT INTO "+name+" VALUES (4, 'd', 4)")
	}
	// With nothing published of old rows there can only be inserts; the key is known from the catalog.
	s.exec(t, "ALTER TABLE t_nothing REPLICA IDENTITY NOTHING; INSERT INTO t_nothing VALUES (4, 'd', 4)")
	if _, err := s.write.Exec(t.Context(), "DELETE FROM t_nothing"); err == nil {
		t.Error("PostgreSQL deletes without a replica identity")
	}
	s.quiet(t, r)
	nothingStopped(t, r)
	for _, name := range names {
		s.matches(t, name, "id", "other", "v")
	}
	for _, e := range s.events(t, "t_using") {
		if _, ok := e.keyFields["other"]; !ok || len(e.keyFields) != 1 {
			t.Fatalf("the key of a table whose identity is an index is %v", e.keyFields)
		}
	}
}

// The stream does not describe a table again when a type that it uses changes.
func typesThatChange(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE TYPE address AS (street text);
		CREATE TABLE people (id int PRIMARY KEY, m mood, moods mood[], a address, h address[]);
		CREATE TABLE moods (m mood PRIMARY KEY); INSERT INTO people VALUES (1, 'ok', '{sad}', '("High St")', '{"(x)"}'); INSERT INTO moods VALUES ('ok');
		CREATE PUBLICATION millrace FOR TABLE people, moods`)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO people SELECT 2, m, moods, a, h FROM people")
	s.quiet(t, r)
	s.exec(t, "ALTER TYPE mood ADD VALUE 'happy' BEFORE 'ok'; ALTER TYPE address ADD ATTRIBUTE number int")
	s.exec(t, `INSERT INTO people VALUES (3, 'happy', '{happy,ok}', '(Lane,5)', '{"(x,1)"}'); INSERT INTO moods VALUES ('happy')`)
	s.exec(t, `CREATE TYPE colour AS ENUM ('red'); ALTER TABLE people ADD c colour, ADD cs colour[]; INSERT INTO people VALUES (4, NULL, NULL, NULL, NULL, 'red', '{red}')`)
	s.exec(t, "INSERT INTO moods VALUES ('sad'); UPDATE moods SET m = m")
	s.quiet(t, r)
	nothingStopped(t, r)
	s.matches(t, "people", "id", "m", "c") // rows written before print a composite's new attribute as well, and nobody tells
	s.matches(t, "moods", "m")
	if got := fmt.Sprint(s.fold(t, "people")); !strings.Contains(got, "cs:[map[string:red]]") || !strings.Contains(got, "moods:[map[string:happy] map[string:ok]]") ||
		!strings.Contains(got, "a:(Lane,5)") {
		t.Errorf("composites and arrays of an enum: %s", got)
	}
	if n := len(s.fold(t, "moods")); n != 3 {
		t.Errorf("%d keys of an enum, want 3", n)
	}
}

func columnsAsText(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE odd (id int PRIMARY KEY, n numeric(8,3), bounds int[], matrix int[][], at timestamp); CREATE PUBLICATION millrace FOR TABLE odd`)
	s.cfg.Text = []string{"public.odd.n", "public.*.bounds", "*.*.at"}
	insert := `INSERT INTO odd SELECT %d + id, n, bounds, matrix, at FROM (VALUES (1, 'NaN'::numeric(8,3), '[0:1]={1,2}'::int[], '{{1,2},{3,4}}'::int[][], '294276-12-31 23:59:59.999999'::timestamp),
		(2, 1.5, '{{1},{2}}', '{1}', 'infinity'), (3, NULL, NULL, NULL, NULL)) v(id, n, bounds, matrix, at)`
	s.exec(t, fmt.Sprintf(insert, 0))
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, fmt.Sprintf(insert, 10))
	s.quiet(t, r)
	nothingStopped(t, r)
	s.matches(t, "odd", "id", "n", "bounds", "matrix", "at")
}

// Stored columns are captured if the publication has them, by snapshot and stream alike; virtual ones never are.
func generatedColumns(t *testing.T, p *pair) {
	version := p.primary.Query(t, "SELECT current_setting('server_version_num')::int / 10000")
	table, with := "g (id int PRIMARY KEY, n numeric(8,2), twice numeric(8,2) GENERATED ALWAYS AS (n * 2) STORED, tags text[] GENERATED ALWAYS AS (ARRAY[n::text]) STORED", ""
	if version >= "18" {
		table, with = table+", thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL", " WITH (publish_generated_columns = stored)"
	}
	for _, published := range []bool{false, true} {
		if published && with == "" {
			continue
		}
		publication := "CREATE PUBLICATION millrace FOR TABLE g"
		if published {
			publication += with
		}
		s := p.store(t, "CREATE TABLE "+table+"); INSERT INTO g VALUES (1, 1.5); "+publication)
		r := s.start(t)
		s.quiet(t, r)
		s.exec(t, "INSERT INTO g VALUES (2, 2.5); UPDATE g SET n = 3 WHERE id = 1")
		s.quiet(t, r)
		nothingStopped(t, r)
		for _, row := range s.fold(t, "g") {
			_, twice := row["twice"]
			_, thrice := row["thrice"]
			if twice != published || thrice {
				t.Errorf("published %v, the row is %v", published, row)
			}
			if published && fmt.Sprint(row["tags"].([]any)[0].(map[string]any)["string"]) != row["n"].(interface{ FloatString(int) string }).FloatString(2) {
				t.Errorf("the generated array is %v of %v", row["tags"], row["n"])
			}
		}
	}
}

func modesOfTypes(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE m (id int PRIMARY KEY, n numeric(8,3), at timestamptz, raw bytea); CREATE PUBLICATION millrace FOR TABLE m`)
	s.exec(t, `CREATE TABLE exact (n numeric(20,2), at timestamptz, v timestamptz, PRIMARY KEY (n, at)); GRANT SELECT ON exact TO cdc; ALTER PUBLICATION millrace ADD TABLE exact;
		INSERT INTO exact VALUES (999999999999999999.01, '2024-05-06 07:08:09.000001', '2024-05-06 07:08:09.000001'), (999999999999999999.02, '2024-05-06 07:08:09.000002', 'infinity')`)
	lossy := *s
	lossy.cfg.Slot, lossy.cfg.Decimal, lossy.cfg.Time, lossy.kafka.TopicPrefix = s.cfg.Slot+"_lossy", "double", "connect", "lossy."
	p.standby.Sync(t)
	exact := lossy.start(t)
	lossy.quiet(t, exact)
	if rows := lossy.fold(t, "exact"); len(rows) != 2 {
		t.Errorf("keys are cut: %v", rows)
	}
	s.cfg.Decimal, s.cfg.Time, s.cfg.Binary = "string", "isostring", "hex"
	insert := `INSERT INTO m VALUES (%d, 1.5, '2024-05-06 07:08:09.5+02', '\x00ff')`
	s.exec(t, fmt.Sprintf(insert, 1))
	p.standby.Sync(t)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, fmt.Sprintf(insert, 2))
	s.quiet(t, r)
	var got []string
	for _, row := range s.fold(t, "m") {
		got = append(got, fmt.Sprintf("%v %v %v %v", row["id"], row["n"], row["at"], row["raw"]))
	}
	slices.Sort(got)
	if want := []string{"1 1.500 2024-05-06T05:08:09.5Z 00ff", "2 1.500 2024-05-06T05:08:09.5Z 00ff"}; !slices.Equal(got, want) {
		t.Errorf("the rows are %v, want %v", got, want)
	}
}
