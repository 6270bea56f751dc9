//go:build bench

package bench

import (
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// benchRecommend asks for recommendations of known customers, of sessions with a history and of carts, with the serving
// log on, over the sales and the activity that the other programs have left in Kafka.
func (p *pipeline) benchRecommend(t *testing.T) {
	rec := p.program(t, "recommend")
	rec.Ready(t, 2*time.Minute)
	p.tell(t, "recommend: memory with its model", fmt.Sprintf("%d MiB", rec.Resident()))
	requests := p.recommendRequests(t, rec.Addr)
	callers := dial(t, rec.Addr, 32)
	bytes := 0
	for _, r := range requests {
		n, err := callers[0].do(r)
		if err != nil {
			t.Fatalf("%v\n%s\n%s", err, r, rec.Tail(10))
		}
		bytes += n
	}
	answer := bytes / len(requests)
	constant := startConstant(t, answer)
	constantCallers := dial(t, constant, 32)

	d := span(3*time.Second, time.Second)
	served, err := p.ends(t.Context(), schemas.RecommendationsServed)
	if err != nil {
		t.Fatal(err)
	}
	flood(t, callers, requests, d/3)
	flood(t, constantCallers, requests, d/3)
	before := flood(t, constantCallers, requests, d)
	cpu := rec.CPU()
	ours1 := flood(t, callers, requests, d)
	ours2 := flood(t, callers, requests, d)
	cpu = rec.CPU() - cpu
	after := flood(t, constantCallers, requests, d)
	p.ratio(t, fmt.Sprintf("recommend, answers of %d bytes, serving log on", answer), "requests/s", (ours1+ours2)/2, "chi handler, constant", (before+after)/2, 0.25)
	p.tell(t, "recommend, CPU", fmt.Sprintf("%.0f µs a request", cpu.Seconds()*1e6/((ours1+ours2)*d.Seconds())))
	if now, err := p.ends(t.Context(), schemas.RecommendationsServed); err != nil || now <= served {
		t.Errorf("nothing came into the serving log: %d before, %d after, %v", served, now, err)
	}
	p.recommendLatency(t, rec.Addr, constant, requests)
	p.tell(t, "recommend: memory, under load and with the connections open", fmt.Sprintf("%d MiB at most", rec.Memory()))
	rec.Stop(syscall.SIGTERM)
}

// recommendLatency measures with few and with very many connections open.
func (p *pipeline) recommendLatency(t *testing.T, ours, constant string, requests [][]byte) {
	t.Helper()
	d := span(3*time.Second, 1500*time.Millisecond)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	many := min(10_000, int(limit.Max)-1000) // Go has raised the soft limit to the hard one
	for _, open := range []int{64, many} {
		// One side's connections at a time: both together would be more than the process may have.
		for _, c := range []struct {
			rate  int
			limit time.Duration
		}{{1000, 5 * time.Millisecond}, {5000, 15 * time.Millisecond}} {
			other := p.paced(t, constant, open, requests, c.rate, d)
			took := p.paced(t, ours, open, requests, c.rate, d)
			p50, p99, otherP99 := quantile(took, 0.5), quantile(took, 0.99), quantile(other, 0.99)
			p.add(t, line{what: fmt.Sprintf("recommend, %d requests/s over %d open connections", c.rate, open),
				ours: fmt.Sprintf("p50 %s, p99 %s", round(p50), round(p99)), other: fmt.Sprintf("constant: p50 %s, p99 %s", round(quantile(other, 0.5)), round(otherP99)),
				ratio: fmt.Sprintf("%.1f", float64(p99)/float64(otherP99)), target: "< " + c.limit.String() + " p99", met: yes(p99 < c.limit)})
		}
	}
}

// paced opens the connections, asks over them and closes them.
func (p *pipeline) paced(t *testing.T, addr string, open int, requests [][]byte, rate int, d time.Duration) (took []time.Duration) {
	t.Helper()
	t.Run(fmt.Sprintf("%d over %d", rate, open), func(t *testing.T) { took = pace(t, dial(t, addr, open), requests, rate, d) })
	return took
}

// recommendRequests are a mix: customers, sessions, carts.
func (p *pipeline) recommendRequests(t *testing.T, addr string) [][]byte {
	t.Helper()
	customers := p.column(t, "SELECT customer_number::text FROM customers ORDER BY 1")
	products := p.column(t, "SELECT product_code FROM products ORDER BY 1")
	var out [][]byte
	for i := range 1000 {
		query := fmt.Sprintf("limit=8&session_id=s-%d", i)
		if i%2 == 0 {
			query += "&customer_number=" + customers[i%len(customers)]
		}
		if i%4 == 0 {
			query += fmt.Sprintf("&context=cart&cart=%s&cart=%s", products[i%len(products)], products[(i*7+1)%len(products)])
		}
		out = append(out, request(addr, "/v1/recommendations?"+query))
	}
	return out
}
