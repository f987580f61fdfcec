package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// shellCmd is an interactive prompt.
type shellCmd struct {
	sandboxFlags `embed:""`
	Keep         bool     `help:"Keep the sandbox and print its id."`
	File         []string `help:"Upload a file or folder first, into /workspace or where REMOTE says; may be repeated." placeholder:"LOCAL[:REMOTE]" sep:"none"`
	Out          string   `help:"Save pictures and other rich results in this folder and print their names." placeholder:"DIR"`
}

// Help implements kong.HelpProvider.
func (*shellCmd) Help() string {
	return `Lines that are not complete go on on the next one. Tab completes, NAME? explains, arrow keys find earlier lines, Ctrl-C interrupts, Ctrl-D leaves.

Examples:
  caesarion shell
  caesarion shell --file sales.csv --out plots
  caesarion shell --sandbox sbx_…`
}

// Run reads, runs and prints until Ctrl-D.
func (c *shellCmd) Run(ctx context.Context, g *globals) error {
	if g.JSON {
		return errdefs.New(errdefs.ErrInvalid, "usage", "--json is not for a prompt").WithHint("caesarion run --json prints events for programs")
	}
	guard := make(chan os.Signal, 1) // see runCmd.Run
	signal.Notify(guard, endSignals()...)
	defer signal.Stop(guard)
	startCtx, release := untilSignal(ctx)
	box, err := c.open(startCtx, g, !c.Keep && c.Sandbox == "", c.Keep)
	if err == nil {
		for _, spec := range c.File {
			local, remote := splitUpload(spec)
			if remote == "" {
				remote = "./"
			}
			if err = upload(startCtx, g, box.Client, box.id, local, remote); err != nil {
				break
			}
		}
	}
	release()
	if box == nil {
		return err
	}
	if err == nil {
		err = c.loop(ctx, g, box)
	}
	if c.Keep {
		fmt.Fprintln(g.Stderr, "kept sandbox "+box.id)
	}
	return errors.Join(err, box.Close())
}

// prompter reads the lines of a shell: from a terminal with editing, or from
// whatever else standard input is.
type prompter interface {
	// ReadLine gives a line, io.EOF after Ctrl-D, or errInterrupted after Ctrl-C.
	ReadLine(ctx context.Context, prompt string) (string, error)
	asker
}

func (c *shellCmd) loop(ctx context.Context, g *globals, box *openSandbox) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT)
	defer signal.Stop(signals)
	// Any other signal to end takes the prompt away, and the sandbox with it.
	ctx, cancel := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGHUP)
	defer cancel()

	s := &shell{g: g, box: box, signals: signals}
	s.show = &renderer{
		out: g.Stdout, err: g.Stderr, color: useColor(g.Stderr), dir: c.Out,
		label: func(count int) string { return fmt.Sprintf("Out[%d]: ", count) },
	}
	if err := s.findKernel(ctx); err != nil {
		return err
	}
	if isTerminal(g.Stdin) && isTerminal(g.Stdout) {
		editor, err := newEditor(g.Stdin.(*os.File), g.Stdout.(*os.File), filepath.Join(g.DataDir, "shell_history"), s)
		if err != nil {
			return err
		}
		defer editor.Close()
		s.prompt = editor
		fmt.Fprintf(g.Stdout, "Python in sandbox %s. Tab completes, NAME? explains, Ctrl-D leaves.\n", box.id)
	} else {
		s.prompt = &plainPrompter{lineAsker{in: g.Stdin, out: g.Stdout}}
	}
	for {
		code, err := s.read(ctx)
		switch {
		case errors.Is(err, errInterrupted):
			continue
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			fmt.Fprintln(g.Stdout)
			return nil
		case err != nil:
			return err
		}
		switch strings.TrimSpace(code) {
		case "":
			continue
		case "exit", "quit", "exit()", "quit()":
			return nil
		}
		if err := s.execute(ctx, code); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
	}
}

// shell is the state of one prompt.
type shell struct {
	g       *globals
	box     *openSandbox
	kernel  string
	count   int // of the last execution
	show    *renderer
	prompt  prompter
	signals chan os.Signal // Ctrl-C

	promptText string // what stands before the line being read
	block      string // the lines before it
}

// findKernel makes sure of a default kernel: completion needs its id.
func (s *shell) findKernel(ctx context.Context) error {
	wait := startProgress(s.g, "starting Python")
	defer wait.Done()
	off := false
	stream, err := s.box.Execute(ctx, s.box.id, v1.Execute{Code: "pass", Silent: true, StoreHistory: &off})
	if err != nil {
		return err
	}
	f := &follower{client: s.box.Client, sandbox: s.box.id, notes: io.Discard, signals: s.signals, ask: &lineAsker{in: strings.NewReader("")}, events: func(event.Event) error { return nil }}
	f.kill = func(context.Context, string) error { return nil }
	if _, err := f.Follow(ctx, stream); err != nil {
		return err
	}
	kernels, err := s.box.Kernels(ctx, s.box.id)
	for _, k := range kernels {
		if k.Default || s.kernel == "" {
			s.kernel, s.count = k.ID, k.ExecutionCount
		}
	}
	return err
}

// read reads lines until they are complete Python.
func (s *shell) read(ctx context.Context) (string, error) {
	prompt := fmt.Sprintf("In [%d]: ", s.count+1)
	more := strings.Repeat(" ", max(0, len(prompt)-5)) + "...: "
	var code strings.Builder
	for {
		if s.signalled() && code.Len() > 0 {
			return "", errInterrupted // the block is left
		}
		s.promptText, s.block = prompt, code.String()
		line, err := s.prompt.ReadLine(ctx, prompt)
		if errors.Is(err, io.EOF) && code.Len() > 0 {
			return code.String(), nil // a file that ends inside a block
		}
		if err != nil {
			return "", err
		}
		code.WriteString(line)
		// As at IPython's prompt: an empty line ends a block.
		if code.Len() > len(line) && strings.TrimSpace(line) == "" {
			return code.String(), nil
		}
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		state, err := s.box.IsComplete(callCtx, s.box.id, s.kernel, code.String())
		cancel()
		if err != nil || state.Status != "incomplete" {
			return code.String(), nil // whatever is wrong, running it will say
		}
		code.WriteByte('\n')
		prompt = more
	}
}

// signalled takes the Ctrl-C that nobody waited for, such as one that came when
// the code had just ended: it must not interrupt what is typed next.
func (s *shell) signalled() (came bool) {
	for {
		select {
		case <-s.signals:
			came = true
		default:
			return came
		}
	}
}

func (s *shell) execute(ctx context.Context, code string) error {
	if word := strings.TrimSpace(code); strings.HasSuffix(word, "?") && !strings.ContainsAny(word, "\n '\"") {
		if ok, err := s.inspect(ctx, strings.Trim(word, "?"), strings.HasSuffix(word, "??")); ok || err != nil {
			return err
		}
	}
	stream, err := s.box.Execute(ctx, s.box.id, v1.Execute{Code: code, AllowStdin: true})
	if err != nil {
		return err
	}
	f := &follower{
		client: s.box.Client, sandbox: s.box.id, show: s.show, ask: s.prompt, signals: s.signals, notes: s.g.Stderr,
		kill: func(ctx context.Context, kernel string) error { return restart(ctx, s.box.Client, s.box.id, kernel) },
	}
	fin, err := f.Follow(ctx, stream)
	s.show.freshLine()
	if err != nil {
		return err
	}
	s.count = max(s.count, fin.ExecutionCount)
	if fin.Status == event.StatusKilled {
		s.count = 0 // a fresh kernel counts from one
	}
	if fin.Status != event.StatusInterrupted { // its traceback says so
		_ = statusError(fin, s.g.Stderr)
	}
	if s.show.unsaved > 0 {
		fmt.Fprintf(s.g.Stderr, "(%s not shown; caesarion shell --out DIR saves them)\n", plural(s.show.unsaved, "picture"))
		s.show.unsaved = 0
	}
	return nil
}

// inspect prints the documentation of a name.
func (s *shell) inspect(ctx context.Context, name string, source bool) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	detail := 0
	if source {
		detail = 1
	}
	found, err := s.box.Inspect(ctx, s.box.id, s.kernel, name, len([]rune(name)), detail)
	if err != nil || !found.Found {
		return false, err
	}
	text := jsonText(found.Data["text/plain"])
	if !s.show.color {
		text = ansi.ReplaceAllString(text, "")
	}
	_, err = fmt.Fprintln(s.g.Stdout, strings.TrimRight(text, "\n"))
	return true, err
}

// plainPrompter reads lines from what is no terminal, without prompts.
type plainPrompter struct{ lineAsker }

// ReadLine implements prompter.
func (p *plainPrompter) ReadLine(context.Context, string) (string, error) { return p.read(false) }
