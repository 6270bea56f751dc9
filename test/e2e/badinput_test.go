//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// password stands in every address that these tests hand to a program; no output may ever show it.
const password = "kept-to-ourselves"

// Exit codes of every program.
const (
	done        = 0
	failed      = 1
	wrongUsage  = 2
	differences = 3
)

// ran is a command that has ended.
type ran struct {
	command string
	code    int
	out     string // both streams
}

// runTool runs bin/<name> to its end, with nothing of the test's environment but PATH, HOME and env.
func runTool(t testing.TB, env []string, name string, args ...string) ran {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := os.Getenv(harness.BinVariable)
	if dir == "" {
		dir = filepath.Join(harness.Root(), "bin")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(dir, name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s (make build makes it): %v", name, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%s %v does not end:\n%s", name, args, out)
	}
	r := ran{command: name + " " + strings.Join(args, " "), code: cmd.ProcessState.ExitCode(), out: string(out)}
	keepsQuiet(t, r.command, r.out)
	return r
}

// expect checks the exit code and that the output says each of wants.
func (r ran) expect(t testing.TB, code int, wants ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("%s: exit code %d, want %d\n%s", r.command, r.code, code, r.out)
	}
	says(t, r.command, r.out, wants...)
}

func says(t testing.TB, who, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not say %q but\n%s", who, want, text)
		}
	}
}

// keepsQuiet fails when a text shows the password of an address, the privacy key or a value of the test's shoppers.
func keepsQuiet(t testing.TB, who, text string) {
	t.Helper()
	for _, secret := range []string{password, strings.Repeat("5eed", 4), "Somebody Private", "private@example.org"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s shows %q:\n%s", who, secret, text)
		}
	}
}

// sourceURL is a server's address for a role, with a password that the server does not ask for.
func sourceURL(s *pgtest.Server, role, database string) string {
	return strings.Replace(s.DSN(role, database), role+"@", role+":"+password+"@", 1)
}

// readyzSays waits until /readyz refuses with all of wants.
func readyzSays(t testing.TB, p *harness.Process, within time.Duration, wants ...string) {
	t.Helper()
	last := "no answer"
	harness.Eventually(t, within, func() bool {
		status, _, body := request(t, http.MethodGet, "http://"+p.Addr+"/readyz", "", "")
		if status == 0 {
			return false
		}
		keepsQuiet(t, p.Name+"'s /readyz", body)
		last = body
		for _, want := range wants {
			if !strings.Contains(body, want) {
				return false
			}
		}
		return status == http.StatusServiceUnavailable
	}, func() string {
		return fmt.Sprintf("%s's /readyz does not say %q but %s\n%s", p.Name, wants, last, p.Tail(10))
	})
}

// request asks once; the status is 0 when there was no answer.
func request(t testing.TB, method, url, contentType, body string) (status int, header http.Header, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	return resp.StatusCode, resp.Header, string(data)
}

// TestCheckNamesWhatIsMissing: `cdc check` names each thing that capture needs and has not, with the SQL that mends it
// and the server to run it on, and ends with exit code 3.
func TestCheckNamesWhatIsMissing(t *testing.T) {
	primary, standby := pgtest.Pair(t)
	primary.Exec(t, `CREATE ROLE cdc LOGIN REPLICATION IN ROLE pg_read_all_stats; CREATE ROLE plain LOGIN IN ROLE pg_read_all_stats;
		CREATE TABLE good (id int PRIMARY KEY); CREATE TABLE closed (id int PRIMARY KEY); CREATE TABLE keyless (id int);
		GRANT SELECT ON good, keyless TO cdc, plain;
		CREATE PUBLICATION millrace FOR TABLE good; CREATE PUBLICATION nothing; CREATE PUBLICATION shut FOR TABLE closed; CREATE PUBLICATION loose FOR TABLE keyless`)
	standby.Sync(t)
	check := func(s *pgtest.Server, role, publication string) ran {
		return runTool(t, nil, "cdc", "check", "--source", sourceURL(s, role, "postgres"), "--cdc-publication", publication)
	}
	check(standby, "cdc", "millrace").expect(t, done, "ready for capture: PostgreSQL 18, 1 tables")
	check(primary, "cdc", "millrace").expect(t, done, "note: the source is a primary; capture works", "ready for capture")
	check(standby, "cdc", "absent").expect(t, differences, "the publication absent does not exist", `on the primary: CREATE PUBLICATION "absent" FOR TABLE`)
	check(standby, "cdc", "nothing").expect(t, differences, "the publication nothing has no tables", `on the primary: ALTER PUBLICATION "nothing" ADD TABLE`)
	check(standby, "plain", "millrace").expect(t, differences, "a replication connection is refused", `on the primary: ALTER ROLE "plain" REPLICATION`)
	check(standby, "cdc", "shut").expect(t, differences, "may not read the table public.closed", `on the primary: GRANT SELECT ON "public"."closed" TO "cdc"`)
	check(standby, "cdc", "loose").expect(t, differences, "the table public.keyless", `on the primary: ALTER TABLE "public"."keyless" ADD PRIMARY KEY`)

	careless := pgtest.Standby(t, primary, "careless", "hot_standby_feedback", "off", "primary_slot_name", "")
	careless.Sync(t)
	check(careless, "cdc", "millrace").expect(t, differences,
		"hot_standby_feedback is off", "on the replica: ALTER SYSTEM SET hot_standby_feedback = on; SELECT pg_reload_conf()",
		"primary_slot_name is not set", "pg_create_physical_replication_slot", "problems: 2")
}

// TestCheckNamesTheServerWithoutLogicalWAL: wal_level is looked at on both servers, for neither inherits it.
func TestCheckNamesTheServerWithoutLogicalWAL(t *testing.T) {
	const role = "CREATE ROLE cdc LOGIN REPLICATION IN ROLE pg_read_all_stats; CREATE TABLE t (id int PRIMARY KEY); GRANT SELECT ON t TO cdc; CREATE PUBLICATION millrace FOR TABLE t"
	const mend = "ALTER SYSTEM SET wal_level = 'logical'; then restart"
	check := func(dsn string) ran {
		return runTool(t, nil, "cdc", "check", "--source", strings.Replace(dsn, "cdc@", "cdc:"+password+"@", 1))
	}
	primary := pgtest.Primary(t)
	primary.Exec(t, role)
	standby := pgtest.Standby(t, primary, "s", "wal_level", "replica")
	standby.Sync(t)
	check(standby.DSN("cdc", "postgres")).expect(t, differences, "wal_level is replica here", "not inherited from the primary", "on the replica: "+mend)

	// A primary that is set back after its standby was made.
	options := pgserver.Options{Installation: pgtest.Installation(t), Template: pgtest.Template(t), Dir: pgtest.Dir(t), Name: "lowered primary", NoFsync: true,
		Settings: map[string]string{"wal_level": "logical"}}
	first := openServer(t, options)
	if err := first.run(role); err != nil {
		t.Fatal(err)
	}
	follower, err := pgserver.OpenStandby(t.Context(), pgserver.Options{Installation: options.Installation, Dir: pgtest.Dir(t), Name: "its standby", NoFsync: true},
		pgserver.StandbyOptions{Primary: first.Server, Slot: "s"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(follower.Kill)
	if err := first.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	options.Port, options.Settings = first.Port(), map[string]string{"wal_level": "replica"}
	lowered := openServer(t, options)
	check(lowered.DSN("cdc", "postgres")).expect(t, differences, "wal_level is replica here", "on the primary: "+mend)
	var last ran
	harness.Eventually(t, 20*time.Second, func() bool { // the standby learns of it from the log
		last = check(follower.DSN("cdc", "postgres"))
		return last.code == differences
	}, func() string { return "check is content: " + last.out })
	last.expect(t, differences, "decoding is not possible", "on the primary: "+mend)
}

// server is a PostgreSQL whose settings the test changes between two starts.
type server struct{ *pgserver.Server }

func openServer(t testing.TB, o pgserver.Options) server {
	t.Helper()
	s, err := pgserver.Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Kill)
	return server{s}
}

func (s server) run(sql string) error {
	conn, err := pgx.Connect(context.Background(), s.DSN("postgres", "postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.PgConn().Exec(context.Background(), sql).ReadAll()
	return err
}

// TestCheckRefusesAnOldServer: PostgreSQL 15 cannot be decoded on a standby. The server is a fake that answers the first
// question as version 15 does.
func TestCheckRefusesAnOldServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- answerAsVersion(l, 150004) }()
	t.Cleanup(func() { l.Close(); <-served })
	runTool(t, nil, "cdc", "check", "--source", "postgres://cdc:"+password+"@"+l.Addr().String()+"/shop?sslmode=disable").
		expect(t, differences, "the source is PostgreSQL 15", "upgrade to PostgreSQL 16 or later")
}

// answerAsVersion serves one connection: any question is answered with the row that the version check asks for.
func answerAsVersion(l net.Listener, version uint32) error {
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return err
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	row := &pgproto3.RowDescription{}
	for _, c := range []struct {
		name string
		oid  uint32
	}{{"version", pgtype.Int4OID}, {"recovery", pgtype.BoolOID}, {"role", pgtype.TextOID}, {"stats", pgtype.BoolOID}} {
		row.Fields = append(row.Fields, pgproto3.FieldDescription{Name: []byte(c.name), DataTypeOID: c.oid, DataTypeSize: -1, TypeModifier: -1})
	}
	for b.Flush() == nil {
		m, err := b.Receive()
		if err != nil {
			return err
		}
		switch m := m.(type) {
		case *pgproto3.Parse:
			b.Send(&pgproto3.ParseComplete{})
		case *pgproto3.Describe:
			if m.ObjectType == 'S' {
				b.Send(&pgproto3.ParameterDescription{})
			}
			b.Send(row)
		case *pgproto3.Bind:
			for i, f := range m.ResultFormatCodes {
				row.Fields[i].Format = f
			}
			b.Send(&pgproto3.BindComplete{})
		case *pgproto3.Execute:
			b.Send(&pgproto3.DataRow{Values: [][]byte{{byte(version >> 24), byte(version >> 16), byte(version >> 8), byte(version)}, {1}, []byte("cdc"), {1}}})
			b.Send(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
		case *pgproto3.Sync:
			b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		case *pgproto3.Terminate:
			return nil
		}
	}
	return nil
}

// TestSourceThatDoesNotAnswer is a closed port, and a database that is not there.
func TestSourceThatDoesNotAnswer(t *testing.T) {
	closed := harness.FreeAddress(t)
	url := "postgres://cdc:" + password + "@" + closed + "/shop"
	runTool(t, nil, "cdc", "check", "--source", url).expect(t, failed, "connect to the source", closed, "refused")
	runTool(t, nil, "cdc", "check").expect(t, wrongUsage, "source.url is not set", "postgres://role@host:5432/database")
	primary := pgtest.Primary(t)
	runTool(t, nil, "cdc", "check", "--source", sourceURL(primary, "postgres", "nowhere")).expect(t, failed, "connect to the source", `"nowhere" does not exist`)
}

// TestWrongConfiguration: every mistake is exit code 2, names the file, the line and the key, and what to write instead.
func TestWrongConfiguration(t *testing.T) {
	dir := t.TempDir()
	file := func(text string) string {
		path := filepath.Join(dir, "millrace.yaml")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const url = "source:\n  url: postgres://cdc:" + password + "@127.0.0.1:1/shop\n"
	for _, c := range []struct {
		name, program, yaml string
		wants               []string
	}{
		{"unknown key", "cdc", url + "cdc:\n  publicaton: shop\n", []string{"millrace.yaml:4", "cdc.publicaton", "unknown key", "publication"}},
		{"unknown section", "cdc", url + "kafak:\n  brokers: [127.0.0.1:9092]\n", []string{"millrace.yaml:3", "kafak", "unknown section", "kafka"}},
		{"bad value", "cdc", url + "cdc:\n  slot: Not-A-Slot\n", []string{"slot", "lower-case letters"}},
		{"bad duration", "cdc", url + "cdc:\n  slot_timeout: soon\n", []string{"millrace.yaml:4", "cdc.slot_timeout"}},
		{"bad address", "cdc", "source:\n  url: http://cdc:" + password + "@127.0.0.1/shop\n", []string{"source", "url", "postgres://"}},
		{"bad YAML", "cdc", "cdc: [\n", []string{"millrace.yaml", "not valid YAML"}},
		{"no mapping of sections", "cdc", "- cdc\n", []string{"millrace.yaml", "must be a mapping of sections"}},
		{"missing key file", "collect", "privacy:\n  key_file: " + filepath.Join(dir, "absent.key") + "\n", []string{"key_file", "absent.key"}},
		{"no key", "collect", "privacy: {}\n", []string{"privacy", "admin keys init"}},
		{"unknown mapping", "enrich", "privacy:\n  key: " + strings.Repeat("5eed", 16) + "\nenrich:\n  mapping: clasicmodels\n", []string{"enrich", "mapping", "classicmodels"}},
		{"missing mapping file", "enrich", "privacy:\n  key: " + strings.Repeat("5eed", 16) + "\nenrich:\n  mapping_file: " + filepath.Join(dir, "absent.yaml") + "\n", []string{"mapping_file", "absent.yaml"}},
		{"no sales database", "dashboard", "http: {}\n", []string{"sales.url"}},
		{"bad broker", "aggregate", "kafka:\n  brokers: [nowhere]\n", []string{"kafka", "brokers", "host:port"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			runTool(t, nil, c.program, "run", "--http-address", "127.0.0.1:0", "--config", file(c.yaml)).expect(t, wrongUsage, c.wants...)
		})
	}
	t.Run("missing file", func(t *testing.T) {
		runTool(t, nil, "cdc", "run", "--config", filepath.Join(dir, "nowhere.yaml")).expect(t, wrongUsage, "--config", "nowhere.yaml")
	})
	t.Run("environment", func(t *testing.T) {
		runTool(t, []string{"MILLRACE_CDC_SLOTT=x"}, "cdc", "config", "print").expect(t, wrongUsage, "MILLRACE_CDC_SLOTT", "unknown key", "slot")
	})
	t.Run("secrets are masked", func(t *testing.T) {
		runTool(t, nil, "cdc", "config", "print", "--config", file(url)).expect(t, done, "url:")
	})
}

// TestWrongUsage: every program answers an unknown flag, command and argument with exit code 2 and where to look.
func TestWrongUsage(t *testing.T) {
	for _, name := range []string{"cdc", "collect", "enrich", "aggregate", "recommend", "dashboard", "admin", "demo", "standalone"} {
		runTool(t, nil, name, "--no-such-flag").expect(t, wrongUsage, "no-such-flag", name+" --help")
		runTool(t, nil, name, "no-such-command").expect(t, wrongUsage, "no-such-command", name+" --help")
		runTool(t, nil, name, "--version").expect(t, done, name)
		if name != "admin" {
			runTool(t, nil, name, "run", "surplus").expect(t, wrongUsage, "surplus")
		}
	}
	runTool(t, nil, "enrich", "quarantine", "show").expect(t, wrongUsage, "arg")
	runTool(t, nil, "standalone", "reset", "--data-dir", t.TempDir()).expect(t, wrongUsage, "--yes")
	runTool(t, nil, "cdc", "reset").expect(t, wrongUsage, "cdc reset --yes")
}

// TestPublicationMadeWhileCaptureWaits: `cdc run` waits for what an operator has to mend, says so at /readyz, and goes
// on by itself.
func TestPublicationMadeWhileCaptureWaits(t *testing.T) {
	p := newSource(t, strings.ReplaceAll(retailTables, "CREATE PUBLICATION", "-- CREATE PUBLICATION"))
	brokers, registryURL := infrastructure(t)
	cdc := harness.Start(t, "cdc", []string{"MILLRACE_KAFKA_BROKERS=" + strings.Join(brokers, ","), "MILLRACE_REGISTRY_URL=" + registryURL,
		"MILLRACE_PRIVACY_KEY_FILE=" + harness.KeyFile(t), "MILLRACE_SOURCE_URL=" + sourceURL(p.standby, "cdc", "postgres")})
	readyzSays(t, cdc, 20*time.Second, "the publication millrace does not exist", `on the primary: CREATE PUBLICATION "millrace"`)
	exec1(t, p.source, "CREATE PUBLICATION millrace FOR TABLE items, invoices, invoice_lines")
	cdc.Ready(t, 30*time.Second)
	keepsQuiet(t, "cdc's log", cdc.Tail(1<<20))
	if !strings.Contains(cdc.Tail(1<<20), "streaming") {
		t.Errorf("the log does not say that capture streams:\n%s", cdc.Tail(20))
	}
}
