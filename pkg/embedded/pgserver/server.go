package pgserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	host = "127.0.0.1"
	// fastTimeout is how long sessions may take to end in order before they are cut off.
	fastTimeout      = 10 * time.Second
	immediateTimeout = 5 * time.Second
	// portTries: between finding a free port and PostgreSQL's taking it another process may be faster.
	portTries = 5
)

// Options describe one server. Installation and Dir must be set.
type Options struct {
	// Installation comes from [Install].
	Installation Installation
	// Dir is the server's own directory; it is made when missing. Its content is described at the package.
	Dir string
	// Name is what errors and log lines call the server; empty means "PostgreSQL".
	Name string
	// Port of 127.0.0.1; 0 takes a free one.
	Port int
	// Settings are PostgreSQL settings that go over the defaults of this package and over the configuration files.
	// Port, addresses and cluster_name cannot be set here.
	Settings map[string]string
	// NoFsync gives up durability for speed. A crash of the machine, not of the server, can lose the cluster: tests only.
	NoFsync bool
	// Template is a prepared data directory, made by [MakeTemplate], that a new primary is copied from: faster than
	// initdb. All copies have the same system identifier: tests only.
	Template string
	// Progress may be nil.
	Progress Progress
	// Logger may be nil: nothing is logged.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	if o.Name == "" {
		o.Name = "PostgreSQL"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" || o.Installation.Dir == "" {
		return fmt.Errorf("%s: a directory and an installation are needed", o.Name)
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return fmt.Errorf("%s: directory %s: %w", o.Name, o.Dir, err)
	}
	o.Dir = dir
	return nil
}

// Server is a running PostgreSQL. All methods can be called concurrently.
type Server struct {
	opts     Options
	port     int
	child    *child
	stopping atomic.Bool
	done     chan struct{}
	err      error // set before done is closed
}

// Open starts the primary of a directory, making the cluster when there is none, and returns when it answers. It waits
// as long as ctx allows: recovery after a crash can take minutes; afterwards ctx has no hold on the server.
//
// Errors: [*PortTakenError], [*InUseError], and others that say what to do. When it fails nothing is left running.
func Open(ctx context.Context, o Options) (*Server, error) {
	d, err := openDirectory(ctx, o, rolePrimary)
	if err != nil {
		return nil, err
	}
	s, err := d.openPrimary(ctx)
	if err != nil {
		d.lock.release()
		return nil, fmt.Errorf("%s: %w", d.opts.Name, err)
	}
	return s, nil
}

func (d *directory) openPrimary(ctx context.Context) (*Server, error) {
	if !d.hasData() {
		err := d.create(func(dir string) error {
			if d.opts.Template != "" {
				return copyTree(d.opts.Template, dir)
			}
			return d.initdb(ctx, dir)
		})
		if err != nil {
			return nil, fmt.Errorf("make a cluster in %s: %w%s", d.path, err, hint(err.Error()))
		}
	}
	if err := d.checkVersion(); err != nil {
		return nil, err
	}
	child, port, err := d.start(ctx, nil)
	if err != nil {
		return nil, err
	}
	return d.serve(child, port), nil
}

// MakeTemplate makes an empty cluster in dir/data, for [Options].Template. A second call finds it made.
func MakeTemplate(ctx context.Context, o Options) (string, error) {
	d, err := openDirectory(ctx, o, rolePrimary)
	if err != nil {
		return "", err
	}
	defer d.lock.release()
	if d.hasData() {
		return d.data(), nil
	}
	if err := d.create(func(dir string) error { return d.initdb(ctx, dir) }); err != nil {
		return "", fmt.Errorf("%s: make a cluster in %s: %w%s", d.opts.Name, d.path, err, hint(err.Error()))
	}
	return d.data(), nil
}

// start runs postgres and waits until it answers. extra goes over the defaults, Options.Settings over extra.
func (d *directory) start(ctx context.Context, extra map[string]string) (*child, int, error) {
	for try := 1; ; try++ {
		port := d.opts.Port
		if port == 0 {
			var err error
			if port, err = freePort(ctx); err != nil {
				return nil, 0, err
			}
		} else if err := d.checkPort(ctx, port); err != nil {
			return nil, 0, err
		}
		child, err := d.startOn(ctx, port, extra)
		var taken *PortTakenError
		if errors.As(err, &taken) && d.opts.Port == 0 && try < portTries {
			continue
		}
		return child, port, err
	}
}

func freePort(ctx context.Context) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", host+":0") // PostgreSQL cannot take port 0 itself
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// checkPort says clearly, before anything is started, that a wanted port cannot be had.
func (d *directory) checkPort(ctx context.Context, port int) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if errors.Is(err, syscall.EADDRINUSE) {
		return &PortTakenError{Port: port, Name: d.opts.Name}
	}
	if err != nil {
		return fmt.Errorf("port %d of %s cannot be used: %w: choose another port", port, host, err)
	}
	return l.Close()
}

func (d *directory) startOn(ctx context.Context, port int, extra map[string]string) (*child, error) {
	log, err := os.OpenFile(d.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("open its log: %w%s", err, hint(err.Error()))
	}
	defer log.Close() // the child has its own
	info, err := log.Stat()
	if err != nil {
		return nil, err
	}
	cmd := d.account.command(d.data(), d.opts.Installation.program("postgres"), d.arguments(port, extra)...)
	cmd.Stdout, cmd.Stderr = log, log
	child, err := spawn(cmd)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w%s", cmd.Path, err, hint(err.Error()))
	}
	if err := d.awaitAnswer(ctx, child, port); err != nil {
		child.kill()
		return nil, d.explain(err, port, logTail(d.logFile(), info.Size()))
	}
	return child, nil
}

// explain turns a failed start into an error that carries the end of the log and says what to do.
func (d *directory) explain(err error, port int, tail string) error {
	if strings.Contains(tail, "could not create any TCP/IP sockets") && strings.Contains(tail, "Address already in use") {
		return &PortTakenError{Port: port, Name: d.opts.Name}
	}
	return &startError{err: err, tail: tail, log: d.logFile(), dir: d.data()}
}

// startError is a server that did not come up.
type startError struct {
	err            error
	tail, log, dir string
}

func (e *startError) Error() string {
	return fmt.Sprintf("%v in %s%s; the end of %s:\n%s", e.err, e.dir, hint(e.tail), e.log, e.tail)
}

func (e *startError) Unwrap() error { return e.err }

// arguments: settings on the command line win over the files, so no file has to be edited.
func (d *directory) arguments(port int, extra map[string]string) []string {
	settings := map[string]string{
		"shared_buffers":  "64MB",
		"max_connections": "100",
		// Values of rows must not reach the log: no failing statements, no details that quote keys.
		"log_min_error_statement": "panic",
		"log_error_verbosity":     "terse",
	}
	if d.opts.NoFsync {
		settings["fsync"] = "off"
		settings["full_page_writes"] = "off"
	}
	maps.Copy(settings, extra)
	maps.Copy(settings, d.opts.Settings)
	maps.Copy(settings, map[string]string{
		"port":                    strconv.Itoa(port),
		"listen_addresses":        host,
		"unix_socket_directories": "", // the default one may be closed to the account
		"cluster_name":            clusterName,
		"logging_collector":       "off", // the log is our file
	})
	args := []string{"-D", d.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// awaitAnswer asks until this very server, not another one that has the port, answers a query.
func (d *directory) awaitAnswer(ctx context.Context, c *child, port int) error {
	for {
		err := d.ask(ctx, port)
		if c.ended() {
			return fmt.Errorf("postgres ended at its start (%s)", c.cmd.ProcessState)
		}
		if err == nil {
			return nil
		}
		select {
		case <-c.done: // said above
		case <-ctx.Done():
			return fmt.Errorf("postgres did not answer in time: %w (last try: %w)", ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (d *directory) ask(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	is, err := queryValue(ctx, dsn(port, "postgres", "postgres"), "SHOW data_directory")
	if err != nil {
		return err
	}
	if is != d.data() {
		return fmt.Errorf("port %d is answered by another server", port)
	}
	return nil
}

// queryValue gives the first column of the first row, empty for no row.
func queryValue(ctx context.Context, dsn, sql string) (string, error) {
	conn, err := pgconn.Connect(ctx, dsn)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	rows, err := queryRows(ctx, conn, sql)
	if err != nil || len(rows) == 0 {
		return "", err
	}
	return rows[0][0], nil
}

// queryRows gives the rows of the last statement as text.
func queryRows(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, row := range results[len(results)-1].Rows {
		values := make([]string, len(row))
		for i, v := range row {
			values[i] = string(v)
		}
		rows = append(rows, values)
	}
	return rows, nil
}

// serve makes the Server of a started child. Its goroutine ends with the child and gives the lock back.
func (d *directory) serve(c *child, port int) *Server {
	s := &Server{opts: d.opts, port: port, child: c, done: make(chan struct{})}
	s.opts.Logger.Info("PostgreSQL answers", "server", d.opts.Name, "port", port, "pid", s.Pid(), "dir", d.path)
	go func() {
		<-c.done
		if !s.stopping.Load() {
			s.err = fmt.Errorf("%s: postgres ended unexpectedly (%s); the end of %s:\n%s", d.opts.Name, c.cmd.ProcessState, d.logFile(), logTail(d.logFile(), 0))
		}
		d.lock.release()
		close(s.done)
	}()
	return s
}

// Port is the port of 127.0.0.1 that the server listens on.
func (s *Server) Port() int { return s.port }

// Pid is the id of the postmaster.
func (s *Server) Pid() int { return s.child.cmd.Process.Pid }

// Dir is the server's directory.
func (s *Server) Dir() string { return s.opts.Dir }

// DSN is the address for a user and a database, as pgx and libpq take it. The superuser is "postgres".
func (s *Server) DSN(user, database string) string { return dsn(s.port, user, database) }

func dsn(port int, user, database string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     net.JoinHostPort(host, strconv.Itoa(port)),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Done is closed when the server has ended, by Stop or by itself.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err is nil while the server runs and after Stop; else it says why the server ended by itself, with the end of its log.
func (s *Server) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// Stop ends the server and returns when it is gone. It closes sessions and writes a checkpoint; when that takes more
// than ten seconds, or when ctx ends, it stops the server as a crash would, which loses nothing that was committed. A
// second call, and one on a dead server, does nothing. Stop standbys before their primary. The error says only that
// the stop was not orderly: the server is gone in any case.
func (s *Server) Stop(ctx context.Context) error {
	s.stopping.Store(true)
	s.child.signal(syscall.SIGINT)
	orderly := s.child.wait(ctx, fastTimeout)
	if !orderly {
		s.child.kill()
	}
	<-s.done
	if !orderly {
		return fmt.Errorf("%s: did not stop in order and was cut off; it recovers at its next start", s.opts.Name)
	}
	return nil
}

// Kill ends the server as a crash does and returns when it is gone; what was committed is recovered at the next start.
func (s *Server) Kill() {
	s.stopping.Store(true)
	s.child.kill()
	<-s.done
}
