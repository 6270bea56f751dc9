package enrich

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of an input record; they sum to what came in.
const (
	outcomeApplied     = "applied"
	outcomeUnchanged   = "unchanged" // a tombstone after its delete, a truncate whose deletes came before
	outcomeSuperseded  = "superseded"
	outcomeDuplicate   = "duplicate"
	outcomeQuarantined = "quarantined"
)

type metrics struct {
	in        *prometheus.CounterVec
	out       *prometheus.CounterVec
	aborted   prometheus.Counter
	mended    prometheus.Counter
	waiting   prometheus.Gauge
	stalled   *prometheus.GaugeVec
	rows      *prometheus.GaugeVec
	skipped   *prometheus.CounterVec
	claims    prometheus.Counter
	valid     prometheus.Gauge
	batchTime prometheus.Histogram
}

func newMetrics(r prometheus.Registerer, topics []string) (*metrics, error) {
	counter := func(name, help string) prometheus.CounterOpts {
		return prometheus.CounterOpts{Namespace: "millrace", Subsystem: "enrich", Name: name, Help: help}
	}
	gauge := func(name, help string) prometheus.GaugeOpts {
		return prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "enrich", Name: name, Help: help}
	}
	m := &metrics{
		in:      prometheus.NewCounterVec(counter("in_records_total", "Input records by what became of them; the outcomes sum to what came in."), []string{"topic", "outcome"}),
		out:     prometheus.NewCounterVec(counter("out_records_total", "Records written, tombstones included."), []string{"topic"}),
		aborted: prometheus.NewCounter(counter("transactions_aborted_total", "Transactions given up, mostly because partitions moved; their inputs are read again.")),
		mended:  prometheus.NewCounter(counter("mended_images_total", "Images sent again because a reference row arrived.")),
		waiting: prometheus.NewGauge(gauge("waiting_images", "Images with an unknown dimension whose reference row has not arrived, of all instances.")),
		stalled: prometheus.NewGaugeVec(gauge("stalled", "1 while a part waits for something that is away or wrong; the reason is in the readiness."), []string{"part"}),
		rows:    prometheus.NewGaugeVec(gauge("reference_rows", "Rows of reference data in memory."), []string{"table"}),
		skipped: prometheus.NewCounterVec(counter("reference_skipped_records_total", "Records of reference tables that could not be read; the older row is kept."), []string{"topic"}),
		claims:  prometheus.NewCounter(counter("claims_total", "Claims of progress that were made.")),
		valid:   prometheus.NewGauge(gauge("valid_through_timestamp_seconds", "Commit time at the source up to which everything is in the output, of this instance's partitions.")),
		batchTime: prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: "millrace", Subsystem: "enrich", Name: "batch_duration_seconds",
			Help: "From having read a batch to having committed it.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	for _, t := range topics {
		for _, o := range []string{outcomeApplied, outcomeUnchanged, outcomeSuperseded, outcomeDuplicate, outcomeQuarantined} {
			m.in.WithLabelValues(t, o)
		}
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.in, m.out, m.aborted, m.mended, m.waiting, m.stalled, m.rows, m.skipped, m.claims, m.valid, m.batchTime} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register enrich's metrics: %w", err)
		}
	}
	return m, nil
}
