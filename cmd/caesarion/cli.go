package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/caesarion/caesarion/internal/config"
)

// stdio is where a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// globals is what every command gets besides its own flags.
type globals struct {
	config.Base `embed:""`
	Server      string `help:"URL of the server to use; without it the one that runs on this data directory, or else one just for this command." placeholder:"URL" env:"CAESARION_SERVER" group:"Global"`
	JSON        bool   `name:"json" help:"Print JSON for programs." group:"Global"`

	Stdin  io.Reader    `kong:"-"`
	Stdout io.Writer    `kong:"-"`
	Stderr io.Writer    `kong:"-"`
	Logger *slog.Logger `kong:"-"` // of a server of the command's own; serve has another
}

// cli is the command line.
type cli struct {
	globals `embed:""`

	Serve      serveCmd      `cmd:"" help:"Run the server."`
	Run        runCmd        `cmd:"" help:"Run Python in a sandbox."`
	Shell      shellCmd      `cmd:"" help:"Type Python into a sandbox."`
	Sandbox    sandboxCmd    `cmd:"" help:"Make, list, use, copy, put to sleep and delete sandboxes."`
	Snapshot   snapshotCmd   `cmd:"" help:"List and delete saved states of sandboxes."`
	Image      imageCmd      `cmd:"" help:"Build, import and list sandbox images."`
	Model      modelCmd      `cmd:"" help:"List and test language models."`
	User       userCmd       `cmd:"" help:"Make, list and change the users of a server with accounts."`
	Key        keyCmd        `cmd:"" help:"Make, list and revoke API keys."`
	Migrate    migrateCmd    `cmd:"" help:"Bring the Postgres database up to date."`
	Doctor     doctorCmd     `cmd:"" help:"Say what this machine can enforce, and what it lacks."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Licenses   licensesCmd   `cmd:"" help:"Print the licences of what is in this program."`
	OpenAPI    openapiCmd    `cmd:"" name:"openapi" help:"Print the description of the HTTP API (OpenAPI 3.1)."`
	Bench      benchCmd      `cmd:"" help:"Measure a server, and plain Jupyter beside it."`
	Dev        devCmd        `cmd:"" help:"What helps to develop and to show Caesarion."`
	Completion completionCmd `cmd:"" help:"Print a completion script for a shell."`
	Names      namesCmd      `cmd:"" hidden:"" help:"Print the names of sandboxes or snapshots."`
}

const description = `Caesarion runs Python in isolated sandboxes that keep their state.

Examples:
  caesarion run -c 'print(6 * 7)'
  caesarion run examples/analysis.py --file examples/co2.csv --out plots
  caesarion shell
  caesarion serve

Exit status: 0 done, 1 failed or the code raised, 2 wrong usage, 3 not found, 4 token missing or wrong, 5 no server or not possible here; of code also 124 timeout, 130 interrupted, 137 killed.`

// BeforeResolve reads the settings file; kong calls it when the flags of the
// command line are known and before it looks anywhere else.
func (c *cli) BeforeResolve(ctx *kong.Context) error {
	var path string
	for _, flag := range ctx.Model.Flags {
		if flag.Name == "config" {
			path, _ = ctx.FlagValue(flag).(string)
		}
	}
	file, err := config.ReadFile(path)
	if err != nil {
		return err
	}
	ctx.AddResolver(file)
	file.Into(&c.Serve.Server)
	return nil
}

// newParser builds the command line's parser. Help and its exit go through
// exit, because tests must survive them.
func newParser(c *cli, std stdio, exit func(int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("caesarion"),
		kong.Description(description),
		kong.Writers(std.out, std.err),
		kong.Exit(exit),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: false, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{{Key: "Global", Title: "Flags of every command:"}}),
		config.Vars(),
	)
}

// exited is what kong's exit function panics with: after --help, parsing must
// not go on.
type exited int

// run is the program without the process: main and tests call it. It gives
// the exit status.
func run(ctx context.Context, args []string, std stdio) (status int) {
	defer func() {
		if p := recover(); p != nil {
			code, ok := p.(exited)
			if !ok {
				panic(p)
			}
			status = int(code)
		}
	}()
	c := &cli{}
	parser, err := newParser(c, std, func(code int) { panic(exited(code)) })
	if err != nil {
		fmt.Fprintln(std.err, "caesarion:", err)
		return exitFailed
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	kctx, err := parser.Parse(args)
	if err != nil {
		report(err, wantsJSON(args), std.out, std.err)
		if status := exitStatus(err); status != exitFailed {
			return status
		}
		return exitUsage // a settings file that can't be read
	}
	g := &c.globals
	if g.DataDir == "" {
		g.DataDir = config.DefaultDataDir()
	}
	if g.DataDir, err = filepath.Abs(g.DataDir); err != nil {
		report(err, g.JSON, std.out, std.err)
		return exitUsage
	}
	g.Stdin, g.Stdout, g.Stderr = std.in, std.out, std.err
	least := slog.LevelError // a command speaks for itself
	if g.LogLevel == "debug" {
		least = slog.LevelDebug
	}
	g.Logger = newLogger(std.err, g.LogLevel, g.LogFormat, least)

	kctx.BindTo(ctx, (*context.Context)(nil))
	kctx.Bind(g)
	if err := kctx.Run(); err != nil {
		report(err, g.JSON, std.out, std.err)
		return exitStatus(err)
	}
	return exitOK
}

// wantsJSON looks for --json in arguments that could not be parsed.
func wantsJSON(args []string) bool {
	for _, a := range args {
		if a == "--" {
			break
		}
		if a == "--json" {
			return true
		}
	}
	return false
}

// newLogger makes the logger; least is the lowest level that shows, however
// little the settings ask for.
func newLogger(w io.Writer, level, format string, least slog.Level) *slog.Logger {
	var l slog.Level
	_ = l.UnmarshalText([]byte(level)) // kong has checked it
	opts := &slog.HandlerOptions{Level: max(l, least)}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// errInterrupted is the cause of contexts that a signal ended.
var errInterrupted = errors.New("interrupted")

// endSignals are the signals to end by. A terminal that is closed sends SIGHUP;
// nohup takes that away, and so it stays.
func endSignals() []os.Signal {
	list := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		list = append(list, syscall.SIGHUP)
	}
	return list
}

// untilSignal gives a context that the first of endSignals ends. Ctrl-C after
// that ends the process at once. SIGTERM does not: it may come more than once
// for one wish, as when the parent dies, of whose threads each can be the one
// that Linux tells (PR_SET_PDEATHSIG).
func untilSignal(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endSignals()...)
	done := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		for first := true; ; first = false {
			select {
			case <-done:
				return
			case s := <-signals:
				if !first && s == syscall.SIGINT {
					os.Exit(exitInterrupted)
				}
				cancel(errInterrupted)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		<-finished
		cancel(nil)
	}
}

// fd gives the file descriptor behind a reader or writer, if it is a terminal.
func fd(rw any) (int, bool) {
	f, ok := rw.(*os.File)
	if !ok {
		return -1, false
	}
	n := int(f.Fd())
	return n, term.IsTerminal(n)
}

func isTerminal(rw any) bool {
	_, ok := fd(rw)
	return ok
}
