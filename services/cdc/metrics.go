package cdc

import (
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	rows         *prometheus.CounterVec // table, op
	dropped      *prometheus.CounterVec // table
	quarantined  *prometheus.CounterVec // table
	poisoned     *prometheus.GaugeVec   // table
	refused      *prometheus.CounterVec // kind: outbox, message, annotation
	filtered     *prometheus.CounterVec // table
	in           prometheus.Counter
	out          prometheus.Counter
	transactions prometheus.Counter
	kafkaTx      prometheus.Counter
	restarts     prometheus.Counter
	stopped      prometheus.Gauge
	lagBytes     *prometheus.GaugeVec // stage: receive, replay, decode, encode, kafka
	lagSeconds   *prometheus.GaugeVec // stage: the same
	retained     prometheus.Gauge
	safe         prometheus.Gauge
	xminAge      prometheus.Gauge
	restartAge   prometheus.Gauge
	waitingAge   prometheus.Gauge
	foreignIdle  *prometheus.GaugeVec // slot
	givenUp      prometheus.Counter
	gaps         *prometheus.CounterVec // cause
	snapshotDone prometheus.Gauge
	snapshotAll  prometheus.Gauge
	jobs         prometheus.Gauge
	jobRows      *prometheus.GaugeVec // table
	jobShare     *prometheus.GaugeVec // table
	jobWindows   prometheus.Counter
	notesDropped prometheus.Counter
	tables       map[string]*tableMetrics
}

// tableMetrics are a table's counters, resolved once.
type tableMetrics struct {
	name                                                         string
	create, update, remove, read, dropped, quarantined, filtered prometheus.Counter
	poisoned                                                     prometheus.Gauge
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
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "refused_total",
			Help: "Outbox events that went to the topic of the refused, logical messages whose content was left out, annotations that were left out."}, []string{"kind"}),
		filtered: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "filtered_total",
			Help: "Changes and rows outside a row filter."}, []string{"table"}),
		in:           counter("in_total", "Changes received from the source, repeated ones not counted."),
		out:          counter("out_total", "Records committed to Kafka, tombstones included."),
		transactions: counter("transactions_total", "Source transactions received."),
		kafkaTx:      counter("kafka_transactions_total", "Kafka transactions committed."),
		restarts:     counter("restarts_total", "Times that the stream was set up again after a failure."),
		stopped:      gauge("stopped_tables", "Tables that are stopped; `cdc status` names them."),
		lagBytes:     gauges("lag_bytes", "Write-ahead log that waits at a stage: for the replica to receive it, for its replay, for its decoding, for its encoding, for Kafka."),
		lagSeconds:   gauges("lag_seconds", "The same in seconds: how much later the log has passed the stage than the one before."),
		safe:         gauge("slot_safe_bytes", "Write-ahead log that can still be written before the source invalidates the slot; +Inf without such a limit."),
		xminAge:      gauge("slot_catalog_xmin_age", "Transactions since the slot's catalog_xmin: the primary keeps dead catalog rows for as many."),
		restartAge:   gauge("slot_restart_age_seconds", "For how long the source has been beyond the oldest log that it keeps for the slot, as this process has seen."),
		waitingAge:   gauge("slot_waiting_seconds", "For how long the oldest change that is not acknowledged has waited on the source, as this process has seen."),
		givenUp:      counter("slot_given_up_total", "Times that cdc dropped its slot at a limit."),
		foreignIdle: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: "foreign_slot_idle_seconds",
			Help: "For how long a slot of others on the source has had no reader."}, []string{"slot"}),
		gaps: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "millrace", Subsystem: "cdc", Name: "gaps_total",
			Help: "Gaps that capture met, by cause."}, []string{"cause"}),
		retained:     gauge("retained_bytes", "Write-ahead log that the source keeps for the slot."),
		snapshotDone: gauge("snapshot_rows", "Rows that the snapshot has read."),
		snapshotAll:  gauge("snapshot_expected_rows", "Rows that the source expects in the tables of the snapshot."),
		jobs:         gauge("jobs", "Jobs beside the stream that are not done; `cdc status` names them."),
		jobRows: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: "job_rows",
			Help: "Rows that a table's job has written."}, []string{"table"}),
		jobShare: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "cdc", Name: "job_done_ratio",
			Help: "Share of a table's blocks that its job has read."}, []string{"table"}),
		jobWindows:   counter("job_windows_total", "Windows in which rows were read beside the stream."),
		notesDropped: counter("notifications_dropped_total", "Notifications that could not be written."),
		tables:       map[string]*tableMetrics{},
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.rows, m.dropped, m.quarantined, m.poisoned, m.refused, m.filtered, m.in, m.out, m.transactions, m.kafkaTx, m.restarts, m.stopped,
		m.lagBytes, m.lagSeconds, m.retained, m.safe, m.xminAge, m.restartAge, m.waitingAge, m.foreignIdle, m.givenUp, m.gaps, m.snapshotDone, m.snapshotAll,
		m.jobs, m.jobRows, m.jobShare, m.jobWindows, m.notesDropped} {
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
			quarantined: m.quarantined.WithLabelValues(name), poisoned: m.poisoned.WithLabelValues(name),
			filtered: m.filtered.WithLabelValues(name)}
		m.tables[name] = t
	}
	return t
}

// slot sets what the slot holds back on the source.
func (m *metrics) slot(i slotInfo, waiting, restart time.Duration) {
	m.retained.Set(float64(i.retained))
	m.safe.Set(math.Inf(1))
	if i.safe != nil {
		m.safe.Set(float64(*i.safe))
	}
	m.xminAge.Set(float64(i.xminAge))
	m.waitingAge.Set(waiting.Seconds())
	m.restartAge.Set(restart.Seconds())
}
