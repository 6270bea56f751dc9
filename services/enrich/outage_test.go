package enrich

import (
	"net"
	"net/http/httptest"
	"strconv"
	"testing"
	"time"

	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/schemas"
)

// A broker that is away is waited for, with the reason; when it is back, the work goes on, and nothing was refused.
func TestABrokerThatIsAwayStalls(t *testing.T) {
	dir := t.TempDir()
	first, err := broker.Open(t.Context(), broker.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	_, text, err := net.SplitHostPort(first.Addr())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registry.NewMemory())
	t.Cleanup(server.Close)
	w := &world{brokers: []string{first.Addr()}, registry: server.URL, server: server}
	src := newSource(t, w)
	s := w.start(t, "a")
	src.put("orders", "1", "c", orderRow(1, noon, "Shipped", 7))
	src.commit(true)
	w.quiet(t, src)
	until(t, 10*time.Second, "ready", func() bool { return s.Ready() == nil })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "not ready", func() bool { return s.Ready() != nil })
	second, err := broker.Open(t.Context(), broker.Options{Dir: dir, Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop()
		if err := second.Close(); err != nil {
			t.Error(err)
		}
	})
	src.put("customers", "7", "c", customerRow(7, "France", nil))
	src.commit(true)
	w.quiet(t, src)
	if o := foldOrders(t, w)["1"]; o == nil || o.Country != "France" {
		t.Errorf("order 1: %+v", o)
	}
	if q := readOf[schemas.Quarantined](t, w, schemas.Quarantine); len(q) > 0 {
		t.Errorf("%d good records were quarantined", len(q))
	}
	until(t, 10*time.Second, "ready again", func() bool { return s.Ready() == nil })
}
