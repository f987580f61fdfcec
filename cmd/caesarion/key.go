package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/config"
)

// keyCmd groups the commands on API keys.
type keyCmd struct {
	Add    keyAddCmd    `cmd:"" help:"Make an API key, and print it once." aliases:"create"`
	Ls     keyLsCmd     `cmd:"" help:"List API keys." aliases:"list"`
	Rotate keyRotateCmd `cmd:"" help:"Make a key in the place of another."`
	Remove keyRemoveCmd `cmd:"" name:"rm" help:"Revoke API keys, at once." aliases:"revoke"`
}

// Help implements kong.HelpProvider.
func (*keyCmd) Help() string {
	return `Of a server that runs with --auth accounts. CAESARION_TOKEN is a key one has; on the server's machine the installation's token makes the first, for a user.

Examples:
  caesarion key add nightly --user ann@example.org --scope sandboxes:write --scope sandboxes:execute --expires 30d
  caesarion key ls --all
  caesarion key rotate csk_4kq2m7v6xqz5wd3h --overlap 2h
  caesarion key rm csk_4kq2m7v6xqz5wd3h`
}

type keyAddCmd struct {
	Name    string           `arg:"" help:"What it is for."`
	Scope   []string         `help:"What it may do; several times for more (default: all that its user may)." placeholder:"SCOPE"`
	Expires *config.Duration `help:"How long it is valid; 0: for ever (default: 90d)." placeholder:"TIME"`
	User    string           `help:"For another user, by address or id; for operators." placeholder:"USER"`
	Org     string           `help:"In which organisation of that user (default: the first)." placeholder:"NAME"`
}

// Help implements kong.HelpProvider.
func (*keyAddCmd) Help() string {
	return "Prints the key and nothing else. GET /v1/keys lists the scopes.\n\nExamples:\n  caesarion key add nightly --scope sandboxes:write --scope sandboxes:execute --expires 30d\n  caesarion key add first --user ann@example.org"
}

// Run makes the key.
func (c *keyAddCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		in := v1.CreateKey{Name: c.Name, Scopes: c.Scope, UserID: c.User}
		if c.Expires != nil {
			ms := c.Expires.Std().Milliseconds()
			in.ExpiresMS = &ms
		}
		if c.Org != "" {
			org, err := organisationNamed(ctx, conn, c.Org, false)
			if err != nil {
				return err
			}
			in.OrganisationID = org
		}
		k, err := conn.CreateKey(ctx, in)
		if err != nil {
			return err
		}
		return g.showKey(k)
	})
}

func (g *globals) showKey(k v1.NewKey) error {
	if g.JSON {
		return printJSON(g.Stdout, k)
	}
	_, err := fmt.Fprintln(g.Stdout, k.Secret) // alone, for scripts
	return err
}

type keyLsCmd struct {
	All bool `help:"Those of all users of the organisation, for its admins; of everybody, for operators and with the installation's token, which has none of its own."`
}

// Help implements kong.HelpProvider.
func (*keyLsCmd) Help() string {
	return "Examples:\n  caesarion key ls\n  caesarion key ls --all --json"
}

// Run lists the keys.
func (c *keyLsCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		list, err := conn.Keys(ctx, c.All)
		if err != nil {
			return err
		}
		if g.JSON {
			return printJSON(g.Stdout, list)
		}
		t := tabwriter.NewWriter(g.Stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "ID\tNAME\tUSER\tSTATE\tEXPIRES\tLAST USED\tSCOPES")
		for _, k := range list.Keys {
			expires, used := "never", "never"
			if k.ExpiresAt != nil {
				expires = k.ExpiresAt.Format(time.DateOnly)
			}
			if k.LastUsedAt != nil {
				used = ageText(time.Since(*k.LastUsedAt)) + " ago"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, oneLine(k.Name), oneLine(k.Email), k.State, expires, used, cmp.Or(strings.Join(k.Scopes, " "), "all"))
		}
		return t.Flush()
	})
}

type keyRotateCmd struct {
	ID      string           `arg:"" help:"Id of the key, its first part."`
	Overlap *config.Duration `help:"How long the old one stays valid (default: 1d)." placeholder:"TIME"`
}

// Help implements kong.HelpProvider.
func (*keyRotateCmd) Help() string {
	return "Examples:\n  caesarion key rotate csk_4kq2m7v6xqz5wd3h --overlap 2h"
}

// Run makes the new key.
func (c *keyRotateCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		var in v1.RotateKey
		if c.Overlap != nil {
			ms := c.Overlap.Std().Milliseconds()
			in.OverlapMS = &ms
		}
		k, err := conn.RotateKey(ctx, c.ID, in)
		if err != nil {
			return err
		}
		return g.showKey(k)
	})
}

type keyRemoveCmd struct {
	ID []string `arg:"" help:"Ids of the keys, their first parts."`
}

// Help implements kong.HelpProvider.
func (*keyRemoveCmd) Help() string {
	return "Examples:\n  caesarion key rm csk_4kq2m7v6xqz5wd3h"
}

// Run revokes the keys.
func (c *keyRemoveCmd) Run(ctx context.Context, g *globals) error {
	return g.onServer(ctx, func(conn *connection) error {
		for _, id := range c.ID {
			if err := conn.RevokeKey(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
}
