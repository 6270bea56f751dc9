package recommend

import (
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humachi"
)

// The types of this file are documentation: requests are read and answers written by hand, see request.go and
// answer.go.

type pickSchema struct {
	ID     string  `json:"id" doc:"Product code"`
	Score  float64 `json:"score" doc:"The higher the better; comparable within one answer"`
	Reason string  `json:"reason" enum:"cart,session,history,again,popular,popular_in_country,popular_in_category,viewed,bought_together" doc:"What counted most"`
}

type headSchema struct {
	RequestID    string `json:"request_id" doc:"Id under which the answer is recorded"`
	ModelVersion string `json:"model_version" doc:"State of the model that answered"`
	Level        string `json:"level" enum:"model,similarity,popular" doc:"What answered"`
}

type similarSchema struct {
	ProductCode  string       `json:"product_code"`
	SimilarItems []pickSchema `json:"similar_items"`
}

type recommendationsSchema struct {
	headSchema
	RecommendedItems []pickSchema   `json:"recommended_items" doc:"The best first; never out of stock, hidden or in the cart"`
	SimilarItems     *similarSchema `json:"similar_items,omitempty" doc:"For the product looked at last, if there is one"`
}

type similarAnswerSchema struct {
	headSchema
	similarSchema
}

type visitSchema struct {
	ProductCode    string `json:"product_code" example:"S50_1514"`
	Quantity       any    `json:"quantity,omitempty" doc:"A number, or a number in a string" example:"1"`
	InShoppingCart bool   `json:"in_shopping_cart,omitempty"`
}

type filtersSchema struct {
	Category string   `json:"category,omitempty" doc:"Only products of this category"`
	Exclude  []string `json:"exclude,omitempty" maxItems:"200" doc:"Products not to recommend"`
}

type questionSchema struct {
	SessionID      string         `json:"session_id,omitempty" maxLength:"128" doc:"Visit of the shopper: what was collected for it counts too"`
	CustomerNumber any            `json:"customer_number,omitempty" doc:"A number or a string; leave it out for somebody new"`
	City           string         `json:"city,omitempty"`
	Country        string         `json:"country,omitempty"`
	CreditLimit    any            `json:"credit_limit,omitempty" doc:"A number, or a number in a string"`
	Limit          int            `json:"limit,omitempty" minimum:"1" maximum:"100" default:"10"`
	Context        string         `json:"context,omitempty" maxLength:"128" doc:"Place that asks, such as home, product or cart; it is recorded"`
	BrowseHistory  []visitSchema  `json:"browse_history,omitempty" maxItems:"200" doc:"What the shopper looked at, the latest last"`
	Filters        *filtersSchema `json:"filters,omitempty"`
}

// Operations adds the operations. Requests are read here and not by huma, whose errors repeat values.
func (s *Service) Operations(api huma.API) {
	reg := api.OpenAPI().Components.Schemas
	add := func(op *huma.Operation, handle func(http.ResponseWriter, *http.Request, huma.Context)) {
		api.OpenAPI().AddOperation(op)
		api.Adapter().Handle(op, func(ctx huma.Context) {
			r, w := humachi.Unwrap(ctx)
			handle(w, r, ctx)
		})
	}
	answer := huma.SchemaFromType(reg, reflect.TypeFor[recommendationsSchema]())
	add(&huma.Operation{OperationID: "get-recommendations", Method: http.MethodGet, Path: "/v1/recommendations", Tags: []string{"recommendations"},
		Summary:     "Recommend products to a shopper",
		Description: "Always answers, whoever asks; level tells from what. Everything is optional; unknown parameters are ignored.",
		Parameters:  parameters("customer_number", "session_id", "limit", "context", "cart", "country", "category", "exclude"),
		Responses:   responses(reg, answer, "422")},
		func(w http.ResponseWriter, r *http.Request, _ huma.Context) { s.getRecommendations(w, r) })
	question := huma.SchemaFromType(reg, reflect.TypeFor[questionSchema]())
	add(&huma.Operation{OperationID: "post-recommendations", Method: http.MethodPost, Path: "/v1/recommendations", Tags: []string{"recommendations"},
		Summary:     "Recommend products to a shopper, from what was looked at",
		Description: "Like GET, with what the shopper looked at and has in the cart. What was collected for the session counts besides.",
		RequestBody: &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/json": {Schema: question, Example: map[string]any{
			"session_id": "s-81f3", "customer_number": 103, "country": "France", "limit": 5,
			"browse_history": []any{map[string]any{"product_code": "S50_1514", "quantity": "1", "in_shopping_cart": true}}}}}},
		Responses: responses(reg, answer, "400", "413", "415", "422")},
		func(w http.ResponseWriter, r *http.Request, _ huma.Context) { s.postRecommendations(w, r) })
	similar := huma.SchemaFromType(reg, reflect.TypeFor[similarAnswerSchema]())
	add(&huma.Operation{OperationID: "get-similar", Method: http.MethodGet, Path: "/v1/products/{code}/similar", Tags: []string{"recommendations"},
		Summary:     "Products like one",
		Description: "Bought together with it first, then the popular ones of its category.",
		Parameters: append(parameters("limit", "cart", "exclude"), &huma.Param{Name: "code", In: "path", Required: true, Description: "Product code",
			Schema: &huma.Schema{Type: huma.TypeString}}),
		Responses: responses(reg, similar, "422")},
		func(w http.ResponseWriter, r *http.Request, ctx huma.Context) { s.getSimilar(w, r, ctx.Param("code")) })
}

func parameters(names ...string) []*huma.Param {
	about := map[string]string{
		"customer_number": "The shopper's number, where known", "session_id": "Visit of the shopper: what was collected for it counts",
		"limit": "How many, from 1 to 100; 10 if it is missing", "context": "Place that asks, such as home, product or cart; it is recorded",
		"cart": "Product codes in the cart, separated by commas; may be repeated", "country": "Country of the shopper, for what is popular there",
		"category": "Only products of this category", "exclude": "Product codes not to recommend, separated by commas; may be repeated",
	}
	var out []*huma.Param
	for _, n := range names {
		schema := &huma.Schema{Type: huma.TypeString}
		if n == "limit" {
			least, most := 1.0, float64(maxLimit)
			schema = &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most, Default: defaultLimit}
		}
		out = append(out, &huma.Param{Name: n, In: "query", Description: about[n], Schema: schema})
	}
	return out
}

func responses(reg huma.Registry, good *huma.Schema, problems ...string) map[string]*huma.Response {
	about := map[string]string{"400": "The body is no JSON.", "413": "The body is too large.", "415": "Another Content-Type.", "422": "errors names what is wrong."}
	out := map[string]*huma.Response{"200": {Description: "The answer.", Content: map[string]*huma.MediaType{"application/json": {Schema: good}}}}
	problem := huma.SchemaFromType(reg, reflect.TypeFor[huma.ErrorModel]())
	for _, p := range problems {
		out[p] = &huma.Response{Description: about[p], Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}}
	}
	return out
}
