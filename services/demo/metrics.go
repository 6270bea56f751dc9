package demo

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	orders   *prometheus.CounterVec
	lines    *prometheus.CounterVec
	changes  *prometheus.CounterVec
	failures *prometheus.CounterVec
	activity *prometheus.CounterVec
	sessions prometheus.Gauge
}

// The values of the label "outcome" of activity events.
const (
	outcomeSent    = "sent"
	outcomeFailed  = "failed"
	outcomeDropped = "dropped"
)

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "demo", Name: name, Help: help}, labels)
	}
	m := &metrics{
		orders:   counter("orders_total", "Orders written into the store.", "origin"),
		lines:    counter("order_lines_total", "Order lines written into the store, corrections not counted.", "origin"),
		changes:  counter("changes_total", "Changes other than orders that the trickle made.", "kind"),
		failures: counter("failures_total", "Things the trickle tried in vain.", "kind"),
		activity: counter("activity_events_total", "Activity events of simulated shoppers: sent (collect took the batch), failed (it did not), dropped (the queue was full).", "outcome"),
		sessions: prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "demo", Name: "sessions_active", Help: "Simulated shoppers browsing now."}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.orders, m.lines, m.changes, m.failures, m.activity, m.sessions} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
