package main

import (
	"context"
	"fmt"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

// migrateCmd brings the database up to date.
type migrateCmd struct{}

// Help implements kong.HelpProvider.
func (migrateCmd) Help() string {
	return `Brings the Postgres that CAESARION_DATABASE_URL or database_url_file names up to this version. The server does so itself at its start unless it has --no-migrate; several may do it at the same time.

Examples:
  CAESARION_DATABASE_URL=postgres://caesarion:secret@db/caesarion caesarion migrate`
}

// Run migrates.
func (migrateCmd) Run(ctx context.Context, g *globals) error {
	cfg, err := config.Load(g.Base)
	if err != nil {
		return err
	}
	address, err := cfg.DatabaseURL()
	if err != nil {
		return err
	}
	if address == "" {
		return errdefs.New(errdefs.ErrInvalid, "usage", "no database is named").
			WithHint("give its address in %s; a database that is a file is brought up to date by the server", config.DatabaseURLEnv)
	}
	if err := store.Migrate(ctx, address.Reveal()); err != nil {
		return err
	}
	if g.JSON {
		return printJSON(g.Stdout, map[string]any{"ok": true})
	}
	_, err = fmt.Fprintln(g.Stdout, "the database is up to date")
	return err
}
