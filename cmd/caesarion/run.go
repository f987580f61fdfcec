package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// runCmd runs a file or text once.
type runCmd struct {
	Path string   `arg:"" optional:"" name:"file" help:"Python file to run; - reads it from standard input."`
	Args []string `arg:"" optional:"" help:"Arguments for the code's sys.argv; write -- before them."`
	Code string   `short:"c" help:"Run this text instead of a file." placeholder:"CODE"`

	File    []string      `help:"Upload a file or folder first, into /workspace or where REMOTE says; may be repeated." placeholder:"LOCAL[:REMOTE]" sep:"none"`
	Out     string        `help:"Save pictures and other rich results in this folder and print their names." placeholder:"DIR"`
	Timeout time.Duration `help:"Interrupt the code after this running time." placeholder:"DURATION"`

	sandboxFlags `embed:""`
	Keep         bool `help:"Keep the sandbox and print its id."`
}

// sandboxFlags say which sandbox to use.
type sandboxFlags struct {
	Sandbox  string `help:"Use this sandbox, with its variables and files." placeholder:"ID"`
	Template string `help:"Make the sandbox from this template." placeholder:"NAME"`
}

// Help implements kong.HelpProvider.
func (*runCmd) Help() string {
	return `Output appears as it is written. Ctrl-C interrupts the code, a second one kills it. Without --sandbox, a sandbox is made for this run and deleted after it.

Exit status: 0 the code ran, 1 it raised, 124 timeout, 130 interrupted, 137 killed.

Examples:
  caesarion run -c 'print(6 * 7)'
  caesarion run report.py --file sales.csv --out plots
  caesarion run report.py --file data:/workspace/data -- --year 2024
  echo 'import sys; print(sys.version)' | caesarion run -
  caesarion run --keep -c 'x = 1'    # prints the id for --sandbox
  caesarion run --json -c 'print(1)' # one event a line`
}

// Run runs the code.
func (c *runCmd) Run(ctx context.Context, g *globals) error {
	code, name, err := c.code(g.Stdin)
	if err != nil {
		return err
	}
	if n, ok := fd(g.Stdin); ok { // getpass() turns the echo off
		if state, err := term.GetState(n); err == nil {
			defer func() { _ = term.Restore(n, state) }()
		}
	}
	// From here on no signal may end the process by itself: the sandbox would
	// stay. Everything that follows is bounded in time.
	guard := make(chan os.Signal, 1)
	signal.Notify(guard, endSignals()...)
	defer signal.Stop(guard)
	startCtx, release := untilSignal(ctx) // up to the execution, a signal just ends it
	box, err := c.open(startCtx, g, !c.Keep && c.Sandbox == "", c.Keep)
	if err == nil {
		err = c.prepare(startCtx, g, box, name)
	}
	release()
	if err == nil {
		err = c.execute(ctx, g, box, code)
	}
	if box == nil {
		return err
	}
	if c.Keep && !g.JSON {
		fmt.Fprintln(g.Stderr, "kept sandbox "+box.id)
	}
	if closeErr := box.Close(); err == nil {
		err = closeErr
	}
	return err
}

// code gives the text to run and the name that sys.argv[0] gets.
func (c *runCmd) code(stdin io.Reader) (code, name string, err error) {
	var text []byte
	switch {
	case c.Code != "" && c.Path != "":
		// With -c, the first word behind it is an argument, as for python.
		c.Args = append([]string{c.Path}, c.Args...)
		text, name = []byte(c.Code), "-c"
	case c.Code != "":
		text, name = []byte(c.Code), "-c"
	case c.Path == "-", c.Path == "" && !isTerminal(stdin):
		text, err = io.ReadAll(stdin)
		name = "-"
	case c.Path == "":
		return "", "", errdefs.New(errdefs.ErrInvalid, "code-missing", "there is nothing to run").
			WithHint("name a file, or give the code with -c; caesarion run --help has examples")
	default:
		text, err = os.ReadFile(c.Path)
		name = filepath.Base(c.Path)
		if errors.Is(err, os.ErrNotExist) {
			return "", "", errdefs.New(errdefs.ErrNotFound, "file-not-found", "there is no file %s", c.Path).
				WithHint("check the path; code itself goes after -c")
		}
	}
	switch {
	case err != nil:
		return "", "", errdefs.New(errdefs.ErrInvalid, "code-unreadable", "the code can't be read").WithCause(err)
	case len(bytes.TrimSpace(text)) == 0:
		return "", "", errdefs.New(errdefs.ErrInvalid, "code-empty", "the code is empty").
			WithHint("name a file with code in it, or give it with -c")
	case !utf8.Valid(text):
		return "", "", errdefs.New(errdefs.ErrInvalid, "code-not-utf8", "%s is not UTF-8 text", name).
			WithHint("save it as UTF-8")
	}
	return strings.TrimPrefix(string(text), "\ufeff"), name, nil
}

// openSandbox is a sandbox in use, and what ends with it.
type openSandbox struct {
	*connection
	id     string
	remove bool // made for this command
}

// open connects and makes or finds the sandbox.
func (f *sandboxFlags) open(ctx context.Context, g *globals, private, keep bool) (*openSandbox, error) {
	conn, err := g.connect(ctx, private)
	if err != nil {
		return nil, err
	}
	if f.Sandbox != "" {
		if _, err := conn.Sandbox(ctx, f.Sandbox); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &openSandbox{conn, f.Sandbox, false}, nil
	}
	wait := startProgress(g, "starting a sandbox")
	sb, err := conn.CreateSandbox(ctx, v1.CreateSandbox{Template: f.Template})
	wait.Done()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &openSandbox{conn, sb.ID, !keep}, nil
}

// Close deletes the sandbox, if it was made for this command, and lets go of
// the server.
func (s *openSandbox) Close() error {
	var err error
	if s.remove {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		err = s.DeleteSandbox(ctx, s.id)
		if p, ok := errors.AsType[*v1.Problem](err); ok && p.Status == 404 {
			err = nil // lost on its own; the execution has said so
		}
	}
	return errors.Join(err, s.connection.Close())
}

// prepare uploads files and sets sys.argv.
func (c *runCmd) prepare(ctx context.Context, g *globals, box *openSandbox, name string) error {
	for _, spec := range c.File {
		local, remote := splitUpload(spec)
		if remote == "" {
			remote = agentapi.WorkspaceDir + "/"
		}
		if err := upload(ctx, g, box.Client, box.id, local, remote); err != nil {
			return err
		}
	}
	if c.Path == "" && len(c.Args) == 0 || c.Path == "-" && len(c.Args) == 0 {
		return nil
	}
	argv, err := json.Marshal(append([]string{name}, c.Args...))
	if err != nil {
		return err
	}
	// JSON of a list of strings is Python of the same, but for lone
	// surrogates, which json.Marshal replaces.
	off := false
	stream, err := box.Execute(ctx, box.id, v1.Execute{
		Code: "import sys as _sys; _sys.argv = " + string(argv) + "; del _sys", Silent: true, StoreHistory: &off,
	})
	if err != nil {
		return err
	}
	defer stream.Close()
	for {
		if _, err := stream.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// splitUpload takes LOCAL:REMOTE apart. A local name that exists as a whole
// is no pair, whatever colons it has.
func splitUpload(spec string) (local, remote string) {
	if _, err := os.Lstat(spec); err == nil {
		return spec, ""
	}
	if i := strings.LastIndex(spec, ":"); i > 0 {
		return spec[:i], spec[i+1:]
	}
	return spec, ""
}

// remotePath makes a path in the sandbox absolute.
func remotePath(p string) string {
	if !path.IsAbs(p) {
		p = agentapi.WorkspaceDir + "/" + p
	}
	return p
}

// execute runs the code and shows what it does.
func (c *runCmd) execute(ctx context.Context, g *globals, box *openSandbox, code string) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endSignals()...)
	defer signal.Stop(signals)

	// Code that came from standard input has left nothing to answer with.
	canAsk := c.Code != "" || c.Path != "-" && c.Path != ""
	stream, err := box.Execute(ctx, box.id, v1.Execute{
		Code:       code,
		AllowStdin: canAsk,
		TimeoutMS:  c.Timeout.Milliseconds(),
	})
	if err != nil {
		return err
	}
	show := &renderer{out: g.Stdout, err: g.Stderr, color: useColor(g.Stderr), dir: c.Out}
	f := &follower{
		client:  box.Client,
		sandbox: box.id,
		show:    show,
		ask:     &lineAsker{in: g.Stdin, out: g.Stdout},
		signals: signals,
		notes:   g.Stderr,
		kill: func(ctx context.Context, kernel string) error {
			if box.remove {
				return nil // deleting the sandbox, which comes next, kills it
			}
			return restart(ctx, box.Client, box.id, kernel)
		},
	}
	if g.JSON {
		enc := json.NewEncoder(g.Stdout)
		enc.SetEscapeHTML(false)
		f.notes = io.Discard
		show.out = g.Stderr
		f.events = func(ev event.Event) error {
			if err := enc.Encode(ev); err != nil {
				return err
			}
			if c.Out != "" && (ev.Type == event.OutputDisplay || ev.Type == event.OutputResult) {
				return show.Show(ev)
			}
			return nil
		}
	}
	fin, err := f.Follow(ctx, stream)
	if err != nil {
		return err
	}
	show.freshLine()
	if show.unsaved > 0 && !g.JSON {
		fmt.Fprintf(g.Stderr, "(%s not shown; --out DIR saves them)\n", plural(show.unsaved, "picture"))
	}
	return statusError(fin, f.notes)
}

// restart kills a kernel by giving it a fresh process.
func restart(ctx context.Context, c *client.Client, sandbox, kernel string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.RestartKernel(ctx, sandbox, kernel)
	return err
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// useColor reports whether to keep colours: on a terminal, unless the person
// said otherwise (https://no-color.org).
func useColor(w io.Writer) bool {
	return isTerminal(w) && !config.NoColor()
}
