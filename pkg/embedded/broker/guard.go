package broker

import (
	"errors"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// guard stands in front of kfake's handlers and adds what Apache Kafka does and
// kfake does not: no null keys on compacted topics, no retention on them, and a
// prepare record for a transaction about to be committed. kfake runs one
// request at a time, the guard's function immediately before the handler.
type guard struct {
	cluster *kfake.Cluster
	store   *store // nil in memory

	// mu is held for reading while a request is looked at and for writing by
	// close, because a guard function that asks the cluster about a topic
	// while the cluster shuts down would wait for ever.
	mu     sync.RWMutex
	closed bool

	// The rest is touched only by guard functions, which kfake serialises.
	compacted map[topicKey]bool
	fault     *kfake.FaultHandle
	seen      map[int16]int
	pending   pendingOffsets
}

// topicKey is a topic as a produce request names it: by name before version 13,
// by id from then on.
type topicKey struct {
	name string
	id   [16]byte
}

// renewAfter bounds a leak: kfake keeps the last request of every connection
// that a control function ever saw, for as long as the function is installed.
const renewAfter = 256

var errClosing = errors.New("embedded broker is closing")

func newGuard(c *kfake.Cluster, st *store) *guard {
	return &guard{
		cluster: c, store: st,
		compacted: make(map[topicKey]bool),
		seen:      make(map[int16]int),
		pending:   make(pendingOffsets),
	}
}

func (g *guard) install() {
	g.watch(kmsg.Produce, g.produce)
	g.watch(kmsg.CreateTopics, g.createTopics)
	g.watch(kmsg.DeleteTopics, g.forgetTopics)
	g.watch(kmsg.AlterConfigs, g.alterConfigs)
	g.watch(kmsg.IncrementalAlterConfigs, g.incrementalAlterConfigs)
	if g.store != nil {
		g.watch(kmsg.TxnOffsetCommit, g.txnOffsetCommit)
		g.watch(kmsg.EndTxn, g.endTxn)
	}
}

func (g *guard) close() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
}

// watch runs fn before every request of a kind. An error from fn closes the
// client's connection without the request having been handled.
func (g *guard) watch(key kmsg.Key, fn func(kmsg.Request) error) {
	k := int16(key)
	g.cluster.ControlKey(k, func(req kmsg.Request) (kmsg.Response, error, bool) {
		g.mu.RLock()
		defer g.mu.RUnlock()
		if g.closed {
			return nil, errClosing, true
		}
		if g.seen[k]++; g.seen[k] >= renewAfter {
			g.seen[k] = 0
			g.cluster.DropControl()
			g.watch(key, fn)
		} else {
			g.cluster.KeepControl()
		}
		if err := fn(req); err != nil {
			return nil, err, true
		}
		return nil, nil, false
	})
}

// errNullKey is what Apache Kafka answers to a record without a key on a
// compacted topic.
func errNullKey() *kerr.Error {
	return &kerr.Error{
		Message:   "INVALID_RECORD: a compacted topic cannot accept a record without a key",
		Code:      kerr.InvalidRecord.Code,
		Retriable: false, Description: kerr.InvalidRecord.Description,
	}
}

// produce refuses the partitions of a request whose batch has a null key on a
// compacted topic; the request's other partitions go through.
func (g *guard) produce(kreq kmsg.Request) error {
	if g.fault != nil {
		g.fault.Remove()
		g.fault = nil
	}
	req := kreq.(*kmsg.ProduceRequest)
	var faults []kfake.Fault
	for i := range req.Topics {
		t := &req.Topics[i]
		if !g.isCompacted(topicKey{t.Topic, t.TopicID}) {
			continue
		}
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if null, err := hasNullKey(p.Records); err != nil || !null {
				continue // kfake answers a batch that cannot be parsed
			}
			faults = append(faults, kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: t.Topic, TopicID: t.TopicID,
				Partitions: []int32{p.Partition}, Err: errNullKey(), Count: -1,
				When: func(r kmsg.Request) bool { return r == kreq },
			})
		}
	}
	if len(faults) > 0 {
		g.fault = g.cluster.Fault(faults...)
	}
	return nil
}

// isCompacted asks kfake once per topic; whatever changes a topic forgets it.
func (g *guard) isCompacted(k topicKey) bool {
	if c, ok := g.compacted[k]; ok {
		return c
	}
	var info *kfake.TopicInfo
	if k.name != "" {
		info = g.cluster.TopicInfo(k.name)
	} else {
		info = g.cluster.TopicIDInfo(k.id)
	}
	if info == nil {
		return false
	}
	policy := info.Configs["cleanup.policy"]
	c := policy != nil && hasPolicy(*policy, "compact")
	g.compacted[k] = c
	return c
}

func (g *guard) forgetTopics(kmsg.Request) error {
	clear(g.compacted)
	return nil
}

// createTopics gives compact-only topics an explicit "no retention", which
// Apache Kafka implies and kfake does not.
func (g *guard) createTopics(kreq kmsg.Request) error {
	clear(g.compacted)
	req := kreq.(*kmsg.CreateTopicsRequest)
	for i := range req.Topics {
		t := &req.Topics[i]
		policy := ""
		for _, c := range t.Configs {
			if c.Name == "cleanup.policy" && c.Value != nil {
				policy = *c.Value
			}
		}
		if !compactOnly(policy) {
			continue
		}
		kept := t.Configs[:0:0]
		for _, c := range t.Configs {
			if c.Name != "retention.ms" && c.Name != "retention.bytes" {
				kept = append(kept, c)
			}
		}
		for _, name := range []string{"retention.ms", "retention.bytes"} {
			c := kmsg.NewCreateTopicsRequestTopicConfig()
			c.Name, c.Value = name, kmsg.StringPtr("-1")
			kept = append(kept, c)
		}
		t.Configs = kept
	}
	return nil
}

func (g *guard) alterConfigs(kreq kmsg.Request) error {
	clear(g.compacted)
	req := kreq.(*kmsg.AlterConfigsRequest)
	for i := range req.Resources {
		r := &req.Resources[i]
		policy := ""
		for _, c := range r.Configs {
			if c.Name == "cleanup.policy" && c.Value != nil {
				policy = *c.Value
			}
		}
		if r.ResourceType != kmsg.ConfigResourceTypeTopic || !compactOnly(policy) {
			continue
		}
		for _, name := range []string{"retention.ms", "retention.bytes"} {
			c := kmsg.NewAlterConfigsRequestResourceConfig()
			c.Name, c.Value = name, kmsg.StringPtr("-1")
			r.Configs = append(r.Configs, c) // the last of a name wins
		}
	}
	return nil
}

func (g *guard) incrementalAlterConfigs(kreq kmsg.Request) error {
	clear(g.compacted)
	req := kreq.(*kmsg.IncrementalAlterConfigsRequest)
	for i := range req.Resources {
		r := &req.Resources[i]
		policy := ""
		for _, c := range r.Configs {
			if c.Name == "cleanup.policy" && c.Value != nil && c.Op == kmsg.IncrementalAlterConfigOpSet {
				policy = *c.Value
			}
		}
		if r.ResourceType != kmsg.ConfigResourceTypeTopic || !compactOnly(policy) {
			continue
		}
		kept := r.Configs[:0:0]
		for _, c := range r.Configs {
			if c.Name != "retention.ms" && c.Name != "retention.bytes" {
				kept = append(kept, c)
			}
		}
		for _, name := range []string{"retention.ms", "retention.bytes"} {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Value, c.Op = name, kmsg.StringPtr("-1"), kmsg.IncrementalAlterConfigOpSet
			kept = append(kept, c)
		}
		r.Configs = kept
	}
	return nil
}

// hasPolicy reports whether a cleanup.policy list contains a policy.
func hasPolicy(list, policy string) bool {
	for p := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(p) == policy {
			return true
		}
	}
	return false
}

func compactOnly(list string) bool {
	return hasPolicy(list, "compact") && !hasPolicy(list, "delete")
}
