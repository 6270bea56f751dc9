package registry

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
)

const (
	contentType = "application/vnd.schemaregistry.v1+json"
	maxBody     = 2 << 20
	maxSchema   = 1 << 20
)

const (
	modeReadWrite = "READWRITE"
	modeReadOnly  = "READONLY"
)

// endpoint answers a request with a value to be written as JSON.
type endpoint func(*http.Request) (any, error)

// rawText is an answer that is JSON already.
type rawText string

func (r *Registry) routes() http.Handler {
	mux := http.NewServeMux()
	for pattern, e := range map[string]endpoint{
		"GET /{$}": func(*http.Request) (any, error) { return struct{}{}, nil },

		"GET /subjects":                                     r.getSubjects,
		"POST /subjects/{subject}":                          r.postLookup,
		"DELETE /subjects/{subject}":                        r.deleteSubject,
		"GET /subjects/{subject}/versions":                  r.getVersions,
		"POST /subjects/{subject}/versions":                 r.postRegister,
		"GET /subjects/{subject}/versions/{version}":        r.getVersion,
		"GET /subjects/{subject}/versions/{version}/schema": r.getVersionText,
		"DELETE /subjects/{subject}/versions/{version}":     r.deleteVersion,
		"GET /subjects/{subject}/versions/{version}/referencedby": func(req *http.Request) (any, error) {
			_, err := r.getVersion(req)
			return []int{}, err // there are no references
		},

		"GET /schemas":                   r.getSchemas,
		"GET /schemas/types":             func(*http.Request) (any, error) { return []string{"AVRO"}, nil },
		"GET /schemas/ids/{id}":          r.getSchema,
		"GET /schemas/ids/{id}/schema":   r.getSchemaText,
		"GET /schemas/ids/{id}/versions": r.getSchemaVersions,
		"GET /schemas/ids/{id}/subjects": r.getSchemaSubjects,

		"GET /config":              r.getConfig,
		"PUT /config":              r.putConfig,
		"DELETE /config":           r.deleteConfig,
		"GET /config/{subject}":    r.getConfig,
		"PUT /config/{subject}":    r.putConfig,
		"DELETE /config/{subject}": r.deleteConfig,
		"GET /mode":                r.getMode,
		"PUT /mode":                r.putMode,
		"DELETE /mode":             r.deleteMode,
		"GET /mode/{subject}":      r.getMode,
		"PUT /mode/{subject}":      r.putMode,
		"DELETE /mode/{subject}":   r.deleteMode,

		"POST /compatibility/subjects/{subject}/versions":           r.postCompatibility,
		"POST /compatibility/subjects/{subject}/versions/{version}": r.postCompatibility,

		"/": func(*http.Request) (any, error) {
			return nil, fail(http.StatusNotFound, "HTTP 404 Not Found")
		},
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) { answer(w, req, e) })
	}
	return mux
}

func answer(w http.ResponseWriter, req *http.Request, e endpoint) {
	req.Body = http.MaxBytesReader(w, req.Body, maxBody)
	v, err := e(req)
	status := http.StatusOK
	if err != nil {
		var api *apiError
		if !errors.As(err, &api) {
			api = fail(codeStore, "%v", err)
		}
		status = api.status()
		v = map[string]any{"error_code": api.code, "message": api.msg}
	}
	var body []byte
	if text, ok := v.(rawText); ok {
		body = []byte(text)
	} else if body, err = json.Marshal(v); err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error_code":50001,"message":"the answer could not be encoded"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone, nobody is left to tell
}

func readBody(req *http.Request, v any) error {
	if err := json.NewDecoder(req.Body).Decode(v); err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			return fail(codeSchemaTooLarge, "the request is larger than %d bytes", tooLarge.Limit)
		}
		return fail(codeBadRequest, "the request is no valid JSON: %v", err)
	}
	return nil
}

// readSchema reads and parses the schema of a request.
func readSchema(req *http.Request) (*schema, error) {
	var body struct {
		Schema     string            `json:"schema"`
		SchemaType string            `json:"schemaType"`
		References []json.RawMessage `json:"references"`
		ID         int               `json:"id"`
		Version    int               `json:"version"`
	}
	if err := readBody(req, &body); err != nil {
		return nil, err
	}
	switch {
	case body.SchemaType != "" && !strings.EqualFold(body.SchemaType, "AVRO"):
		return nil, fail(codeInvalidSchema, "Invalid schema type %s: this registry takes AVRO only", body.SchemaType)
	case len(body.References) > 0:
		return nil, fail(codeInvalidSchema, "Invalid schema: this registry takes no references; write the referenced types into the schema")
	case body.ID > 0 || body.Version > 0:
		return nil, fail(codeNotPermitted, "A schema's id and version are given by the registry: leave them out (IMPORT mode is not supported)")
	case strings.TrimSpace(body.Schema) == "":
		return nil, fail(codeInvalidSchema, "Empty schema")
	case len(body.Schema) > maxSchema:
		return nil, fail(codeSchemaTooLarge, "the schema is larger than %d bytes", maxSchema)
	}
	s, err := parseSchema(body.Schema)
	if err != nil {
		return nil, fail(codeInvalidSchema, "Invalid schema: %v", err)
	}
	return s, nil
}

// versionRef is a version in a path: a number, or "latest" or -1.
type versionRef struct {
	number int
	latest bool
}

func readVersion(req *http.Request) (versionRef, error) {
	s := req.PathValue("version")
	if s == "latest" || s == "-1" {
		return versionRef{latest: true}, nil
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 1 {
		return versionRef{}, fail(codeInvalidVersion, "The specified version '%s' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\"", s)
	}
	return versionRef{number: int(n)}, nil
}

func flag(req *http.Request, name string) bool {
	on, err := strconv.ParseBool(req.URL.Query().Get(name))
	return err == nil && on
}
