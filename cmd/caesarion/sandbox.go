package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// sandboxCmd groups the commands on sandboxes.
type sandboxCmd struct {
	Create sandboxCreateCmd `cmd:"" help:"Make a sandbox and print its id."`
	Ls     sandboxLsCmd     `cmd:"" help:"List the sandboxes." aliases:"list"`
	Rm     sandboxRmCmd     `cmd:"" help:"Delete sandboxes with all they hold." aliases:"delete"`
	Exec   sandboxExecCmd   `cmd:"" help:"Run a shell command in a sandbox."`
	Cp     sandboxCpCmd     `cmd:"" help:"Copy files and folders to or from a sandbox."`

	Pause    sandboxPauseCmd    `cmd:"" help:"Put sandboxes to sleep: no memory, every variable kept."`
	Resume   sandboxResumeCmd   `cmd:"" help:"Wake sandboxes, as any use of them does."`
	Fork     sandboxForkCmd     `cmd:"" help:"Copy a sandbox with its variables and files."`
	Snapshot sandboxSnapshotCmd `cmd:"" help:"Save the state of a sandbox, to create others from it."`
}

// Help implements kong.HelpProvider.
func (*sandboxCmd) Help() string {
	return `Examples:
  id=$(caesarion sandbox create)
  caesarion run --sandbox $id -c 'x = 41'
  caesarion run --sandbox $id -c 'print(x + 1)'
  caesarion sandbox cp data.csv $id:/workspace/
  caesarion sandbox exec $id 'ls -la'
  caesarion sandbox snapshot $id prepared
  caesarion sandbox fork $id
  caesarion sandbox pause $id
  caesarion sandbox rm $id`
}

type sandboxCreateCmd struct {
	Template string            `help:"Make it from this template." placeholder:"NAME"`
	Snapshot string            `help:"Make it from this snapshot, with its template, variables and files." placeholder:"NAME"`
	Label    map[string]string `help:"Keep this label with it; may be repeated." placeholder:"KEY=VALUE"`
	Env      map[string]string `help:"Set this variable for its kernels and processes; may be repeated." placeholder:"KEY=VALUE"`

	Memory           config.Bytes    `help:"Less memory than the template's." placeholder:"SIZE"`
	Disk             config.Bytes    `help:"Less disk than the template's." placeholder:"SIZE"`
	CPUs             float64         `name:"cpus" help:"Fewer CPUs than the template's." placeholder:"N"`
	Processes        int             `help:"Fewer processes and threads than the template's." placeholder:"N"`
	ExecutionTimeout config.Duration `help:"Shorter than the template's." placeholder:"DURATION"`
	IdleTimeout      config.Duration `help:"Delete it when it was not used for so long; shorter than the template's." placeholder:"DURATION"`
	Lifetime         config.Duration `help:"Delete it after so long; shorter than the template's." placeholder:"DURATION"`
	PauseAfter       pauseAfter      `help:"Put it to sleep when it was not used for so long, or never (default: the template's)." placeholder:"DURATION"`
}

// pauseAfter is a duration, or never.
type pauseAfter struct{ config.Duration }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *pauseAfter) UnmarshalText(text []byte) error {
	if string(text) == "never" {
		p.Duration = config.Duration(-time.Millisecond)
		return nil
	}
	if err := p.Duration.UnmarshalText(text); err != nil {
		return err
	}
	if p.Duration < config.Duration(time.Millisecond) {
		return fmt.Errorf("%q is too short: write a duration such as 10m, or never", text)
	}
	return nil
}

// Help implements kong.HelpProvider.
func (*sandboxCreateCmd) Help() string {
	return `Examples:
  caesarion sandbox create
  caesarion sandbox create --memory 512MiB --idle-timeout 10m --label project=demo
  caesarion sandbox create --snapshot prepared --pause-after 1m
  caesarion sandbox create --json`
}

// Run makes a sandbox that stays.
func (c *sandboxCreateCmd) Run(ctx context.Context, g *globals) error {
	in := v1.CreateSandbox{
		Template:           c.Template,
		Labels:             c.Label,
		Env:                c.Env,
		ExecutionTimeoutMS: c.ExecutionTimeout.Std().Milliseconds(),
		IdleTimeoutMS:      c.IdleTimeout.Std().Milliseconds(),
		LifetimeMS:         c.Lifetime.Std().Milliseconds(),
		PauseAfterMS:       c.PauseAfter.Std().Milliseconds(),
		Snapshot:           c.Snapshot,
	}
	limits := v1.Limits{MemoryBytes: int64(c.Memory), CPUs: c.CPUs, Processes: c.Processes, DiskBytes: int64(c.Disk)}
	if limits != (v1.Limits{}) {
		in.Limits = &limits
	}
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		wait := startProgress(g, "starting a sandbox")
		sb, err := conn.CreateSandbox(ctx, in)
		wait.Done()
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, sb)
		}
		warnRestarted(g, sb)
		_, err = fmt.Fprintln(g.Stdout, sb.ID)
		return err
	})
}

// withServer calls do with a server on the data directory's own sandboxes. A
// signal ends ctx.
func (g *globals) withServer(ctx context.Context, do func(context.Context, *connection) error) error {
	ctx, release := untilSignal(ctx)
	defer release()
	conn, err := g.connect(ctx, false)
	if err != nil {
		return err
	}
	err = do(ctx, conn)
	return errors.Join(err, conn.Close())
}

type sandboxLsCmd struct {
	Quiet bool `short:"q" help:"Print ids only."`
}

// Help implements kong.HelpProvider.
func (*sandboxLsCmd) Help() string {
	return "Examples:\n  caesarion sandbox ls\n  caesarion sandbox ls --json | jq -r '.sandboxes[].id'"
}

// Run lists the sandboxes, newest first.
func (c *sandboxLsCmd) Run(ctx context.Context, g *globals) error {
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		list, err := conn.Sandboxes(ctx)
		if err != nil {
			return err
		}
		switch {
		case g.JSON:
			if list == nil {
				list = []v1.Sandbox{}
			}
			return printJSON(g.Stdout, v1.SandboxList{Sandboxes: list})
		case c.Quiet:
			for _, sb := range list {
				fmt.Fprintln(g.Stdout, sb.ID)
			}
			return nil
		case len(list) == 0:
			_, err := fmt.Fprintln(g.Stderr, "no sandboxes; caesarion sandbox create makes one")
			return err
		}
		return printSandboxes(g.Stdout, list, time.Now())
	})
}

func printSandboxes(w io.Writer, list []v1.Sandbox, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tTEMPLATE\tSTATE\tMEMORY\tAGE\tUSED\tEXPIRES IN\tLABELS")
	for _, sb := range list {
		state := sb.State
		switch {
		case sb.PausedAt != nil:
			state += fmt.Sprintf(" %s, %s", ageText(now.Sub(*sb.PausedAt)), config.Bytes(sb.SavedBytes))
		case sb.Reason != "":
			state += " (" + sb.Reason + ")"
		}
		var labels []string
		for _, k := range slices.Sorted(maps.Keys(sb.Labels)) {
			labels = append(labels, k+"="+sb.Labels[k])
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s ago\t%s\t%s\n", sb.ID, oneLine(sb.Template), oneLine(state), config.Bytes(sb.Limits.MemoryBytes),
			ageText(now.Sub(sb.CreatedAt)), ageText(now.Sub(sb.LastUsedAt)), ageText(sb.ExpiresAt.Sub(now)), oneLine(strings.Join(labels, ",")))
	}
	return t.Flush()
}

type sandboxRmCmd struct {
	IDs []string `arg:"" optional:"" name:"id" names:"sandboxes" help:"Sandboxes to delete."`
	All bool     `help:"Delete all sandboxes."`
}

// Help implements kong.HelpProvider.
func (*sandboxRmCmd) Help() string {
	return "Examples:\n  caesarion sandbox rm sbx_4kq2m7v6xqz5wd3hn2rjtabcde\n  caesarion sandbox rm --all"
}

// Run deletes sandboxes; one that does not exist is an error, but the others
// are deleted all the same.
func (c *sandboxRmCmd) Run(ctx context.Context, g *globals) error {
	if c.All == (len(c.IDs) > 0) {
		return errdefs.New(errdefs.ErrInvalid, "usage", "name the sandboxes to delete, or give --all").
			WithHint("caesarion sandbox ls lists them")
	}
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		ids := c.IDs
		if c.All {
			list, err := conn.Sandboxes(ctx)
			if err != nil {
				return err
			}
			for _, sb := range list {
				ids = append(ids, sb.ID)
			}
		}
		wait := startProgress(g, "deleting "+strings.Join(ids, " "))
		defer wait.Done()
		var failed error
		for _, id := range ids {
			if err := conn.DeleteSandbox(ctx, id); err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			if !g.JSON {
				fmt.Fprintln(g.Stdout, id)
			}
		}
		return failed
	})
}

type sandboxExecCmd struct {
	ID      string            `arg:"" names:"sandboxes" help:"The sandbox."`
	Command []string          `arg:"" help:"The command: one word is given to the shell, several are a program and its arguments." passthrough:"partial"`
	Dir     string            `help:"Run it in this folder of the sandbox (default: /workspace)." placeholder:"DIR"`
	Env     map[string]string `help:"Set this variable; may be repeated." placeholder:"KEY=VALUE"`
	Stdin   bool              `short:"i" help:"Pass standard input on, read to its end first."`
	Timeout time.Duration     `help:"Kill it after this time." placeholder:"DURATION"`
}

// Help implements kong.HelpProvider.
func (*sandboxExecCmd) Help() string {
	return `The exit status is the command's; 124 after a timeout. Flags go before the sandbox's id.

Examples:
  caesarion sandbox exec sbx_… 'ls -la | head'
  caesarion sandbox exec sbx_… python3 -V
  caesarion sandbox exec -i sbx_… 'wc -l' < data.csv`
}

// maxStdin is what a JSON request may carry.
const maxStdin = 1 << 20

// Run runs the command and passes on what it writes and how it ends.
func (c *sandboxExecCmd) Run(ctx context.Context, g *globals) error {
	in := v1.RunProcess{Dir: c.Dir, Env: c.Env, TimeoutMS: c.Timeout.Milliseconds()}
	if len(c.Command) > 1 && c.Command[0] == "--" { // as people are used to from ssh and kubectl
		c.Command = c.Command[1:]
	}
	if len(c.Command) == 1 {
		in.Command = c.Command[0]
	} else {
		in.Args = c.Command
	}
	if c.Stdin {
		text, err := io.ReadAll(io.LimitReader(g.Stdin, maxStdin+1))
		if err != nil {
			return err
		}
		if len(text) > maxStdin {
			return errdefs.New(errdefs.ErrTooLarge, "stdin-too-large", "standard input is larger than %s", config.Bytes(maxStdin)).
				WithHint("copy it into the sandbox first: caesarion sandbox cp")
		}
		in.Stdin = string(text)
	}
	conn, err := g.connect(ctx, false)
	if err != nil {
		return err
	}
	err = c.follow(ctx, g, conn, in)
	return errors.Join(err, conn.Close())
}

func (c *sandboxExecCmd) follow(ctx context.Context, g *globals, conn *connection, in v1.RunProcess) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endSignals()...)
	defer signal.Stop(signals)
	stream, err := conn.Run(ctx, c.ID, in)
	if err != nil {
		return err
	}
	defer stream.Close()
	interrupted := make(chan struct{})
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-done:
		case <-signals:
			close(interrupted)
			killCtx, cancel := context.WithTimeout(ctx, callTimeout)
			defer cancel()
			if conn.KillProcess(killCtx, c.ID, stream.ID) != nil {
				_ = stream.Close() // gone, or out of reach
			}
		}
	}()
	show := &renderer{out: g.Stdout, err: g.Stderr}
	enc := json.NewEncoder(g.Stdout)
	enc.SetEscapeHTML(false)
	for {
		ev, err := stream.Next()
		if err != nil {
			select {
			case <-interrupted:
				return &exitError{exitInterrupted}
			default:
				return err
			}
		}
		if g.JSON {
			err = enc.Encode(ev)
		} else {
			err = show.Show(ev)
		}
		if err != nil {
			return err
		}
		if ev.Type != event.ProcessFinished {
			continue
		}
		var exit event.ProcessExit
		if err := json.Unmarshal(ev.Data, &exit); err != nil {
			return fmt.Errorf("%s: %w", ev.Type, err)
		}
		select {
		case <-interrupted:
			return &exitError{exitInterrupted}
		default:
		}
		return exitOf(exit)
	}
}

// exitOf gives a process's end as a shell would.
func exitOf(exit event.ProcessExit) error {
	switch {
	case exit.Status == event.StatusTimeout:
		return &exitError{exitTimeout}
	case exit.ExitCode > 0:
		return &exitError{exit.ExitCode}
	case exit.Signal != "" || exit.ExitCode < 0:
		return &exitError{128 + signalNumber(exit.Signal)}
	}
	return nil
}

func signalNumber(name string) int {
	for n := syscall.Signal(1); n < 32; n++ {
		if strings.EqualFold(unix.SignalName(n), name) {
			return int(n)
		}
	}
	return int(syscall.SIGKILL)
}
