//go:build bench

package bench

import (
	"fmt"
	"testing"
	"time"
)

// benchEdge tells what the services at the edge take and hold: they have nothing to be compared with.
func (p *pipeline) benchEdge(t *testing.T) {
	d := span(3*time.Second, time.Second)
	t.Run("collect", func(t *testing.T) {
		c := p.program(t, "collect")
		c.Ready(t, time.Minute)
		p.idle(t, c)
		products := p.column(t, "SELECT product_code FROM products ORDER BY 1")
		var requests [][]byte
		for i := range 2000 {
			requests = append(requests, post(c.Addr, "/v1/activity", fmt.Sprintf(`{"event_id":"bench-%d","event_time":%q,"session_id":"edge-%d","action":"view","product_code":%q}`,
				i, time.Now().UTC().Format(time.RFC3339Nano), i/20, products[i%len(products)])))
		}
		callers := dial(t, c.Addr, 32)
		flood(t, callers, requests, d/3)
		cpu := c.CPU()
		rate := flood(t, callers, requests, d)
		p.tell(t, "collect, an event a request, acknowledged by Kafka", fmt.Sprintf("%s/s, %.0f µs of CPU each", count(rate), (c.CPU()-cpu).Seconds()*1e6/(rate*d.Seconds())))
		p.stop(t, c, "under load")
	})
	t.Run("dashboard", func(t *testing.T) {
		b := p.program(t, "dashboard")
		b.Ready(t, time.Minute)
		p.idle(t, b)
		var requests [][]byte
		for i := range 24 { // as many viewers of different ranges
			from := time.Now().UTC().Truncate(time.Hour).Add(-time.Duration(i+1) * time.Hour).Format(time.RFC3339)
			requests = append(requests, request(b.Addr, "/v1/sales?group_by=category&from="+from))
		}
		callers := dial(t, b.Addr, 8)
		flood(t, callers, requests, d/3)
		p.tell(t, "dashboard, /v1/sales by category and hour", count(flood(t, callers, requests, d))+"/s")
		p.stop(t, b, "under load")
	})
}

// post is the bytes of a POST of JSON.
func post(addr, path, body string) []byte {
	return fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, addr, len(body), body)
}
