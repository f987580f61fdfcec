// Package pool_test has the pool keep real sandboxes ready.
package pool_test

import (
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

func TestMain(m *testing.M) { os.Exit(gvisortest.Main(m)) }

// host is a state folder on which drivers can be opened one after the other.
type host struct {
	img   image.Image
	state string
}

func newHost(t testing.TB) *host {
	t.Helper()
	return &host{gvisortest.Image(t), gvisortest.StateDir(t)}
}

// open opens a driver; the test empties and closes it.
func (h *host) open(t testing.TB) *gvisor.Driver {
	t.Helper()
	d, err := gvisor.New(t.Context(), gvisortest.Options(t, h.img, h.state, slog.LevelInfo))
	if err != nil {
		t.Fatal(err)
	}
	return d
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
	out, err := agenttest.Output(t.Context(), c, kernelID, code)
	if err != nil {
		t.Error(err)
	}
	return strings.TrimSpace(out)
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
