package enrich

import (
	"sync"

	"github.com/millrace-io/millrace/schemas"
)

// waitingImages are the images that were sent with an unknown dimension and wait for a reference row: those of all
// instances, for any may become ours. They come from the topic, and from our own transactions as soon as these are
// committed, so that for the partitions we own it is never behind. It is safe for concurrent use.
type waitingImages struct {
	has func(missing string) bool // whether a reference row is there

	mu        sync.Mutex
	entries   map[string]*schemas.Waiting
	byMissing map[string]map[string]struct{}
	ready     map[schemas.Partition]map[string]struct{} // keys whose reference row has come
	ahead     map[string]int64                          // offset of our own last change of a key, until the topic's reader has passed it
	through   int64                                     // offset that the topic's reader has come to
	bytes     int                                       // memory that the entries take, about
}

func newWaitingImages(has func(string) bool) *waitingImages {
	return &waitingImages{has: has, entries: map[string]*schemas.Waiting{}, byMissing: map[string]map[string]struct{}{},
		ready: map[schemas.Partition]map[string]struct{}{}, ahead: map[string]int64{}}
}

func waitingKey(topic, key string) string { return topic + "/" + key }

// get is the entry of an image, or nil.
func (w *waitingImages) get(key string) *schemas.Waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.entries[key]
}

func (w *waitingImages) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.entries)
}

// size is about how many bytes of memory the images take.
func (w *waitingImages) size() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// entryOverhead is about what an entry takes in maps and headers, besides its texts.
const entryOverhead = 512

func entrySize(key string, e *schemas.Waiting) int {
	n := entryOverhead + len(key) + len(e.InputTopic) + len(e.OutputTopic) + len(e.OutputKey) + len(e.Image)
	for _, m := range e.Missing {
		n += len(m)
	}
	return n
}

// followed takes over a record of the topic; nil is a tombstone.
func (w *waitingImages) followed(key string, entry *schemas.Waiting, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.through = offset + 1
	if own, ok := w.ahead[key]; ok {
		if offset >= own {
			delete(w.ahead, key)
		}
		if offset <= own {
			return
		}
	}
	w.set(key, entry)
}

// committed takes over a change of our own.
func (w *waitingImages) committed(key string, entry *schemas.Waiting, offset int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if offset < w.through {
		return // the reader was faster
	}
	w.ahead[key] = offset
	w.set(key, entry)
}

func (w *waitingImages) set(key string, entry *schemas.Waiting) {
	if old := w.entries[key]; old != nil {
		for _, m := range old.Missing {
			if delete(w.byMissing[m], key); len(w.byMissing[m]) == 0 {
				delete(w.byMissing, m)
			}
		}
		p := inputOf(old)
		if delete(w.ready[p], key); len(w.ready[p]) == 0 {
			delete(w.ready, p)
		}
		delete(w.entries, key)
		w.bytes -= entrySize(key, old)
	}
	if entry == nil {
		return
	}
	w.entries[key] = entry
	w.bytes += entrySize(key, entry)
	for _, m := range entry.Missing {
		if w.byMissing[m] == nil {
			w.byMissing[m] = map[string]struct{}{}
		}
		w.byMissing[m][key] = struct{}{}
		// Asked after it stands in the index: a row that comes now is told by arrived, one that came before is there.
		if w.has(m) {
			w.markReady(key, entry)
		}
	}
}

func (w *waitingImages) markReady(key string, entry *schemas.Waiting) {
	p := inputOf(entry)
	if w.ready[p] == nil {
		w.ready[p] = map[string]struct{}{}
	}
	w.ready[p][key] = struct{}{}
}

// arrived tells that a reference row is there; it tells whether an image waited for it.
func (w *waitingImages) arrived(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	keys := w.byMissing[name]
	for key := range keys {
		w.markReady(key, w.entries[key])
	}
	return len(keys) > 0
}

// take gives up to limit images of the partitions whose reference row has come, and forgets that it has; what is not
// mended is given back by again.
func (w *waitingImages) take(partitions []schemas.Partition, limit int) map[string]*schemas.Waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]*schemas.Waiting{}
	for _, p := range partitions {
		for key := range w.ready[p] {
			if len(out) == limit {
				return out
			}
			out[key] = w.entries[key]
			delete(w.ready[p], key)
		}
	}
	return out
}

// again gives back what take gave.
func (w *waitingImages) again(taken map[string]*schemas.Waiting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, entry := range taken {
		if w.entries[key] == entry {
			w.markReady(key, entry)
		}
	}
}

// pending tells whether an image of the partitions could be mended now.
func (w *waitingImages) pending(partitions []schemas.Partition) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range partitions {
		if len(w.ready[p]) > 0 {
			return true
		}
	}
	return false
}

func inputOf(e *schemas.Waiting) schemas.Partition {
	return schemas.Partition{Topic: e.InputTopic, Partition: e.InputPartition}
}
