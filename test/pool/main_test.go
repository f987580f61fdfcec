// Package pool_test has the pool keep real sandboxes ready.
package pool_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// agentPath is the agent that the tests put into sandboxes.
var agentPath string

func TestMain(m *testing.M) {
	gvisor.MaybeRunsc() // gVisor re-executes the test binary
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "caesarion-pool-test-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		agentPath = filepath.Join(dir, "caesarion-agent")
		build := exec.Command("go", "build", "-o", agentPath, "github.com/caesarion/caesarion/cmd/caesarion-agent")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			panic(fmt.Sprintf("build the agent: %v\n%s", err, out))
		}
		return m.Run()
	}())
}

// needImage skips where real sandboxes can't run; with CI=true that is a failure.
func needImage(t testing.TB) image.Image {
	t.Helper()
	missing := func(format string, args ...any) {
		t.Helper()
		if os.Getenv("CI") == "true" {
			t.Fatalf(format, args...)
		}
		t.Skipf(format, args...)
	}
	if os.Geteuid() != 0 {
		missing("gVisor needs root")
	}
	dir := os.Getenv("CAESARION_DATA_DIR")
	if dir == "" {
		dir = "/var/lib/caesarion"
	}
	store, err := image.Open(dir)
	if err != nil {
		missing("no image store: %v", err)
	}
	img, err := store.Resolve("python")
	if err != nil {
		missing("the sandbox image is not built, run `make image`: %v", err)
	}
	return img
}

// host is a state folder on which drivers can be opened one after the other.
type host struct {
	img   image.Image
	state string
}

func newHost(t testing.TB) *host {
	t.Helper()
	img := needImage(t)
	state, err := os.MkdirTemp("", "caesarion-state-") //nolint:usetesting // the path must have no comma in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(state) })
	return &host{img, state}
}

// open opens a driver; the test closes it, or its end does, which also deletes
// every sandbox.
func (h *host) open(t testing.TB) *gvisor.Driver {
	t.Helper()
	d, err := gvisor.New(t.Context(), gvisor.Options{
		StateDir: h.state, AgentDir: filepath.Join(h.state, "agents"), Agent: agentPath,
		Rootfs: func(context.Context, string) (gvisor.Rootfs, error) {
			return gvisor.Rootfs{Digest: h.img.Digest, EROFS: h.img.EROFSPath, Env: h.img.Config.Env}, nil
		},
		Logger: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// empty deletes every sandbox of a driver and closes it.
func empty(t testing.TB, d *gvisor.Driver) {
	t.Helper()
	infos, err := d.List(context.Background())
	if err != nil {
		t.Error(err)
	}
	for _, info := range infos {
		if err := d.Delete(context.Background(), info.ID); err != nil {
			t.Error(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelInfo}))
}

var limits = sandbox.Limits{MemoryBytes: 2 << 30, CPUs: 2, Processes: 256, DiskBytes: 1 << 30}

func options(t testing.TB, size int) pool.Options {
	return pool.Options{
		Templates: map[string]pool.Template{
			"python": {Image: "python", Limits: limits, Preload: []string{"numpy", "pandas", "matplotlib.pyplot"}, Size: size},
		},
		Snapshots: true, Logger: logger(t),
	}
}

func openPool(t testing.TB, d sandbox.Driver, opts pool.Options) *pool.Pool {
	t.Helper()
	p, err := pool.New(t.Context(), d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shut(t testing.TB, p *pool.Pool) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// settled waits until the pool is full.
func settled(t testing.TB, p *pool.Pool) {
	t.Helper()
	var s pool.Stats
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if s = p.Stats()["python"]; s.Ready == s.Size && s.Starting == 0 && s.Snapshot == "ready" {
			return
		}
	}
	t.Fatalf("the pool does not fill: %+v", s)
}

const kernelID = "krn_mine"

func request() pool.Request {
	return pool.Request{
		Spec: sandbox.Spec{
			ID: sandbox.NewID(), Template: "python", Image: "python", Limits: limits,
			Env: map[string]string{"MINE": "yes"}, Labels: map[string]string{"owner": "me"},
		},
		KernelID: kernelID,
	}
}

func lease(t testing.TB, p *pool.Pool, want pool.Start) *pool.Lease {
	t.Helper()
	l, err := p.Lease(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	if l.Start != want || l.KernelReady != (want != pool.StartCold) {
		t.Errorf("start %s, kernel ready %v, want %s", l.Start, l.KernelReady, want)
	}
	return l
}

// run runs code and gives what it prints.
func run(t testing.TB, c *agentapi.Client, code string) string {
	t.Helper()
	out, err := execute(t.Context(), c, code)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(out)
}

func execute(ctx context.Context, c *agentapi.Client, code string) (string, error) {
	stream, err := c.Execute(ctx, kernelID, agentapi.Execute{ID: "exe_" + sandbox.RandomSuffix(), Code: code, StoreHistory: true})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var out strings.Builder
	for {
		rec, err := stream.Next()
		if err != nil {
			return out.String(), err
		}
		switch rec.Type {
		case event.OutputStream:
			var e struct{ Data event.Stream }
			if err := json.Unmarshal(rec.Line, &e); err != nil {
				return "", err
			}
			out.WriteString(e.Data.Text)
		case event.OutputError:
			return "", fmt.Errorf("%s", rec.Line)
		case event.ExecutionFinished:
			return out.String(), nil
		}
	}
}

// inParallel runs f for all, as many at a time as there are cores.
func inParallel[T any](all []T, f func(int, T)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2)
	for i, v := range all {
		slots <- struct{}{}
		wg.Go(func() { f(i, v); <-slots })
	}
	wg.Wait()
}
