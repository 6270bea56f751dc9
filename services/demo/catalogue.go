package demo

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

const (
	pageSize = 24
	maxCodes = 50 // codes of one request for names
	maxText  = 100
	maxPage  = 10_000
)

func (s *Service) getLines(w http.ResponseWriter, r *http.Request) {
	db := s.database(w)
	if db == nil {
		return
	}
	rows, err := db.Query(r.Context(), "SELECT product_line FROM product_lines ORDER BY product_line")
	if err != nil {
		s.failed(w, r, "product lines", err)
		return
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		s.failed(w, r, "product lines", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"product_lines": lines})
}

// product is a product as the page shows it.
type product struct {
	Code        string `json:"product_code"`
	Name        string `json:"product_name"`
	Line        string `json:"product_line"`
	Scale       string `json:"product_scale"`
	Vendor      string `json:"product_vendor"`
	Description string `json:"product_description"`
	InStock     int    `json:"quantity_in_stock"`
	Price       string `json:"price"` // decimal, in Currency
	Currency    string `json:"currency"`
}

const productColumns = "product_code, product_name, product_line, product_scale, product_vendor, product_description, quantity_in_stock, msrp"

// products reads rows of productColumns, followed by columns for extra.
func (s *Service) products(rows pgx.Rows, currency string, extra ...any) ([]product, error) {
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (product, error) {
		p := product{Currency: currency}
		var msrp pgtype.Numeric
		fields := []any{&p.Code, &p.Name, &p.Line, &p.Scale, &p.Vendor, &p.Description, &p.InStock, &msrp}
		if err := row.Scan(append(fields, extra...)...); err != nil {
			return product{}, err
		}
		usd, err := hundredths(msrp)
		if err != nil {
			return product{}, err
		}
		p.Price = decimal(s.prices.In(currency, usd))
		return p, nil
	})
}

func decimal(h gen.Hundredths) string { return fmt.Sprintf("%d.%02d", h/100, h%100) }

// currencyOf reads the parameter currency; "" after an error was answered.
func (s *Service) currencyOf(w http.ResponseWriter, r *http.Request) string {
	currency := r.URL.Query().Get("currency")
	if currency == "" {
		return "USD"
	}
	for _, m := range s.markets {
		if m.Currency == currency {
			return currency
		}
	}
	invalid(w, "query.currency", "the store does not sell in this currency; use an ISO 4217 code of one of its markets, such as EUR")
	return ""
}

// listing is what the query of a product list asks for.
type listing struct {
	search, line, currency string
	codes                  []string
	page, size             int
}

// readListing reads the query; false after an error was answered.
func (s *Service) readListing(w http.ResponseWriter, r *http.Request) (listing, bool) {
	q := r.URL.Query()
	l := listing{search: strings.TrimSpace(q.Get("q")), line: q.Get("line"), currency: s.currencyOf(w, r), codes: []string{}, page: 1, size: pageSize}
	if l.currency == "" {
		return l, false
	}
	if text := q.Get("page"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxPage {
			invalid(w, "query.page", fmt.Sprintf("must be a number from 1 to %d", maxPage))
			return l, false
		}
		l.page = n
	}
	for key, limit := range map[string]int{"q": maxText, "line": maxText, "codes": maxText * maxCodes} {
		if v := q.Get(key); len(v) > limit || !storable(v) {
			invalid(w, "query."+key, fmt.Sprintf("must be UTF-8 text of at most %d bytes", limit))
			return l, false
		}
	}
	if text := q.Get("codes"); text != "" {
		l.codes, l.size = strings.Split(text, ","), maxCodes
	}
	if len(l.codes) > maxCodes {
		invalid(w, "query.codes", fmt.Sprintf("must be at most %d codes", maxCodes))
		return l, false
	}
	return l, true
}

// storable tells whether PostgreSQL takes s as text.
func storable(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// getProducts lists products: by line, by search, or by codes (codes=A,B,C).
func (s *Service) getProducts(w http.ResponseWriter, r *http.Request) {
	db := s.database(w)
	if db == nil {
		return
	}
	l, ok := s.readListing(w, r)
	if !ok {
		return
	}
	rows, err := db.Query(r.Context(), "SELECT "+productColumns+`, count(*) OVER () FROM products
		WHERE NOT hidden AND (cardinality($1::text[]) = 0 OR product_code = ANY($1)) AND ($2 = '' OR product_line = $2)
		  AND ($3 = '' OR position(lower($3) IN lower(product_name || ' ' || product_vendor || ' ' || product_line || ' ' || product_code)) > 0)
		ORDER BY right(product_code, 3), product_code LIMIT $4 OFFSET $5`, l.codes, l.line, l.search, l.size, (l.page-1)*l.size)
	if err != nil {
		s.failed(w, r, "products", err)
		return
	}
	total := 0
	list, err := s.products(rows, l.currency, &total)
	if err != nil {
		s.failed(w, r, "products", err)
		return
	}
	if list == nil {
		list = []product{}
	}
	answer(w, http.StatusOK, map[string]any{"products": list, "page": l.page, "pages": (total + l.size - 1) / l.size, "total": total})
}

func (s *Service) getProduct(w http.ResponseWriter, r *http.Request) {
	db := s.database(w)
	if db == nil {
		return
	}
	currency := s.currencyOf(w, r)
	if currency == "" {
		return
	}
	code, err := url.PathUnescape(chi.URLParam(r, "code"))
	if err != nil || len(code) > maxText || !storable(code) {
		httpapi.Problem(w, http.StatusNotFound, "no such product")
		return
	}
	rows, err := db.Query(r.Context(), "SELECT "+productColumns+" FROM products WHERE NOT hidden AND product_code = $1", code)
	if err != nil {
		s.failed(w, r, "product", err)
		return
	}
	list, err := s.products(rows, currency)
	if err != nil {
		s.failed(w, r, "product", err)
		return
	}
	if len(list) == 0 {
		httpapi.Problem(w, http.StatusNotFound, "no such product")
		return
	}
	answer(w, http.StatusOK, list[0])
}

// identity is somebody to sign in as. There is nothing personal in it.
type identity struct {
	Number   int    `json:"customer_number"`
	City     string `json:"city"`
	Country  string `json:"country"`
	Currency string `json:"currency"`
}

// getCustomers lists one customer of each market: the one with the lowest number,
// which in a generated history is a frequent buyer.
func (s *Service) getCustomers(w http.ResponseWriter, r *http.Request) {
	db := s.database(w)
	if db == nil {
		return
	}
	rows, err := db.Query(r.Context(), `SELECT DISTINCT ON (country) customer_number, city, country FROM customers
		WHERE customer_number <> $1 ORDER BY country, customer_number`, gen.GuestNumber)
	if err != nil {
		s.failed(w, r, "customers", err)
		return
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (identity, error) {
		var id identity
		err := row.Scan(&id.Number, &id.City, &id.Country)
		m, _ := gen.MarketOf(s.markets, id.Country)
		id.Currency = m.Currency
		return id, err
	})
	if err != nil {
		s.failed(w, r, "customers", err)
		return
	}
	answer(w, http.StatusOK, map[string]any{"customers": list})
}
