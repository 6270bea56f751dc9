// Package avro joins Avro schemas, the schema registry and the Confluent framing of records (one zero byte, the
// schema's id as 4 bytes big-endian, then the Avro body).
package avro

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/avro"
	"github.com/twmb/franz-go/pkg/sr"

	"github.com/millrace-io/millrace/pkg/config"
)

// Config is the registry section.
type Config struct {
	URL config.Secret `yaml:"url" doc:"schema registry with the Confluent API"`
}

// DefaultConfig is the port of the embedded registry.
func DefaultConfig() Config { return Config{URL: "http://127.0.0.1:8081"} }

// Validate names the key that is wrong.
func (c Config) Validate() error {
	u, err := url.Parse(c.URL.Reveal())
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New("url: write http://host:port, with a path if the registry has one")
	}
	return nil
}

// Errors that decide between stalling and quarantine.
var (
	// ErrUnknownSchema: the registry answers, and has no schema of that id. The record is bad.
	ErrUnknownSchema = errors.New("schema id unknown to the registry")
	// ErrUnavailable: the registry does not answer. The record may be good: wait.
	ErrUnavailable = errors.New("schema registry unavailable")
	// ErrFraming: the bytes are not framed as a registry's record.
	ErrFraming = errors.New("not a framed Avro record")
	// ErrIncompatible: the registry refuses the schema beside those it has.
	ErrIncompatible = errors.New("schema incompatible with the released ones")
)

// negativeTTL is how long an unknown id is not asked for again.
const negativeTTL = 30 * time.Second

// Registry is a caching client. It is safe for concurrent use.
type Registry struct {
	client *sr.Client
	addr   string

	mu      sync.RWMutex
	schemas map[int]*avro.Schema
	unknown map[int]time.Time
}

// NewRegistry makes a client; it does no I/O.
func NewRegistry(cfg Config) (*Registry, error) {
	u, err := url.Parse(cfg.URL.Reveal())
	if err != nil {
		return nil, errors.New("schema registry client: the address is no URL")
	}
	options := []sr.ClientOpt{sr.HTTPClient(&http.Client{Timeout: 5 * time.Second}), sr.UserAgent("millrace")}
	if u.User != nil { // not in the address, which the client's errors quote
		secret, _ := u.User.Password()
		options = append(options, sr.BasicAuth(u.User.Username(), secret))
		u.User = nil
	}
	cl, err := sr.NewClient(append(options, sr.URLs(u.String()))...)
	if err != nil {
		return nil, fmt.Errorf("schema registry client: %w", err)
	}
	return &Registry{client: cl, addr: u.String(), schemas: map[int]*avro.Schema{}, unknown: map[int]time.Time{}}, nil
}

// Register makes sure that subject has the schema and returns its id. It is idempotent.
//
// Apicurio, asked by several programs at once to register the same new schema, answers some of them with a conflict over
// its existence: those are tried again. `admin schemas apply`, run before the services, avoids the race.
func (r *Registry) Register(ctx context.Context, subject, schema string) (int, error) {
	const tries = 8
	pause := 25 * time.Millisecond
	for try := 1; ; try++ {
		id, err := r.client.RegisterSchema(ctx, subject, sr.Schema{Schema: schema, Type: sr.TypeAvro}, -1, -1)
		if err == nil && id <= 0 {
			return 0, fmt.Errorf("register a schema for %s: what answers at %s is no schema registry (registry.url): %w", subject, r.addr, ErrUnavailable)
		}
		if err == nil {
			return id, nil
		}
		if !existsAlready(err) || try == tries {
			return 0, r.classify("register a schema for "+subject, err)
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("register a schema for %s: %w", subject, ctx.Err())
		case <-time.After(pause):
		}
		pause *= 2
	}
}

// Lookup is the id of a schema that subject has. It registers nothing. Errors wrap ErrUnknownSchema or ErrUnavailable.
func (r *Registry) Lookup(ctx context.Context, subject, schema string) (int, error) {
	found, err := r.client.LookupSchema(ctx, subject, sr.Schema{Schema: schema, Type: sr.TypeAvro})
	if err != nil {
		return 0, r.classify("look for a schema of "+subject, err)
	}
	return found.ID, nil
}

// LatestOf is the newest schema of a subject and its id. Errors wrap ErrUnknownSchema or ErrUnavailable.
func (r *Registry) LatestOf(ctx context.Context, subject string) (int, *avro.Schema, error) {
	found, err := r.client.SchemaByVersion(ctx, subject, -1)
	if err != nil {
		return 0, nil, r.classify("look for the schemas of "+subject, err)
	}
	s, err := avro.Parse(found.Schema.Schema)
	if err != nil {
		return 0, nil, fmt.Errorf("the newest schema of %s does not parse: %w", subject, ErrUnknownSchema)
	}
	return found.ID, s, nil
}

func existsAlready(err error) bool {
	var re *sr.ResponseError
	return errors.As(err, &re) && re.StatusCode == http.StatusConflict && strings.Contains(re.Message, "already exists")
}

// SetCompatibility sets the level that the registry holds subject to, such as "FULL_TRANSITIVE".
func (r *Registry) SetCompatibility(ctx context.Context, subject, level string) error {
	var l sr.CompatibilityLevel
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return fmt.Errorf("compatibility level %s: %w", level, err)
	}
	for _, res := range r.client.SetCompatibility(ctx, sr.SetCompatibility{Level: l}, subject) {
		if res.Err != nil {
			return r.classify("set the compatibility of "+subject, res.Err)
		}
	}
	return nil
}

// Versions are the texts of a subject's schemas, oldest first; none for a subject that the registry does not know.
func (r *Registry) Versions(ctx context.Context, subject string) ([]string, error) {
	all, err := r.client.Schemas(ctx, subject)
	if err = r.known("read the schemas of "+subject, err); err != nil || len(all) == 0 {
		return nil, err
	}
	slices.SortFunc(all, func(a, b sr.SubjectSchema) int { return a.Version - b.Version })
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = s.Schema.Schema
	}
	return out, nil
}

// Compatible asks whether the registry would take a schema under a subject, and registers nothing. The error wraps
// ErrIncompatible, with the registry's reasons, when it would not.
func (r *Registry) Compatible(ctx context.Context, subject, schema string) error {
	const allVersions = -2
	what := "compare a schema with those of " + subject
	res, err := r.client.CheckCompatibility(sr.WithParams(ctx, sr.Verbose), subject, allVersions, sr.Schema{Schema: schema, Type: sr.TypeAvro})
	var re *sr.ResponseError
	if errors.As(err, &re) && re.StatusCode == http.StatusNotFound {
		if versions, err := r.Versions(ctx, subject); err != nil || len(versions) == 0 {
			return err // anything is compatible with a subject that is not there
		}
	}
	if err != nil {
		return r.classify(what, err)
	}
	if !res.Is {
		return fmt.Errorf("%w: %s", ErrIncompatible, strings.Join(res.Messages, "; "))
	}
	return nil
}

// known is nil for the error of asking for what the registry does not have.
func (r *Registry) known(what string, err error) error {
	if err == nil {
		return nil
	}
	if err = r.classify(what, err); errors.Is(err, ErrUnknownSchema) {
		return nil
	}
	return err
}

// Schema is the schema of an id, from the cache when it was seen before. Errors wrap ErrUnknownSchema or
// ErrUnavailable.
func (r *Registry) Schema(ctx context.Context, id int) (*avro.Schema, error) {
	r.mu.RLock()
	s, until := r.schemas[id], r.unknown[id]
	r.mu.RUnlock()
	if s != nil {
		return s, nil
	}
	if time.Now().Before(until) {
		return nil, fmt.Errorf("schema %d: %w", id, ErrUnknownSchema)
	}
	s, err := r.fetch(ctx, id)
	if errors.Is(err, ErrUnknownSchema) {
		r.mu.Lock()
		if len(r.unknown) > 10_000 { // bad bytes can name any id: the cache stays small
			clear(r.unknown)
		}
		r.unknown[id] = time.Now().Add(negativeTTL)
		r.mu.Unlock()
	}
	return s, err
}

// fetch asks the registry and keeps what it gets.
func (r *Registry) fetch(ctx context.Context, id int) (*avro.Schema, error) {
	answer, err := r.client.SchemaByID(ctx, id) // not SchemaTextByID: Apicurio lacks that address
	if err != nil {
		return nil, r.classify(fmt.Sprintf("fetch schema %d", id), err)
	}
	if answer.Schema == "" {
		return nil, fmt.Errorf("fetch schema %d: the registry at %s answered without a schema: %w", id, r.addr, ErrUnavailable)
	}
	s, err := avro.Parse(answer.Schema)
	if err != nil {
		return nil, fmt.Errorf("schema %d of the registry does not parse: %w", id, ErrUnknownSchema)
	}
	r.mu.Lock()
	r.schemas[id] = s
	r.mu.Unlock()
	return s, nil
}

func (r *Registry) classify(what string, err error) error {
	var re *sr.ResponseError
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err // without the address, which may hold a password
	}
	switch {
	case errors.As(err, &re) && re.StatusCode == http.StatusNotFound && re.ErrorCode/100 == 404: // a proxy's own 404 has no such code
		return fmt.Errorf("%s: %w", what, ErrUnknownSchema)
	case errors.As(err, &re) && re.StatusCode == http.StatusConflict:
		return fmt.Errorf("%s: %w", what, ErrIncompatible)
	case errors.As(err, &re) && re.StatusCode == http.StatusUnprocessableEntity:
		return fmt.Errorf("%s: the registry at %s refuses it: %s", what, r.addr, re.Message)
	case errors.As(err, &re):
		return fmt.Errorf("%s: the registry at %s answered %d: %w", what, r.addr, re.StatusCode, ErrUnavailable)
	default:
		return fmt.Errorf("%s: the registry at %s does not answer (%w): %w", what, r.addr, ErrUnavailable, err)
	}
}

// frameSize is the length of the Confluent header.
const frameSize = 5

// AppendFrame appends the Confluent header for a schema's id.
func AppendFrame(dst []byte, id int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, 0), uint32(id))
}

// Unframe splits a record into its schema's id and its body.
func Unframe(data []byte) (id int, body []byte, err error) {
	if len(data) < frameSize || data[0] != 0 {
		return 0, nil, ErrFraming
	}
	return int(binary.BigEndian.Uint32(data[1:frameSize])), data[frameSize:], nil
}
