// Package intake reads the body of an activity request into records of activity.raw. It is strict about what the
// contract needs and kind about the rest, and whatever it says about an event names fields and never repeats a value.
//
// It does no I/O and keeps nothing; a Parser is safe for concurrent use.
package intake

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/millrace-io/millrace/schemas"
)

// Limits bound a request.
type Limits struct {
	Events     int // in one request
	EventBytes int // of one event, as JSON
}

// Errors of a request that cannot be read as events at all.
var (
	// ErrSyntax: the body is no JSON in UTF-8.
	ErrSyntax = errors.New("the body is not valid JSON in UTF-8")
	// ErrTooMany: the body has more events than Limits.Events.
	ErrTooMany = errors.New("the body has too many events")
)

// ShapeError says that a body is JSON, but not of a known shape.
type ShapeError struct {
	Location string // "body", "body.events"
	Reason   string
}

func (e *ShapeError) Error() string { return e.Location + ": " + e.Reason }

// Fault is one reason why an event is refused.
type Fault struct {
	Field  string `json:"field" doc:"Field of the event; empty for the event as a whole" example:"product_code"`
	Code   string `json:"code" doc:"What is wrong, as a fixed word" example:"missing"`
	Reason string `json:"reason" doc:"What is wrong"`
	Hint   string `json:"hint" doc:"What would be right"`
}

// Codes of faults.
const (
	CodeMissing    = "missing"
	CodeType       = "type"
	CodeTooLong    = "too_long"
	CodeTooLarge   = "too_large"
	CodeTooMany    = "too_many"
	CodeUnknown    = "unknown_value"
	CodeRange      = "out_of_range"
	CodeTime       = "not_a_time"
	CodeAddress    = "not_an_address"
	CodeDuplicate  = "duplicate_field"
	CodeReserved   = "reserved"
	CodeNotScalar  = "not_scalar"
	CodeCharacters = "characters"
)

// Event is one event of a request. If it has Faults it must not be used, but for Raw and, where it was readable,
// Activity.EventID.
type Event struct {
	Raw      []byte // its JSON, a part of the request's body
	Activity schemas.Activity
	Faults   []Fault
}

// Batch is what a body holds.
type Batch struct {
	Events []Event
	form   form
}

type form int

const (
	single form = iota
	wrapped
	array
)

// Location is where a field of the i-th event stands in the request: "body.events[2].product_code".
func (b *Batch) Location(i int, field string) string {
	at := "body"
	switch b.form {
	case wrapped:
		at = "body.events[" + strconv.Itoa(i) + "]"
	case array:
		at = "body[" + strconv.Itoa(i) + "]"
	}
	if field == "" {
		return at
	}
	return at + "." + field
}

// Origin is what the request itself tells about its sender, for events that do not.
type Origin struct {
	Received  time.Time
	IP        string // address without port; empty if unknown
	UserAgent string
}

// Parser reads bodies. Its fields are set once.
type Parser struct {
	Limits Limits
	// Token makes the keyed token of a personal value.
	Token func(value string) string
	// NewID makes the id of an event that has none.
	NewID func() string
}

// Parse reads a body: one event, an array of events, or {"events": [...], "sent_at": ...}. The error is ErrSyntax,
// ErrTooMany or a *ShapeError; faults of single events are in the events.
func (p *Parser) Parse(body []byte, from Origin) (Batch, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return Batch{}, ErrSyntax
	}
	body = body[skipSpace(body, 0):]
	switch body[0] {
	case '[':
		return p.list(body, array, nil, from)
	case '{':
		events, sentAt, err := wrapper(body)
		if err != nil {
			return Batch{}, err
		}
		if events != nil {
			return p.list(events, wrapped, sentAt, from)
		}
		return Batch{form: single, Events: []Event{p.event(trimSpace(body), nil, from)}}, nil
	default:
		return Batch{}, &ShapeError{"body", "must be an event, an array of events, or an object with the field events"}
	}
}

// wrapper finds the events of a wrapped batch; nil if body is a single event.
func wrapper(body []byte) (events, sentAt []byte, err error) {
	others, twice := false, false
	for key, value := range members(body) {
		switch string(key) {
		case "events":
			twice = twice || events != nil
			events = value
		case "sent_at":
			sentAt = value
		default:
			others = true
		}
	}
	switch {
	case events == nil:
		return nil, nil, nil
	case twice:
		return nil, nil, &ShapeError{"body.events", "is there more than once"}
	case events[0] != '[':
		return nil, nil, &ShapeError{"body.events", "must be an array of events"}
	case others:
		return nil, nil, &ShapeError{"body", "beside events only sent_at is known; put other fields into the events"}
	}
	return events, sentAt, nil
}

func (p *Parser) list(raw []byte, f form, sentAt []byte, from Origin) (Batch, error) {
	n := 0
	for range elements(raw) {
		n++
	}
	b := Batch{form: f}
	if n > p.Limits.Events {
		return b, ErrTooMany
	}
	if n == 0 {
		return b, &ShapeError{map[form]string{wrapped: "body.events", array: "body"}[f], "must hold at least one event"}
	}
	b.Events = make([]Event, 0, n)
	for e := range elements(raw) {
		b.Events = append(b.Events, p.event(e, sentAt, from))
	}
	return b, nil
}
