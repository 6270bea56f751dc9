package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/app"
	"github.com/millrace-io/millrace/pkg/avro"
	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/kafka"
	"github.com/millrace-io/millrace/pkg/postgres"
	"github.com/millrace-io/millrace/pkg/privacy"
	"github.com/millrace-io/millrace/services/aggregate"
	"github.com/millrace-io/millrace/services/cdc"
	"github.com/millrace-io/millrace/services/collect"
	"github.com/millrace-io/millrace/services/dashboard"
	"github.com/millrace-io/millrace/services/demo"
	"github.com/millrace-io/millrace/services/enrich"
	"github.com/millrace-io/millrace/services/recommend"
)

// memoryLimit is the soft limit of the Go heap: the process is many services, and a laptop has other things to do.
const memoryLimit = 400 << 20

// settings are those of all services; what the embedded parts decide (addresses, the key) is not among them.
type settings struct {
	app.Common `yaml:",inline"`
	Standalone Config           `yaml:"standalone"`
	Embedded   EmbeddedConfig   `yaml:"embedded"`
	Source     cdc.SourceConfig `yaml:"source"`
	CDC        cdc.Config       `yaml:"cdc"`
	Collect    collect.Config   `yaml:"collect"`
	Enrich     enrich.Config    `yaml:"enrich"`
	Aggregate  aggregate.Config `yaml:"aggregate"`
	Recommend  recommend.Config `yaml:"recommend"`
	Dashboard  dashboard.Config `yaml:"dashboard"`
	Demo       demo.Config      `yaml:"demo"`
}

func defaults() *settings {
	s := &settings{Common: app.DefaultCommon(), Embedded: DefaultEmbeddedConfig(), CDC: cdc.DefaultConfig(), Collect: collect.DefaultConfig(),
		Enrich: enrich.DefaultConfig(), Aggregate: aggregate.DefaultConfig(), Recommend: recommend.DefaultConfig(),
		Dashboard: dashboard.DefaultConfig(), Demo: demo.DefaultConfig()}
	// On a laptop a gap is mended without asking: from a new slot on, and by difference.
	s.CDC.OnGap = "reconcile"
	s.Log.Level = "warn" // the banner and the progress lines are what a person wants to see
	return s
}

// Program is the binary.
func Program(version string) app.Program {
	s := defaults()
	return app.Program{
		Name: "standalone", Version: version, Settings: s,
		Short: "All of Millrace in one process, with a demo store",
		Long: `standalone runs every service in one process, on a PostgreSQL primary with a standby, a sales database, a Kafka broker and a
schema registry that it starts itself. Everything listens on loopback. The data stay in --data-dir between runs.

  standalone run                            a demo store with live orders
  standalone run --demo-rate 5              five orders a second
  standalone run --source postgres://cdc@replica.example:5432/shop --enrich-mapping classicmodels
                                            your own database, read from its replica; nothing is written to it
  standalone reset --yes                    forget everything

Your database needs a publication: CREATE PUBLICATION millrace FOR TABLE …, on its primary; cdc check tells what else is missing. On
Ctrl-C the slot on your replica is dropped, so that no WAL is kept for a trial that has ended; the next start takes a new snapshot.`,
		Build:    func(ctx context.Context, rt *app.Runtime) error { return build(ctx, rt, s, version, os.Stderr) },
		Commands: []app.Command{resetCommand(s)},
	}
}

// build starts the embedded parts and puts the services on them.
func build(ctx context.Context, rt *app.Runtime, s *settings, version string, out io.Writer) error {
	begin := time.Now()
	if debug.SetMemoryLimit(-1) == math.MaxInt64 { // not set by GOMEMLIMIT
		debug.SetMemoryLimit(memoryLimit)
	}
	dir, err := s.Standalone.Dir()
	if err != nil {
		return &app.UsageError{Err: err}
	}
	ownStore := s.Source.URL == ""
	fmt.Fprintf(out, "Millrace is starting. Data are in %s.\n", dir)
	p := &parts{log: rt.Log, progress: newProgress(out), dir: dir, cfg: s.Embedded}
	if err := p.open(ctx, ownStore, rt.Metrics, rt.OnStop); err != nil {
		return err
	}
	rt.Add("embedded", p)
	if ownStore {
		s.Source.URL = config.Secret(p.standby.DSN("cdc", storeDatabase))
		if err := addDemo(ctx, rt, s, p); err != nil {
			return fullDisk(err, dir)
		}
	}
	if err := addServices(rt, s, p, version); err != nil {
		return err
	}
	rt.Add("totals", &totals{dsn: p.sales.DSN("postgres", salesDatabase)})
	rt.OnReady(func() { banner(out, rt, s, p, time.Since(begin)) })
	return nil
}

// addDemo fills the store before capture begins, so that the history is one snapshot, and adds its trickle and shop.
func addDemo(ctx context.Context, rt *app.Runtime, s *settings, p *parts) error {
	s.Demo.URL = config.Secret(p.primary.DSN("postgres", storeDatabase))
	s.Demo.InternalCollectURL = rt.HTTP.URL()
	err := demo.Setup(ctx, s.Demo.URL.Reveal(), demo.Options{Seed: s.Demo.Seed, HistoryDays: s.Demo.HistoryDays, Rate: s.Demo.Rate, Now: time.Now(),
		Progress: func(done, total int64) { p.progress.report("loading the store's history", done, total) }})
	if err != nil {
		return fmt.Errorf("set up the demo store: %w", err)
	}
	service, err := demo.New(s.Demo, demo.Deps{Log: rt.Log, Metrics: rt.Metrics})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	rt.Add("demo", service)
	return nil
}

// addServices is the wiring: the same services as anywhere, each with its own client names and metrics.
func addServices(rt *app.Runtime, s *settings, p *parts, version string) error {
	if s.CDC.Envelope != cdc.EnvelopeDebezium {
		return &app.UsageError{Err: fmt.Errorf("cdc.envelope: %q cannot be read by enrich, which runs here too; take %q, or run cdc apart", s.CDC.Envelope, cdc.EnvelopeDebezium)}
	}
	kcfg := kafka.DefaultConfig()
	kcfg.Brokers, kcfg.InstanceID, kcfg.MaxBufferedBytes = []string{p.broker.Addr()}, "standalone", 8<<20
	registry, err := avro.NewRegistry(avro.Config{URL: config.Secret(p.registryURL)})
	if err != nil {
		return err
	}
	keys, err := privacy.NewKeys(privacy.Config{Key: p.key})
	if err != nil {
		return err
	}
	sales := postgres.SalesConfig{URL: config.Secret(p.sales.DSN("postgres", salesDatabase))}

	capture, err1 := cdc.New(s.CDC, cdc.Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: kcfg, Registry: registry, Keys: keys, Source: s.Source, OnSlotWait: p.onSlotWait(), Version: version})
	intake, err2 := collect.New(s.Collect, collect.Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: kcfg, Registry: registry, Keys: keys})
	enrichment, err3 := enrich.New(s.Enrich, enrich.Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: kcfg, Registry: registry, Keys: keys})
	totals, err4 := aggregate.New(s.Aggregate, aggregate.Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: kcfg, Registry: registry, Keys: keys, Sales: sales})
	recommender, err5 := recommend.New(s.Recommend, recommend.Deps{Log: rt.Log, Metrics: rt.Metrics, Kafka: kcfg, Registry: registry})
	board, err6 := dashboard.New(s.Dashboard, dashboard.Deps{Log: rt.Log, Metrics: rt.Metrics, Sales: sales})
	if err := errors.Join(err1, err2, err3, err4, err5, err6); err != nil {
		return &app.UsageError{Err: err}
	}
	rt.Add("cdc", capture)
	if p.primary == nil {
		rt.OnStop(leaveNoSlot(capture))
	}
	rt.Add("collect", intake)
	rt.OnStop(intake.Close)
	rt.Add("enrich", enrichment)
	rt.Add("aggregate", totals)
	rt.Add("recommend", recommender)
	rt.OnStop(recommender.Close)
	rt.Add("dashboard", board)
	return nil
}

// onSlotWait helps a new slot on the demo store's standby along; somebody's own primary is never touched.
func (p *parts) onSlotWait() func(context.Context) {
	if p.primary == nil {
		return nil
	}
	return p.logStandbySnapshot
}

// tidying is how long the end of a trial may take to record that the slot is gone.
const tidying = 3 * time.Second

// leaveNoSlot drops the slot on somebody's own replica when a trial ends: a forgotten slot keeps WAL until the disk is
// full. The next start takes a new snapshot.
func leaveNoSlot(capture *cdc.Service) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := capture.Release(ctx); err != nil {
			var drop []string
			for _, slot := range capture.Slots() {
				drop = append(drop, fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", slot))
			}
			return fmt.Errorf("slot %s is left on your replica, where it keeps WAL; drop it there with %s: %w",
				strings.Join(capture.Slots(), ", "), strings.Join(drop, "; "), err)
		}
		ctx, cancel := context.WithTimeout(ctx, tidying)
		defer cancel()
		_ = capture.Reset(ctx) // else the next start finds that the slot is gone, which leads to a new snapshot as well
		return nil
	}
}

func resetCommand(s *settings) app.Command {
	yes := false
	return app.Command{Use: "reset", Short: "Forget everything: remove the data directory",
		Flags: func(c *cobra.Command) {
			c.Flags().BoolVar(&yes, "yes", false, "really remove it")
		},
		Run: func(_ context.Context, env app.Env, _ []string) error {
			dir, err := s.Standalone.Dir()
			if err != nil {
				return &app.UsageError{Err: err}
			}
			if !yes {
				return &app.UsageError{Err: fmt.Errorf("this removes %s with the demo store and all totals; say --yes to do it", dir)}
			}
			return reset(env.Out, dir)
		}}
}
