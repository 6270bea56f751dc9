package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"
)

// The status of a sink.
const (
	statusFresh   = "fresh"
	statusLate    = "late"
	statusUnknown = "unknown"
)

// sinkFreshness is how fresh one sink is.
type sinkFreshness struct {
	Sink         string     `json:"sink" example:"postgres" doc:"postgres is the sales database, which every answer here comes from"`
	Status       string     `json:"status" enum:"fresh,late,unknown" doc:"late when the age has reached dashboard.late_after; unknown when nothing is known to be complete"`
	ValidThrough *time.Time `json:"valid_through" doc:"Everything that the source committed up to here is in"`
	AgeSeconds   *float64   `json:"age_seconds" doc:"How long ago that is"`
	SourceLSN    *string    `json:"source_lsn" doc:"The same as a position of the source" example:"0/16B3748"`
	Incomplete   []string   `json:"incomplete" doc:"Source tables and partitions that are stopped, so that their changes may be missing"`
	UpdatedAt    *time.Time `json:"updated_at" doc:"When this was last written"`
}

// freshnessAnswer is the answer to GET /v1/freshness.
type freshnessAnswer struct {
	Sinks []sinkFreshness `json:"sinks"`
}

func (s *Service) freshnessOf(p progress) sinkFreshness {
	out := sinkFreshness{Sink: p.Sink, Status: statusUnknown, ValidThrough: utc(p.ValidThrough), SourceLSN: p.SourceLSN, Incomplete: p.Incomplete, UpdatedAt: utc(p.UpdatedAt)}
	if p.ValidThrough != nil {
		age := max(0, s.deps.Now().Sub(*p.ValidThrough))
		seconds := age.Round(time.Millisecond).Seconds()
		out.AgeSeconds = &seconds
		out.Status = statusFresh
		if age >= s.cfg.LateAfter {
			out.Status = statusLate
		}
	}
	return out
}

// getFreshness is GET /v1/freshness.
func (s *Service) getFreshness(w http.ResponseWriter, r *http.Request) {
	if err := readParameters(r).result(); err != nil {
		s.fail(w, r, "freshness", err)
		return
	}
	s.respond(w, r, "freshness", "application/json", "", func(ctx context.Context) ([]byte, error) {
		var out freshnessAnswer
		err := snapshot(ctx, s.pool.Load(), func(tx pgx.Tx) error {
			all, err := readProgress(ctx, tx)
			for _, p := range all {
				out.Sinks = append(out.Sinks, s.freshnessOf(p))
			}
			return err
		})
		if err != nil {
			return nil, err
		}
		return json.Marshal(out)
	})
}
