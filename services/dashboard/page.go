package dashboard

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"net/http"
	"path"

	"github.com/go-chi/chi/v5"

	"github.com/millrace-io/millrace/pkg/httpapi"
)

//go:embed web
var web embed.FS

// policy keeps the page to itself: no foreign scripts, no inline ones, no frames.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Routes adds the page at / and its files below /dashboard to r.
func (s *Service) Routes(r chi.Router) {
	page := r.With(httpapi.Compressed(), headers)
	page.Get("/", asset("index.html"))
	names, err := fs.Glob(web, "web/*")
	if err != nil {
		return // only a malformed pattern is an error
	}
	for _, name := range names {
		if name = path.Base(name); name != "index.html" {
			page.Get("/dashboard/"+name, asset(name))
		}
	}
}

func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// asset serves one file. Browsers keep it and ask whether it is still the same, so that a new version shows at once.
func asset(name string) http.HandlerFunc {
	types := map[string]string{".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
	body, err := web.ReadFile("web/" + name)
	sum := sha256.Sum256(body)
	tag := `W/"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
		if err != nil {
			httpapi.Problem(w, http.StatusNotFound, "no such file")
			return
		}
		h := w.Header()
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if matches(r.Header.Values("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		h.Set("Content-Type", types[path.Ext(name)])
		_, _ = w.Write(body) // the client has gone: nobody to tell
	}
}
