package httpapi

import (
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"
)

// Problem answers with an RFC 9457 problem. detail says what was wrong and what to do; it never repeats input.
// Each of details points at one place in the request.
func Problem(w http.ResponseWriter, status int, detail string, details ...*huma.ErrorDetail) {
	p := &huma.ErrorModel{Status: status, Title: http.StatusText(status), Detail: detail, Errors: details}
	body, err := json.Marshal(p)
	if err != nil {
		http.Error(w, http.StatusText(status), status)
		return
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nobody to tell
}
