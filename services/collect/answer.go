package collect

import (
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/millrace-io/millrace/services/collect/internal/intake"
)

// answer is the body of an answer about events. When none was accepted it is an RFC 9457 problem at the same time.
type answer struct {
	Title    string              `json:"title,omitempty"`
	Status   int                 `json:"status,omitempty"`
	Detail   string              `json:"detail,omitempty"`
	Errors   []*huma.ErrorDetail `json:"errors,omitempty"`
	Accepted int                 `json:"accepted"`
	Rejected int                 `json:"rejected"`
	Results  []result            `json:"results"`

	duplicates int
}

// result is what became of one event.
type result struct {
	Index     int            `json:"index" doc:"Place of the event in the request, from 0"`
	EventID   string         `json:"event_id,omitempty" doc:"Id of the event: the client's, or the one that was made; absent from an event that was refused without a readable one"`
	Status    string         `json:"status" enum:"accepted,rejected"`
	Duplicate bool           `json:"duplicate,omitempty" doc:"The id was in this request before: the event was counted once"`
	Errors    []intake.Fault `json:"errors,omitempty" doc:"Why it was refused"`
}

func newAnswer(b *intake.Batch) *answer { return &answer{Results: make([]result, len(b.Events))} }

func (a *answer) accept(i int, id string) {
	a.Accepted++
	a.Results[i] = result{Index: i, EventID: id, Status: "accepted"}
}

func (a *answer) repeated(i int, id string) {
	a.duplicates++
	a.Results[i] = result{Index: i, EventID: id, Status: "accepted", Duplicate: true}
}

// reject does not give the id back: of an event that was refused nothing is repeated.
func (a *answer) reject(i int, b *intake.Batch) {
	a.Rejected++
	faults := b.Events[i].Faults
	a.Results[i] = result{Index: i, Status: "rejected", Errors: faults}
	for _, f := range faults {
		a.Errors = append(a.Errors, &huma.ErrorDetail{Location: b.Location(i, f.Field), Message: f.Reason + ": " + f.Hint})
	}
}

func (a *answer) write(w http.ResponseWriter, status int, contentType string) {
	if a.Accepted > 0 {
		a.Errors = nil // they are in the results
	} else {
		a.Title, a.Status, a.Detail = http.StatusText(status), status, "no event was accepted; errors names the fields that are wrong"
	}
	body, err := json.Marshal(a)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client has gone: nobody to tell
}
