package collect

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

// accepted is the schema of a good answer.
type accepted struct {
	Accepted int      `json:"accepted" doc:"Events that are stored"`
	Rejected int      `json:"rejected" doc:"Events that were refused; do not send them again unchanged"`
	Results  []result `json:"results" doc:"One for each event, in the order of the request"`
}

// activityEvent is the schema of an event as clients send it. It is documentation: intake reads the JSON itself.
type activityEvent struct {
	EventID        string         `json:"event_id,omitempty" maxLength:"128" doc:"Unique id; one is made if it is missing. Send one, so that an event sent again counts once" example:"018f9d2e-7c1a-7c3e-9b6e-0242ac120002"`
	EventTime      any            `json:"event_time,omitempty" doc:"When it happened: RFC 3339, or seconds, milliseconds or microseconds since 1970; now if it is missing" example:"\"2026-01-31T12:00:00Z\""`
	SentAt         any            `json:"sent_at,omitempty" doc:"The client's clock when it sends: event_time is corrected by how far that clock is off"`
	SessionID      string         `json:"session_id" maxLength:"128" doc:"Visit of the shopper" example:"s-81f3"`
	Action         string         `json:"action" enum:"view,search,add_to_cart,remove_from_cart,checkout,purchase,rate" example:"view"`
	CustomerNumber any            `json:"customer_number,omitempty" doc:"The shopper's number, as a number or a string, where it is known" example:"103"`
	AnonymousID    string         `json:"anonymous_id,omitempty" maxLength:"128" doc:"Id of the browser; only a token of it is kept"`
	ProductCode    string         `json:"product_code,omitempty" maxLength:"128" doc:"Needed for view, add_to_cart, remove_from_cart and rate" example:"S18_1749"`
	Quantity       any            `json:"quantity,omitempty" doc:"A whole number from 1, as a number or a string" example:"2"`
	PageURL        string         `json:"page_url,omitempty" doc:"Address of the page; query and fragment are not kept"`
	UserAgent      string         `json:"user_agent,omitempty" doc:"The browser; from the request's header if it is missing"`
	IP             string         `json:"ip,omitempty" doc:"Address of the shopper; of the connection if it is missing. Only a token of it is kept"`
	Attributes     map[string]any `json:"attributes,omitempty" doc:"Further strings, numbers and booleans; unknown fields of the event are put here too"`
}

// activityBatch is the schema of several events.
type activityBatch struct {
	Events []activityEvent `json:"events" minItems:"1" maxItems:"500"`
	SentAt any             `json:"sent_at,omitempty" doc:"sent_at of the events that have none"`
}

// Operations adds the operations of the intake. The body is read here and not by huma, whose errors repeat values.
func (s *Service) Operations(api huma.API) {
	op := s.operation(api.OpenAPI().Components.Schemas)
	api.OpenAPI().AddOperation(op)
	api.Adapter().Handle(op, func(ctx huma.Context) {
		r, w := humachi.Unwrap(ctx)
		s.activity(w, r)
	})
}

func (s *Service) operation(reg huma.Registry) *huma.Operation {
	event := huma.SchemaFromType(reg, reflect.TypeFor[activityEvent]())
	batch := huma.SchemaFromType(reg, reflect.TypeFor[activityBatch]())
	one := map[string]any{"event_id": "018f9d2e-7c1a-7c3e-9b6e-0242ac120002", "session_id": "s-81f3", "anonymous_id": "b-77",
		"action": "view", "product_code": "S18_1749", "event_time": "2026-01-31T12:00:00Z"}
	media := &huma.MediaType{
		Schema: &huma.Schema{OneOf: []*huma.Schema{event, batch, {Type: "array", Items: event}}},
		Examples: map[string]*huma.Example{
			"one":     {Summary: "One event", Value: one},
			"several": {Summary: "Several events", Value: map[string]any{"events": []any{one}}},
		},
	}
	good := huma.SchemaFromType(reg, reflect.TypeFor[accepted]())
	problem := huma.SchemaFromType(reg, reflect.TypeFor[huma.ErrorModel]())
	answers := map[string]*huma.Response{"202": {Description: "Kafka has the accepted events.",
		Content: map[string]*huma.MediaType{"application/json": {Schema: good}}}}
	for status, text := range map[string]string{
		"400": "The body is no JSON.", "413": "The body is larger than 1 MiB or has more than 500 events.", "415": "Another Content-Type.",
		"422": "No event was accepted; errors names the fields.", "503": "Events cannot be taken now: send the same request again after Retry-After seconds.",
	} {
		answers[status] = &huma.Response{Description: text, Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}}
	}
	return &huma.Operation{
		OperationID: "post-activity", Method: http.MethodPost, Path: "/v1/activity", Tags: []string{"activity"},
		Summary: "Take what a shopper did",
		Description: "One event, an array of events, or an object with the field events. Each event is checked by itself: good ones are stored " +
			"even if others are refused. The answer 202 comes after Kafka has them.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": media, "text/plain": media}},
		Responses:   answers,
	}
}
