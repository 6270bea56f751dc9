package broker

import (
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	reg       prometheus.Registerer
	dirBytes  prometheus.Gauge
	unclean   prometheus.Gauge
	prepare   prometheus.Gauge
	reclaimed prometheus.Gauge
}

func newMetrics() *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "millrace", Subsystem: "broker", Name: name, Help: help})
	}
	return &metrics{
		dirBytes:  gauge("directory_bytes", "Size of the embedded broker's data directory."),
		unclean:   gauge("unclean_start_info", "1 if the previous run on the embedded broker's directory did not end by a clean stop."),
		prepare:   gauge("prepare_seconds", "Time the last start took to repair and compact the directory."),
		reclaimed: gauge("compaction_reclaimed_bytes", "Bytes the compaction at the last start removed."),
	}
}

func (m *metrics) collectors() []prometheus.Collector {
	return []prometheus.Collector{m.dirBytes, m.unclean, m.prepare, m.reclaimed}
}

func (m *metrics) register(reg prometheus.Registerer) error {
	for _, c := range m.collectors() {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	m.reg = reg
	return nil
}

// unregister lets a broker be opened again on the same registerer.
func (m *metrics) unregister() {
	if m.reg == nil {
		return
	}
	for _, c := range m.collectors() {
		m.reg.Unregister(c)
	}
}

func (m *metrics) prepared(st *store) {
	m.prepare.Set(st.prepTook.Seconds())
	m.reclaimed.Set(float64(st.compacted.ReclaimedBytes))
	if st.unclean {
		m.unclean.Set(1)
	}
}

// sizeWatch measures the directory now and then; a directory listing costs too
// much to do on every scrape and nothing that fills a disk does so in seconds.
type sizeWatch struct {
	quit, done chan struct{}
}

const sizeEvery = 15 * time.Second

func watchSize(dir string, m *metrics, log *slog.Logger) *sizeWatch {
	w := &sizeWatch{quit: make(chan struct{}), done: make(chan struct{})}
	measure := func() {
		n, err := dirBytes(dir)
		if err != nil {
			log.Warn("embedded broker: measure the data directory", "err", err)
			return
		}
		m.dirBytes.Set(float64(n))
	}
	measure()
	go func() {
		defer close(w.done)
		t := time.NewTicker(sizeEvery)
		defer t.Stop()
		for {
			select {
			case <-w.quit:
				return
			case <-t.C:
				measure()
			}
		}
	}()
	return w
}

func (w *sizeWatch) stop() {
	close(w.quit)
	<-w.done
}

// dirBytes sums the sizes of the files under dir. Files that go away meanwhile
// do not count.
func dirBytes(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		n += info.Size()
		return nil
	})
	return n, err
}
