package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/llm"
)

// serveCmd runs the server. Its flags are the settings themselves.
type serveCmd struct {
	config.Server `embed:""`
	PrintConfig   bool `help:"Print the settings in force, as a file, and exit."`
}

// Help implements kong.HelpProvider.
func (*serveCmd) Help() string {
	return `Prints the URL, with the token that every call needs. Sandboxes survive a restart.

Settings come from the YAML file, then CAESARION_* environment variables, then flags; keys of the file are the flags' names with underscores, and templates:

  templates:
    python:
      memory: 4GiB
      execution_timeout: 10m
      pause_after: 30m
      pool_size: 4
      preload: [numpy, pandas, matplotlib.pyplot]

Examples:
  caesarion serve
  caesarion serve --listen 127.0.0.1:0 --on-exit delete
  caesarion serve --listen :8443 --tls-cert cert.pem --tls-key key.pem --allowed-hosts box.example.org
  caesarion serve --print-config > config.yaml`
}

// Run serves until a signal.
func (c *serveCmd) Run(ctx context.Context, g *globals) error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.PrintConfig {
		return config.Print(g.Stdout, g.Base, c.Server)
	}
	ctx, release := untilSignal(ctx)
	defer release()
	log := newLogger(g.Stderr, g.LogLevel, g.LogFormat, slog.LevelDebug)
	if err := makeDataDir(g.DataDir); err != nil {
		return err
	}
	lock, err := lockData(g.DataDir, serveLockWait)
	if err != nil {
		return err
	}
	defer lock.Close()
	var token config.Secret
	if c.Auth != config.AuthNone { // with accounts it is the operator's
		if token, err = loadToken(g.Base); err != nil {
			return err
		}
	}
	models, err := openModels(c.Server, log)
	if err != nil {
		return err
	}
	sweepSolo(ctx, g.DataDir, c.Server, log)
	if names := modelNames(ctx, models); len(names) > 0 {
		log.Info("language models", "models", names)
	} else {
		log.Info("no language model", "hint", llm.Hint)
	}
	s, err := startServer(ctx, serverOptions{
		base:     g.Base,
		cfg:      c.Server,
		stateDir: filepath.Join(g.DataDir, stateDir),
		token:    token,
		log:      log,
		models:   models,
		sessions: true,
	})
	if err != nil {
		return err
	}
	record := serverRecord{URL: s.url, Token: token.Reveal(), PID: os.Getpid(), StartedAt: time.Now().UTC().Truncate(time.Second)}
	err = s.certificate.record(g.DataDir, record)
	if err == nil {
		err = c.announce(g, s, log)
	}
	if err == nil {
		tellCtx, told := context.WithCancel(ctx)
		var telling sync.WaitGroup
		if !g.JSON && c.Driver != config.DriverKubernetes {
			telling.Go(func() { tellWhenWarm(tellCtx, g.Stderr, s.pool) })
		}
		select {
		case <-ctx.Done():
		case err = <-s.ended:
			s.ended <- http.ErrServerClosed // stop waits for it
		case <-s.replicas.Fenced():
			err = errFenced
		}
		told()
		telling.Wait()
	}
	log.Info("server stops", "sandboxes", c.OnExit)
	return errors.Join(err, os.Remove(filepath.Join(g.DataDir, serverFile)), s.stop(c.OnExit == "delete"))
}

// errFenced ends a server whose work others have taken over.
var errFenced = errdefs.New(errdefs.ErrUnavailable, "replica-fenced", "this server had no contact with the database for so long that others took over").
	WithHint("start it again; see why the database did not answer")

// serveLockWait is longer than any command looks at the lock, and short for
// somebody who started a second server by mistake.
const serveLockWait = time.Second

// announce says where the server is and what this host can't enforce.
func (c *serveCmd) announce(g *globals, s *server, log *slog.Logger) error {
	address := s.url + "/"
	switch {
	case s.accounts != nil && s.setup != "":
		address += "#setup=" + s.setup
	case s.accounts == nil && s.token != "":
		address += "?token=" + url.QueryEscape(s.token.Reveal())
	}
	capabilities := s.driver.Capabilities()
	if g.JSON {
		return printJSON(g.Stdout, map[string]any{
			"url": s.url, "token": s.token.Reveal(), "pid": os.Getpid(), "version": buildVersion(),
			"driver": capabilities.Driver, "missing": capabilities.Missing,
		})
	}
	for _, limit := range slices.Sorted(maps.Keys(capabilities.Missing)) {
		fmt.Fprintf(g.Stderr, "warning: this host does not enforce %s: %s (caesarion doctor says more)\n", limit, oneLine(capabilities.Missing[limit]))
	}
	if c.Auth == "none" {
		fmt.Fprintln(g.Stderr, "warning: --auth none: every program and every user of this machine can run code here")
	}
	if c.Driver == config.DriverKubernetes {
		// Logs of pods are kept and read by others: the token has no place there,
		// and nobody opens an address of the pod's.
		log.Info("server is ready", "version", buildVersion(), "listen", c.Listen, "sandboxes", c.KubeNamespace, "installation", c.KubeInstallation)
		return nil
	}
	_, err := fmt.Fprintf(g.Stdout, "Caesarion %s is ready. Open this address in a browser; Ctrl-C stops the server.\n\n  %s\n\n", buildVersion(), address)
	return err
}
