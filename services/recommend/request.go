package recommend

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
)

// Bounds of requests.
const (
	maxBody      = 256 << 10
	maxID        = 128
	maxLimit     = 100
	defaultLimit = 10
	maxCodes     = 200
)

// question is a request, checked. Lists have the newest first.
type question struct {
	session, customer, country, category, context string
	limit                                         int
	cart, viewed, exclude                         []string
}

// refusal is why a request cannot be understood. It never repeats values.
type refusal struct {
	status int
	detail string
	errors []*huma.ErrorDetail
}

func (r *refusal) add(location, message string) {
	r.errors = append(r.errors, &huma.ErrorDetail{Location: location, Message: message})
}

// orNil is nil if nothing was found wrong.
func (r *refusal) orNil() *refusal {
	if len(r.errors) == 0 {
		return nil
	}
	r.status, r.detail = http.StatusUnprocessableEntity, "the request cannot be understood; errors names what is wrong"
	return r
}

func (r *refusal) id(location, value string) string {
	if len(value) > maxID {
		r.add(location, "is too long: at most "+strconv.Itoa(maxID)+" bytes")
		return ""
	}
	if !utf8.ValidString(value) {
		r.add(location, "is not UTF-8")
		return ""
	}
	return value
}

func (r *refusal) limit(location, value string) int {
	if value == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > maxLimit {
		r.add(location, "must be a whole number from 1 to "+strconv.Itoa(maxLimit))
		return defaultLimit
	}
	return n
}

// query reads the parameters of a GET request. Unknown ones are ignored.
func (q *question) query(raw string) *refusal {
	var bad refusal
	q.limit = defaultLimit
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		name, value, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			switch name {
			case "customer_number", "session_id", "limit", "context", "country", "category", "cart", "exclude":
				bad.add("query."+name, "is not encoded as a URL's query must be")
			}
			continue
		}
		switch name {
		case "customer_number":
			q.customer = bad.id("query.customer_number", value)
		case "session_id":
			q.session = bad.id("query.session_id", value)
		case "context":
			q.context = bad.id("query.context", value)
		case "country":
			q.country = bad.id("query.country", value)
		case "category":
			q.category = bad.id("query.category", value)
		case "limit":
			q.limit = bad.limit("query.limit", value)
		case "cart":
			q.cart = bad.codes("query.cart", value, q.cart)
		case "exclude":
			q.exclude = bad.codes("query.exclude", value, q.exclude)
		}
	}
	return bad.orNil()
}

// codes reads product codes separated by commas.
func (r *refusal) codes(location, value string, to []string) []string {
	for value != "" {
		var code string
		code, value, _ = strings.Cut(value, ",")
		if code = r.id(location, strings.TrimSpace(code)); code != "" {
			to = append(to, code)
		}
		if len(to) > maxCodes {
			r.add(location, "names too many products: at most "+strconv.Itoa(maxCodes))
			return to[:maxCodes]
		}
	}
	return to
}

// body is the body of a POST request. Its parts take strings and numbers alike; what is neither is noted and named.
type body struct {
	SessionID      scalar  `json:"session_id"`
	CustomerNumber scalar  `json:"customer_number"`
	City           scalar  `json:"city"`
	Country        scalar  `json:"country"`
	CreditLimit    scalar  `json:"credit_limit"`
	Limit          scalar  `json:"limit"`
	Context        scalar  `json:"context"`
	BrowseHistory  []visit `json:"browse_history"`
	Filters        struct {
		Category scalar   `json:"category"`
		Exclude  []scalar `json:"exclude"`
	} `json:"filters"`
}

type visit struct {
	ProductCode    scalar `json:"product_code"`
	Quantity       scalar `json:"quantity"`
	InShoppingCart scalar `json:"in_shopping_cart"`
}

// scalar is a string, a number or a boolean, as its text.
type scalar struct {
	text string
	bad  bool
}

// UnmarshalJSON never fails: an error here would lose the place.
func (s *scalar) UnmarshalJSON(b []byte) error {
	switch b[0] {
	case '"':
		s.bad = json.Unmarshal(b, &s.text) != nil
	case '{', '[':
		s.bad = true
	case 'n':
	default:
		s.text = string(b)
	}
	return nil
}

// post reads the body of a POST request.
func (q *question) post(w http.ResponseWriter, r *http.Request) *refusal {
	if given := r.Header.Get("Content-Type"); given != "" {
		if t, _, err := mime.ParseMediaType(given); err != nil || t != "application/json" && t != "text/plain" {
			return &refusal{status: http.StatusUnsupportedMediaType, detail: "send Content-Type: application/json"}
		}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return &refusal{status: http.StatusRequestEntityTooLarge, detail: "the body is larger than " + strconv.Itoa(maxBody) + " bytes"}
	}
	if err != nil {
		return &refusal{status: http.StatusBadRequest, detail: "the body did not arrive whole"}
	}
	var b body
	var wrong *json.UnmarshalTypeError
	err = json.Unmarshal(data, &b)
	if errors.As(err, &wrong) {
		var bad refusal
		bad.add(strings.TrimSuffix("body."+wrong.Field, "."), "is not of the kind that /openapi.json shows")
		return bad.orNil()
	}
	if err != nil {
		return &refusal{status: http.StatusBadRequest, detail: "the body is not valid JSON"}
	}
	return q.from(&b)
}

func (q *question) from(b *body) *refusal {
	var bad refusal
	text := func(location string, s scalar) string {
		if s.bad {
			bad.add("body."+location, "must be a string or a number")
			return ""
		}
		return bad.id("body."+location, strings.TrimSpace(s.text))
	}
	q.session, q.customer = text("session_id", b.SessionID), text("customer_number", b.CustomerNumber)
	q.country, q.context = text("country", b.Country), text("context", b.Context)
	q.category = text("filters.category", b.Filters.Category)
	text("city", b.City)
	bad.number("body.credit_limit", b.CreditLimit)
	if q.limit = defaultLimit; b.Limit.bad {
		bad.add("body.limit", "must be a whole number")
	} else {
		q.limit = bad.limit("body.limit", b.Limit.text)
	}
	if len(b.BrowseHistory) > maxCodes {
		bad.add("body.browse_history", "is too long: at most "+strconv.Itoa(maxCodes))
		return bad.orNil()
	}
	for i := len(b.BrowseHistory) - 1; i >= 0; i-- {
		v, at := &b.BrowseHistory[i], "browse_history["+strconv.Itoa(i)+"]."
		code := text(at+"product_code", v.ProductCode)
		if code == "" && !v.ProductCode.bad {
			bad.add("body."+at+"product_code", "is missing")
		}
		bad.number("body."+at+"quantity", v.Quantity)
		q.viewed = append(q.viewed, code)
		switch v.InShoppingCart.text {
		case "true":
			q.cart = append(q.cart, code)
		case "false", "":
		default:
			bad.add("body."+at+"in_shopping_cart", "must be true or false")
		}
		if v.InShoppingCart.bad {
			bad.add("body."+at+"in_shopping_cart", "must be true or false")
		}
	}
	for i, e := range b.Filters.Exclude {
		if i == maxCodes {
			bad.add("body.filters.exclude", "is too long: at most "+strconv.Itoa(maxCodes))
			break
		}
		q.exclude = append(q.exclude, text("filters.exclude["+strconv.Itoa(i)+"]", e))
	}
	return bad.orNil()
}

func (r *refusal) number(location string, s scalar) {
	if s.bad {
		r.add(location, "must be a number")
		return
	}
	if s.text == "" {
		return
	}
	if _, err := strconv.ParseFloat(strings.TrimSpace(s.text), 64); err != nil {
		r.add(location, "must be a number, or a number in a string")
	}
}
