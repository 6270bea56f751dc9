package dashboard

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"

	"github.com/millrace-io/millrace/pkg/httpapi"
)

// described is an operation and what answers it.
type described struct {
	op     *huma.Operation
	handle http.HandlerFunc
	plain  bool // never compressed
}

// Operations adds the operations to api. Parameters are read here and not by huma, whose errors repeat values.
func (s *Service) Operations(api huma.API) {
	reg := api.OpenAPI().Components.Schemas
	for _, d := range []described{
		{op: describeSales(reg), handle: s.getSales},
		{op: describeSummary(reg), handle: s.getSummary},
		{op: describeLive(reg), handle: s.getLive, plain: true},
		{op: describe(reg, "get-dimensions", "/v1/dimensions", "What sales can be filtered by",
			"Regions, countries, categories, products and currencies that the sales have. It is read again at most every 30 seconds.", reflect.TypeFor[dimensionsAnswer]()), handle: s.getDimensions},
		{op: describe(reg, "get-freshness", "/v1/freshness", "How fresh the totals are",
			"For every sink, up to when everything that the source committed is in, and how long ago that is.", reflect.TypeFor[freshnessAnswer]()), handle: s.getFreshness},
	} {
		var handler http.Handler = d.handle
		if !d.plain {
			handler = httpapi.Compressed()(d.handle)
		}
		api.OpenAPI().AddOperation(d.op)
		api.Adapter().Handle(d.op, func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			handler.ServeHTTP(w, r)
		})
	}
}

func describe(reg huma.Registry, id, path, summary, description string, answer reflect.Type) *huma.Operation {
	problem := map[string]*huma.MediaType{"application/problem+json": {Schema: huma.SchemaFromType(reg, reflect.TypeFor[huma.ErrorModel]())}}
	good := &huma.Response{Description: "The answer.", Content: map[string]*huma.MediaType{"application/json": {Schema: huma.SchemaFromType(reg, answer)}},
		Headers: map[string]*huma.Param{"ETag": {Description: "Changes whenever the answer does", Schema: &huma.Schema{Type: "string"}}}}
	return &huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Tags: []string{"sales"}, Summary: summary, Description: description,
		Responses: map[string]*huma.Response{
			"200": good,
			"304": {Description: "The answer is still the one that If-None-Match names."},
			"422": {Description: "A parameter is wrong; errors names each. Values are never repeated.", Content: problem},
			"503": {Description: "The sales database does not answer, has no totals yet, or takes too long: ask again after Retry-After seconds.", Content: problem},
		},
	}
}

func text(name, description string, example any) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Example: example, Schema: &huma.Schema{Type: "string"}}
}

func choice(name, description string, values ...any) *huma.Param {
	return &huma.Param{Name: name, In: "query", Description: description, Schema: &huma.Schema{Type: "string", Enum: values}}
}

func repeated(name, description string) *huma.Param {
	explode := true
	return &huma.Param{Name: name, In: "query", Description: description, Explode: &explode, Style: "form",
		Schema: &huma.Schema{Type: "array", Items: &huma.Schema{Type: "string"}}}
}

// rangeParameters are the parameters that say when and of what.
func rangeParameters() []*huma.Param {
	return []*huma.Param{
		text("from", "Start, RFC 3339 or a date or time on the clock of tz; moved down to a quarter of an hour. Without it: 24 hours before to.", "2026-01-31"),
		text("to", "End, not included; as from, moved up. Without it: the end of the running hour.", "2026-02-01T12:00"),
		text("tz", "Time zone: an IANA name. Hours and days are those of its clock: a day can have 23 or 25 hours, and an hour that the clock shows twice is two rows. Without it: UTC.", "Europe/Berlin"),
		repeated("region", "Only these regions; write it several times for several."),
		repeated("country", "Only these countries."),
		repeated("category", "Only these product categories. Orders are then left out."),
		repeated("product", "Only these product codes. Orders are then left out."),
	}
}

func describeSales(reg huma.Registry) *huma.Operation {
	op := describe(reg, "get-sales", "/v1/sales", "Sales by hour or day",
		"Order lines, units and amounts per period, group and currency, by the time at which the order was placed. Corrections and cancellations restate "+
			"the period of the order, however late they come. Without parameters: the last 24 hours by hour, the running one included. "+
			"orders and cancelled_orders are left out when grouped or filtered by category or product, since one order has lines of several products. "+
			"As CSV the rows are the same; valid_through and complete are their last columns, and text that a spreadsheet would take for a formula begins with an apostrophe.",
		reflect.TypeFor[salesAnswer]())
	op.Parameters = append(rangeParameters(),
		choice("grain", "Length of the periods. Without it: hour.", "hour", "day"),
		repeated("group_by", "region, country, category, product: several, or a list with commas. A row is then only what was sold."),
		repeated("currency", "Only these currencies, as ISO 4217 codes."),
		choice("format", "Wins over the Accept header.", "json", "csv"))
	op.Responses["200"].Content["text/csv"] = &huma.MediaType{Schema: &huma.Schema{Type: "string"}}
	return op
}

func describeSummary(reg huma.Registry) *huma.Operation {
	op := describe(reg, "get-sales-summary", "/v1/sales/summary", "Totals, comparisons and the best",
		"Totals of a range, the same weekdays before, the running hour against the same part of the same hour a day and a week earlier, and the best products and "+
			"regions. Comparisons are like for like: only quarters of an hour that are over and complete count on both sides.", reflect.TypeFor[summaryAnswer]())
	op.Parameters = append(rangeParameters(), &huma.Param{Name: "limit", In: "query", Description: "Length of the lists, for each currency. Without it: 10.",
		Schema: &huma.Schema{Type: "integer", Minimum: new(1.0), Maximum: new(100.0)}})
	return op
}

func describeLive(reg huma.Registry) *huma.Operation {
	op := describe(reg, "get-sales-live", "/v1/sales/live", "Changes of the totals, as they happen",
		"Server-sent events. The event sales comes at once and whenever the totals of the last 24 hours change; freshness whenever valid_through or the status does; "+
			"comments keep the stream alive. A client that comes back with Last-Event-ID is told only of what has changed. Use it as a signal to ask "+
			"GET /v1/sales again for what is shown.", reflect.TypeFor[liveEvent]())
	delete(op.Responses, "304")
	delete(op.Responses, "422")
	huma.SchemaFromType(reg, reflect.TypeFor[liveFreshness]())
	op.Responses["200"] = &huma.Response{Description: "The stream: data of the event sales is a LiveEvent, of the event freshness a LiveFreshness.",
		Content: map[string]*huma.MediaType{"text/event-stream": {Schema: &huma.Schema{Type: "string"}}}}
	return op
}
