package httpapi

import (
	"html/template"
	"maps"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"
)

// docsPage is a plain rendering of the OpenAPI document: it needs no script and nothing from other hosts.
var docsPage = template.Must(template.New("docs").Parse(`<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{.Title}} API</title>
<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">
<style>body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}code{font-size:1.05em}h2{margin-top:2rem}td,th{text-align:left;padding:.2rem .8rem .2rem 0;vertical-align:top}</style>
</head><body><main><h1>{{.Title}} API</h1><p>The machine-readable form is <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>
{{range .Operations}}<h2><code>{{.Method}} {{.Path}}</code></h2><p>{{.Summary}}</p>{{if .Description}}<p>{{.Description}}</p>{{end}}
{{if .Parameters}}<table><thead><tr><th>parameter</th><th>in</th><th>meaning</th></tr></thead><tbody>{{range .Parameters}}<tr><td><code>{{.Name}}</code></td><td>{{.In}}</td><td>{{.Description}}</td></tr>{{end}}</tbody></table>{{end}}{{end}}
</main></body></html>`))

type operation struct {
	Method, Path, Summary, Description string
	Parameters                         []*huma.Param
}

func (s *Server) docs(w http.ResponseWriter, _ *http.Request) {
	doc := s.API.OpenAPI()
	var ops []operation
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for method, op := range map[string]*huma.Operation{"GET": item.Get, "POST": item.Post} {
			if op != nil {
				ops = append(ops, operation{method, path, op.Summary, op.Description, op.Parameters})
			}
		}
	}
	slices.SortStableFunc(ops, func(a, b operation) int {
		if a.Path != b.Path {
			return 0
		}
		return map[bool]int{true: -1, false: 1}[a.Method < b.Method]
	})
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; img-src data:")
	if err := docsPage.Execute(w, map[string]any{"Title": doc.Info.Title, "Operations": ops}); err != nil {
		s.log.Debug("the documentation page was not sent whole", "error", err)
	}
}
