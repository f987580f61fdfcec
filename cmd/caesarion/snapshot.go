package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// snapshotCmd groups the commands on saved states.
type snapshotCmd struct {
	Ls      snapshotLsCmd      `cmd:"" help:"List the snapshots." aliases:"list"`
	Inspect snapshotInspectCmd `cmd:"" help:"Show all that is known of a snapshot."`
	Rm      snapshotRmCmd      `cmd:"" help:"Delete snapshots; sandboxes made from them stay." aliases:"delete"`
}

// Help implements kong.HelpProvider.
func (*snapshotCmd) Help() string {
	return `Examples:
  caesarion sandbox snapshot sbx_4kq2m7v6xqz5wd3hn2rjtabcde prepared
  caesarion snapshot ls
  caesarion sandbox create --snapshot prepared
  caesarion snapshot rm prepared`
}

type snapshotLsCmd struct {
	Quiet bool `short:"q" help:"Print ids only."`
}

// Help implements kong.HelpProvider.
func (*snapshotLsCmd) Help() string {
	return "Examples:\n  caesarion snapshot ls\n  caesarion snapshot ls --json | jq -r '.snapshots[].name'"
}

// Run lists the snapshots, newest first.
func (c *snapshotLsCmd) Run(ctx context.Context, g *globals) error {
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		list, err := conn.Snapshots(ctx)
		if err != nil {
			return err
		}
		switch {
		case g.JSON:
			if list == nil {
				list = []v1.Snapshot{}
			}
			return printJSON(g.Stdout, v1.SnapshotList{Snapshots: list})
		case c.Quiet:
			for _, snap := range list {
				fmt.Fprintln(g.Stdout, snap.ID)
			}
			return nil
		case len(list) == 0:
			_, err := fmt.Fprintln(g.Stderr, "no snapshots; caesarion sandbox snapshot ID NAME makes one")
			return err
		}
		return printSnapshots(g.Stdout, list, time.Now())
	})
}

func printSnapshots(w io.Writer, list []v1.Snapshot, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tTEMPLATE\tHAS\tSIZE\tAGE\tMADE OF")
	for _, snap := range list {
		has := "memory and files"
		if !snap.Memory {
			has = "files"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", snap.ID, oneLine(cmp.Or(snap.Name, "-")), oneLine(snap.Template), has,
			config.Bytes(snap.MemoryBytes+snap.FilesBytes), ageText(now.Sub(snap.CreatedAt)), snap.SandboxID)
	}
	return t.Flush()
}

type snapshotInspectCmd struct {
	Snapshot string `arg:"" names:"snapshots" help:"Id or name of the snapshot."`
}

// Help implements kong.HelpProvider.
func (*snapshotInspectCmd) Help() string {
	return "Examples:\n  caesarion snapshot inspect prepared\n  caesarion snapshot inspect prepared --json | jq .memory_bytes"
}

// Run shows one snapshot.
func (c *snapshotInspectCmd) Run(ctx context.Context, g *globals) error {
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		snap, err := conn.GetSnapshot(ctx, c.Snapshot)
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, snap)
		}
		memory := config.Bytes(snap.MemoryBytes).String()
		if !snap.Memory {
			memory = "none: sandboxes made from it start with its files only"
		}
		t := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
		for _, row := range [][2]string{
			{"id", snap.ID},
			{"name", cmp.Or(snap.Name, "-")},
			{"template", snap.Template},
			{"image", snap.Image},
			{"made of", snap.SandboxID},
			{"created", snap.CreatedAt.Format(time.RFC3339)},
			{"memory", memory},
			{"files", config.Bytes(snap.FilesBytes).String()},
		} {
			fmt.Fprintf(t, "%s\t%s\n", row[0], oneLine(row[1]))
		}
		return t.Flush()
	})
}

type snapshotRmCmd struct {
	Snapshots []string `arg:"" optional:"" name:"snapshot" names:"snapshots" help:"Ids or names of the snapshots to delete."`
	All       bool     `help:"Delete all snapshots."`
}

// Help implements kong.HelpProvider.
func (*snapshotRmCmd) Help() string {
	return "Examples:\n  caesarion snapshot rm prepared\n  caesarion snapshot rm --all"
}

// Run deletes snapshots; one that does not exist is an error, but the others
// are deleted all the same.
func (c *snapshotRmCmd) Run(ctx context.Context, g *globals) error {
	if c.All == (len(c.Snapshots) > 0) {
		return errdefs.New(errdefs.ErrInvalid, "usage", "name the snapshots to delete, or give --all").
			WithHint("caesarion snapshot ls lists them")
	}
	return g.withServer(ctx, func(ctx context.Context, conn *connection) error {
		names := c.Snapshots
		if c.All {
			list, err := conn.Snapshots(ctx)
			if err != nil {
				return err
			}
			for _, snap := range list {
				names = append(names, snap.ID)
			}
		}
		var failed error
		for _, name := range names {
			if err := conn.DeleteSnapshot(ctx, name); err != nil {
				failed = cmp.Or(failed, err)
				continue
			}
			if !g.JSON {
				fmt.Fprintln(g.Stdout, name)
			}
		}
		return failed
	})
}
