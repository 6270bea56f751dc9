package collect

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace-io/millrace/schemas"
)

// Readiness is looked at this often, more often while something is wrong.
const (
	watchEvery   = 2 * time.Second
	watchTrouble = 250 * time.Millisecond
)

// watch keeps Ready true to the state of Kafka until ctx ends.
func (s *Service) watch(ctx context.Context, client *kgo.Client) {
	adm := kadm.NewClient(client)
	for {
		why := s.look(ctx, adm)
		if ctx.Err() != nil {
			return
		}
		if was := s.health.Load(); (was == nil) != (why == "") {
			s.deps.Log.Info("activity intake", "ready", why == "", "why", why)
		}
		s.setHealth(why)
		wait := watchEvery
		if why != "" {
			wait = watchTrouble
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look tells what is wrong, or "".
func (s *Service) look(ctx context.Context, adm *kadm.Client) string {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	names := []string{s.deps.Kafka.Name(schemas.ActivityRaw), s.deps.Kafka.Name(schemas.Quarantine)}
	topics, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return fmt.Sprintf("Kafka at %v does not answer (kafka.brokers)", s.deps.Kafka.Brokers)
	}
	var missing []string
	for _, n := range names {
		if !topics.Has(n) {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		return "topics are missing: " + strings.Join(missing, ", ") + "; make them with 'admin topics apply'"
	}
	return ""
}
