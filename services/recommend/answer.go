package recommend

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/schemas"
	"github.com/millrace-io/millrace/services/recommend/internal/model"
)

// scratch is what a request works with; it is used again.
type scratch struct {
	rank model.Scratch
	question
	picks   []model.Pick
	similar []model.Pick
	out     []byte
}

func (s *Service) borrow() *scratch { return s.scratch.Get().(*scratch) }

func (s *Service) giveBack(sc *scratch) {
	q := &sc.question
	clear(q.cart[:cap(q.cart)])
	clear(q.viewed[:cap(q.viewed)])
	clear(q.exclude[:cap(q.exclude)])
	*q = question{cart: q.cart[:0], viewed: q.viewed[:0], exclude: q.exclude[:0]}
	s.scratch.Put(sc)
}

// getRecommendations answers GET /v1/recommendations.
func (s *Service) getRecommendations(w http.ResponseWriter, r *http.Request) {
	start := s.deps.Now()
	sc := s.borrow()
	defer s.giveBack(sc)
	if refused := sc.query(r.URL.RawQuery); refused != nil {
		s.refuse(w, refused)
		return
	}
	s.recommend(w, sc, start)
}

// postRecommendations answers POST /v1/recommendations.
func (s *Service) postRecommendations(w http.ResponseWriter, r *http.Request) {
	start := s.deps.Now()
	sc := s.borrow()
	defer s.giveBack(sc)
	if refused := sc.post(w, r); refused != nil {
		s.refuse(w, refused)
		return
	}
	s.recommend(w, sc, start)
}

func (s *Service) refuse(w http.ResponseWriter, r *refusal) {
	s.metrics.refused.WithLabelValues(strconv.Itoa(r.status)).Inc()
	httpapi.Problem(w, r.status, r.detail, r.errors...)
}

// recommend answers a question, with what the session did besides.
func (s *Service) recommend(w http.ResponseWriter, sc *scratch, start time.Time) {
	q := &sc.question
	known := s.mergeSession(q, start)
	if q.customer == "" {
		q.customer = known.Customer
	}
	if q.country == "" {
		q.country = known.Country
	}
	snap := s.snapshot.Load()
	var level string
	sc.picks, level = snap.Rank(&model.Query{Cart: q.cart, Viewed: q.viewed, Exclude: q.exclude, Customer: q.customer, Country: q.country,
		Category: q.category, Limit: q.limit}, &sc.rank, sc.picks[:0])
	sc.similar = sc.similar[:0]
	last := ""
	if len(q.viewed) > 0 {
		last = q.viewed[0]
		sc.similar, _ = snap.Similar(last, q.cart, q.limit, &sc.rank, sc.similar)
	}
	id := newID()
	sc.out = appendHead(sc.out[:0], id, snap.Version, level)
	sc.out = appendPicks(append(sc.out, `,"recommended_items":`...), sc.picks)
	if last != "" {
		sc.out = appendString(append(sc.out, `,"similar_items":{"product_code":`...), last)
		sc.out = append(appendPicks(append(sc.out, `,"similar_items":`...), sc.similar), '}')
	}
	s.answer(w, append(sc.out, '}', '\n'), level, start)
	s.record(q, id, q.context, snap.Version, level, sc.picks, start)
	if len(sc.similar) > 0 {
		s.record(q, id+"/similar", "similar", snap.Version, level, sc.similar, start)
	}
}

// getSimilar answers GET /v1/products/{code}/similar.
func (s *Service) getSimilar(w http.ResponseWriter, r *http.Request, code string) {
	start := s.deps.Now()
	sc := s.borrow()
	defer s.giveBack(sc)
	var bad refusal
	bad.id("path.code", code)
	for _, refused := range [2]*refusal{bad.orNil(), sc.query(r.URL.RawQuery)} {
		if refused != nil {
			s.refuse(w, refused)
			return
		}
	}
	q := &sc.question
	snap := s.snapshot.Load()
	var level string
	exclude := append(q.cart, q.exclude...)
	sc.similar, level = snap.Similar(code, exclude, q.limit, &sc.rank, sc.similar[:0])
	id := newID()
	sc.out = appendString(append(appendHead(sc.out[:0], id, snap.Version, level), `,"product_code":`...), code)
	sc.out = appendPicks(append(sc.out, `,"similar_items":`...), sc.similar)
	s.answer(w, append(sc.out, '}', '\n'), level, start)
	q.viewed = append(q.viewed, code)
	s.record(q, id, "similar", snap.Version, level, sc.similar, start)
}

func newID() string { return uuid.Must(uuid.NewV7()).String() } // fails only if the system has no randomness

func (s *Service) answer(w http.ResponseWriter, body []byte, level string, start time.Time) {
	s.metrics.byLevel[level].Inc()
	s.metrics.latency.Observe(s.deps.Now().Sub(start).Seconds())
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the client has gone: nobody to tell
}

// record hands an answer to the record of answers.
func (s *Service) record(q *question, id, place, version, level string, picks []model.Pick, start time.Time) {
	a := &schemas.Served{RequestID: id, ServedAt: start.UTC().Truncate(time.Microsecond), Context: place, Level: level, ModelVersion: version,
		Items: make([]schemas.ServedItem, len(picks)), Cart: slices.Clone(q.cart), Viewed: slices.Clone(q.viewed),
		LatencyUS: s.deps.Now().Sub(start).Microseconds()}
	for i, p := range picks {
		a.Items[i] = schemas.ServedItem{ProductCode: p.Code, Score: p.Score, Reason: p.Reason}
	}
	if session := q.session; session != "" {
		a.SessionID = &session
	}
	if customer := q.customer; customer != "" {
		a.CustomerNumber = &customer
	}
	s.served.add(a)
}

func appendHead(b []byte, id, version, level string) []byte {
	b = append(append(b, `{"request_id":"`...), id...)
	b = append(append(b, `","model_version":"`...), version...)
	return append(append(append(b, `","level":"`...), level...), '"')
}

func appendPicks(b []byte, picks []model.Pick) []byte {
	b = append(b, '[')
	for i, p := range picks {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"id":`...), p.Code)
		b = strconv.AppendFloat(append(b, `,"score":`...), p.Score, 'g', 6, 64)
		b = append(append(append(b, `,"reason":"`...), p.Reason...), '"', '}')
	}
	return append(b, ']')
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				return append(b, `""`...) // cannot be: any string can be written
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
