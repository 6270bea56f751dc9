package registry

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
)

// Options says what to open. The zero value is an empty registry in memory.
type Options struct {
	// Dir is the directory of the registry's file; it is created if absent.
	// Empty keeps everything in memory.
	Dir string
	// Log receives warnings; nil discards them.
	Log *slog.Logger
}

// Registry is a schema registry; it serves its API as an http.Handler. Its
// methods are safe for concurrent use.
type Registry struct {
	log     *slog.Logger
	handler http.Handler

	mu       sync.RWMutex
	journal  *journal // nil in memory
	byID     map[int]*schema
	byKey    map[string]*schema
	subjects map[string]*subject
	lastID   int
	levels   map[string]level  // by subject, "" is the global one
	modes    map[string]string // likewise
}

// subject holds the versions that were not deleted for good, in order.
type subject struct {
	versions []version
	last     int // highest version number ever given
}

type version struct {
	number  int
	schema  *schema
	deleted bool // softly
}

// Open reads the directory's file, if there is a directory. Close the registry
// to let another process open it.
func Open(ctx context.Context, o Options) (*Registry, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := NewMemory()
	if o.Log != nil {
		r.log = o.Log
	}
	if o.Dir == "" {
		return r, nil
	}
	j, err := openJournal(o.Dir, r.log, r.apply)
	if err != nil {
		return nil, err
	}
	r.journal = j
	return r, nil
}

// NewMemory returns an empty registry that forgets everything when dropped; it
// needs no Close.
func NewMemory() *Registry {
	r := &Registry{
		log:      slog.New(slog.DiscardHandler),
		byID:     make(map[int]*schema),
		byKey:    make(map[string]*schema),
		subjects: make(map[string]*subject),
		levels:   make(map[string]level),
		modes:    make(map[string]string),
	}
	r.handler = r.routes()
	return r
}

// Close lets go of the file. Changes asked for afterwards are answered with
// code 50001.
func (r *Registry) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.journal.close()
}

// ServeHTTP implements http.Handler.
func (r *Registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.handler.ServeHTTP(w, req)
}

// commit makes a change durable and then applies it. The caller holds mu.
func (r *Registry) commit(c change) error {
	if err := r.journal.append(c); err != nil {
		r.log.Error("schema registry: a change was refused because it could not be stored", "op", c.Op, "subject", c.Subject, "err", err)
		return fail(codeStore, "the change could not be stored and was not made: %v", err)
	}
	if err := r.apply(c); err != nil {
		return fail(codeStore, "%v", err)
	}
	return nil
}

// apply changes the state in memory; it is the only code that does.
func (r *Registry) apply(c change) error {
	switch c.Op {
	case opRegister:
		return r.applyRegister(c)
	case opSoft, opHard:
		return r.applyDelete(c)
	case opConfig:
		if c.Value == "" {
			delete(r.levels, c.Subject)
			return nil
		}
		l, ok := parseLevel(c.Value)
		if !ok {
			return fmt.Errorf("unknown compatibility level %q", c.Value)
		}
		r.levels[c.Subject] = l
	case opMode:
		if c.Value == "" {
			delete(r.modes, c.Subject)
			return nil
		}
		r.modes[c.Subject] = c.Value
	default:
		return fmt.Errorf("unknown kind of change %q: the file was written by a later version", c.Op)
	}
	return nil
}

func (r *Registry) applyRegister(c change) error {
	s := r.byID[c.ID]
	if s == nil {
		var err error
		if s, err = parseSchema(c.Schema); err != nil {
			return fmt.Errorf("schema %d: %w", c.ID, err)
		}
		s.id = c.ID
		r.byID[c.ID], r.byKey[s.key] = s, s
		r.lastID = max(r.lastID, c.ID)
	}
	sub := r.subjects[c.Subject]
	if sub == nil {
		sub = &subject{}
		r.subjects[c.Subject] = sub
	}
	sub.versions = append(sub.versions, version{number: c.Version, schema: s})
	sub.last = max(sub.last, c.Version)
	return nil
}

func (r *Registry) applyDelete(c change) error {
	sub := r.subjects[c.Subject]
	if sub == nil {
		return fmt.Errorf("subject %q does not exist", c.Subject)
	}
	if c.Op == opHard {
		sub.versions = slices.DeleteFunc(sub.versions, func(v version) bool { return slices.Contains(c.Versions, v.number) })
		return nil
	}
	for i := range sub.versions {
		if slices.Contains(c.Versions, sub.versions[i].number) {
			sub.versions[i].deleted = true
		}
	}
	return nil
}

// register returns the id of a schema under a subject, making a version if
// there is none.
func (r *Registry) register(name string, s *schema) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.writable(name); err != nil {
		return 0, err
	}
	next := 1
	if sub := r.subjects[name]; sub != nil {
		for _, v := range sub.versions {
			if !v.deleted && v.schema.key == s.key {
				return v.schema.id, nil
			}
		}
		next = sub.last + 1
	}
	if msgs := r.level(name).check(s, r.live(name)); len(msgs) > 0 {
		return 0, fail(codeIncompatible, "Schema being registered is incompatible with an earlier schema for subject %q (level %s): %s", name, r.level(name), msgs[0])
	}
	id, text := r.lastID+1, s.text
	if known := r.byKey[s.key]; known != nil {
		id, text = known.id, known.text
	}
	if err := r.commit(change{Op: opRegister, Subject: name, Version: next, ID: id, Schema: text}); err != nil {
		return 0, err
	}
	return id, nil
}

// remove deletes one version of a subject, or all of them, and
// returns their numbers.
func (r *Registry) remove(name string, ref versionRef, all, permanent bool) ([]int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.writable(name); err != nil {
		return nil, err
	}
	var numbers []int
	if all {
		sub := r.subjects[name]
		if sub == nil || len(sub.versions) == 0 {
			return nil, subjectNotFound(name)
		}
		live := r.live(name)
		switch {
		case !permanent && len(live) == 0:
			return nil, fail(codeSubjectSoftDeleted, "Subject '%s' was soft deleted. Set permanent=true to delete permanently", name)
		case permanent && len(live) > 0:
			return nil, fail(codeSubjectNotSoftDeleted, "Subject '%s' was not deleted first before being permanently deleted", name)
		}
		for _, v := range sub.versions {
			if permanent || !v.deleted {
				numbers = append(numbers, v.number)
			}
		}
	} else {
		v, err := r.find(name, ref, true)
		if err != nil {
			return nil, err
		}
		switch {
		case !permanent && v.deleted:
			return nil, fail(codeVersionSoftDeleted, "Subject '%s' Version %d was soft deleted. Set permanent=true to delete permanently", name, v.number)
		case permanent && !v.deleted:
			return nil, fail(codeVersionNotSoftDeleted, "Subject '%s' Version %d was not deleted first before being permanently deleted", name, v.number)
		}
		numbers = []int{v.number}
	}
	op := opSoft
	if permanent {
		op = opHard
	}
	return numbers, r.commit(change{Op: op, Subject: name, Versions: numbers})
}

// The functions below read; the caller holds mu, at least for reading.

func (r *Registry) level(name string) level {
	for _, k := range []string{name, ""} {
		if l, ok := r.levels[k]; ok {
			return l
		}
	}
	return levelBackward
}

func (r *Registry) mode(name string) string {
	for _, k := range []string{name, ""} {
		if m, ok := r.modes[k]; ok {
			return m
		}
	}
	return modeReadWrite
}

func (r *Registry) writable(name string) error {
	if m := r.mode(name); m != modeReadWrite {
		return fail(codeNotPermitted, "Subject %s is in %s mode", name, m)
	}
	return nil
}

// live returns a subject's versions that are not deleted, oldest first.
func (r *Registry) live(name string) []numbered {
	sub := r.subjects[name]
	if sub == nil {
		return nil
	}
	var out []numbered
	for _, v := range sub.versions {
		if !v.deleted {
			out = append(out, numbered{v.number, v.schema})
		}
	}
	return out
}

// visible returns a subject's versions as a request with or without
// deleted=true sees them.
func (r *Registry) visible(name string, deleted bool) ([]version, error) {
	sub := r.subjects[name]
	if sub == nil {
		return nil, subjectNotFound(name)
	}
	out := slices.DeleteFunc(slices.Clone(sub.versions), func(v version) bool { return v.deleted && !deleted })
	if len(out) == 0 {
		return nil, subjectNotFound(name)
	}
	return out, nil
}

func (r *Registry) find(name string, ref versionRef, deleted bool) (version, error) {
	vs, err := r.visible(name, deleted)
	if err != nil {
		return version{}, err
	}
	if ref.latest {
		for _, v := range slices.Backward(vs) {
			if !v.deleted {
				return v, nil
			}
		}
		return vs[len(vs)-1], nil
	}
	for _, v := range vs {
		if v.number == ref.number {
			return v, nil
		}
	}
	return version{}, fail(codeVersionNotFound, "Version %d not found.", ref.number)
}

func (r *Registry) subjectNames() []string {
	return slices.Sorted(maps.Keys(r.subjects))
}

func subjectNotFound(name string) *apiError {
	return fail(codeSubjectNotFound, "Subject '%s' not found.", name)
}
