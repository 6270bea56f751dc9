package dashboard

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/millrace-io/millrace/services/dashboard/internal/calendar"
)

// completeness is how far an answer can be trusted; it is in every one.
type completeness struct {
	ValidThrough *time.Time `json:"valid_through" doc:"Everything that the source committed up to here is in; null while nothing is known to be complete"`
	Complete     bool       `json:"complete" doc:"Whether that holds for every table: valid_through is known and incomplete is empty"`
	Incomplete   []string   `json:"incomplete" doc:"Source tables and partitions that are stopped, so that their changes may be missing"`
}

func completenessOf(all []progress) completeness {
	p := all[0]
	c := completeness{ValidThrough: utc(p.ValidThrough), Incomplete: p.Incomplete}
	c.Complete = c.ValidThrough != nil && len(c.Incomplete) == 0
	return c
}

// utc shows whole microseconds of UTC, whatever zone the driver gives.
func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// salesRow is one row of the answer to GET /v1/sales.
type salesRow struct {
	Start   time.Time `json:"start" doc:"Start of the hour or day, with the zone's offset" example:"2026-01-31T13:00:00+01:00"`
	End     time.Time `json:"end" doc:"Its end, not included"`
	Partial bool      `json:"partial" doc:"The period is not over yet, or not everything of it is in (valid_through is before its end)"`
	group
	measures
}

// salesAnswer is the answer to GET /v1/sales.
type salesAnswer struct {
	From time.Time `json:"from" doc:"Start of the range that was summed, moved down to a quarter of an hour"`
	To   time.Time `json:"to" doc:"Its end, not included, moved up to a quarter of an hour"`
	Zone string    `json:"tz"`
	completeness
	Rows   []salesRow `json:"rows" doc:"By time, then by group, then by currency. Without group_by there is a row for every period and currency, zeros included; with it, only what was sold"`
	Totals []measures `json:"totals" doc:"Sums over the range, one for each currency"`
}

// askSales puts the question to the database.
func (s *Service) askSales(ctx context.Context, q query) (*salesAnswer, error) {
	periods := calendar.Split(q.from, q.to, q.zone, q.grain)
	starts := make([]time.Time, len(periods))
	for i, p := range periods {
		starts[i] = p.Start
	}
	out := &salesAnswer{From: q.from, To: q.to, Zone: q.zone.String()}
	var found answer
	err := snapshot(ctx, s.pool.Load(), func(tx pgx.Tx) error {
		all, err := readProgress(ctx, tx)
		if err != nil {
			return err
		}
		out.completeness = completenessOf(all)
		found, err = readCells(ctx, tx, q, starts, q.to, s.cfg.MaxRows+1)
		return err
	})
	if err != nil {
		return nil, err
	}
	cells := found.cells
	if len(q.by) == 0 {
		if len(periods)*len(found.totals) > s.cfg.MaxRows {
			return nil, s.tooMany()
		}
		cells = dense(found, len(periods))
	}
	if len(cells) > s.cfg.MaxRows {
		return nil, s.tooMany()
	}
	out.Totals = make([]measures, 0, len(found.totals))
	for _, t := range found.totals {
		out.Totals = append(out.Totals, t.measures)
	}
	out.Rows = make([]salesRow, 0, len(cells))
	now := s.deps.Now()
	for _, c := range cells {
		p := periods[c.period]
		out.Rows = append(out.Rows, salesRow{Start: p.Start, End: p.End, Partial: partial(p, now, out.ValidThrough), group: c.group, measures: c.measures})
	}
	return out, nil
}

func (s *Service) tooMany() error {
	bad := &invalid{}
	bad.add("group_by", fmt.Sprintf("the answer has more than %d rows: group by less, filter, or ask for a shorter range or by day", s.cfg.MaxRows))
	return bad
}

// partial tells whether the numbers of a period can still grow in the ordinary way.
func partial(p calendar.Period, now time.Time, validThrough *time.Time) bool {
	return now.Before(p.End) || validThrough == nil || validThrough.Before(p.End)
}

// dense adds the periods in which nothing was sold, so that a series has no holes.
func dense(found answer, periods int) []cell {
	out := make([]cell, 0, periods*len(found.totals))
	rest := found.cells
	for period := range periods {
		for _, total := range found.totals {
			if len(rest) > 0 && rest[0].period == period && rest[0].Currency == total.Currency {
				out = append(out, rest[0])
				rest = rest[1:]
				continue
			}
			out = append(out, cell{period: period, measures: nothing(total.measures)})
		}
	}
	return out
}

// nothing is zero with the decimals of the currency.
func nothing(like measures) measures {
	zero := "0"
	for i := range like.Gross {
		if like.Gross[i] == '.' {
			zero = "0" + zeroDigits(like.Gross[i:])
		}
	}
	m := measures{Currency: like.Currency, Gross: zero, Net: zero, Cancelled: zero}
	if like.Orders != nil {
		m.Orders, m.CancelledOrders = new(int64), new(int64)
	}
	return m
}

// zeroDigits is ".00" for ".45".
func zeroDigits(fraction string) string {
	out := []byte(fraction)
	for i := 1; i < len(out); i++ {
		out[i] = '0'
	}
	return string(out)
}

// getSales is GET /v1/sales.
func (s *Service) getSales(w http.ResponseWriter, r *http.Request) {
	p := readParameters(r, "from", "to", "tz", "grain", "group_by", "region", "country", "category", "product", "currency", "format")
	q := query{zone: p.zone(), grain: p.grain(), by: p.groupBy(), filters: p.filters(), currencies: p.list("currency")}
	q.from, q.to = p.span(q.zone, q.grain, s.deps.Now(), s.cfg.MaxHourlyDays)
	asCSV := wantsCSV(r)
	if p.one("format", "") != "" {
		asCSV = p.choice("format", "json", "csv") == "csv"
	}
	if err := p.result(); err != nil {
		s.fail(w, r, "sales", err)
		return
	}
	w.Header().Add("Vary", "Accept")
	key := "json " + q.key()
	kind, encode := "application/json", func(a *salesAnswer) ([]byte, error) { return json.Marshal(a) }
	if asCSV {
		key, kind = "csv "+q.key(), "text/csv; charset=utf-8"
		encode = func(a *salesAnswer) ([]byte, error) { return salesCSV(a, q) }
		w.Header().Set("Content-Disposition", `attachment; filename="`+csvName(q)+`"`)
	}
	s.respond(w, r, "sales", kind, key, func(ctx context.Context) ([]byte, error) {
		a, err := s.askSales(ctx, q)
		if err != nil {
			return nil, err
		}
		return encode(a)
	})
}
