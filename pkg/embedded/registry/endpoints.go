package registry

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// subjectSchema is a version of a subject as the API shows it.
type subjectSchema struct {
	Subject string `json:"subject"`
	ID      int    `json:"id"`
	Version int    `json:"version"`
	Schema  string `json:"schema"`
}

func show(name string, v version) subjectSchema {
	return subjectSchema{Subject: name, ID: v.schema.id, Version: v.number, Schema: v.schema.text}
}

func (r *Registry) getSubjects(req *http.Request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	prefix := req.URL.Query().Get("subjectPrefix")
	out := []string{}
	for _, name := range r.subjectNames() {
		if _, err := r.visible(name, flag(req, "deleted")); err == nil && strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out, nil
}

func (r *Registry) postRegister(req *http.Request) (any, error) {
	s, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	id, err := r.register(req.PathValue("subject"), s)
	if err != nil {
		return nil, err
	}
	return map[string]int{"id": id}, nil
}

func (r *Registry) postLookup(req *http.Request) (any, error) {
	s, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	name := req.PathValue("subject")
	vs, err := r.visible(name, flag(req, "deleted"))
	if err != nil {
		return nil, err
	}
	for _, v := range vs {
		if v.schema.key == s.key {
			return show(name, v), nil
		}
	}
	return nil, fail(codeSchemaNotFound, "Schema not found")
}

func (r *Registry) deleteSubject(req *http.Request) (any, error) {
	return r.remove(req.PathValue("subject"), versionRef{}, true, flag(req, "permanent"))
}

func (r *Registry) getVersions(req *http.Request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	vs, err := r.visible(req.PathValue("subject"), flag(req, "deleted"))
	if err != nil {
		return nil, err
	}
	out := []int{}
	for _, v := range vs {
		out = append(out, v.number)
	}
	return out, nil
}

func (r *Registry) version(req *http.Request) (version, error) {
	ref, err := readVersion(req)
	if err != nil {
		return version{}, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.find(req.PathValue("subject"), ref, flag(req, "deleted"))
}

func (r *Registry) getVersion(req *http.Request) (any, error) {
	v, err := r.version(req)
	if err != nil {
		return nil, err
	}
	return show(req.PathValue("subject"), v), nil
}

func (r *Registry) getVersionText(req *http.Request) (any, error) {
	v, err := r.version(req)
	if err != nil {
		return nil, err
	}
	return rawText(v.schema.text), nil
}

func (r *Registry) deleteVersion(req *http.Request) (any, error) {
	ref, err := readVersion(req)
	if err != nil {
		return nil, err
	}
	numbers, err := r.remove(req.PathValue("subject"), ref, false, flag(req, "permanent"))
	if err != nil {
		return nil, err
	}
	return numbers[0], nil
}

func (r *Registry) getSchemas(req *http.Request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	prefix := req.URL.Query().Get("subjectPrefix")
	out := []subjectSchema{}
	for _, name := range r.subjectNames() {
		vs, err := r.visible(name, flag(req, "deleted"))
		if err != nil || !strings.HasPrefix(name, prefix) {
			continue
		}
		if flag(req, "latestOnly") {
			vs = vs[len(vs)-1:]
		}
		for _, v := range vs {
			out = append(out, show(name, v))
		}
	}
	return out, nil
}

// usage is where a schema is a version.
type usage struct {
	Subject string `json:"subject"`
	Version int    `json:"version"`
}

// byRequest finds the schema of /schemas/ids/{id} and where it is used. A
// schema only soft-deleted versions use is still there: data was written with
// it.
func (r *Registry) byRequest(req *http.Request) (*schema, []usage, error) {
	id, err := strconv.Atoi(req.PathValue("id"))
	if err != nil {
		return nil, nil, fail(http.StatusNotFound, "HTTP 404 Not Found")
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	var used bool
	out := []usage{}
	for _, name := range r.subjectNames() {
		for _, v := range r.subjects[name].versions {
			if v.schema.id != id {
				continue
			}
			used = true
			if !v.deleted || flag(req, "deleted") {
				out = append(out, usage{name, v.number})
			}
		}
	}
	if !used {
		return nil, nil, fail(codeSchemaNotFound, "Schema %d not found", id)
	}
	return r.byID[id], out, nil
}

func (r *Registry) getSchema(req *http.Request) (any, error) {
	s, _, err := r.byRequest(req)
	if err != nil {
		return nil, err
	}
	return map[string]string{"schema": s.text}, nil
}

func (r *Registry) getSchemaText(req *http.Request) (any, error) {
	s, _, err := r.byRequest(req)
	if err != nil {
		return nil, err
	}
	return rawText(s.text), nil
}

func (r *Registry) getSchemaVersions(req *http.Request) (any, error) {
	_, used, err := r.byRequest(req)
	return used, err
}

func (r *Registry) getSchemaSubjects(req *http.Request) (any, error) {
	_, used, err := r.byRequest(req)
	if err != nil {
		return nil, err
	}
	names := []string{}
	for _, u := range used {
		names = append(names, u.Subject)
	}
	return slices.Compact(names), nil
}

func (r *Registry) getConfig(req *http.Request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name := req.PathValue("subject")
	if _, ok := r.levels[name]; !ok && name != "" && !flag(req, "defaultToGlobal") {
		return nil, fail(codeNoSubjectLevel, "Subject '%s' does not have subject-level compatibility configured", name)
	}
	return map[string]level{"compatibilityLevel": r.level(name)}, nil
}

func (r *Registry) putConfig(req *http.Request) (any, error) {
	var body struct {
		Compatibility string `json:"compatibility"`
	}
	if err := readBody(req, &body); err != nil {
		return nil, err
	}
	l, ok := parseLevel(body.Compatibility)
	if !ok {
		return nil, fail(codeInvalidLevel, "Invalid compatibility level. Valid values are NONE, BACKWARD, FORWARD, FULL, BACKWARD_TRANSITIVE, FORWARD_TRANSITIVE, and FULL_TRANSITIVE")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.commit(change{Op: opConfig, Subject: req.PathValue("subject"), Value: string(l)}); err != nil {
		return nil, err
	}
	return map[string]level{"compatibility": l}, nil
}

func (r *Registry) deleteConfig(req *http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.PathValue("subject")
	if _, ok := r.levels[name]; !ok && name != "" {
		return nil, fail(codeNoSubjectLevel, "Subject '%s' does not have subject-level compatibility configured", name)
	}
	was := r.level(name)
	if err := r.commit(change{Op: opConfig, Subject: name}); err != nil {
		return nil, err
	}
	return map[string]level{"compatibilityLevel": was}, nil
}

func (r *Registry) getMode(req *http.Request) (any, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	name := req.PathValue("subject")
	if _, ok := r.modes[name]; !ok && name != "" && !flag(req, "defaultToGlobal") {
		return nil, fail(codeNoSubjectMode, "Subject '%s' does not have subject-level mode configured", name)
	}
	return map[string]string{"mode": r.mode(name)}, nil
}

func (r *Registry) putMode(req *http.Request) (any, error) {
	var body struct {
		Mode string `json:"mode"`
	}
	if err := readBody(req, &body); err != nil {
		return nil, err
	}
	mode := strings.ToUpper(body.Mode)
	if mode != modeReadWrite && mode != modeReadOnly {
		return nil, fail(codeInvalidMode, "Invalid mode. This registry knows READWRITE and READONLY")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.commit(change{Op: opMode, Subject: req.PathValue("subject"), Value: mode}); err != nil {
		return nil, err
	}
	return map[string]string{"mode": mode}, nil
}

func (r *Registry) deleteMode(req *http.Request) (any, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.PathValue("subject")
	if _, ok := r.modes[name]; !ok && name != "" {
		return nil, fail(codeNoSubjectMode, "Subject '%s' does not have subject-level mode configured", name)
	}
	was := r.mode(name)
	if err := r.commit(change{Op: opMode, Subject: name}); err != nil {
		return nil, err
	}
	return map[string]string{"mode": was}, nil
}

func (r *Registry) postCompatibility(req *http.Request) (any, error) {
	s, err := readSchema(req)
	if err != nil {
		return nil, err
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	name := req.PathValue("subject")
	against := r.live(name)
	if req.PathValue("version") != "" {
		if against, err = r.oneVersion(req, name); err != nil {
			return nil, err
		}
	}
	messages := r.level(name).check(s, against)
	out := map[string]any{"is_compatible": len(messages) == 0}
	if flag(req, "verbose") {
		out["messages"] = append([]string{}, messages...)
	}
	return out, nil
}

// oneVersion is what to compare with when the path names a version. Anything is
// compatible with the latest version of a subject that has none.
func (r *Registry) oneVersion(req *http.Request, name string) ([]numbered, error) {
	ref, err := readVersion(req)
	if err != nil {
		return nil, err
	}
	v, err := r.find(name, ref, false)
	if err != nil && ref.latest {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []numbered{{v.number, v.schema}}, nil
}
