package dashboard

import (
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/dashboard/internal/calendar"
)

// stretch is what was sold in a stretch of time.
type stretch struct {
	From   time.Time  `json:"from"`
	To     time.Time  `json:"to" doc:"The end, not included"`
	Totals []measures `json:"totals" doc:"One for each currency"`
}

// comparison sets the part of the range that is complete against the same days of the week before.
type comparison struct {
	Days    int     `json:"days" doc:"How many days earlier the previous stretch is: whole weeks, so that the days of the week are the same" example:"7"`
	Current stretch `json:"current" doc:"The range, as far as it is complete, in whole quarters of an hour"`
	Before  stretch `json:"before" doc:"As long a stretch, earlier"`
}

// runningHour is the hour that is not over, set against the same part of the same hour of other days.
type runningHour struct {
	Start     time.Time  `json:"start"`
	End       time.Time  `json:"end"`
	SoFar     []measures `json:"so_far" doc:"Everything that is in"`
	Elapsed   *stretch   `json:"elapsed" doc:"The quarters of the hour that are over and complete; null in the first one"`
	Yesterday *stretch   `json:"yesterday" doc:"The same part of the same hour, a day earlier"`
	LastWeek  *stretch   `json:"last_week" doc:"The same part of the same hour, a week earlier"`
}

// place is one entry of a list of the best.
type place struct {
	group
	measures
}

// summaryAnswer is the answer to GET /v1/sales/summary.
type summaryAnswer struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	Zone string    `json:"tz"`
	completeness
	Totals      []measures  `json:"totals" doc:"Sums over the range, one for each currency"`
	Comparison  *comparison `json:"comparison" doc:"null while nothing of the range is complete"`
	Running     runningHour `json:"running_hour" doc:"The hour that is now, whatever the range"`
	TopProducts []place     `json:"top_products" doc:"By net, the best first; each currency by itself"`
	TopRegions  []place     `json:"top_regions" doc:"By net, the best first; each currency by itself"`
}

// summing asks the questions of one summary on one snapshot.
type summing struct {
	ctx context.Context
	tx  pgx.Tx
	q   query
}

func (s summing) over(from, to time.Time) (*stretch, error) {
	q := s.q
	q.by, q.top = nil, 0
	found, err := readCells(s.ctx, s.tx, q, []time.Time{from}, to, 0)
	if err != nil {
		return nil, err
	}
	return &stretch{From: from, To: to, Totals: sums(found.totals)}, nil
}

func (s summing) best(by dimension) ([]place, []measures, error) {
	q := s.q
	q.by = []dimension{by}
	found, err := readCells(s.ctx, s.tx, q, []time.Time{q.from}, q.to, q.top)
	if err != nil {
		return nil, nil, err
	}
	slices.SortStableFunc(found.cells, func(a, b cell) int { return cmp.Compare(a.Currency, b.Currency) })
	out := make([]place, 0, len(found.cells))
	for _, c := range found.cells {
		out = append(out, place{c.group, c.measures})
	}
	return out, sums(found.totals), nil
}

func sums(cells []cell) []measures {
	out := make([]measures, 0, len(cells))
	for _, c := range cells {
		out = append(out, c.measures)
	}
	return out
}

// compare is nil while nothing of the range is complete. through is up to where things are.
func (s summing) compare(through time.Time) (*comparison, error) {
	end := s.q.to
	if through.Before(end) {
		end = through.In(s.q.zone)
	}
	if !s.q.from.Before(end) {
		return nil, nil
	}
	const week = 7 * 24 * time.Hour
	days := 7 * max(1, int((s.q.to.Sub(s.q.from)+week-2*time.Hour)/week)) // a week may be an hour longer
	current, err := s.over(s.q.from, end)
	if err != nil {
		return nil, err
	}
	before, err := s.over(calendar.Shift(s.q.from, -days), calendar.Shift(end, -days))
	if err != nil {
		return nil, err
	}
	return &comparison{Days: days, Current: *current, Before: *before}, nil
}

func (s summing) running(now, through time.Time) (out runningHour, err error) {
	hour := calendar.Containing(now, s.q.zone, calendar.Hour)
	out.Start, out.End = hour.Start, hour.End
	whole, err := s.over(hour.Start, hour.End)
	if err != nil {
		return out, err
	}
	out.SoFar = whole.Totals
	if !through.After(hour.Start) {
		return out, nil
	}
	if through.After(hour.End) {
		through = hour.End
	}
	elapsed := through.Sub(hour.Start)
	for _, part := range []struct {
		to   **stretch
		days int
	}{{&out.Elapsed, 0}, {&out.Yesterday, 1}, {&out.LastWeek, 7}} {
		start := calendar.Shift(hour.Start, -part.days)
		if part.days == 0 {
			start = hour.Start // not the first of two hours that look alike
		}
		if *part.to, err = s.over(start, start.Add(elapsed)); err != nil {
			return out, err
		}
	}
	return out, nil
}

func (s *Service) askSummary(ctx context.Context, q query) (*summaryAnswer, error) {
	now := s.deps.Now()
	out := &summaryAnswer{From: q.from, To: q.to, Zone: q.zone.String()}
	err := snapshot(ctx, s.pool.Load(), func(tx pgx.Tx) error {
		all, err := readProgress(ctx, tx)
		if err != nil {
			return err
		}
		out.completeness = completenessOf(all)
		through := time.Time{} // nothing is complete
		if v := out.ValidThrough; v != nil {
			through = calendar.Floor(*v)
			if now.Before(*v) {
				through = calendar.Floor(now)
			}
		}
		ask := summing{ctx, tx, q}
		if out.TopRegions, out.Totals, err = ask.best(region); err != nil {
			return err
		}
		if out.TopProducts, _, err = ask.best(product); err != nil {
			return err
		}
		if out.Comparison, err = ask.compare(through); err != nil {
			return err
		}
		out.Running, err = ask.running(now, through)
		return err
	})
	return out, err
}

// getSummary is GET /v1/sales/summary.
func (s *Service) getSummary(w http.ResponseWriter, r *http.Request) {
	p := readParameters(r, "from", "to", "tz", "region", "country", "category", "product", "limit")
	q := query{zone: p.zone(), grain: calendar.Hour, filters: p.filters(), top: p.number("limit", 10, 100)}
	q.from, q.to = p.span(q.zone, calendar.Day, s.deps.Now(), s.cfg.MaxHourlyDays)
	if err := p.result(); err != nil {
		s.fail(w, r, "summary", err)
		return
	}
	s.respond(w, r, "summary", "application/json", q.key(), func(ctx context.Context) ([]byte, error) {
		a, err := s.askSummary(ctx, q)
		if err != nil {
			return nil, err
		}
		return json.Marshal(a)
	})
}
