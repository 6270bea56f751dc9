package cdc

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/services/cdc/internal/diff"
	"github.com/millrace-io/millrace/services/cdc/internal/image"
)

// folder folds topics on disk. It is safe for concurrent use.
type folder struct {
	kafka    kafka.Config
	registry *avro.Registry
	log      *slog.Logger
	space    *diff.Space
}

func (s *Service) newFolder() folder {
	return folder{s.deps.Kafka, s.deps.Registry, s.deps.Log, diff.NewSpace(diff.Options{Dir: s.cfg.SpillDir})}
}

const keyFrame = 5

// keys folds the keys of a topic: those that have a value. Close the set.
func (f folder) keys(ctx context.Context, topic string) (*diff.Set, error) {
	out := f.space.NewSet(nil)
	_, _, err := scanTo(ctx, f.kafka, f.log, settled, 0, func(r *kgo.Record) error {
		switch {
		case r.Attrs.IsControl():
			return nil
		case r.Value == nil:
			return out.Delete(r.Key)
		}
		return out.Put(diff.Entry{Key: r.Key})
	}, topic)
	if err != nil {
		return nil, errors.Join(err, out.Close())
	}
	return out, nil
}

// otherFrame is a key as another schema of the same columns wrote it.
func otherFrame(frame string, key []byte) []byte { return append([]byte(frame), key[keyFrame:]...) }

// folded is a topic's rows as sums. Close the set.
type folded struct {
	set    *diff.Set
	reader image.Reader
	ends   map[partition]int64 // up to where it was read
	frames map[string]struct{} // what the keys begin with: of each schema that wrote some
}

// errLargeColumn: an event says of a column that it did not change, and its sum was not kept by itself.
type errLargeColumn struct{ name string }

func (e errLargeColumn) Error() string { return "column " + e.name + " has large values" }

// fold folds the rows of a topic up to its present end. Which columns may come unchanged is learnt on the way: when an event
// says so of another one, it begins again. wanted chooses among the keys.
func (f folder) fold(ctx context.Context, topic string, reader image.Reader, wanted func(key []byte) bool) (*folded, error) {
	for {
		out, err := f.foldOnce(ctx, topic, reader, wanted)
		var large errLargeColumn
		if !errors.As(err, &large) {
			return out, err
		}
		reader.Large = append(slices.Clone(reader.Large), large.name)
		slices.Sort(reader.Large)
	}
}

func everyKey([]byte) bool { return true }

func (f folder) foldOnce(ctx context.Context, topic string, reader image.Reader, wanted func([]byte) bool) (*folded, error) {
	out := &folded{set: f.space.NewSet(mergeImages), reader: reader, frames: map[string]struct{}{}}
	images := newImages(f.registry, reader)
	var entry diff.Entry
	_, ends, err := scanTo(ctx, f.kafka, f.log, settled, 0, func(r *kgo.Record) error {
		if r.Attrs.IsControl() || !wanted(r.Key) {
			return nil
		}
		if len(r.Key) >= keyFrame {
			out.frames[string(r.Key[:keyFrame])] = struct{}{}
		}
		v, err := images.read(ctx, r)
		if err != nil {
			return err
		}
		if !v.there {
			return out.set.Delete(r.Key)
		}
		entry = diff.Entry{Key: r.Key, Sum: v.sum, Extra: binary.BigEndian.AppendUint64(append(entry.Extra[:0], v.parts...), uint64(v.commit))}
		return out.set.Put(entry)
	}, topic)
	if err != nil {
		return nil, errors.Join(err, out.set.Close())
	}
	out.ends = ends
	return out, nil
}

// commitSize is what an entry of the topic's side has behind its parts: the commit's LSN.
const commitSize = 8

func mergeImages(former, later diff.Entry) diff.Entry {
	n := len(later.Extra) - commitSize
	if len(former.Extra) == len(later.Extra) {
		image.Merge(former.Extra[:n], later.Extra[:n])
	}
	return later
}

// sameImage compares a row, whose extra is its parts, with the topic's.
func sameImage(source, topic diff.Entry) bool {
	n := len(topic.Extra) - commitSize
	return source.Sum == topic.Sum && n >= 0 && image.Known(topic.Extra[:n]) && string(source.Extra) == string(topic.Extra[:n])
}

// version is what an event says about a row.
type version struct {
	there  bool
	commit int64 // see image.Image; 0 if it is not known
	sum    diff.Sum
	parts  []byte
}

// images reads versions. It is for one goroutine.
type images struct {
	registry *avro.Registry
	reader   image.Reader
	layouts  map[int]*image.Layout
	image    image.Image
}

func newImages(registry *avro.Registry, reader image.Reader) *images {
	return &images{registry: registry, reader: reader, layouts: map[int]*image.Layout{}}
}

// read reads the version that a record tells; its parts are overwritten by the next. A record that cannot be read is a row
// like no other, for it has to be written again.
func (m *images) read(ctx context.Context, r *kgo.Record) (version, error) {
	if r.Value == nil {
		return version{}, nil
	}
	var unchanged []string
	if h := kafka.Header(r, HeaderUnchanged); h != nil {
		unchanged = strings.Split(string(h), ",")
		for _, c := range unchanged {
			if slices.Contains(m.reader.Fields, c) && !slices.Contains(m.reader.Large, c) {
				return version{}, errLargeColumn{c}
			}
		}
	}
	id, body, err := avro.Unframe(r.Value)
	if err == nil {
		var l *image.Layout
		if l, err = m.layout(ctx, id); err == nil {
			err = l.Read(body, unchanged, &m.image)
		}
	}
	switch {
	case errors.Is(err, avro.ErrUnavailable) || ctx.Err() != nil:
		return version{}, fmt.Errorf("read topic %s: %w", r.Topic, err)
	case err != nil:
		return version{there: true}, nil
	}
	return version{there: m.image.Row, commit: m.image.Commit, sum: m.image.Sum, parts: m.image.Parts}, nil
}

func (m *images) layout(ctx context.Context, id int) (*image.Layout, error) {
	if l, ok := m.layouts[id]; ok {
		return l, nil
	}
	schema, err := m.registry.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	l, err := image.Compile(schema, m.reader)
	if err != nil {
		return nil, err
	}
	m.layouts[id] = l
	return l, nil
}
