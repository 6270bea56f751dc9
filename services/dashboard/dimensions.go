package dashboard

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// choicesFor is how long a list of what there is to filter by is good.
	choicesFor = 30 * time.Second
	// choicesSince is how far back regions, countries and currencies are looked for.
	choicesSince = 400 * 24 * time.Hour
)

// countryChoice is a country and the region its orders are in; one country can be in several.
type countryChoice struct {
	Country string `json:"country"`
	Region  string `json:"region"`
}

// productChoice is a product as it is now.
type productChoice struct {
	ProductCode string `json:"product_code"`
	ProductName string `json:"product_name"`
	Category    string `json:"category"`
}

// dimensionsAnswer is the answer to GET /v1/dimensions.
type dimensionsAnswer struct {
	Regions    []string        `json:"regions" doc:"Regions with orders in the last 400 days"`
	Countries  []countryChoice `json:"countries" doc:"Countries with orders in the last 400 days"`
	Categories []string        `json:"categories"`
	Products   []productChoice `json:"products" doc:"Every product that was ever known"`
	Currencies []string        `json:"currencies" doc:"Currencies with orders in the last 400 days"`
}

// choices is an encoded dimensionsAnswer and when it was read.
type choices struct {
	at   time.Time
	body []byte
}

func (s *Service) askDimensions(ctx context.Context) ([]byte, error) {
	if c := s.choices.Load(); c != nil && s.deps.Now().Sub(c.at) < choicesFor {
		return c.body, nil
	}
	out := dimensionsAnswer{Regions: []string{}, Countries: []countryChoice{}, Categories: []string{}, Products: []productChoice{}, Currencies: []string{}}
	since := s.deps.Now().Add(-choicesSince)
	err := snapshot(ctx, s.pool.Load(), func(tx pgx.Tx) error {
		rows, err := tx.Query(ctx, "SELECT DISTINCT region, country, currency FROM millrace.sales_orders_hourly WHERE hour >= $1 ORDER BY region, country, currency", since)
		if err != nil {
			return err
		}
		regions, countries, currencies := seen[string]{}, seen[countryChoice]{}, seen[string]{}
		var region, country, currency string
		if _, err = pgx.ForEachRow(rows, []any{&region, &country, &currency}, func() error {
			regions.add(&out.Regions, region)
			countries.add(&out.Countries, countryChoice{country, region})
			currencies.add(&out.Currencies, currency)
			return nil
		}); err != nil {
			return err
		}
		rows, err = tx.Query(ctx, `SELECT product_code COLLATE "default", name, category FROM millrace.products ORDER BY category, name, product_code`)
		if err != nil {
			return err
		}
		categories := seen[string]{}
		var p productChoice
		_, err = pgx.ForEachRow(rows, []any{&p.ProductCode, &p.ProductName, &p.Category}, func() error {
			categories.add(&out.Categories, p.Category)
			out.Products = append(out.Products, p)
			return nil
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(out.Currencies)
	body, err := json.Marshal(out)
	if err == nil {
		s.choices.Store(&choices{s.deps.Now(), body})
	}
	return body, err
}

// seen keeps the first of equal values, in order.
type seen[T comparable] map[T]struct{}

func (s seen[T]) add(list *[]T, value T) {
	if _, there := s[value]; !there {
		s[value] = struct{}{}
		*list = append(*list, value)
	}
}

// getDimensions is GET /v1/dimensions.
func (s *Service) getDimensions(w http.ResponseWriter, r *http.Request) {
	if err := readParameters(r).result(); err != nil {
		s.fail(w, r, "dimensions", err)
		return
	}
	s.respond(w, r, "dimensions", "application/json", "", s.askDimensions)
}
