package aggregate

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/millrace-io/millrace/services/aggregate/internal/ledger"
	"github.com/millrace-io/millrace/services/aggregate/internal/sales"
)

type metrics struct {
	in       *prometheus.CounterVec // topic
	records  *prometheus.CounterVec // topic, outcome
	batch    prometheus.Histogram
	retries  prometheus.Counter
	fenced   prometheus.Counter
	lag      *prometheus.GaugeVec // topic, partition
	through  prometheus.Gauge
	waiting  prometheus.Gauge
	owned    prometheus.Gauge
	stopped  prometheus.Gauge
	unclaims prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "millrace", Subsystem: "aggregate", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts(opts(name, help)))
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts(opts(name, help)))
	}
	m := &metrics{
		in: prometheus.NewCounterVec(prometheus.CounterOpts(opts("in_records_total", "Input records whose end is known.")), []string{"topic"}),
		records: prometheus.NewCounterVec(prometheus.CounterOpts(opts("records_total",
			"Input records by how they ended: applied, unchanged, superseded, duplicate or quarantined. Their sum is the input.")), []string{"topic", "outcome"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "millrace", Subsystem: "aggregate", Name: "batch_seconds",
			Help: "From a batch in hand to its commit, retries included.", Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12)}),
		retries:  counter("retries_total", "Transactions that were tried again."),
		fenced:   counter("fenced_total", "Times that another instance had claimed a partition of this one."),
		lag:      prometheus.NewGaugeVec(prometheus.GaugeOpts(opts("lag_records", "Records between the position and the partition's end.")), []string{"topic", "partition"}),
		through:  gauge("valid_through_seconds", "Unix time up to which everything that the source committed is in the totals; 0 if unknown."),
		waiting:  gauge("waiting_lines", "Order lines that count nowhere yet, since the header of their order has not come."),
		owned:    gauge("owned_partitions", "Partitions that this instance writes."),
		stopped:  gauge("stopped_partitions", "Partitions that nobody reads until an operator acts; sink_partition.stopped tells why."),
		unclaims: gauge("uncovered_partitions", "Input partitions of the pipeline that no claim in reach covers: while there are any, the totals are complete through nothing."),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.in, m.records, m.batch, m.retries, m.fenced, m.lag, m.through, m.waiting, m.owned, m.stopped, m.unclaims} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) count(t ledger.Tally) {
	for p, counts := range t {
		for o, n := range counts {
			m.in.WithLabelValues(p.Topic).Add(float64(n))
			m.records.WithLabelValues(p.Topic, sales.Outcome(o).String()).Add(float64(n))
		}
	}
}

func (m *metrics) behind(p ledger.Partition, records int64) {
	m.lag.WithLabelValues(p.Topic, strconv.Itoa(int(p.Part))).Set(float64(max(records, 0)))
}

func (m *metrics) lost(p ledger.Partition) {
	m.lag.DeleteLabelValues(p.Topic, strconv.Itoa(int(p.Part)))
}
