package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/machine"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// quotaFraction is the part of the disk that sleeping sandboxes and snapshots
// may take when the settings name no size; never more than half of what is free
// at the start.
const quotaFraction = 4

// diskQuota gives what may be saved on the disk of the data directory, in
// bytes; 0 when the size of the disk is unknown.
func diskQuota(cfg config.Server, dataDir string) int64 {
	if cfg.DiskQuota > 0 {
		return int64(cfg.DiskQuota)
	}
	size, free, err := diskOf(dataDir)
	if err != nil {
		return 0
	}
	return int64(min(size/quotaFraction, free/2))
}

// diskOf gives the size of the disk that dir is or will be on, and what of it
// is free.
func diskOf(dir string) (size, free config.Bytes, err error) {
	for ; ; dir = filepath.Dir(dir) {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			continue // not made yet: its parent's file system will have it
		}
		return config.Bytes(st.Blocks) * config.Bytes(st.Bsize), config.Bytes(st.Bavail) * config.Bytes(st.Bsize), err
	}
}

// poolSizes gives how many sandboxes of each template are kept ready here.
func poolSizes(cfg config.Server) map[string]int {
	total, _ := machine.Memory()
	return cfg.PoolSizes(runtime.NumCPU(), total)
}

// poolOptions turns settings into what a pool takes. A server of one command
// keeps nothing ready: the command is over before anything is. What is ready
// ends with the server: the next one has it again within a second or two, and a
// server that was stopped should leave nothing running that nobody asked for.
func poolOptions(cfg config.Server, solo bool, m *metrics.Metrics, log *slog.Logger) pool.Options {
	opts := pool.Options{
		Templates: make(map[string]pool.Template, len(cfg.Templates)),
		Snapshots: cfg.Snapshots && !solo,
		Metrics:   m,
		Logger:    log,
	}
	sizes := poolSizes(cfg)
	for name, t := range cfg.Templates {
		view := pool.Template{Image: t.Image, Limits: templateLimits(t), Preload: t.Preload, Size: sizes[name]}
		if solo {
			view.Size = 0
		}
		opts.Templates[name] = view
	}
	return opts
}

func templateLimits(t config.Template) sandbox.Limits {
	return sandbox.Limits{MemoryBytes: int64(t.Memory), CPUs: t.CPUs, Processes: t.Processes, DiskBytes: int64(t.Disk)}
}

// watchEvery is how often the pools are looked at until they are ready.
const watchEvery = 200 * time.Millisecond

// tellWhenWarm writes a line for each template whose snapshot and sandboxes
// are ready, or says why there are none. It ends when all is told, or with ctx.
func tellWhenWarm(ctx context.Context, w io.Writer, warm fleet.Leaser) {
	begun := time.Now()
	told := map[string]bool{}
	made := map[string]time.Duration{} // how long the snapshot took
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		stats := warm.Stats()
		for name, s := range stats {
			if s.Snapshot == "ready" && made[name] == 0 {
				made[name] = time.Since(begun)
			}
			if text, done := warmText(s, made[name]); done && !told[name] {
				told[name] = true
				if text != "" {
					fmt.Fprintf(w, "%s: %s\n", name, oneLine(text))
				}
			}
		}
		if len(told) == len(stats) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// warmText says what became of a template's pool, once that is known.
func warmText(s pool.Stats, took time.Duration) (text string, done bool) {
	var parts []string
	switch s.Snapshot {
	case "making":
		return "", false
	case "failed":
		parts = append(parts, "no snapshot, sandboxes start cold")
	case "ready":
		parts = append(parts, fmt.Sprintf("snapshot ready in %.1f s", took.Seconds()))
	}
	switch {
	case s.Ready < s.Size && s.Message == "":
		return "", false
	case s.Size > 0 && s.Ready == 1:
		parts = append(parts, "1 sandbox warm")
	case s.Size > 0:
		parts = append(parts, fmt.Sprintf("%d sandboxes warm", s.Ready))
	}
	if s.Message != "" {
		parts = append(parts, s.Message)
	}
	return strings.Join(parts, ", "), true
}

// checkSaved says what will sleep and start from snapshots, and what that may
// take on disk.
func checkSaved(cfg config.Server, dataDir string) []gvisor.Check {
	sleep := gvisor.Check{Name: "sleep", Level: gvisor.LevelOK}
	var parts []string
	for _, name := range cfg.SortedTemplates() {
		if after := cfg.Templates[name].PauseAfter; after > 0 {
			parts = append(parts, fmt.Sprintf("%s after %s unused", name, after))
		} else {
			parts = append(parts, name+" never")
		}
	}
	sleep.Detail = fmt.Sprintf("%s; memory is kept for %s, files for %s", strings.Join(parts, ", "), cfg.KeepMemory, cfg.KeepFiles)

	starts := gvisor.Check{Name: "fast starts", Level: gvisor.LevelOK}
	if !cfg.Snapshots {
		starts.Level, starts.Detail, starts.Fix = gvisor.LevelWarn, "every sandbox starts cold, in seconds: snapshots are off", "take snapshots: false out of the settings"
	} else {
		sizes := poolSizes(cfg)
		parts = nil
		for _, name := range cfg.SortedTemplates() {
			parts = append(parts, fmt.Sprintf("%s keeps %d ready", name, sizes[name]))
		}
		starts.Detail = "from a snapshot of the template; " + strings.Join(parts, ", ")
	}

	quota := gvisor.Check{Name: "disk quota", Level: gvisor.LevelOK}
	size, free, err := diskOf(dataDir)
	most := config.Bytes(diskQuota(cfg, dataDir))
	switch {
	case err != nil:
		quota.Level, quota.Detail = gvisor.LevelWarn, err.Error()
	case most > free:
		quota.Level = gvisor.LevelWarn
		quota.Detail = fmt.Sprintf("sleeping sandboxes and snapshots may take %s, and only %s of the disk are free", most, free)
		quota.Fix = "free some room, or set a lower disk_quota"
	default:
		quota.Detail = fmt.Sprintf("sleeping sandboxes and snapshots may take %s of the disk's %s", most, size)
	}
	return []gvisor.Check{starts, sleep, quota}
}
