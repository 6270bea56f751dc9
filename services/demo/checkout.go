package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/services/demo/internal/gen"
)

const (
	maxBody     = 64 << 10
	maxItems    = 50
	maxQuantity = 99
)

type checkoutRequest struct {
	Customer *int   `json:"customer_number"`
	Session  string `json:"session_id"`
	Items    []struct {
		Code     string `json:"product_code"`
		Quantity int    `json:"quantity"`
	} `json:"items"`
}

type checkoutAnswer struct {
	Number   int64  `json:"order_number"`
	Total    string `json:"total"` // decimal, in Currency
	Currency string `json:"currency"`
}

// postCheckout turns a cart into an order. Whoever is not signed in buys as the guest.
func (s *Service) postCheckout(w http.ResponseWriter, r *http.Request) {
	p, ok := readCheckout(w, r)
	if !ok {
		return
	}
	db := s.database(w)
	if db == nil {
		return
	}
	out, err := s.place(r.Context(), db, p)
	var bad *itemError
	switch {
	case err == nil:
		s.metrics.orders.WithLabelValues("checkout").Inc()
		s.metrics.lines.WithLabelValues("checkout").Add(float64(out.lines))
		answer(w, http.StatusCreated, checkoutAnswer{out.number, decimal(out.total), out.currency})
	case errors.Is(err, errNoCustomer):
		invalid(w, "body.customer_number", "there is no such customer; leave it out to buy as a guest")
	case errors.As(err, &bad) && bad.stock:
		httpapi.Problem(w, http.StatusConflict, "not enough in stock; take less of it, or take it out of the cart",
			&huma.ErrorDetail{Location: fmt.Sprintf("body.items[%d].quantity", bad.index), Message: "not enough in stock"})
	case errors.As(err, &bad):
		invalid(w, fmt.Sprintf("body.items[%d].product_code", bad.index), "this product is not for sale")
	default:
		s.failed(w, r, "checkout", err)
	}
}

// readCheckout reads and validates the body; false after an error was answered.
func readCheckout(w http.ResponseWriter, r *http.Request) (placement, bool) {
	p := placement{customer: gen.GuestNumber}
	// Asking for JSON by its name also keeps other sites' forms out.
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		httpapi.Problem(w, http.StatusUnsupportedMediaType, "send the order as application/json")
		return p, false
	}
	var request checkoutRequest
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(&request)
	if err == nil && !errors.Is(decoder.Decode(new(json.RawMessage)), io.EOF) {
		err = errors.New("more than one value")
	}
	if err != nil {
		badBody(w, err)
		return p, false
	}
	if request.Customer != nil {
		p.customer = *request.Customer
	}
	if p.customer < 1 || p.customer > 1<<31-1 {
		invalid(w, "body.customer_number", "must be a customer's number")
		return p, false
	}
	if n := len(request.Session); n < 1 || n > maxText {
		invalid(w, "body.session_id", fmt.Sprintf("must be 1 to %d characters", maxText))
		return p, false
	}
	if n := len(request.Items); n < 1 || n > maxItems {
		invalid(w, "body.items", fmt.Sprintf("must be 1 to %d items", maxItems))
		return p, false
	}
	seen := make(map[string]bool, len(request.Items))
	for i, it := range request.Items {
		switch {
		case it.Code == "" || len(it.Code) > maxText || !storable(it.Code):
			invalid(w, fmt.Sprintf("body.items[%d].product_code", i), "must be a product's code")
			return p, false
		case seen[it.Code]:
			invalid(w, fmt.Sprintf("body.items[%d].product_code", i), "is in the order twice; add the quantities up")
			return p, false
		case it.Quantity < 1 || it.Quantity > maxQuantity:
			invalid(w, fmt.Sprintf("body.items[%d].quantity", i), fmt.Sprintf("must be 1 to %d", maxQuantity))
			return p, false
		}
		seen[it.Code] = true
		p.items = append(p.items, item{it.Code, it.Quantity})
	}
	return p, true
}

// badBody answers for a body that is no checkout, without repeating any of it.
func badBody(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &large):
		httpapi.Problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the order is larger than %d bytes", maxBody))
	case errors.As(err, &kind):
		invalid(w, "body."+kind.Field, "must be "+wanted(kind.Type.Kind().String()))
	default:
		httpapi.Problem(w, http.StatusBadRequest,
			"the body is not one JSON object with the keys customer_number, session_id and items[{product_code, quantity}]",
			&huma.ErrorDetail{Location: "body", Message: "not valid"})
	}
}

func wanted(kind string) string {
	switch kind {
	case "int":
		return "a whole number"
	case "slice":
		return "a list"
	case "string":
		return "text"
	default:
		return "an object"
	}
}
