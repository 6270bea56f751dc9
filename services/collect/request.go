package collect

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/services/collect/internal/intake"
)

// perEvent is what an event costs beside its bytes: the record, its tokens and its place in Kafka's buffers.
const perEvent = 1 << 10

// leastInFlight is the weight of the largest request.
const leastInFlight = 2 * (maxBody + 1)

// readTimeout is how long a client may take to send a body.
const readTimeout = 15 * time.Second

// refusal is an answer other than success.
type refusal struct {
	status int
	detail string
	errors []*huma.ErrorDetail
}

// activity answers POST /v1/activity.
func (s *Service) activity(w http.ResponseWriter, r *http.Request) {
	a, refused := s.take(w, r)
	status := http.StatusAccepted
	switch {
	case refused != nil:
		status = refused.status
		if status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", strconv.Itoa(1+rand.IntN(3))) // not all at once
		}
		httpapi.Problem(w, status, refused.detail, refused.errors...)
	case a.Accepted == 0:
		status = http.StatusUnprocessableEntity
		a.write(w, status, "application/problem+json")
	default:
		a.write(w, status, "application/json")
	}
	s.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
}

// take does what a request asks. Exactly one of the results is not nil.
func (s *Service) take(w http.ResponseWriter, r *http.Request) (*answer, *refusal) {
	if refused := mediaType(r); refused != nil {
		return nil, refused
	}
	if r.ContentLength > maxBody {
		return nil, tooLarge()
	}
	out := s.output.Load()
	if out == nil {
		return nil, away()
	}
	h, ok := s.hold(r.ContentLength)
	if !ok {
		return nil, &refusal{status: http.StatusServiceUnavailable, detail: "too much is on its way at the moment; send the same request again after the time in Retry-After"}
	}
	defer h.done()
	body, refused := read(w, r)
	if refused != nil {
		return nil, refused
	}
	batch, err := s.parser.Parse(body, s.origin(r))
	if err != nil {
		return nil, s.unreadable(err)
	}
	h.grow(int64(2*len(body) + perEvent*len(batch.Events)))
	s.metrics.in.Add(float64(len(batch.Events)))
	return s.pass(r.Context(), out, &batch, h)
}

func mediaType(r *http.Request) *refusal {
	unsupported := func(what string) *refusal {
		return &refusal{status: http.StatusUnsupportedMediaType, detail: what}
	}
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return unsupported("a compressed body is not taken: send it without Content-Encoding")
	}
	given := r.Header.Get("Content-Type")
	if given == "" {
		return nil
	}
	if t, _, err := mime.ParseMediaType(given); err != nil || (t != "application/json" && t != "text/plain") {
		return unsupported("send Content-Type: application/json, or text/plain as navigator.sendBeacon does")
	}
	return nil
}

func tooLarge() *refusal {
	return &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the body is larger than %d bytes: send fewer events at a time", maxBody)}
}

func away() *refusal {
	return &refusal{status: http.StatusServiceUnavailable, detail: "events cannot be taken at the moment; send the same request, with the same event_id in each event, again after the time in Retry-After"}
}

func read(w http.ResponseWriter, r *http.Request) ([]byte, *refusal) {
	// Not every writer can set a deadline (a recorder in a test cannot): then there is none.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	var body []byte
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(r.Body, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	}
	if err != nil {
		return nil, &refusal{status: http.StatusBadRequest, detail: "the body did not arrive whole"}
	}
	if len(body) > maxBody {
		return nil, tooLarge()
	}
	return body, nil
}

func (s *Service) unreadable(err error) *refusal {
	var shape *intake.ShapeError
	switch {
	case errors.Is(err, intake.ErrTooMany):
		return &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("send at most %d events in one request", s.cfg.MaxBatchEvents)}
	case errors.As(err, &shape):
		return &refusal{http.StatusUnprocessableEntity, "the body is not of a known shape; /openapi.json shows it",
			[]*huma.ErrorDetail{{Location: shape.Location, Message: shape.Reason}}}
	default:
		return &refusal{status: http.StatusBadRequest, detail: "the body is not valid JSON in UTF-8"}
	}
}

func (s *Service) origin(r *http.Request) intake.Origin {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = ""
	}
	return intake.Origin{Received: s.deps.Now().UTC().Truncate(time.Microsecond), IP: host, UserAgent: r.UserAgent()}
}

// holding is a request's share of the bytes in flight. It is given back when all who need it are done.
type holding struct {
	s     *Service
	bytes atomic.Int64
	users atomic.Int32
}

// hold takes what a body of n bytes needs (-1 if that is not known), if there is room.
func (s *Service) hold(n int64) (*holding, bool) {
	if n < 0 {
		n = maxBody + 1
	}
	h := &holding{s: s}
	h.users.Store(1)
	h.grow(2 * n)
	if s.inFlight.Load() > s.cfg.MaxInFlightBytes {
		h.done()
		return nil, false
	}
	return h, true
}

// grow makes the share n bytes.
func (h *holding) grow(n int64) {
	h.s.inFlight.Add(n - h.bytes.Swap(n))
}

func (h *holding) use() { h.users.Add(1) }

func (h *holding) done() {
	if h.users.Add(-1) == 0 {
		h.grow(0)
	}
}
