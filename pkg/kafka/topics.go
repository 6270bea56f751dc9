package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A Topic is a declaration: what a topic must be. The number of partitions of a keyed topic never changes in place.
type Topic struct {
	Name       string // without prefix
	Partitions int32
	Compact    bool
	Retention  time.Duration // of records when not compacted; of tombstones when compacted
	MinLag     time.Duration // compacted: how long every record stays at least
}

// configs are the topic's settings as Kafka names them.
func (t Topic) configs() map[string]*string {
	ms := func(d time.Duration) *string { return kadm.StringPtr(strconv.FormatInt(d.Milliseconds(), 10)) }
	if t.Compact {
		return map[string]*string{
			"cleanup.policy": kadm.StringPtr("compact"), "delete.retention.ms": ms(t.Retention), "min.compaction.lag.ms": ms(t.MinLag),
			"retention.ms": kadm.StringPtr("-1"),
		}
	}
	return map[string]*string{"cleanup.policy": kadm.StringPtr("delete"), "retention.ms": ms(t.Retention)}
}

// Applied is what EnsureTopics did for one topic.
type Applied struct {
	Topic   string
	Created bool
	Problem string // a difference from the declaration that cannot be mended in place
}

// EnsureTopics makes the topics as declared: creates the missing ones, mends settings, and reports what cannot be
// changed in place. It returns when the brokers that lead the topics know them, or have had 10 seconds to learn of them.
// It is idempotent.
func (c Config) EnsureTopics(ctx context.Context, cl *kgo.Client, topics ...Topic) ([]Applied, error) {
	adm := kadm.NewClient(cl)
	replication := int16(-1)
	if c.Replication > 0 {
		replication = int16(c.Replication)
	}
	var out []Applied
	for _, t := range topics {
		name := c.Name(t.Name)
		a := Applied{Topic: name}
		_, err := adm.CreateTopic(ctx, t.Partitions, replication, t.configs(), name)
		switch {
		case err == nil:
			a.Created = true
		case errors.Is(err, kerr.TopicAlreadyExists):
			if a.Problem, err = mend(ctx, adm, name, t); err != nil {
				return out, err
			}
		default:
			return out, fmt.Errorf("create topic %s: %w", name, err)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return out, appear(ctx, adm, out)
}

// appear waits until the leaders of all partitions answer: a cluster takes a moment to make a topic known, and whoever
// uses it before is told that there is none. Topics that do not appear are for the next one who needs them to report.
func appear(ctx context.Context, adm *kadm.Client, topics []Applied) error {
	var names []string
	for _, t := range topics {
		names = append(names, t.Topic)
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if listed, err := adm.ListStartOffsets(ctx, names...); err == nil && listed.Error() == nil && len(listed) == len(names) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the topics %v to be known: %w", names, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
	return nil
}

func mend(ctx context.Context, adm *kadm.Client, name string, t Topic) (string, error) {
	have, err := adm.DescribeTopicConfigs(ctx, name)
	if err != nil {
		return "", fmt.Errorf("describe topic %s: %w", name, err)
	}
	current := map[string]string{}
	for _, rc := range have {
		for _, cfg := range rc.Configs {
			current[cfg.Key] = cfg.MaybeValue()
		}
	}
	var alter []kadm.AlterConfig
	for key, want := range t.configs() {
		if got, ok := current[key]; ok && got != *want {
			alter = append(alter, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: want})
		}
	}
	if len(alter) > 0 {
		res, err := adm.AlterTopicConfigs(ctx, alter, name)
		if err == nil && len(res) > 0 {
			err = res[0].Err
		}
		if err != nil {
			return "", fmt.Errorf("mend the settings of topic %s: %w", name, err)
		}
	}
	details, err := adm.ListTopics(ctx, name)
	if err != nil {
		return "", fmt.Errorf("list topic %s: %w", name, err)
	}
	if n := len(details[name].Partitions); n != int(t.Partitions) && n > 0 {
		return fmt.Sprintf("has %d partitions, declared are %d; the number never changes in place, since keys would move: make a topic %s.v2", n, t.Partitions, name), nil
	}
	return "", nil
}
