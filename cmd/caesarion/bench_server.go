package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/bench"
	"github.com/caesarion/caesarion/internal/config"
)

// ownTargets starts a server for each setting, one at a time, each a process of
// its own, so that its memory is the server's and not this command's. They have
// a data directory of their own, among those of commands without a server: a
// person's sandboxes and sessions are not touched, and what a killed run leaves
// is removed by the next command.
type ownTargets struct {
	g       *globals
	dir     string
	setting bench.Setting
	server  *bench.Caesarion // nil: none runs
	cmd     *exec.Cmd
	ended   chan error // gets how cmd ended
}

// benchSandboxes is the least number of sandboxes that a server of the
// command's own allows: burst makes 100 at once.
const benchSandboxes = 128

func newOwnTargets(g *globals) (*ownTargets, error) {
	dir := filepath.Join(g.DataDir, soloDir, newSoloName())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	images, err := filepath.Abs(filepath.Join(g.DataDir, imagesDir))
	if err == nil {
		err = os.Symlink(images, filepath.Join(dir, imagesDir))
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &ownTargets{g: g, dir: dir}, nil
}

func (t *ownTargets) target(ctx context.Context, s bench.Setting) (*bench.Caesarion, error) {
	if t.server != nil && t.setting == s {
		return t.server, nil
	}
	if err := t.stop(); err != nil {
		return nil, err
	}
	if err := t.start(ctx, s); err != nil {
		return nil, benchFailed(err)
	}
	// Its snapshot and its pool are made before anything is measured.
	return t.server, t.server.Ready(ctx)
}

// settings writes the person's own settings, changed as the run needs them.
func (t *ownTargets) settings(s bench.Setting) (string, error) {
	cfg, err := config.Load(t.g.Base)
	if err != nil {
		return "", err
	}
	cfg.Listen, cfg.TLSCert, cfg.TLSKey, cfg.Auth, cfg.OnExit = "127.0.0.1:0", "", "", "token", "delete"
	cfg.DiscoverModels, cfg.Models, cfg.DefaultModel = false, nil, "" // nothing here asks a model, and their secrets stay where they are
	if cfg.MaxSandboxes == 0 {
		cfg.MaxSandboxes = benchSandboxes
	}
	applySetting(&cfg, s)
	base := t.g.Base
	base.DataDir, base.TokenFile = t.dir, ""
	base.LogLevel = "warn"
	var text bytes.Buffer
	if err := config.Print(&text, base, cfg); err != nil {
		return "", err
	}
	path := filepath.Join(t.dir, "bench.yaml")
	return path, os.WriteFile(path, text.Bytes(), 0o600)
}

func (t *ownTargets) start(ctx context.Context, s bench.Setting) error {
	settings, err := t.settings(s)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "serve", "--config", settings, "--data-dir", t.dir, "--listen", "127.0.0.1:0", "--on-exit", "delete", "--json",
		flagOf("snapshots", s != bench.NoSnapshots)) // a flag, because the environment beats the file
	cmd.Args[0] = "caesarion"
	cmd.Stderr = t.g.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true,            // Ctrl-C reaches this command alone, which stops it in order
		Pdeathsig: syscall.SIGTERM, // however this command ends, nothing of it is left
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	started, ended := make(chan error), make(chan error, 1)
	go func() {
		// Linux takes the end of the thread that started it for that of the parent.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	t.cmd, t.ended = cmd, ended
	var ready struct{ URL, Token string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ready); err != nil {
		return errors.Join(fmt.Errorf("the server said nothing that could be read: %w", err), t.stop())
	}
	server, err := caesarionAt(ready.URL, ready.Token, cmd.Process.Pid)
	if err != nil {
		return errors.Join(err, t.stop())
	}
	t.server, t.setting = server, s
	return nil
}

// stop ends the server that runs, with its sandboxes.
func (t *ownTargets) stop() error {
	if t.cmd == nil {
		return nil
	}
	_ = t.cmd.Process.Signal(syscall.SIGTERM)
	err := <-t.ended
	if t.server != nil {
		t.server.Client.Close()
	}
	t.cmd, t.ended, t.server = nil, nil, nil
	return err
}

func (t *ownTargets) close() error {
	return errors.Join(t.stop(), os.RemoveAll(t.dir))
}

// applySetting changes settings so that sandboxes start the way a scenario
// measures.
func applySetting(cfg *config.Server, s bench.Setting) {
	if s == bench.Default {
		return
	}
	cfg.Snapshots = s != bench.NoSnapshots
	for name, t := range cfg.Templates {
		t.PoolSize = 0
		cfg.Templates[name] = t
	}
}

func flagOf(name string, on bool) string {
	if on {
		return "--" + name
	}
	return "--no-" + name
}

// isExecutable reports whether path is a program.
func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
