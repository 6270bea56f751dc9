package dashboard

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	clients  prometheus.Gauge
	events   prometheus.Counter
	dropped  prometheus.Counter
	age      prometheus.Gauge
	up       prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "millrace", Subsystem: "dashboard", Name: name, Help: help}
	}
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts(opts("requests_total", "Requests answered, by operation and HTTP status.")), []string{"operation", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "millrace", Subsystem: "dashboard", Name: "question_seconds",
			Help: "Time of the questions to the sales database, waiting included.", Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"operation"}),
		clients: prometheus.NewGauge(prometheus.GaugeOpts(opts("live_clients", "Live streams open now."))),
		events:  prometheus.NewCounter(prometheus.CounterOpts(opts("live_changes_total", "Changes of the totals that the live streams were told of."))),
		dropped: prometheus.NewCounter(prometheus.CounterOpts(opts("live_dropped_total", "Live streams ended because the client did not read."))),
		age:     prometheus.NewGauge(prometheus.GaugeOpts(opts("freshness_seconds", "Age of the totals: now minus valid_through. Not a number while unknown."))),
		up:      prometheus.NewGauge(prometheus.GaugeOpts(opts("database_up", "1 while the sales database answers and has its views."))),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.clients, m.events, m.dropped, m.age, m.up} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
