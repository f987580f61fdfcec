package servertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
)

// Patience bounds what should take a moment, on a busy machine too.
const Patience = 60 * time.Second

// built is where both binaries are, made at the first need.
var built struct {
	once sync.Once
	dir  string
	err  error
}

// Main runs the tests of a package and removes what Binaries made.
func Main(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// Binaries builds caesarion and caesarion-agent, once in a test process, and
// gives the folder they are in.
func Binaries(tb testing.TB) string {
	tb.Helper()
	built.once.Do(func() {
		built.dir, built.err = os.MkdirTemp("", "caesarion-servertest-") //nolint:usetesting // outlives the test that needs it first
		if built.err != nil {
			return
		}
		// An ordinary user may run them, too.
		if built.err = os.Chmod(built.dir, 0o755); built.err != nil {
			return
		}
		build := exec.Command("go", "build", "-o", built.dir, "github.com/caesarion/caesarion/cmd/caesarion", "github.com/caesarion/caesarion/cmd/caesarion-agent") //nolint:noctx // serves all tests
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			built.err = errors.Join(err, errors.New(string(out)))
		}
	})
	if built.err != nil {
		tb.Fatalf("build: %v", built.err)
	}
	return built.dir
}

// Skip skips a test that can't be run here; with CI=true it fails.
func Skip(tb testing.TB, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatal(why)
	}
	tb.Skip(why)
}

// NeedReal skips where real sandboxes can't run and gives the folder of the
// sandbox images.
func NeedReal(tb testing.TB) (images string) {
	tb.Helper()
	if os.Geteuid() != 0 {
		Skip(tb, "gVisor needs root")
	}
	data := os.Getenv("CAESARION_DATA_DIR") // where `make image` puts them
	if data == "" {
		data = "/var/lib/caesarion"
	}
	images = filepath.Join(data, "images")
	if _, err := os.Stat(images); err != nil {
		Skip(tb, "the sandbox image is not built, run `make image`")
	}
	return images
}

// DataDir makes a data directory that has the images of this machine. The
// store is not copied: nobody may write to it.
func DataDir(tb testing.TB) string {
	tb.Helper()
	dir := TempDir(tb)
	LinkImages(tb, dir)
	return dir
}

// LinkImages puts the images of this machine into a data directory.
func LinkImages(tb testing.TB, dir string) {
	tb.Helper()
	if err := os.Symlink(NeedReal(tb), filepath.Join(dir, "images")); err != nil {
		tb.Fatal(err)
	}
}

// TempDir makes a folder for data: unlike tb.TempDir's, its path is short and
// without the test's name, whose commas gVisor would not take.
func TempDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("", "caesarion-data-") //nolint:usetesting // see above
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// Server is a server's process and a client of it.
type Server struct {
	*client.Client
	Token string
	PID   int

	cmd   *exec.Cmd
	log   *bytes.Buffer // its standard error; read it after the end only
	ended bool
}

// Start starts a server on a free port of loopback and waits until it listens.
// Unless the test ends it, its sandboxes are deleted and it is stopped after
// the test.
func Start(tb testing.TB, dataDir string, flags ...string) *Server {
	tb.Helper()
	s := &Server{log: &bytes.Buffer{}}
	s.cmd = command(tb, append([]string{"serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--json"}, flags...))
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	s.PID = s.cmd.Process.Pid
	tb.Cleanup(func() { s.end(tb) })
	var ready struct{ URL, Token string }
	if err := json.NewDecoder(out).Decode(&ready); err != nil || ready.URL == "" {
		s.Kill()
		tb.Fatalf("the server did not start: %v %+v\n%s", err, ready, s.log)
	}
	s.Token = ready.Token
	if s.Client, err = client.New(ready.URL, client.Options{Token: ready.Token}); err != nil {
		tb.Fatal(err)
	}
	return s
}

// command makes a call of the program. It knows of no other installation, and
// its server keeps nothing ready unless a flag says so (--snapshots): each test
// would pay for a template's snapshot.
func command(tb testing.TB, args []string) *exec.Cmd {
	tb.Helper()
	cmd := exec.Command(filepath.Join(Binaries(tb), "caesarion"), args...) //nolint:noctx // Server.Stop, Call's kill
	cmd.Env = append(os.Environ(), "CAESARION_CONFIG="+os.DevNull, "CAESARION_TOKEN=", "CAESARION_AGENT=", "CAESARION_SNAPSHOTS=false")
	return cmd
}

// Log gives what the server has logged, once it has ended.
func (s *Server) Log() string { return s.log.String() }

// Kill ends the server with SIGKILL; its sandboxes stay.
func (s *Server) Kill() {
	s.ended = true
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	if s.Client != nil {
		s.Close()
	}
}

// Stop ends the server as a service manager does; its sandboxes stay.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	s.ended = true
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		tb.Errorf("the server ended with %v\n%s", err, s.log)
	}
	s.Close()
}

// DeleteAll deletes every sandbox.
func (s *Server) DeleteAll(tb testing.TB) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), Patience)
	defer cancel()
	all, err := s.Sandboxes(ctx)
	if err != nil {
		tb.Errorf("list sandboxes: %v", err)
	}
	for _, sb := range all {
		if err := s.DeleteSandbox(ctx, sb.ID); err != nil {
			tb.Errorf("delete %s: %v", sb.ID, err)
		}
	}
}

func (s *Server) end(tb testing.TB) {
	tb.Helper()
	if s.ended {
		return
	}
	s.DeleteAll(tb)
	s.Stop(tb)
	if tb.Failed() {
		tb.Logf("the server's log:\n%s", s.log)
	}
}

// Call runs the program with --json and arguments until it ends by itself, and
// gives its exit status and the problem it printed, if any. As may be nil.
func Call(tb testing.TB, as *syscall.Credential, args ...string) (status int, problem v1.Problem) {
	tb.Helper()
	cmd := command(tb, append([]string{"--json"}, args...))
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if as != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	stop := time.AfterFunc(Patience, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	_ = cmd.Wait() // the status says more
	if err := json.Unmarshal(out.Bytes(), &problem); err != nil {
		problem.Detail = out.String() + log.String()
	}
	return cmd.ProcessState.ExitCode(), problem
}
