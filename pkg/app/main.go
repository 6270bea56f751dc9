package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/millrace-io/millrace/pkg/config"
	"github.com/millrace-io/millrace/pkg/httpapi"
	"github.com/millrace-io/millrace/pkg/telemetry"
)

// Exit codes of every program.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2 // wrong usage or configuration
	ExitDifferences = 3 // a check or a comparison found differences
)

// ErrDifferences is returned by checks and comparisons that found differences: exit code 3.
var ErrDifferences = errors.New("differences found")

// UsageError is a mistake of the caller: exit code 2.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// grace is how long a process may take to drain after the first signal.
const grace = 20 * time.Second

// Common are the sections that every program has.
type Common struct {
	HTTP httpapi.Config      `yaml:"http"`
	Log  telemetry.LogConfig `yaml:"log"`
}

// DefaultCommon are their defaults.
func DefaultCommon() Common {
	return Common{HTTP: httpapi.DefaultConfig(), Log: telemetry.DefaultLogConfig()}
}

// Base gives access to the common sections of a program's settings.
func (c *Common) Base() *Common { return c }

// Settings is a pointer to a program's root struct: it embeds Common inline.
type Settings interface{ Base() *Common }

// Program is one binary.
type Program struct {
	Name     string
	Version  string
	Short    string // one line
	Long     string // what it does, for whom, with an example
	Settings Settings
	// Build adds the services to the runtime. It may do I/O, such as starting embedded parts; what it opens it
	// hands to rt.OnStop. It is called after the settings are loaded and the HTTP port is taken. Without it the
	// program has no run command.
	Build func(ctx context.Context, rt *Runtime) error
	// Commands are further commands beside run.
	Commands []Command
}

// Command is a further command of a program: it runs to its end.
type Command struct {
	Use   string // "status" or "snapshot TABLE"
	Short string
	Long  string
	Args  cobra.PositionalArgs
	Flags func(c *cobra.Command)
	// Run does the work. nil for a command that only groups others.
	Run func(ctx context.Context, env Env, args []string) error
	// Commands are the commands below this one: "topics apply".
	Commands []Command
}

// Env is what a command is handed.
type Env struct {
	Out     io.Writer
	Runtime *Runtime // Log and Metrics; HTTP is nil
	Command *cobra.Command
}

// Main runs the program and returns its exit code. The settings come from --config, the environment and flags.
func Main(p Program) int {
	ctx, stop := signalContext(os.Stderr)
	defer stop()
	done := make(chan int, 1)
	go func() { done <- p.run(ctx, os.Args[1:], config.Environ(), os.Stdout, os.Stderr) }()
	select {
	case code := <-done:
		return code
	case <-secondSignal(ctx):
		return ExitFailed
	}
}

type secondKey struct{}

// signalContext ends on the first signal; a second one closes the channel that secondSignal returns.
func signalContext(stderr io.Writer) (context.Context, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	second := make(chan struct{})
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), secondKey{}, second))
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if _, ok := <-signals; ok {
			fmt.Fprintln(stderr, "second signal: ending at once; the next start recovers what was in hand")
			close(second)
		}
	}()
	return ctx, func() { signal.Stop(signals); close(signals); cancel() }
}

func secondSignal(ctx context.Context) <-chan struct{} {
	c, _ := ctx.Value(secondKey{}).(chan struct{})
	return c
}

// run is Main without the process around it.
func (p Program) run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	var file string
	root := &cobra.Command{Use: p.Name, Short: p.Short, Long: p.Long, Version: p.Version, SilenceUsage: true, SilenceErrors: true,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &UsageError{fmt.Errorf("unknown command %q; `%s --help` lists them", args[0], p.Name)}
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.PersistentFlags().StringVar(&file, "config", "", "YAML file with the settings of all services, a section each")
	config.AddFlags(root.PersistentFlags(), p.Settings)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &UsageError{fmt.Errorf("%w; `%s --help` lists the flags", err, c.CommandPath())}
	})
	root.CompletionOptions.DisableDefaultCmd = true
	load := func(c *cobra.Command) error {
		set := config.SetFlags(c.Flags())
		if err := config.Load(p.Settings, config.Sources{File: file, Environ: environ, Flags: set}); err != nil {
			return &UsageError{err}
		}
		return nil
	}
	root.AddCommand(p.configCommand(load))
	if p.Build != nil {
		root.AddCommand(p.runCommand(load, stderr), p.healthCommand(load))
	}
	for _, c := range p.Commands {
		root.AddCommand(p.command(c, load, stderr))
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return exitCode(root.ExecuteContext(ctx), p.Name, stderr)
}

func exitCode(err error, name string, stderr io.Writer) int {
	var usage *UsageError
	var wrong *config.Error
	switch {
	case err == nil:
		return ExitDone
	case errors.Is(err, ErrDifferences):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitDifferences
	case errors.As(err, &usage), errors.As(err, &wrong):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	case strings.HasPrefix(err.Error(), "unknown command"), strings.HasPrefix(err.Error(), "accepts "), strings.HasPrefix(err.Error(), "requires "):
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitUsage
	default:
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return ExitFailed
	}
}

func (p Program) runCommand(load func(*cobra.Command) error, stderr io.Writer) *cobra.Command {
	return &cobra.Command{Use: "run", Short: "Run until stopped (Ctrl-C or SIGTERM drains, a second one ends at once)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := load(c); err != nil {
				return err
			}
			return p.serve(c.Context(), stderr)
		}}
}

// serve is the life of a long-running process.
func (p Program) serve(ctx context.Context, stderr io.Writer) (err error) {
	rt := p.runtime(stderr)
	common := p.Settings.Base()
	rt.HTTP = httpapi.New(common.HTTP, "Millrace "+p.Name, p.Version, rt.Log, rt.Metrics)
	if err := rt.HTTP.Listen(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.close()) }()
	if err := p.Build(ctx, rt); err != nil {
		if ctx.Err() != nil {
			return nil // stopped while starting: not a failure
		}
		return err
	}
	rt.Log.Info("listening", "program", p.Name, "version", p.Version, "http", rt.HTTP.URL())
	return rt.Run(ctx)
}

func (p Program) runtime(stderr io.Writer) *Runtime {
	return &Runtime{Log: p.Settings.Base().Log.Logger(stderr), Metrics: telemetry.NewMetrics(p.Name, p.Version), grace: grace}
}

func (p Program) configCommand(load func(*cobra.Command) error) *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "Look at the settings"}
	c.AddCommand(&cobra.Command{Use: "print", Short: "Show the effective settings, secrets masked", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := load(c); err != nil {
				return err
			}
			text, err := config.Print(p.Settings)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.OutOrStdout(), text)
			return err
		}})
	return c
}

// healthCommand is for container health checks: the image has no shell.
func (p Program) healthCommand(load func(*cobra.Command) error) *cobra.Command {
	return &cobra.Command{Use: "healthcheck", Short: "Ask the running process whether it is ready (exit code 0 or 1)", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := load(c); err != nil {
				return err
			}
			host, port, err := net.SplitHostPort(p.Settings.Base().HTTP.Address)
			if err != nil {
				return &UsageError{err}
			}
			if host == "" || host == "0.0.0.0" || host == "::" {
				host = "127.0.0.1"
			}
			ctx, cancel := context.WithTimeout(c.Context(), 3*time.Second)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+"/readyz", nil)
			if err != nil {
				return fmt.Errorf("ask for readiness: %w", err)
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				return fmt.Errorf("ask for readiness: %w", err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
			fmt.Fprint(c.OutOrStdout(), string(body))
			if resp.StatusCode != http.StatusOK {
				return errors.New("not ready")
			}
			return nil
		}}
}

func (p Program) command(spec Command, load func(*cobra.Command) error, stderr io.Writer) *cobra.Command {
	c := &cobra.Command{Use: spec.Use, Short: spec.Short, Long: spec.Long, Args: spec.Args}
	for _, sub := range spec.Commands {
		c.AddCommand(p.command(sub, load, stderr))
	}
	if spec.Run != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := load(c); err != nil {
				return err
			}
			return spec.Run(c.Context(), Env{Out: c.OutOrStdout(), Runtime: p.runtime(stderr), Command: c}, args)
		}
	}
	if c.Args == nil {
		c.Args = cobra.NoArgs
	}
	if spec.Flags != nil {
		spec.Flags(c)
	}
	return c
}
