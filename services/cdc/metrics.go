package cdc

import (
	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows         *prometheus.CounterVec // table, op
	dropped      *prometheus.CounterVec // table
	quarantined  *prometheus.CounterVec // table
	poisoned     *prometheus.GaugeVec   // table
	in           prometheus.Counter
	out          prometheus.Counter
	transactions prometheus.Counter
	kafkaTx      prometheus.Counter
	restarts     prometheus.Counter
	stopped      prometheus.Gauge
	lagBytes     *prometheus.GaugeVec // stage: replay, decode
	lagSeconds   *prometheus.GaugeVec // stage: replay, decode
	retained     prometheus.Gauge
	snapshotDone prometheus.Gauge
	snapshotAll  prometheus.Gauge
	tables       map[string]*tableMetrics
}

// tableMetrics are a table's counters, resolved once.
type tableMetrics struct {
	name                                               string
	create, update, remove, read, dropped, quarantined prometheus.Counter
	poisoned                                           prometheus.Gauge
}

func (t *tableMetrics) of(op byte) prometheus.Counter {
	switch op {
	case 'c':
		return t.create
	case 'u':
		return t.update
	case 'd':
		return t.remove
	case opQuarantined:
		return t.quarantined
	default:
		return t.read
	}
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: name, Help: help})
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: name, Help: help})
	}
	gauges := func(name, help string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: name, Help: help}, []string{"stage"})
	}
	m := &metrics{
		rows: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "rows_total",
			Help: "Row events committed to Kafka."}, []string{"table", "op"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "dropped_total",
			Help: "Changes of stopped tables, which the next snapshot brings in."}, []string{"table"}),
		quarantined: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "quarantined_total",
			Help: "Rows that do not fit and went to quarantine."}, []string{"table"}),
		poisoned: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: "poisoned_keys",
			Help: "Keys whose row is not in its topic as it is in the table, for it does not fit."}, []string{"table"}),
		in:           counter("in_total", "Changes received from the source, repeated ones not counted."),
		out:          counter("out_total", "Records committed to Kafka, tombstones included."),
		transactions: counter("transactions_total", "Source transactions received."),
		kafkaTx:      counter("kafka_transactions_total", "Kafka transactions committed."),
		restarts:     counter("restarts_total", "Times that the stream was set up again after a failure."),
		stopped:      gauge("stopped_tables", "Tables that are stopped; `cdc status` names them."),
		lagBytes:     gauges("lag_bytes", "Write-ahead log that the replica has not replayed, or that is replayed and not captured."),
		lagSeconds:   gauges("lag_seconds", "The same in seconds."),
		retained:     gauge("retained_bytes", "Write-ahead log that the source keeps for the slot."),
		snapshotDone: gauge("snapshot_rows", "Rows that the snapshot has read."),
		snapshotAll:  gauge("snapshot_expected_rows", "Rows that the source expects in the tables of the snapshot."),
		tables:       map[string]*tableMetrics{},
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rows, m.dropped, m.quarantined, m.poisoned, m.in, m.out, m.transactions, m.kafkaTx, m.restarts, m.stopped,
		m.lagBytes, m.lagSeconds, m.retained, m.snapshotDone, m.snapshotAll} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// table is for one goroutine at a time.
func (m *metrics) table(name string) *tableMetrics {
	t := m.tables[name]
	if t == nil {
		t = &tableMetrics{name: name, create: m.rows.WithLabelValues(name, "c"), update: m.rows.WithLabelValues(name, "u"),
			remove: m.rows.WithLabelValues(name, "d"), read: m.rows.WithLabelValues(name, "r"), dropped: m.dropped.WithLabelValues(name),
			quarantined: m.quarantined.WithLabelValues(name), poisoned: m.poisoned.WithLabelValues(name)}
		m.tables[name] = t
	}
	return t
}
