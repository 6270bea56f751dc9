package dashboard

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"
)

// errFull is the reason when there are as many live streams as there may be.
var errFull = errors.New("there are as many live streams as this server may have: try again in a moment")

// sendTimeout is how long a client may take to read an event before it is dropped.
const sendTimeout = 5 * time.Second

// message is an event's data under an id that is the same for the same content.
type message struct {
	id   string
	body []byte
}

// hub hands the newest state to every live stream. Nothing queues: a stream that is behind skips to the newest.
type hub struct {
	wanted chan struct{} // somebody came when nobody was there

	mu        sync.Mutex
	most      int
	streams   map[*stream]struct{}
	sales     message
	freshness message
	closed    bool
}

// stream is one client; changed holds at most one notice.
type stream struct{ changed chan struct{} }

func newHub(most int) *hub {
	return &hub{wanted: make(chan struct{}, 1), most: most, streams: map[*stream]struct{}{}}
}

func (h *hub) empty() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams) == 0
}

// join adds a stream, which is told at once to look. What the hub knows of the totals is old when nobody was there.
func (h *hub) join() (*stream, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.streams) >= h.most {
		return nil, errFull
	}
	if len(h.streams) == 0 {
		h.sales = message{}
		notify(h.wanted)
	}
	s := &stream{changed: make(chan struct{}, 1)}
	h.streams[s] = struct{}{}
	notify(s.changed)
	return s, nil
}

func (h *hub) leave(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// close ends every stream and takes no more.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for s := range h.streams {
		notify(s.changed)
	}
}

// setSales tells whether that was news.
func (h *hub) setSales(m message) bool { return h.set(&h.sales, m) }

func (h *hub) setFreshness(m message) bool { return h.set(&h.freshness, m) }

func (h *hub) set(to *message, m message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if to.id == m.id {
		return false
	}
	*to = m
	for s := range h.streams {
		notify(s.changed)
	}
	return true
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// state is the newest of both kinds, and whether the hub is open.
func (h *hub) state() (sales, freshness message, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sales, h.freshness, !h.closed
}

// getLive is GET /v1/sales/live.
func (s *Service) getLive(w http.ResponseWriter, r *http.Request) {
	if err := readParameters(r).result(); err != nil {
		s.fail(w, r, "live", err)
		return
	}
	client, err := s.hub.join()
	if err != nil {
		s.fail(w, r, "live", err)
		return
	}
	defer s.hub.leave(client)
	s.metrics.clients.Inc()
	defer s.metrics.clients.Dec()
	s.count("live", http.StatusOK)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // or a proxy would hold events back
	out := &events{w: w, control: http.NewResponseController(w), sales: r.Header.Get("Last-Event-ID")}
	if err := s.feed(r, client, out); errors.Is(err, os.ErrDeadlineExceeded) {
		s.metrics.dropped.Inc()
	}
}

// feed writes until the client has gone, the service ends, or an event cannot be written.
func (s *Service) feed(r *http.Request, client *stream, out *events) error {
	if err := out.write("retry: 2000\n\n"); err != nil {
		return err
	}
	alive := time.NewTicker(s.cfg.KeepAlive)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return nil
		case <-alive.C:
			if err := out.write(": alive\n\n"); err != nil {
				return err
			}
		case <-client.changed:
			sales, freshness, open := s.hub.state()
			if !open {
				return nil
			}
			if err := out.news(sales, freshness); err != nil {
				return err
			}
		}
	}
}

// events writes one client's stream and knows what it was told last.
type events struct {
	w                http.ResponseWriter
	control          *http.ResponseController
	sales, freshness string
}

// news writes what the client does not know yet. The id of the stream is that of the totals: whoever comes back with it
// is told only if they changed meanwhile.
func (e *events) news(sales, freshness message) error {
	text := ""
	if freshness.id != "" && freshness.id != e.freshness {
		text += fmt.Sprintf("event: freshness\ndata: %s\n\n", freshness.body)
	}
	if sales.id != "" && sales.id != e.sales {
		text += fmt.Sprintf("event: sales\nid: %s\ndata: %s\n\n", sales.id, sales.body)
	}
	if text == "" {
		return nil
	}
	e.sales, e.freshness = sales.id, freshness.id
	return e.write(text)
}

func (e *events) write(text string) error {
	if err := e.control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	return e.control.Flush()
}
