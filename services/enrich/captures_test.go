package enrich

import (
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// Of two captures of one source, through a slot each, neither speaks for the other's tables.
func TestEachCaptureSpeaksForItsOwnTables(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	w.start(t, "a")
	src.put("products", "P", "c", productRow("P", "Thing", "Things"))
	src.commit(true)
	early := src.lsn
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", nil))
	src.put("order_details", "1|P", "c", lineRow(1, "P", 1, 5))
	src.commit(true)
	orders := func(topic string) bool { return strings.Contains(topic, ".order") }
	others := func(topic string) bool { return !orders(topic) }
	src.claimOf("sales", src.lsn, orders)
	src.claimOf("rest", early, others)
	best := func() map[string]int64 { // by topic, the least over its partitions
		through := map[schemas.Partition]int64{}
		for _, o := range readOf[schemas.Claim](t, w, schemas.Progress) {
			c := o.value.(*schemas.Claim)
			if c.Stage != "enrich" {
				continue
			}
			for _, p := range c.Covers {
				through[p] = max(through[p], c.SourceLSN)
				if c.SourceLSN == src.lsn && !orders(p.Topic) || strings.HasSuffix(c.Instance, "/rest") && orders(p.Topic) {
					t.Fatalf("the claim of %s covers %s", c.Instance, p.Topic)
				}
			}
		}
		out := map[string]int64{}
		for p := range src.ends {
			if v, ok := out[p.Topic]; !ok || through[p] < v {
				out[p.Topic] = through[p]
			}
		}
		return out
	}
	until(t, 30*time.Second, "both captures' claims", func() bool {
		for topic, lsn := range best() {
			if orders(topic) && lsn != src.lsn || !orders(topic) && lsn != early {
				return false
			}
		}
		return true
	})
}
