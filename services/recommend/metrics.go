package recommend

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/services/recommend/internal/model"
)

type metrics struct {
	requests   *prometheus.CounterVec
	refused    *prometheus.CounterVec
	latency    prometheus.Histogram
	publish    prometheus.Histogram
	records    *prometheus.CounterVec
	served     prometheus.Counter
	servedLost prometheus.Counter
	kept       *prometheus.GaugeVec
	modelBytes prometheus.Gauge

	byLevel map[string]prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	const ns = "millrace_recommend_"
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: ns + name, Help: help})
	}
	vec := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: ns + name, Help: help}, labels)
	}
	m := &metrics{
		requests: vec("requests_total", "Answers by level.", "level"),
		refused:  vec("refused_total", "Requests that could not be understood, by status of the answer.", "status"),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: ns + "latency_seconds", Help: "Time to make an answer.",
			Buckets: prometheus.ExponentialBuckets(0.00001, 2, 15)}),
		publish: prometheus.NewHistogram(prometheus.HistogramOpts{Name: ns + "publish_seconds", Help: "Time to make a new state of the model.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
		records:    vec("records_total", "Records read, by topic and by what became of them.", "topic", "outcome"),
		served:     counter("served_total", "Answers recorded in Kafka."),
		servedLost: counter("served_lost_total", "Answers that were given and could not be recorded."),
		kept:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: ns + "kept_count", Help: "What the model is made of."}, []string{"what"}),
		modelBytes: prometheus.NewGauge(prometheus.GaugeOpts{Name: ns + "model_bytes", Help: "About the memory that the model takes."}),
		byLevel:    map[string]prometheus.Counter{},
	}
	for _, level := range []string{model.LevelSimilarity, model.LevelPopular} {
		m.byLevel[level] = m.requests.WithLabelValues(level)
	}
	if reg == nil {
		return m, nil
	}
	gauge := func(name, help string, f func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: ns + name, Help: help}, f)
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.refused, m.latency, m.publish, m.records, m.served, m.servedLost, m.kept, m.modelBytes,
		gauge("model_age_seconds", "Age of the model's state; it is renewed when something changes, and every hour.", func() float64 {
			return s.deps.Now().Sub(s.snapshot.Load().Built).Seconds()
		}),
		gauge("items_count", "Products that may be recommended.", func() float64 { return float64(s.snapshot.Load().Items()) }),
		gauge("sessions_count", "Sessions remembered.", func() float64 { return float64(s.sessions.Len()) }),
		gauge("sessions_bytes", "About the memory that sessions take.", func() float64 { return float64(s.sessions.Bytes()) }),
		gauge("served_waiting_bytes", "Answers that wait to be recorded.", func() float64 { return float64(s.served.waiting()) }),
	} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) size(s model.Size) {
	m.kept.WithLabelValues("products").Set(float64(s.Items))
	m.kept.WithLabelValues("orders").Set(float64(s.Orders))
	m.kept.WithLabelValues("lines").Set(float64(s.Lines))
	m.kept.WithLabelValues("customers").Set(float64(s.Customers))
	m.modelBytes.Set(float64(s.Bytes()))
}
