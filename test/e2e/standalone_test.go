//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/pkg/embedded/pgtest"
	"github.com/millrace-io/millrace/test/harness"
)

// demo is standalone with the demo store, on free ports.
type demo struct {
	*harness.Process
	dir                                                          string
	kafkaPort, registryPort, primaryPort, standbyPort, salesPort string
}

func (d *demo) url(path string) string { return "http://" + d.Addr + path }

func startDemo(t *testing.T, args ...string) *demo {
	t.Helper()
	d := &demo{dir: pgtest.Dir(t)}
	for _, p := range []*string{&d.kafkaPort, &d.registryPort, &d.primaryPort, &d.standbyPort, &d.salesPort} {
		_, *p, _ = net.SplitHostPort(harness.FreeAddress(t))
	}
	d.Process = harness.Start(t, "standalone", nil, append([]string{"--data-dir", d.dir, "--embedded-kafka-port", d.kafkaPort, "--embedded-registry-port", d.registryPort,
		"--embedded-primary-port", d.primaryPort, "--embedded-standby-port", d.standbyPort, "--embedded-sales-port", d.salesPort}, args...)...)
	return d
}

// getJSON fetches and decodes; it returns the status, and 0 when there was no answer.
func getJSON(url string, into any) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	return do(req, into)
}

func postJSON(url string, body, into any) int {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	data, ok := body.(string)
	if !ok {
		text, err := json.Marshal(body)
		if err != nil {
			return 0
		}
		data = string(text)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader([]byte(data)))
	if err != nil {
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	return do(req, into)
}

func do(req *http.Request, into any) int {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0
	}
	if into != nil && json.Unmarshal(body, into) != nil {
		return 0
	}
	return resp.StatusCode
}

type salesAnswer struct {
	Rows []struct {
		Start    time.Time `json:"start"`
		Partial  bool      `json:"partial"`
		Currency string    `json:"currency"`
		Net      string    `json:"net"`
		Lines    int64     `json:"lines"`
	} `json:"rows"`
	ValidThrough *time.Time `json:"valid_through"`
}

func (a salesAnswer) lines() (n int64) {
	for _, r := range a.Rows {
		n += r.Lines
	}
	return n
}

// TestFirstStart is a stranger's first minute: numbers within 20 s, bounded memory, nothing left behind.
func TestFirstStart(t *testing.T) {
	pgtest.Installation(t) // binaries cached
	begin := time.Now()
	d := startDemo(t, "--demo-rate", "5")
	var first salesAnswer
	harness.Eventually(t, 90*time.Second, func() bool {
		return getJSON(d.url("/v1/sales"), &first) == 200 && first.lines() > 0 && first.ValidThrough != nil
	}, func() string { return "no number on the dashboard:\n" + d.Tail(30) })
	took := time.Since(begin)
	t.Logf("first number %v after the start", took.Round(10*time.Millisecond))
	if took > 20*time.Second {
		t.Errorf("the first number took %v: more than 20 s", took)
	}
	harness.Eventually(t, 30*time.Second, func() bool {
		var now salesAnswer
		return getJSON(d.url("/v1/sales"), &now) == 200 && now.lines() > first.lines() && time.Since(*now.ValidThrough) < 5*time.Second
	}, func() string { return "the numbers do not move:\n" + d.Tail(30) })
	d.Ready(t, 30*time.Second)
	for path, want := range map[string]string{"/": "<html", "/shop": "<html", "/docs": "API", "/openapi.json": "/v1/recommendations", "/metrics": "millrace_cdc_", "/readyz": "ready"} {
		resp, err := http.Get(d.url(path))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it was only read
		if resp.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d, without %q", path, resp.StatusCode, want)
		}
	}
	own, children := d.Memory(), childrenRSS(d.PID())
	t.Logf("standalone held at most %d MiB, its PostgreSQL servers hold %d MiB", own, children)
	if own > 512 {
		t.Errorf("standalone held %d MiB: more than 512", own)
	}
	d.demoEqual(t)

	d.Stop(syscall.SIGINT)
	if left := processesUsing(d.dir); len(left) > 0 {
		t.Errorf("after Ctrl-C processes are left: %v", left)
	}
	if !strings.Contains(d.Tail(1<<20), d.url("/")) {
		t.Error("the addresses were not printed")
	}

	d.Launch(t)
	harness.Eventually(t, 60*time.Second, func() bool {
		var again salesAnswer
		return getJSON(d.url("/v1/sales?from="+time.Now().Add(-48*time.Hour).UTC().Format(time.RFC3339)), &again) == 200 && again.lines() >= first.lines()
	}, func() string { return "the data did not survive a restart:\n" + d.Tail(30) })
	d.Ready(t, 60*time.Second)

	at := time.Now()
	d.Kill(t)
	d.Ready(t, 60*time.Second)
	t.Logf("ready %v after kill -9", time.Since(at).Round(10*time.Millisecond))
	d.demoEqual(t)
}

// demoCells is the GROUP BY over the demo store.
const demoCells = `
SELECT to_char(date_trunc('hour', o.ordered_at AT TIME ZONE 'UTC'), 'YYYY-MM-DD HH24'), coalesce(f.territory, 'unknown'), c.country, p.product_line, p.product_code, p.product_name, o.currency,
       count(*), sum(d.quantity_ordered), round(sum(round(d.quantity_ordered * d.price_each, CASE o.currency WHEN 'JPY' THEN 0 ELSE 2 END)), 4),
       round(coalesce(sum(round(d.quantity_ordered * d.price_each, CASE o.currency WHEN 'JPY' THEN 0 ELSE 2 END)) FILTER (WHERE o.status <> 'Cancelled'), 0), 4),
       round(coalesce(sum(round(d.quantity_ordered * d.price_each, CASE o.currency WHEN 'JPY' THEN 0 ELSE 2 END)) FILTER (WHERE o.status = 'Cancelled'), 0), 4)
  FROM order_details d JOIN orders o USING (order_number) JOIN products p USING (product_code) JOIN customers c USING (customer_number)
  LEFT JOIN employees e ON e.employee_number = c.sales_rep_employee_number LEFT JOIN offices f USING (office_code)
 GROUP BY 1, f.territory, c.country, p.product_line, p.product_code, p.product_name, o.currency`

// demoEqual compares the totals with the demo store. Both move, so the source is held still by a lock while the
// pipeline drains: the trickle waits, as it would for a long ALTER TABLE.
func (d *demo) demoEqual(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	p := &platform{programs: map[string]*harness.Process{"standalone": d.Process}}
	p.source = pool(t, "postgres://postgres@127.0.0.1:"+d.primaryPort+"/store?sslmode=disable&pool_max_conns=3")
	p.sales = pool(t, "postgres://postgres@127.0.0.1:"+d.salesPort+"/millrace?sslmode=disable&pool_max_conns=3")
	tx, err := p.source.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(ctx)
	if _, err := tx.Exec(ctx, "LOCK TABLE orders, order_details, products, customers IN SHARE MODE"); err != nil {
		t.Fatal(err)
	}
	p.quiet(t, time.Minute)
	p.equal(t, "demo store", demoCells, salesCells)
}

// childrenRSS sums the resident memory of a process's descendants, in MiB.
func childrenRSS(pid int) int64 {
	out, err := exec.Command("ps", "-o", "pid=,ppid=,rss=", "-A").Output()
	if err != nil {
		return 0
	}
	children, rss := map[int][]int{}, map[int]int64{}
	for line := range strings.Lines(string(out)) {
		var p, pp int
		var r int64
		if _, err := fmt.Sscan(line, &p, &pp, &r); err == nil {
			children[pp], rss[p] = append(children[pp], p), r
		}
	}
	var sum func(int) int64
	sum = func(p int) (n int64) {
		for _, c := range children[p] {
			n += rss[c] + sum(c)
		}
		return n
	}
	return sum(pid) >> 10
}

// processesUsing lists processes whose working directory or command line is below dir.
func processesUsing(dir string) []string {
	var out []string
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		cmd, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if strings.HasPrefix(cwd, dir) || bytes.Contains(cmd, []byte(dir)) {
			out = append(out, fmt.Sprintf("%d %s", pid, bytes.ReplaceAll(cmd, []byte{0}, []byte{' '})))
		}
	}
	return out
}

// TestTakenPortsAreNamed: each port's error names the port and the flag that moves it.
func TestTakenPortsAreNamed(t *testing.T) {
	pgtest.Installation(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, flag := range []string{"--embedded-kafka-port", "--embedded-registry-port", "--embedded-primary-port", "--embedded-standby-port", "--embedded-sales-port"} {
		args := []string{"run", "--http-address", "127.0.0.1:0", "--data-dir", pgtest.Dir(t), "--embedded-kafka-port", "0", "--embedded-registry-port", "0",
			"--embedded-primary-port", "0", "--embedded-standby-port", "0", "--embedded-sales-port", "0", flag, port}
		out, err := exec.Command(filepath.Join(harness.Root(), "bin", "standalone"), args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), port) || !strings.Contains(string(out), flag) {
			t.Errorf("%s %s: %v\n%s", flag, port, err, out)
		}
	}
}

// TestShopper: what a shopper does changes what is recommended, and there is always an answer.
func TestShopper(t *testing.T) {
	pgtest.Installation(t)
	d := startDemo(t, "--demo-rate", "2")
	d.Ready(t, 90*time.Second)
	type answer struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"recommended_items"`
		Level string `json:"level"`
	}
	recommend := func(query string) (a answer, ids string) {
		t.Helper()
		if code := getJSON(d.url("/v1/recommendations?"+query), &a); code != 200 || a.Level == "" {
			t.Fatalf("no answer: %d %+v\n%s", code, a, d.Tail(20))
		}
		for _, i := range a.Items {
			ids += i.ID + " "
		}
		return a, ids
	}
	stranger, before := recommend("session_id=s-e2e&limit=8")
	if len(stranger.Items) != 8 {
		t.Fatalf("a stranger gets %d items", len(stranger.Items))
	}

	// Three products of one line that is not on top.
	var products []string
	store, err := pgx.Connect(t.Context(), "postgres://postgres@127.0.0.1:"+d.primaryPort+"/store?sslmode=disable")
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close(t.Context())
	rows, err := store.Query(t.Context(), `SELECT product_code FROM products WHERE quantity_in_stock > 5 AND NOT hidden AND product_line =
		(SELECT product_line FROM products GROUP BY 1 HAVING count(*) > 3 ORDER BY 1 DESC LIMIT 1) AND product_code <> ALL ($1) ORDER BY product_code LIMIT 3`, strings.Fields(before))
	if err != nil {
		t.Fatal(err)
	}
	if products, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil || len(products) != 3 {
		t.Fatal(products, err)
	}
	var events []map[string]any
	for _, p := range products {
		events = append(events, map[string]any{"session_id": "s-e2e", "action": "view", "product_code": p, "event_time": time.Now().UTC().Format(time.RFC3339Nano)})
	}
	var result map[string]any
	if code := postJSON(d.url("/v1/activity"), map[string]any{"events": events}, &result); code != 202 {
		t.Fatal(code, result)
	}
	harness.Eventually(t, 10*time.Second, func() bool {
		a, after := recommend("session_id=s-e2e&limit=8")
		return after != before && a.Level != "popular"
	},
		func() string { return "three views changed nothing: still " + before })
	_, other := recommend("session_id=somebody-else&limit=8")
	if _, again := recommend("session_id=s-e2e&limit=8"); again == other {
		t.Error("both shoppers get the same")
	}

	// A good batch with one bad event keeps the good ones and names the field of the bad one.
	events[1]["action"] = "dance"
	if code := postJSON(d.url("/v1/activity"), map[string]any{"events": events}, &result); code != 202 || result["accepted"] != 2.0 || result["rejected"] != 1.0 {
		t.Fatal(code, result)
	}
	var problem map[string]any
	code := postJSON(d.url("/v1/activity"), map[string]any{"session_id": "s", "action": "dance"}, &problem)
	if text := fmt.Sprint(problem); code != 422 || !strings.Contains(text, "action") || strings.Contains(text, "dance") {
		t.Fatal(code, problem)
	}
	if code := postJSON(d.url("/v1/activity"), "{not json", &problem); code != 400 {
		t.Fatal(code, problem)
	}
	list := exec.Command(filepath.Join(harness.Root(), "bin", "enrich"), "quarantine", "list", "--kafka-brokers", "127.0.0.1:"+d.kafkaPort,
		"--registry-url", "http://127.0.0.1:"+d.registryPort, "--privacy-key-file", filepath.Join(d.dir, "privacy.key"))
	harness.Eventually(t, 10*time.Second, func() bool {
		out, err := exec.Command(list.Path, list.Args[1:]...).CombinedOutput()
		return err == nil && strings.Count(string(out), "collect") >= 2 && strings.Contains(string(out), "action") && !strings.Contains(string(out), "dance")
	}, func() string {
		out, err := exec.Command(list.Path, list.Args[1:]...).CombinedOutput()
		return fmt.Sprintf("the bad events are not in quarantine: %v\n%s", err, out)
	})

	// The operator's picture.
	var picture []byte
	harness.Eventually(t, 60*time.Second, func() bool {
		var err error
		picture, err = exec.Command(filepath.Join(harness.Root(), "bin", "admin"), "status", "--kafka-brokers", "127.0.0.1:"+d.kafkaPort, "--registry-url", "http://127.0.0.1:"+d.registryPort,
			"--sales-url", "postgres://postgres@127.0.0.1:"+d.salesPort+"/millrace?sslmode=disable").CombinedOutput()
		text := string(picture)
		return err == nil && strings.Contains(text, "cdc/") && strings.Contains(text, "enrich/") && strings.Contains(text, "postgres")
	}, func() string { return "admin status does not get green:\n" + string(picture) })
	t.Logf("admin status:\n%s", picture)
}
