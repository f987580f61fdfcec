package gvisor_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

func TestMain(m *testing.M) { os.Exit(gvisortest.Main(m)) }

func options(t testing.TB, img image.Image, state string) gvisor.Options {
	return gvisortest.Options(t, img, state, slog.LevelWarn)
}

// open opens a driver that is emptied and closed with the test.
func open(t testing.TB, opts gvisor.Options) *gvisor.Driver {
	t.Helper()
	d, err := gvisor.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	t.Cleanup(func() {
		once.Do(func() { gvisortest.Empty(t, d) })
	})
	return d
}

var smallLimits = sandbox.Limits{MemoryBytes: 1 << 30, CPUs: 2, Processes: 128, DiskBytes: 1 << 30}

func client(d *gvisor.Driver, info sandbox.Info) *agentapi.Client {
	return agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, info.ID) }, info.AgentToken)
}

func TestAStateFolderThatGVisorCantTakeIsRefused(t *testing.T) {
	_, err := gvisor.New(t.Context(), gvisor.Options{StateDir: t.TempDir() + "/a,b"})
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "state-dir-invalid" {
		t.Fatalf("got %v, want state-dir-invalid", err)
	}
}

func TestASecondDriverOnTheSameStateIsRefused(t *testing.T) {
	img := gvisortest.Image(t)
	opts := options(t, img, gvisortest.StateDir(t))
	open(t, opts)
	_, err := gvisor.New(t.Context(), opts)
	if !errors.Is(err, errdefs.ErrConflict) {
		t.Fatalf("got %v, want a conflict", err)
	}
}

func TestAnAgentThatIsMissingIsNamed(t *testing.T) {
	img := gvisortest.Image(t)
	opts := options(t, img, gvisortest.StateDir(t))
	opts.Agent = "/no/such/agent"
	_, err := gvisor.New(t.Context(), opts)
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "agent-missing" {
		t.Fatalf("got %v, want agent-missing", err)
	}
}

func TestAStartThatFailsLeavesNothing(t *testing.T) {
	img := gvisortest.Image(t)
	state := gvisortest.StateDir(t)
	opts := options(t, img, state)
	broken := filepath.Join(t.TempDir(), "broken.erofs")
	if err := os.WriteFile(broken, []byte(strings.Repeat("no image ", 10000)), 0o600); err != nil {
		t.Fatal(err)
	}
	opts.Rootfs = func(context.Context, string) (gvisor.Rootfs, error) { return gvisor.Rootfs{EROFS: broken}, nil }
	d := open(t, opts)
	_, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits})
	if !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("got %v, want unavailable", err)
	}
	wantNothingLeft(t, state)
}

// wantNothingLeft checks that no sandbox of this state folder has left
// anything on the host.
func wantNothingLeft(t testing.TB, state string) {
	t.Helper()
	if left, _ := filepath.Glob(filepath.Join(state, "sandboxes", "*")); len(left) > 0 {
		t.Errorf("folders left: %v", left)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/caesarion-*/sbx_*"); len(left) > 0 {
		for _, path := range left {
			if ours(path, state) {
				t.Errorf("cgroup left: %v", path)
			}
		}
	}
	for _, p := range processes(state) {
		t.Errorf("process left: %s", p)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), state) {
		t.Errorf("mounts left in %s", state)
	}
}

func ours(cgroup, state string) bool {
	return strings.Contains(cgroup, "/caesarion-"+filepath.Base(gvisor.RunDir(state))+"/")
}

// processes lists the gVisor processes of a state folder.
func processes(state string) (out []string) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range procs {
		b, _ := os.ReadFile(path)
		if strings.HasPrefix(string(b), "runsc") && strings.Contains(string(b), gvisor.RunDir(state)) {
			out = append(out, path+": "+strings.ReplaceAll(string(b), "\x00", " "))
		}
	}
	return out
}

func copyDir(t testing.TB, from, to string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}
