package main

import (
	"cmp"
	"context"
	"fmt"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/errdefs"
)

type sandboxPauseCmd struct {
	IDs []string `arg:"" name:"id" names:"sandboxes" help:"Sandboxes to put to sleep."`
}

// Help implements kong.HelpProvider.
func (*sandboxPauseCmd) Help() string {
	return `Saves memory and files on disk and frees the memory; variables stay. Whatever needs the sandbox wakes it again. A sandbox in which something runs is not put to sleep.

Examples:
  caesarion sandbox pause sbx_4kq2m7v6xqz5wd3hn2rjtabcde
  caesarion sandbox ls`
}

// Run puts sandboxes to sleep.
func (c *sandboxPauseCmd) Run(ctx context.Context, g *globals) error {
	return eachSandbox(ctx, g, "putting to sleep", c.IDs, (*client.Client).Pause)
}

type sandboxResumeCmd struct {
	IDs []string `arg:"" name:"id" names:"sandboxes" help:"Sandboxes to wake."`
}

// Help implements kong.HelpProvider.
func (*sandboxResumeCmd) Help() string {
	return `Nobody has to: the next call wakes a sandbox. It says so when variables could not be brought back.

Examples:
  caesarion sandbox resume sbx_4kq2m7v6xqz5wd3hn2rjtabcde`
}

// Run wakes sandboxes.
func (c *sandboxResumeCmd) Run(ctx context.Context, g *globals) error {
	return eachSandbox(ctx, g, "waking", c.IDs, (*client.Client).Resume)
}

// eachSandbox does the same to several sandboxes; the first failure is
// returned when all were tried.
func eachSandbox(ctx context.Context, g *globals, what string, ids []string, do func(*client.Client, context.Context, string) (v1.Sandbox, error)) error {
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		var failed error
		list := []v1.Sandbox{}
		for _, id := range ids {
			wait := startProgress(g, what+" "+id)
			sb, err := do(conn.Client, ctx, id)
			wait.Done()
			if err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			list = append(list, sb)
			if !g.JSON {
				fmt.Fprintln(g.Stdout, sb.ID)
				warnRestarted(g, sb)
			}
		}
		if g.JSON && (failed == nil || len(list) > 0) {
			failed = cmp.Or(printJSON(g.Stdout, v1.SandboxList{Sandboxes: list}), failed)
		}
		return failed
	})
}

// warnRestarted tells that variables are gone.
func warnRestarted(g *globals, sb v1.Sandbox) {
	if sb.Restarted != nil {
		fmt.Fprintf(g.Stderr, "warning: %s: %s\n", sb.ID, oneLine(sb.Restarted.Message))
	}
}

type sandboxForkCmd struct {
	ID    string            `arg:"" names:"sandboxes" help:"The sandbox to copy."`
	Count int               `short:"n" help:"How many copies, at most 16." default:"1" placeholder:"N"`
	Label map[string]string `help:"Keep this label with the copies, instead of the sandbox's own; may be repeated." placeholder:"KEY=VALUE"`
}

// Help implements kong.HelpProvider.
func (*sandboxForkCmd) Help() string {
	return `Each copy has all variables and files and goes its own way. What runs in the sandbox goes on there, and is interrupted in the copies.

Examples:
  caesarion sandbox fork sbx_4kq2m7v6xqz5wd3hn2rjtabcde
  caesarion sandbox fork -n 3 sbx_… --label try=yes
  caesarion sandbox fork sbx_… --json | jq -r '.sandboxes[].id'`
}

// Run makes copies and prints their ids.
func (c *sandboxForkCmd) Run(ctx context.Context, g *globals) error {
	if c.Count < 1 {
		return errdefs.New(errdefs.ErrInvalid, "usage", "--count is %d", c.Count).WithHint("make at least one copy")
	}
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		wait := startProgress(g, "copying "+c.ID)
		list, err := conn.Fork(ctx, c.ID, v1.ForkSandbox{Count: c.Count, Labels: c.Label})
		wait.Done()
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, v1.SandboxList{Sandboxes: list})
		}
		for _, sb := range list {
			fmt.Fprintln(g.Stdout, sb.ID)
		}
		return nil
	})
}

type sandboxSnapshotCmd struct {
	ID   string `arg:"" names:"sandboxes" help:"The sandbox to save."`
	Name string `arg:"" optional:"" help:"A name for it: letters, digits, '.', '_' and '-'. A snapshot that had it before loses it."`
}

// Help implements kong.HelpProvider.
func (*sandboxSnapshotCmd) Help() string {
	return `Prints the snapshot's id. The sandbox goes on; others can be created from its state, on another day too.

Examples:
  caesarion sandbox snapshot sbx_4kq2m7v6xqz5wd3hn2rjtabcde prepared
  caesarion sandbox create --snapshot prepared
  caesarion snapshot ls`
}

// Run saves a sandbox's state.
func (c *sandboxSnapshotCmd) Run(ctx context.Context, g *globals) error {
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		wait := startProgress(g, "saving "+c.ID)
		snap, err := conn.Snapshot(ctx, c.ID, v1.SnapshotSandbox{Name: c.Name})
		wait.Done()
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, snap)
		}
		_, err = fmt.Fprintln(g.Stdout, snap.ID)
		return err
	})
}
