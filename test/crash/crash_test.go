// Package crash kills a real server at random moments with sandboxes alive
// and checks that nothing that was acknowledged is lost and that nothing is
// left on the host.
package crash

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

const (
	kills   = 20
	workers = 3 // sandboxes being made, used and deleted at once
)

// server is a caesarion process.
type server struct {
	*client.Client
	cmd *exec.Cmd
}

func start(t *testing.T, binary, dataDir string) *server {
	t.Helper()
	cmd := exec.Command(binary, "serve", "--data-dir", dataDir, "--listen", "127.0.0.1:0", "--json")
	log := &strings.Builder{}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var ready struct{ URL, Token string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ready); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the server did not start: %v\n%s", err, log)
	}
	c, err := client.New(ready.URL, client.Options{Token: ready.Token})
	if err != nil {
		t.Fatal(err)
	}
	return &server{c, cmd}
}

// run runs code and gives what it printed.
func (s *server) run(ctx context.Context, id, code string) (string, error) {
	stream, err := s.Execute(ctx, id, v1.Execute{Code: code})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	var text strings.Builder
	for {
		e, err := stream.Next()
		if err != nil {
			return "", err
		}
		switch e.Type {
		case event.OutputStream:
			var data event.Stream
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return "", err
			}
			text.WriteString(data.Text)
		case event.ExecutionFinished:
			var data event.Finished
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return "", err
			}
			if data.Status != event.StatusOK {
				return text.String(), fmt.Errorf("status %s: %s", data.Status, data.Message)
			}
			return text.String(), nil
		}
	}
}

// ledger is what the server has acknowledged.
type ledger struct {
	mu    sync.Mutex
	value map[string]int // sandbox → x that was set in it
	maybe map[string]bool
}

// work makes, uses and deletes sandboxes until the server is gone.
func (l *ledger) work(ctx context.Context, s *server) {
	for ctx.Err() == nil {
		sb, err := s.CreateSandbox(ctx, v1.CreateSandbox{})
		if err != nil {
			return
		}
		x := rand.IntN(1 << 30)
		if _, err := s.run(ctx, sb.ID, fmt.Sprintf("x = %d", x)); err != nil {
			return
		}
		l.mu.Lock()
		l.value[sb.ID] = x
		var victim string
		if len(l.value) > workers { // keep some alive over the kill
			for victim = range l.value {
				break
			}
			delete(l.value, victim)
			l.maybe[victim] = true
		}
		l.mu.Unlock()
		if victim != "" {
			if s.DeleteSandbox(ctx, victim) != nil {
				return
			}
			l.mu.Lock()
			delete(l.maybe, victim)
			l.mu.Unlock()
		}
	}
}

func TestNothingIsLostOrLeftWhenTheServerIsKilled(t *testing.T) {
	if os.Geteuid() != 0 {
		skip(t, "gVisor needs root")
	}
	images := filepath.Join(dataDir(), "images")
	if _, err := os.Stat(images); err != nil {
		skip(t, "the sandbox image is not built, run `make image`")
	}
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "github.com/caesarion/caesarion/cmd/caesarion", "github.com/caesarion/caesarion/cmd/caesarion-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	data := t.TempDir()
	if err := os.Symlink(images, filepath.Join(data, "images")); err != nil {
		t.Fatal(err)
	}
	before := census(t)
	l := &ledger{value: map[string]int{}, maybe: map[string]bool{}}
	for i := range kills {
		s := start(t, filepath.Join(bin, "caesarion"), data)
		l.check(t, s, i)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() { l.work(ctx, s) })
		}
		time.Sleep(time.Duration(rand.Int64N(int64(2500 * time.Millisecond)))) // the random moment is the test's input
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		cancel()
		wg.Wait()
		if t.Failed() {
			break
		}
	}
	s := start(t, filepath.Join(bin, "caesarion"), data)
	l.check(t, s, kills)
	all, err := s.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sandboxes alive at the end", len(all))
	for _, sb := range all {
		if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
			t.Error(err)
		}
	}
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("the server ended with %v", err)
	}
	after := census(t)
	for what, list := range after {
		for _, item := range list {
			if !slices.Contains(before[what], item) {
				t.Errorf("left behind: %s: %s", what, item)
			}
		}
	}
	_ = filepath.WalkDir(data, func(path string, e os.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), "sbx_") {
			t.Errorf("left behind: %s", path)
		}
		return nil
	})
}

// check compares the sandboxes of a server that has just started with what
// its predecessor acknowledged.
func (l *ledger) check(t *testing.T, s *server, round int) {
	t.Helper()
	all, err := s.Sandboxes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, sb := range all {
		found[sb.ID] = true
		if _, known := l.value[sb.ID]; known {
			continue
		}
		// Its creation was cut before the answer, or its deletion: either is
		// allowed, and nobody will use it.
		if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
			t.Errorf("round %d: delete %s: %v", round, sb.ID, err)
		}
	}
	clear(l.maybe)
	for id, x := range l.value {
		if !found[id] {
			t.Errorf("round %d: %s is lost", round, id)
			continue
		}
		got, err := s.run(t.Context(), id, "print(x)")
		if want := fmt.Sprintln(x); err != nil || got != want {
			t.Errorf("round %d: %s has x = %q (%v), want %q", round, id, got, err, want)
		}
	}
}

// census lists what sandboxes could leave on this host.
func census(t *testing.T) map[string][]string {
	t.Helper()
	c := map[string][]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		cmdline, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		if strings.HasPrefix(string(cmdline), "runsc") {
			c["process"] = append(c["process"], filepath.Base(dir)+" "+strings.ReplaceAll(string(cmdline), "\x00", " "))
		}
		if ns, err := os.Readlink(filepath.Join(dir, "ns/net")); err == nil && !slices.Contains(c["network namespace"], ns) {
			c["network namespace"] = append(c["network namespace"], ns)
		}
	}
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		c["mount"] = append(c["mount"], strings.Join(strings.Fields(line)[3:], " "))
	}
	for _, pattern := range []string{"/sys/fs/cgroup/*/caesarion-*", "/sys/fs/cgroup/caesarion-*", gvisor.RunDir("") + "/../*"} {
		found, _ := filepath.Glob(pattern)
		c["cgroup or run folder"] = append(c["cgroup or run folder"], found...)
	}
	return c
}

func skip(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(errors.New(why))
	}
	t.Skip(why)
}

// dataDir is where `make image` puts the sandbox image.
func dataDir() string {
	if dir := os.Getenv("CAESARION_DATA_DIR"); dir != "" {
		return dir
	}
	return "/var/lib/caesarion"
}
