package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/store"
)

// doctorCmd looks at this machine.
type doctorCmd struct{}

// Help implements kong.HelpProvider.
func (doctorCmd) Help() string {
	return `Starts and ends one real sandbox process; with driver kubernetes, asks the cluster and the database instead, with the server's rights. Exit status 1 when something is missing that sandboxes need; what merely is not enforced is a warning.

Examples:
  caesarion doctor
  caesarion doctor --json | jq '.checks[] | select(.level != "ok")'`
}

// Run prints a line for each thing that was looked at.
func (doctorCmd) Run(ctx context.Context, g *globals) error {
	ctx, release := untilSignal(ctx)
	defer release()
	cfg, err := config.Load(g.Base)
	if err != nil {
		return err
	}
	wait := startProgress(g, "looking at what there is")
	var checks []gvisor.Check
	if cfg.Driver == config.DriverKubernetes {
		checks = append(checks, checkCluster(ctx, cfg, g.Logger))
		checks = append(checks, checkDatabase(ctx, cfg)...)
		checks = append(checks, checkDataDir(g.DataDir))
	} else {
		checks = append(gvisor.Doctor(ctx), checkAgent(cfg), checkDataDir(g.DataDir), checkDisk(g.DataDir))
		checks = append(checks, checkSaved(cfg, g.DataDir)...)
		checks = append(checks, checkImages(g.DataDir, cfg)...)
	}
	checks = append(checks, checkPort(ctx, g, cfg))
	wait.Done()

	failed := 0
	for _, c := range checks {
		if c.Level == gvisor.LevelFail {
			failed++
		}
	}
	if g.JSON {
		err := printJSON(g.Stdout, map[string]any{"ok": failed == 0, "checks": checks})
		if err == nil && failed > 0 {
			err = &exitError{exitFailed}
		}
		return err
	}
	width := 0
	for _, c := range checks {
		width = max(width, len(c.Name))
	}
	for _, c := range checks {
		fmt.Fprintf(g.Stdout, "%-4s  %-*s  %s\n", c.Level, width, c.Name, oneLine(c.Detail))
		if c.Fix != "" && c.Level != gvisor.LevelOK {
			fmt.Fprintf(g.Stdout, "      %-*s  what to do: %s\n", width, "", oneLine(c.Fix))
		}
	}
	if failed > 0 {
		fmt.Fprintf(g.Stdout, "\n%s: sandboxes will not run here\n", plural(failed, "failure"))
		return &exitError{exitFailed}
	}
	return nil
}

// checkCluster opens the driver with the server's own settings and rights.
func checkCluster(ctx context.Context, cfg config.Server, log *slog.Logger) gvisor.Check {
	check := gvisor.Check{Name: "cluster", Level: gvisor.LevelFail}
	fail := func(err error) gvisor.Check {
		p := problemOf(err)
		check.Detail, check.Fix = p.Detail, p.Hint
		return check
	}
	opts, err := podOptions(cfg, hostName(), log)
	if err != nil {
		return fail(err)
	}
	driver, err := kube.New(ctx, opts)
	if err != nil {
		return fail(err)
	}
	defer driver.Close()
	list, err := driver.List(ctx)
	if err != nil {
		return fail(err)
	}
	pooled := 0
	for _, info := range list {
		if info.Pooled {
			pooled++
		}
	}
	check.Level = gvisor.LevelOK
	check.Detail = fmt.Sprintf("takes the pods of %s; %s of installation %s in namespace %s, %d of them for whoever comes next",
		plural(len(cfg.Templates), "template"), plural(len(list), "pod"), cfg.KubeInstallation, cfg.KubeNamespace, pooled)
	return check
}

// checkDatabase opens the Postgres that several servers share, and changes
// nothing in it.
func checkDatabase(ctx context.Context, cfg config.Server) []gvisor.Check {
	check := gvisor.Check{Name: "database", Level: gvisor.LevelOK, Detail: "answers, and has this version's tables"}
	address, err := cfg.DatabaseURL()
	if err == nil && address == "" {
		return nil // a file in the data directory
	}
	if err == nil {
		var st *store.Store
		if st, err = store.OpenPostgres(ctx, address.Reveal(), store.Options{NoMigrate: true}); err == nil {
			err = st.Close()
		}
	}
	if err != nil {
		p := problemOf(err)
		check.Level, check.Detail, check.Fix = gvisor.LevelFail, p.Detail, p.Hint
	}
	return []gvisor.Check{check}
}

func checkAgent(cfg config.Server) gvisor.Check {
	path, err := findAgent(cfg.Agent)
	if err != nil {
		p := problemOf(err)
		return gvisor.Check{Name: "agent", Level: gvisor.LevelFail, Detail: p.Detail, Fix: p.Hint}
	}
	return gvisor.Check{Name: "agent", Level: gvisor.LevelOK, Detail: path}
}

func checkDataDir(dir string) gvisor.Check {
	const name = "data directory"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return gvisor.Check{Name: name, Level: gvisor.LevelOK, Detail: dir + " will be made"}
	}
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return gvisor.Check{Name: name, Level: gvisor.LevelFail, Detail: dir + ": " + err.Error(), Fix: "make it writable, or name another with --data-dir"}
	}
	return gvisor.Check{Name: name, Level: gvisor.LevelOK, Detail: dir}
}

// Less than this, and the image alone does not fit beside one full sandbox.
const (
	wantDisk = config.Bytes(20 << 30)
	needDisk = config.Bytes(5 << 30)
)

func checkDisk(dir string) gvisor.Check {
	_, free, err := diskOf(dir)
	if err != nil {
		return gvisor.Check{Name: "disk space", Level: gvisor.LevelWarn, Detail: err.Error()}
	}
	check := gvisor.Check{Name: "disk space", Level: gvisor.LevelOK, Detail: free.String() + " free"}
	switch {
	case free < needDisk:
		check.Level, check.Fix = gvisor.LevelFail, fmt.Sprintf("free at least %s, or name a data directory on another disk with --data-dir", needDisk)
	case free < wantDisk:
		check.Level, check.Fix = gvisor.LevelWarn, fmt.Sprintf("sandboxes may write 5GiB each; have %s free", wantDisk)
	}
	return check
}

func checkImages(dataDir string, cfg config.Server) []gvisor.Check {
	var checks []gvisor.Check
	if _, err := os.Stat(filepath.Join(dataDir, imagesDir)); errors.Is(err, fs.ErrNotExist) {
		// Opening the store would make the data directory: doctor only looks.
		return []gvisor.Check{{Name: "images", Level: gvisor.LevelFail, Detail: "none built yet", Fix: "caesarion image build"}}
	}
	store, err := image.Open(dataDir)
	if err != nil {
		return []gvisor.Check{{Name: "images", Level: gvisor.LevelFail, Detail: err.Error(), Fix: "caesarion image build"}}
	}
	for _, name := range templateImages(cfg) {
		check := gvisor.Check{Name: "image " + name, Level: gvisor.LevelOK}
		img, err := store.Resolve(name)
		if err != nil {
			p := problemOf(err)
			check.Level, check.Detail, check.Fix = gvisor.LevelFail, p.Detail, "caesarion image build makes the default image, caesarion image import takes another"
		} else {
			check.Detail = fmt.Sprintf("Python %s, %s, %.19s", img.Python.Version, config.Bytes(img.EROFSBytes), img.Digest)
		}
		checks = append(checks, check)
	}
	return checks
}

func checkPort(ctx context.Context, g *globals, cfg config.Server) gvisor.Check {
	const name = "port"
	if conn, err := g.running(ctx, ""); err == nil && conn != nil {
		defer conn.Client.Close()
		return gvisor.Check{Name: name, Level: gvisor.LevelOK, Detail: "a server runs at " + conn.URL()}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return gvisor.Check{
			Name: name, Level: gvisor.LevelWarn, Detail: cfg.Listen + " is in use by another program",
			Fix: "caesarion serve --listen 127.0.0.1:0 takes a free port",
		}
	}
	if err != nil {
		return gvisor.Check{Name: name, Level: gvisor.LevelWarn, Detail: err.Error(), Fix: "caesarion serve --listen takes another address"}
	}
	_ = listener.Close()
	return gvisor.Check{Name: name, Level: gvisor.LevelOK, Detail: cfg.Listen + " is free"}
}
