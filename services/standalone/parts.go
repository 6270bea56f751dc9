package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/embedded/broker"
	"github.com/millrace-io/millrace/pkg/embedded/pgserver"
	"github.com/millrace-io/millrace/pkg/embedded/registry"
	"github.com/millrace-io/millrace/pkg/privacy"
)

const (
	storeDatabase = "store"
	salesDatabase = "millrace"
	// physicalSlot keeps the WAL that the standby still needs.
	physicalSlot = "standby"
)

// parts are the embedded things that the services run on.
type parts struct {
	log      *slog.Logger
	progress *progress
	dir      string
	cfg      EmbeddedConfig
	install  pgserver.Installation

	primary, standby, sales *pgserver.Server
	broker                  *broker.Broker
	registryURL             string
	key                     config.Secret
}

// open starts the parts that are wanted: without a store there is neither primary nor standby. What was opened is
// closed by the functions handed to onStop, also when open fails half-way.
func (p *parts) open(ctx context.Context, store bool, metrics prometheus.Registerer, onStop func(func(context.Context) error)) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return fmt.Errorf("cannot make the data directory (--data-dir): %w", err)
	}
	if err := p.loadKey(); err != nil {
		return err
	}
	var err error
	p.install, err = pgserver.Install(ctx, pgserver.InstallOptions{Version: p.cfg.PostgresVersion, Repository: p.cfg.PostgresRepository,
		Progress: p.progress.report, Logger: p.log})
	if err != nil {
		return fmt.Errorf("PostgreSQL's programs: %w", err)
	}
	group, gctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.openBroker(gctx, metrics, onStop) })
	group.Go(func() error { return p.openRegistry(gctx, onStop) })
	group.Go(func() (err error) {
		p.sales, err = p.server(gctx, "sales database", "sales", p.cfg.SalesPort, "embedded-sales-port", nil)
		return err
	})
	if store {
		group.Go(func() (err error) {
			p.primary, err = p.server(gctx, "demo store", "primary", p.cfg.PrimaryPort, "embedded-primary-port",
				map[string]string{"wal_level": "logical", "max_wal_senders": "10", "max_replication_slots": "10"})
			return err
		})
	}
	err = group.Wait()
	onStop(func(ctx context.Context) error { return p.stopServers(ctx) })
	if err != nil {
		return err
	}
	if err := createDatabase(ctx, p.sales, salesDatabase); err != nil {
		return err
	}
	if !store {
		return nil
	}
	if err := createDatabase(ctx, p.primary, storeDatabase); err != nil {
		return err
	}
	p.standby, err = pgserver.OpenStandby(ctx, p.options("demo store's standby", "standby", p.cfg.StandbyPort, nil),
		pgserver.StandbyOptions{Primary: p.primary, Slot: physicalSlot})
	return named(err, "embedded-standby-port")
}

func (p *parts) loadKey() error {
	path := filepath.Join(p.dir, "privacy.key")
	if _, err := privacy.InitKeyFile(path, 0o600); err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the privacy key: %w", err)
	}
	p.key = config.Secret(strings.TrimSpace(string(text)))
	return nil
}

func (p *parts) options(name, dir string, port int, settings map[string]string) pgserver.Options {
	merged := map[string]string{"shared_buffers": "64MB", "max_connections": "60", "max_wal_size": "512MB"}
	maps.Copy(merged, settings)
	return pgserver.Options{Installation: p.install, Dir: filepath.Join(p.dir, dir), Name: name, Port: port, Settings: merged,
		Progress: p.progress.report, Logger: p.log}
}

func (p *parts) server(ctx context.Context, name, dir string, port int, flag string, settings map[string]string) (*pgserver.Server, error) {
	s, err := pgserver.Open(ctx, p.options(name, dir, port, settings))
	return s, named(err, flag)
}

// named adds the flag that moves a taken port.
func named(err error, flag string) error {
	var pg *pgserver.PortTakenError
	var kafka *broker.PortInUseError
	if errors.As(err, &pg) || errors.As(err, &kafka) {
		return fmt.Errorf("%w; choose another port with --%s (0 takes a free one)", err, flag)
	}
	return err
}

func (p *parts) openBroker(ctx context.Context, metrics prometheus.Registerer, onStop func(func(context.Context) error)) (err error) {
	p.broker, err = broker.Open(ctx, broker.Options{Dir: filepath.Join(p.dir, "kafka"), Port: p.cfg.KafkaPort, Log: p.log, Registerer: metrics})
	if err != nil {
		return named(err, "embedded-kafka-port")
	}
	onStop(func(context.Context) error { return p.broker.Close() })
	return nil
}

func (p *parts) openRegistry(ctx context.Context, onStop func(func(context.Context) error)) error {
	reg, err := registry.Open(ctx, registry.Options{Dir: filepath.Join(p.dir, "registry"), Log: p.log})
	if err != nil {
		return err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(p.cfg.RegistryPort))
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		err = errors.Join(err, reg.Close())
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("the schema registry cannot listen on %s: the port is taken; choose another with --embedded-registry-port (0 takes a free one)", address)
		}
		return fmt.Errorf("the schema registry cannot listen on %s: %w", address, err)
	}
	p.registryURL = "http://" + l.Addr().String()
	server := &http.Server{Handler: reg, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }() // ends by Shutdown below
	onStop(func(ctx context.Context) error {
		err := server.Shutdown(ctx)
		<-done
		return errors.Join(err, reg.Close())
	})
	return nil
}

// stopServers stops the standby before its primary.
func (p *parts) stopServers(ctx context.Context) error {
	var errs []error
	for _, s := range []*pgserver.Server{p.standby, p.primary, p.sales} {
		if s != nil {
			errs = append(errs, s.Stop(ctx))
		}
	}
	return errors.Join(errs...)
}

func createDatabase(ctx context.Context, s *pgserver.Server, name string) error {
	conn, err := pgx.Connect(ctx, s.DSN("postgres", "postgres"))
	if err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	defer conn.Close(ctx)
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
		return fmt.Errorf("create database %s: %w", name, err)
	}
	return nil
}

// logStandbySnapshot lets the demo store's primary write the record that a new logical slot on its standby waits for.
// A real primary is never asked: there the DBA does it, or traffic does.
func (p *parts) logStandbySnapshot(ctx context.Context) {
	conn, err := pgx.Connect(ctx, p.primary.DSN("postgres", storeDatabase))
	if err != nil {
		p.log.Debug("cannot reach the demo primary", "error", err)
		return
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "SELECT pg_log_standby_snapshot()"); err != nil {
		p.log.Debug("cannot ask the demo primary for a snapshot record", "error", err)
	}
}

// Run watches the child processes: one that ends by itself stops everything, for its clients cannot work on.
func (p *parts) Run(ctx context.Context) error {
	died := make(chan *pgserver.Server, 3)
	for _, s := range []*pgserver.Server{p.primary, p.standby, p.sales} {
		if s != nil {
			go func() { // ends with the server, which OnStop stops
				<-s.Done()
				died <- s
			}()
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case s := <-died:
		return fullDisk(fmt.Errorf("a PostgreSQL of ours ended by itself: %w", s.Err()), p.dir)
	}
}

// Ready is nil: open returned only when all parts answered.
func (p *parts) Ready() error { return nil }
