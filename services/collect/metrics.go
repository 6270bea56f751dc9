package collect

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics: in = accepted + duplicates + rejected + unavailable, and rejected = quarantined + quarantine_lost once
// everything is written.
type metrics struct {
	requests       *prometheus.CounterVec
	in             prometheus.Counter
	accepted       prometheus.Counter
	duplicates     prometheus.Counter
	unavailable    prometheus.Counter
	rejected       *prometheus.CounterVec
	quarantined    prometheus.Counter
	quarantineLost prometheus.Counter
	produce        prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer, inFlight func() float64) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "millrace_collect_" + name, Help: help})
	}
	vec := func(name, help, label string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "millrace_collect_" + name, Help: help}, []string{label})
	}
	m := &metrics{
		requests:       vec("requests_total", "Requests by status of the answer.", "status"),
		in:             counter("in_total", "Events read from requests."),
		accepted:       counter("accepted_total", "Events that Kafka has."),
		duplicates:     counter("duplicates_total", "Events whose id was in the same request already."),
		unavailable:    counter("unavailable_total", "Events of requests answered 503: the client sends them again."),
		rejected:       vec("rejected_total", "Events refused, by the first thing that was wrong.", "code"),
		quarantined:    counter("quarantined_total", "Refused events that are in the quarantine."),
		quarantineLost: counter("quarantine_lost_total", "Refused events that the quarantine could not take."),
		produce: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "millrace_collect_produce_seconds",
			Help: "Time until Kafka had a request's events.", Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14)}),
	}
	if reg == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.in, m.accepted, m.duplicates, m.unavailable, m.rejected, m.quarantined,
		m.quarantineLost, m.produce,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "millrace_collect_in_flight_bytes", Help: "Bytes of requests in hand."}, inFlight)} {
		errs = append(errs, reg.Register(c))
	}
	return m, errors.Join(errs...)
}
