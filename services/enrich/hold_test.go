package enrich

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-io/millrace/schemas"
)

// While a first snapshot runs, orders that are ahead of their customers wait in their topic once those in memory take
// too much; they go on when the customers come, or when it is claimed that there are none.
func TestWaitingImagesAreBoundedInMemory(t *testing.T) {
	w := newWorld(t)
	src := newSource(t, w)
	s := w.startWith(t, "a", func(s *Service) { s.maxWaiting = 10_000 })
	put := func(from, to, customer int) {
		for i := from; i < to; i++ {
			src.put("orders", fmt.Sprint(i), "c", orderRow(i, noon, "Shipped", customer))
		}
		src.commit(true)
	}
	isHeld := func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "wait for their customer")
	}
	put(0, 100, 7)
	until(t, 20*time.Second, "orders are held back", isHeld)
	put(100, 1000, 7)
	src.put("products", "P", "c", productRow("P", "Thing", "Things"))
	src.commit(true)
	until(t, 20*time.Second, "products are read", func() bool { return len(readOf[schemas.Product](t, w, schemas.SalesProducts)) == 1 })
	if n := counted(t, s.metrics, "millrace_enrich_waiting_images", nil); n != 100 || !isHeld() {
		t.Errorf("%v images wait in memory, want 100", n)
	}
	src.put("customers", "7", "c", customerRow(7, "France", nil))
	src.commit(true)
	until(t, 20*time.Second, "all orders are there", func() bool { return len(foldOrders(t, w)) == 1000 })
	w.quiet(t, src)
	for key, o := range foldOrders(t, w) {
		if o.Country != "France" {
			t.Fatalf("order %s: %+v", key, o)
		}
	}
	until(t, 10*time.Second, "ready", func() bool { return s.Ready() == nil })

	put(1000, 1100, 8) // of a customer that does not exist
	w.quiet(t, src)
	put(1100, 1200, 8)
	w.quiet(t, src)
	if n := len(foldOrders(t, w)); n != 1200 {
		t.Errorf("%d orders, want 1200: the hold does not end", n)
	}
}
