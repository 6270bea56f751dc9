package aggregate

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/millrace-io/millrace/schemas"
)

// value reads a gauge or a counter.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	must(t, m.Write(&d))
	if d.Gauge != nil {
		return d.Gauge.GetValue()
	}
	return d.Counter.GetValue()
}

// remake deletes a topic and makes it again, empty.
func (b *bench) remake(t testing.TB, topic string) {
	t.Helper()
	_, err := kadm.NewClient(b.client).DeleteTopics(t.Context(), b.kafka.Name(topic))
	must(t, err)
	b.client.PurgeTopicsFromClient(b.kafka.Name(topic))
	_, err = b.kafka.EnsureTopics(t.Context(), b.client, schemas.Topics()...)
	must(t, err)
}
