// Package gvisortest is what tests need to start real sandboxes: the agent,
// the image, a state folder and a driver's options.
package gvisortest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

// agent is the binary that the tests put into sandboxes.
var agent string

// Main runs a package's tests with an agent built for them. gVisor re-executes
// the test binary, so TestMain calls this first.
func Main(m *testing.M) int {
	gvisor.MaybeRunsc()
	dir, err := os.MkdirTemp("", "caesarion-gvisor-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	agent = filepath.Join(dir, "caesarion-agent")
	build := exec.Command("go", "build", "-o", agent, "github.com/caesarion/caesarion/cmd/caesarion-agent") //nolint:noctx // there is none before the tests
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("build the agent: %v\n%s", err, out))
	}
	return m.Run()
}

// Image gives the sandbox image. Where real sandboxes can't run the test is
// skipped; with CI=true it fails.
func Image(t testing.TB) image.Image {
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

// StateDir makes a state folder: t.TempDir's path has the test's name in it,
// which may hold a comma.
func StateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caesarion-state-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// Options gives the options of a driver on a state folder that logs to the test.
func Options(t testing.TB, img image.Image, state string, level slog.Level) gvisor.Options {
	return gvisor.Options{
		StateDir: state,
		AgentDir: filepath.Join(state, "agents"),
		Agent:    agent,
		Rootfs: func(context.Context, string) (gvisor.Rootfs, error) {
			return gvisor.Rootfs{Digest: img.Digest, EROFS: img.EROFSPath, Env: img.Config.Env}, nil
		},
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: level})),
	}
}

// Empty deletes every sandbox of a driver and closes it.
func Empty(t testing.TB, d *gvisor.Driver) {
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
