package cdc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/cdc/internal/pgoutput"
	"github.com/millrace-io/millrace/services/cdc/internal/rows"
)

// TestPolicy holds the tests of what leaves the source and of schema changes; they share a primary and its standby.
func TestPolicy(t *testing.T) {
	primary, standby := pgtest.Pair(t, "max_replication_slots", "40", "max_wal_senders", "40")
	prepare(t, primary)
	p := &pair{primary: primary, standby: standby}
	for _, c := range []struct {
		name string
		run  func(*testing.T, *pair)
	}{
		{"personal data never leaves in clear", nothingPersonalLeaves},
		{"unknown columns of a sensitive table are withheld", withheldColumns},
		{"a renamed column keeps its treatment", renamedPersonal},
		{"row filter with full old rows", func(t *testing.T, p *pair) { filteredRows(t, p, "FULL") }},
		{"row filter with keys as old rows", func(t *testing.T, p *pair) { filteredRows(t, p, "DEFAULT") }},
		{"a row about which the filter cannot decide is quarantined", undecidedRow},
		{"a text is cut between characters", truncatedTexts},
		{"tables are selected by patterns", selectedTables},
		{"contradicting rules and hidden keys are refused", refusedTables},
		{"a renamed column has an alias", renamedColumn},
		{"widening goes through", widenedColumn},
		{"another scale stops its table only", changedScale},
		{"a table goes on in a topic of the next version", nextVersion},
	} {
		t.Run(c.name, func(t *testing.T) { t.Parallel(); c.run(t, p) })
	}
}

// rawRecord is what lies in Kafka, raw.
type rawRecord struct {
	topic      string
	key, value []byte
	headers    []kgo.RecordHeader
}

// everything reads all topics there are.
func (s *store) everything(t testing.TB) []rawRecord {
	t.Helper()
	cl, err := s.kafka.Client("test", slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	listed, err := kadm.NewClient(cl).ListTopics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []rawRecord
	_, _, err = scan(t.Context(), s.kafka, slog.New(slog.DiscardHandler), 0, func(r *kgo.Record) {
		if !r.Attrs.IsControl() {
			out = append(out, rawRecord{r.Topic, r.Key, r.Value, r.Headers})
		}
	}, listed.Names()...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// secret is a value that must not be found: as PostgreSQL writes it, and as Avro would.
type secret struct {
	column string
	sql    string
	forms  [][]byte
}

func zigzag(v int64) []byte { return binary.AppendUvarint(nil, uint64(v<<1)^uint64(v>>63)) }

// personalColumns are columns of every common type with a way to make secrets that bytes show.
func personalColumns() map[string]func(n int64) secret {
	text := func(v string) [][]byte { return [][]byte{[]byte(v)} }
	return map[string]func(int64) secret{
		"a_text": func(n int64) secret {
			v := fmt.Sprintf("xy-secret-%d", n)
			return secret{sql: "'" + v + "'", forms: text(v[2:])} // a truncation may show the first two
		},
		"a_varchar": func(n int64) secret {
			v := fmt.Sprintf("vc-hidden-%d", n)
			return secret{sql: "'" + v + "'", forms: text(v[2:])}
		},
		"a_long": func(n int64) secret {
			v := 7_000_000_000_000_000 + n*7919
			return secret{sql: fmt.Sprint(v), forms: append(text(fmt.Sprint(v)), zigzag(v))}
		},
		"a_numeric": func(n int64) secret {
			v := 8_000_000_000_000_000 + n*7919
			return secret{sql: fmt.Sprintf("%d.%02d", v/100, v%100), forms: append(text(fmt.Sprint(v/100)), binary.BigEndian.AppendUint64(nil, uint64(v))[1:])}
		},
		"a_time": func(n int64) secret {
			v := 1_000_000_000_000_000 + n*7919
			return secret{sql: fmt.Sprintf("timestamptz 'epoch' + %d * interval '1 microsecond'", v), forms: [][]byte{zigzag(v)}}
		},
		"a_json": func(n int64) secret {
			v := fmt.Sprintf("in-json-%d", n)
			return secret{sql: `'{"mail": "` + v + `"}'`, forms: text(v)}
		},
		"an_array": func(n int64) secret {
			v := fmt.Sprintf("in-array-%d", n)
			return secret{sql: "ARRAY['" + v + "', '']", forms: text(v)}
		},
		"a_blob": func(n int64) secret {
			v := fmt.Sprintf("in-bytes-%d", n)
			return secret{sql: "convert_to('" + v + "', 'UTF8')", forms: append(text(v), []byte(fmt.Sprintf("%x", v)))}
		},
	}
}

// nothingPersonalLeaves runs random histories under random rules, and looks for every value in every byte of Kafka.
func nothingPersonalLeaves(t *testing.T, p *pair) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	for _, identity := range []string{"DEFAULT", "FULL"} {
		s := p.store(t, `CREATE TABLE people (email text PRIMARY KEY, plain text, a_text text, a_varchar varchar(60), a_long bigint, a_numeric numeric(18,2),
			a_time timestamptz, a_json jsonb, an_array text[], a_blob bytea); CREATE PUBLICATION millrace FOR TABLE people; ALTER TABLE people REPLICA IDENTITY `+identity)
		rules := randomRules(rnd, &s.cfg)
		t.Logf("identity %s, rules %v", identity, rules)
		columns := personalColumns()
		var secrets []secret
		values := func() (list string, sets []string) {
			cells := []string{"'seen'"}
			for name := range rules {
				v := columns[name](rnd.Int64N(1 << 30))
				v.column = name
				secrets = append(secrets, v)
				cells, sets = append(cells, v.sql), append(sets, name+" = "+v.sql)
			}
			return strings.Join(cells, ", "), sets
		}
		names := "plain"
		insert := func(key string) string {
			list, sets := values()
			names = "plain"
			for _, set := range sets {
				name, _, _ := strings.Cut(set, " = ")
				names += ", " + name
			}
			secrets = append(secrets, secret{column: "email", forms: [][]byte{[]byte(key)}})
			return fmt.Sprintf("INSERT INTO people (email, %s) VALUES ('%s', %s)", names, key, list)
		}
		for i := range 5 {
			s.exec(t, insert(fmt.Sprintf("snapped-%d@example.org", i)))
		}
		p.standby.Sync(t)
		r := s.start(t)
		s.quiet(t, r)
		for i := range 5 {
			s.exec(t, insert(fmt.Sprintf("streamed-%d@example.org", i)))
			_, sets := values()
			s.exec(t, fmt.Sprintf("UPDATE people SET %s WHERE email LIKE '%%-%d@%%'", strings.Join(sets, ", "), rnd.IntN(5)))
		}
		s.exec(t, `UPDATE people SET email = 'moved-' || email WHERE email LIKE '%-3@%'; DELETE FROM people WHERE email LIKE '%-1@%'; TRUNCATE people`)
		secrets = append(secrets, secret{column: "email", forms: [][]byte{[]byte("moved-")}})
		s.quiet(t, r)
		if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
			t.Fatalf("stopped: %v", c.Incomplete)
		}
		s.findNone(t, secrets)
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
	}
}

// randomRules gives each column a treatment that is possible for its type.
func randomRules(rnd *rand.Rand, cfg *Config) map[string]string {
	out := map[string]string{}
	for name := range personalColumns() {
		pattern := []string{"people." + name, "public.people." + name, "*." + name, "peo*." + name[:len(name)-1] + "?"}[rnd.IntN(4)]
		switch n := rnd.IntN(5); {
		case n == 0:
			out[name] = "mask"
			cfg.Mask = append(cfg.Mask, pattern)
		case n == 1:
			out[name] = "tokenise"
			cfg.Tokenise = append(cfg.Tokenise, pattern)
		case n == 2:
			out[name] = "exclude"
			cfg.ExcludeColumns = append(cfg.ExcludeColumns, pattern)
		case n == 3 && (name == "a_text" || name == "a_varchar"):
			out[name] = "truncate"
			cfg.Truncate = append(cfg.Truncate, pattern+":2")
		default:
			out[name] = "withhold"
			cfg.SensitiveTables = []string{"public.peop*"}
		}
	}
	cfg.Clear = []string{"people.plain"}
	return out
}

func (s *store) findNone(t *testing.T, secrets []secret) {
	t.Helper()
	seen := 0
	for _, r := range s.everything(t) {
		whole := append(append([]byte(nil), r.key...), r.value...)
		for _, h := range r.headers {
			whole = append(append(whole, h.Key...), h.Value...)
		}
		if bytes.Contains(whole, []byte("seen")) {
			seen++
		}
		for _, x := range secrets {
			for _, form := range x.forms {
				if bytes.Contains(whole, form) {
					t.Fatalf("topic %s: a value of %s is in it in clear", r.topic, x.column)
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d records have the harmless column: the test looks at nothing", seen)
	}
}

func withheldColumns(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE people (id int PRIMARY KEY, city text); CREATE TABLE other (id int PRIMARY KEY);
		CREATE PUBLICATION millrace FOR TABLE people, other; INSERT INTO people VALUES (1, 'Leeds')`)
	s.cfg.SensitiveTables = []string{"people"}
	s.cfg.Clear = []string{"people.id", "people.city"}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE people ADD diagnosis text; INSERT INTO people VALUES (2, 'York', 'a-secret-thing'); ALTER TABLE other ADD note text; INSERT INTO other VALUES (1, 'plain')")
	s.quiet(t, r)
	for _, row := range s.fold(t, "people") {
		if _, there := row["diagnosis"]; there || row["city"] == nil {
			t.Errorf("the row is %v", row)
		}
	}
	for _, row := range s.fold(t, "other") {
		if row["note"] != "plain" {
			t.Errorf("a column of a table that is not sensitive: %v", row)
		}
	}
	s.findNoneOf(t, "a-secret-thing")
	var out strings.Builder
	if err := Check(t.Context(), &out, s.cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))}); err != nil ||
		!strings.Contains(out.String(), "columns of public.people are withheld until somebody says what they are: diagnosis") {
		t.Errorf("%v\n%s", err, &out)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// Once it is classified, new rows have it.
	s.cfg.Tokenise = append(s.cfg.Tokenise, "people.diagnosis")
	r = s.start(t)
	s.exec(t, "INSERT INTO people VALUES (3, 'Bath', 'a-secret-thing')")
	s.quiet(t, r)
	found := false
	for _, row := range s.fold(t, "people") {
		found = found || row["diagnosis"] == s.keys.Token("a-secret-thing")
	}
	if !found {
		t.Error("the classified column does not appear")
	}
	s.findNoneOf(t, "a-secret-thing")
}

func (s *store) findNoneOf(t *testing.T, texts ...string) {
	t.Helper()
	for _, r := range s.everything(t) {
		for _, text := range texts {
			if bytes.Contains(r.key, []byte(text)) || bytes.Contains(r.value, []byte(text)) {
				t.Errorf("topic %s has %q", r.topic, text)
			}
		}
	}
}

func renamedPersonal(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE people (id int PRIMARY KEY, email text, pin text); CREATE PUBLICATION millrace FOR TABLE people;
		INSERT INTO people VALUES (1, 'ann@one.example', 'pin-one')`)
	s.cfg.ExcludeColumns = []string{"people.pin"}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE people RENAME email TO reach; ALTER TABLE people RENAME pin TO code; INSERT INTO people VALUES (2, 'bob@two.example', 'pin-two')")
	s.quiet(t, r)
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	// It is remembered over a restart, a new snapshot, and a rename while nobody looked.
	s.exec(t, "ALTER TABLE people RENAME code TO digits; INSERT INTO people VALUES (3, 'cyd@three.example', 'pin-three')")
	if err := s.service(t).Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.standby.Sync(t)
	r = s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO people VALUES (4, 'dee@four.example', 'pin-four')")
	s.quiet(t, r)
	folded := s.fold(t, "people")
	tokens := 0
	for _, row := range folded {
		for _, v := range []string{"ann@one.example", "bob@two.example", "cyd@three.example", "dee@four.example"} {
			if row["reach"] == s.keys.Token(v) {
				tokens++
			}
		}
	}
	if len(folded) != 4 || tokens != 4 {
		t.Errorf("%d tokens in %v", tokens, folded)
	}
	s.findNoneOf(t, "example", "pin-")
}

func filteredRows(t *testing.T, p *pair, identity string) {
	s := p.store(t, `CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric(9,2), note text); CREATE PUBLICATION millrace FOR TABLE orders;
		ALTER TABLE orders REPLICA IDENTITY `+identity+`; INSERT INTO orders SELECT i, CASE WHEN i % 2 = 0 THEN 'draft' ELSE 'open' END, i, 'n' FROM generate_series(1, 20) i`)
	where := "status <> 'draft' and (total >= 9.5 or note is null)"
	s.cfg.RowFilters = []string{"public.orders: " + where}
	s.cfg.ExcludeColumns = []string{"orders.status"} // the filter reads it, nobody else does
	r := s.start(t)
	s.quiet(t, r)
	same := func(what string) {
		t.Helper()
		s.quiet(t, r)
		s.exec(t, "CREATE OR REPLACE VIEW wanted AS SELECT id, total, note FROM orders WHERE "+where)
		s.matchesAs(t, "orders", "wanted", "id", "total", "note")
		if t.Failed() {
			t.Fatal(what)
		}
	}
	same("snapshot")
	s.exec(t, "UPDATE orders SET status = 'open' WHERE id IN (12, 14)")
	same("enter")
	s.exec(t, "UPDATE orders SET total = 1 WHERE id IN (11, 12); UPDATE orders SET note = NULL WHERE id = 1")
	same("leave")
	s.exec(t, "UPDATE orders SET note = 'x' WHERE id < 10; UPDATE orders SET id = id + 100 WHERE id > 12; UPDATE orders SET id = 300, total = 1 WHERE id = 113; UPDATE orders SET id = 301, status = 'open', total = 50 WHERE id = 2")
	same("keys")
	s.exec(t, "DELETE FROM orders WHERE id % 3 = 0; INSERT INTO orders VALUES (500, 'open', 100), (501, 'draft', 100)")
	same("delete")
	ops := map[string]int{}
	for _, e := range s.events(t, "orders") {
		if e.value != nil && e.keyFields["id"] == int32(12) {
			ops[e.op()]++
		}
	}
	if enter := map[string]string{"FULL": "c", "DEFAULT": "u"}[identity]; ops[enter] != 1 || ops["d"] == 0 {
		t.Errorf("a row that enters and leaves is %v", ops)
	}
	s.findNoneOf(t, "draft", "open")
}

// matchesAs is matches, with a view in the place of the table.
func (s *store) matchesAs(t testing.TB, topic, view string, columns ...string) {
	t.Helper()
	var want int
	if err := s.write.QueryRow(t.Context(), "SELECT count(*) FROM "+view).Scan(&want); err != nil {
		t.Fatal(err)
	}
	folded := s.fold(t, topic)
	for _, row := range folded {
		var n int
		query := "SELECT count(*) FROM " + view + " WHERE true"
		for _, c := range columns {
			v := cell(row[c])
			if x, ok := row[c].(interface{ FloatString(int) string }); ok {
				v = x.FloatString(2)
			}
			query += fmt.Sprintf(" AND coalesce(%s::text, '~') = '%s'", c, v)
		}
		if err := s.write.QueryRow(t.Context(), query).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			t.Errorf("the topic has a row that %s has not: %v", view, row)
		}
	}
	if len(folded) != want {
		t.Errorf("the topic has %d rows, %s %d", len(folded), view, want)
	}
}

func undecidedRow(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE docs (id int PRIMARY KEY, body text, n int, pin text); ALTER TABLE docs ALTER body SET STORAGE EXTERNAL; CREATE PUBLICATION millrace FOR TABLE docs;
		INSERT INTO docs VALUES (1, repeat('large', 2000), 1, 'pin-one'), (2, 'small', 1, 'pin-two')`)
	s.cfg.RowFilters = []string{"public.docs: body <> 'x'"}
	s.cfg.ExcludeColumns = []string{"docs.pin"}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "UPDATE docs SET n = 2")
	s.quiet(t, r)
	r.state.mu.Lock()
	poisoned := len(r.state.position.Poisoned["public.docs"])
	r.state.mu.Unlock()
	quarantined := 0
	for _, rec := range s.everything(t) {
		if rec.topic == schemas.Quarantine {
			quarantined++
		}
	}
	if poisoned != 1 || quarantined != 1 {
		t.Errorf("%d keys are noted, %d rows quarantined", poisoned, quarantined)
	}
	// What is sealed has no column that is not to leave.
	table := rows.Table{Columns: []rows.Column{{Name: "id"}, {Name: "pin", Treatment: rows.Treatment{Handling: rows.Excluded}}}}
	text := func(v string) pgoutput.Datum { return pgoutput.Datum{Kind: pgoutput.Text, Data: []byte(v)} }
	if got := texts(table, []pgoutput.Datum{text("1"), text("pin")}); len(got) != 1 || got["id"] != "1" {
		t.Errorf("sealed: %v", got)
	}
}

func truncatedTexts(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE notes (id int PRIMARY KEY, body text); CREATE PUBLICATION millrace FOR TABLE notes;
		INSERT INTO notes VALUES (1, 'äöü'), (2, '日本語日本語'), (3, 'ab'), (4, ''), (5, NULL)`)
	s.cfg.Truncate = []string{"notes.body:4"}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO notes VALUES (6, '🙂🙂🙂🙂🙂'), (7, 'abcde')")
	s.quiet(t, r)
	want := map[int32]any{1: "äöü", 2: "日本語日", 3: "ab", 4: "", 5: nil, 6: "🙂🙂🙂🙂", 7: "abcd"}
	for _, row := range s.fold(t, "notes") {
		if id := row["id"].(int32); row["body"] != want[id] {
			t.Errorf("%d: %q", id, row["body"])
		}
	}
}

func selectedTables(t *testing.T, p *pair) {
	s := p.store(t, `CREATE SCHEMA crm; CREATE TABLE a_one (id int PRIMARY KEY); CREATE TABLE a_two (id int PRIMARY KEY); CREATE TABLE b_one (id int PRIMARY KEY);
		CREATE TABLE crm.a_one (id int PRIMARY KEY); CREATE PUBLICATION millrace FOR ALL TABLES; GRANT USAGE ON SCHEMA crm TO cdc; GRANT SELECT ON ALL TABLES IN SCHEMA crm TO cdc`)
	s.cfg.IncludeTables = []string{"public.a_*", "crm.*"}
	s.cfg.ExcludeTables = []string{"a_two"}
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "INSERT INTO a_one VALUES (1); INSERT INTO a_two VALUES (1); INSERT INTO b_one VALUES (1); INSERT INTO crm.a_one VALUES (1)")
	s.quiet(t, r)
	got := map[string]int{}
	for _, r := range s.everything(t) {
		if strings.HasPrefix(r.topic, schemas.StorePrefix) {
			got[r.topic]++
		}
	}
	if len(got) != 2 || got["store.public.a_one"] != 1 || got["store.crm.a_one"] != 1 {
		t.Errorf("%v", got)
	}
}

func refusedTables(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE people (id int PRIMARY KEY, name text, age int); CREATE PUBLICATION millrace FOR TABLE people`)
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.ExcludeColumns = []string{"people.id"} }, `column id is of the key, and cdc.exclude_columns "people.id" would make`},
		{func(c *Config) { c.Mask = []string{"people.id"} }, "tokenise it instead"},
		{func(c *Config) { c.SensitiveTables = []string{"people"} }, "name it in cdc.clear"},
		{func(c *Config) { c.Mask, c.ExcludeColumns = []string{"*.name"}, []string{"people.n*"} }, `cdc.exclude_columns "people.n*" and cdc.mask "*.name" contradict`},
		{func(c *Config) { c.Truncate = []string{"people.age:2"} }, "truncates it, and it is no text"},
		{func(c *Config) { c.RowFilters = []string{"public.people: gone = 1"} }, "gone, which the table does not have"},
	} {
		cfg := s.cfg
		c.change(&cfg)
		var out strings.Builder
		err := Check(t.Context(), &out, cfg, SourceConfig{URL: config.Secret(s.source.DSN("cdc", s.database))})
		if err == nil || !strings.Contains(out.String(), c.want) {
			t.Errorf("want %q: %v\n%s", c.want, err, &out)
		}
	}
}

// notes are the notifications of a kind.
func (s *store) notes(t *testing.T, kind string) (out []schemas.CaptureNotification) {
	t.Helper()
	decoder, err := avro.NewDecoder(s.registry, schemas.Latest(schemas.CDCNotifications))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range s.everything(t) {
		var n schemas.CaptureNotification
		if r.topic != schemas.CDCNotifications {
			continue
		}
		if err := decoder.Decode(t.Context(), r.value, &n); err != nil {
			t.Fatal(err)
		}
		if n.Kind == kind {
			out = append(out, n)
		}
	}
	return out
}

func renamedColumn(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; INSERT INTO items VALUES (1, 'before')")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE items RENAME a TO title; ALTER TABLE items DROP j; INSERT INTO items VALUES (2, 'after')")
	s.quiet(t, r)
	versions, err := s.registry.Versions(t.Context(), "store.public.items-value")
	if err != nil || len(versions) != 2 || !strings.Contains(versions[1], `"aliases":["a"]`) {
		t.Fatalf("%d versions: %v", len(versions), err)
	}
	// A reader of the new schema finds the old value by the alias.
	decoder, err := avro.NewDecoder(s.registry, versions[1])
	if err != nil {
		t.Fatal(err)
	}
	titles := map[string]bool{}
	for _, rec := range s.everything(t) {
		var e map[string]any
		if rec.topic != "store.public.items" {
			continue
		}
		if err := decoder.Decode(t.Context(), rec.value, &e); err != nil {
			t.Fatal(err)
		}
		title, _ := e["after"].(map[string]any)["title"].(string)
		titles[title] = true
	}
	if !titles["before"] || !titles["after"] {
		t.Errorf("read %v", titles)
	}
	notes := s.notes(t, schemas.NoteSchemaChanged)
	if len(notes) != 1 || notes[0].Table != "public.items" || !strings.Contains(notes[0].Message, "column a renamed to title; column j dropped") {
		t.Errorf("%+v", notes)
	}
	// It is not told again.
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = s.start(t)
	s.exec(t, "INSERT INTO items VALUES (3, 'again')")
	s.quiet(t, r)
	if n := len(s.notes(t, schemas.NoteSchemaChanged)); n != 1 {
		t.Errorf("%d notifications", n)
	}
}

func widenedColumn(t *testing.T, p *pair) {
	s := p.store(t, `CREATE TABLE wide (id int PRIMARY KEY, i smallint, f real, v varchar(3), n numeric(6,2)); CREATE PUBLICATION millrace FOR TABLE wide;
		INSERT INTO wide VALUES (1, 2, 0.5, 'abc', 1.25)`)
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, `ALTER TABLE wide ALTER i TYPE int; INSERT INTO wide VALUES (2, 100000); ALTER TABLE wide ALTER i TYPE bigint, ALTER f TYPE float8, ALTER v TYPE text, ALTER n TYPE numeric(12,2);
		INSERT INTO wide VALUES (3, 5000000000, 1e200, 'abcdef', 1234567.25)`)
	s.quiet(t, r)
	if c, _, _ := r.state.claim(); len(c.Incomplete) > 0 {
		t.Fatalf("stopped: %v", r.state.position.Stopped)
	}
	found := false
	for _, row := range s.fold(t, "wide") {
		found = found || row["i"] == int64(5000000000) && row["f"] == 1e200 && row["v"] == "abcdef"
	}
	if !found {
		t.Error("the wide row is not there")
	}
}

func changedScale(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; INSERT INTO items VALUES (1, 'a', 1.125)")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE items ALTER n TYPE numeric(12,4); INSERT INTO items VALUES (2, 'b', 1.125); INSERT INTO notes VALUES ('goes on', 1)")
	s.quiet(t, r)
	r.state.mu.Lock()
	reason := r.state.position.Stopped["public.items"]
	r.state.mu.Unlock()
	for _, want := range []string{"column n, which version 1 has as decimal(12,3), is decimal(12,4)", "cdc resume public.items --as v2"} {
		if !strings.Contains(reason, want) {
			t.Errorf("%q is not in: %s", want, reason)
		}
	}
	s.matches(t, "notes", "k", "m")
}

// nextVersion resumes a table that stopped for its columns in a second topic.
func nextVersion(t *testing.T, p *pair) {
	s := p.store(t, itemsTable+"; INSERT INTO items VALUES (1, 'a', 1.125)")
	r := s.start(t)
	s.quiet(t, r)
	s.exec(t, "ALTER TABLE items ALTER n TYPE numeric(12,4); INSERT INTO items VALUES (3, 'c', 3.5)")
	s.quiet(t, r)
	if r.position().Stopped["public.items"] == "" {
		t.Fatal("the table goes on in its topic")
	}
	s.ask(t, r, schemas.CaptureRequest{Kind: schemas.CaptureResume, Tables: []string{"public.items"}, Version: 2})
	s.exec(t, "INSERT INTO items VALUES (2, 'b', 2.5); DELETE FROM items WHERE id = 1; INSERT INTO notes VALUES ('k', 1)")
	s.quiet(t, r)
	s.exec(t, "CREATE VIEW wanted AS SELECT id, a FROM items")
	s.matchesAs(t, "items.v2", "wanted", "id", "a")
	if n := len(s.events(t, "items")); n != 1 {
		t.Errorf("the old topic has %d records", n)
	}
	s.matches(t, "notes", "k", "m")
	versions, err := s.registry.Versions(t.Context(), "store.public.items.v2-value")
	if err != nil || len(versions) != 1 {
		t.Errorf("%d versions of the new subject: %v", len(versions), err)
	}
	again, _, err := readPosition(t.Context(), s.kafka, s.registry, slog.New(slog.DiscardHandler), settled, s.cfg.Slot)
	if err != nil || again.Versions["public.items"] != 2 {
		t.Errorf("the position forgot the version: %v, %v", again.Versions, err)
	}
}
