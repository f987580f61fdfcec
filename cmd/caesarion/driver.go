package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// driverOptions is what a driver of this machine is opened with.
type driverOptions struct {
	dataDir  string
	stateDir string // where its sandboxes are
	agent    string // setting; "" means find it
	images   []string
	log      *slog.Logger
}

// openDriver opens the driver. There is one for one machine; tests put the
// in-memory driver here.
var openDriver = openGVisor

// agentName is the file name of the agent's binary.
const agentName = "caesarion-agent"

// findAgent gives the path of the agent's binary: the one named, or the one
// that was installed with this program.
func findAgent(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if self, err := os.Executable(); err == nil {
		if self, err = filepath.EvalSymlinks(self); err == nil {
			beside := filepath.Join(filepath.Dir(self), agentName)
			if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
				return beside, nil
			}
		}
	}
	path, err := exec.LookPath(agentName)
	if errors.Is(err, exec.ErrNotFound) {
		return "", errdefs.New(errdefs.ErrUnsupported, "agent-missing", "%s, which runs inside every sandbox, is not there", agentName).
			WithHint("install it beside the caesarion program (make build makes both), or name it with --agent")
	}
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

// fleetOptions turns settings into what a fleet takes.
func fleetOptions(cfg config.Server, dataDir string, log *slog.Logger) fleet.Options {
	sizes := poolSizes(cfg)
	opts := fleet.Options{
		Templates:       make(map[string]fleet.Template, len(cfg.Templates)),
		DefaultTemplate: config.DefaultTemplate,
		MaxSandboxes:    cfg.MaxSandboxes,
		KeepMemory:      cfg.KeepMemory.Std(),
		KeepFiles:       cfg.KeepFiles.Std(),
		DiskQuota:       diskQuota(cfg, dataDir),
		Logger:          log,
	}
	for name, t := range cfg.Templates {
		opts.Templates[name] = fleet.Template{
			Image:            t.Image,
			Limits:           templateLimits(t),
			Env:              t.Env,
			ExecutionTimeout: t.ExecutionTimeout.Std(),
			IdleTimeout:      t.IdleTimeout.Std(),
			Lifetime:         t.Lifetime.Std(),
			PauseAfter:       t.PauseAfter.Std(),
			Preload:          t.Preload,
			PoolSize:         sizes[name],
		}
	}
	return opts
}

// sweepSolo removes what commands that ran without a server left when they
// were killed: a folder nobody holds the lock of has no owner any more.
func sweepSolo(ctx context.Context, dataDir string, cfg config.Server, log *slog.Logger) {
	dirs, _ := filepath.Glob(filepath.Join(dataDir, soloDir, "*", lockFile))
	for _, path := range dirs {
		lock, err := tryLock(path)
		if err != nil {
			continue // its owner is alive
		}
		dir := filepath.Dir(path)
		if err := removeSolo(ctx, dir, dataDir, cfg, log); err != nil {
			log.Warn("left-over sandboxes of a command could not be removed", "dir", dir, "err", err)
		}
		_ = lock.Close()
	}
}

// removeSolo deletes the sandboxes below dir and then dir itself.
func removeSolo(ctx context.Context, dir, dataDir string, cfg config.Server, log *slog.Logger) error {
	state := filepath.Join(dir, stateDir)
	if _, err := os.Stat(state); err == nil {
		driver, err := openDriver(ctx, driverOptions{dataDir: dataDir, stateDir: state, agent: cfg.Agent, log: log})
		if err != nil {
			return err
		}
		err = deleteAll(ctx, driver)
		if err := errors.Join(err, driver.Close()); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// deleteAll deletes every sandbox of a driver.
func deleteAll(ctx context.Context, driver sandbox.Driver) error {
	list, err := driver.List(ctx)
	for _, info := range list {
		err = errors.Join(err, driver.Delete(ctx, info.ID))
	}
	return err
}
