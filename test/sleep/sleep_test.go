// Package sleep puts sandboxes of a real server to sleep, wakes, copies and
// damages them, and checks that nothing is lost but what is said to be.
package sleep

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// server is a real server and the calls that these tests make of it.
type server struct{ *servertest.Server }

func start(t *testing.T, data string, flags ...string) server {
	t.Helper()
	return server{servertest.Start(t, data, flags...)}
}

// call makes a request of the API and decodes its answer into out, unless nil.
func (s server) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL()+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+s.Token)
	req.Header.Set("Content-Type", v1.MediaJSON)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		p := &v1.Problem{Detail: string(text)}
		_ = json.Unmarshal(text, p)
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func hasCode(err error, code string) bool {
	p, ok := errors.AsType[*v1.Problem](err)
	return ok && p.Code == code
}

func (s server) create(t *testing.T) v1.Sandbox {
	t.Helper()
	sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{})
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

func (s server) pause(t *testing.T, id string) v1.Sandbox {
	t.Helper()
	var sb v1.Sandbox
	if err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+id+"/pause", nil, &sb); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if sb.State != "paused" || sb.PausedAt == nil || sb.SavedBytes == 0 {
		t.Fatalf("after a pause: state %q, paused at %v, %d bytes", sb.State, sb.PausedAt, sb.SavedBytes)
	}
	return sb
}

func (s server) get(t *testing.T, id string) v1.Sandbox {
	t.Helper()
	sb, err := s.Sandbox(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// want runs code and compares what it printed.
func (s server) want(t *testing.T, id, code, text string) {
	t.Helper()
	r, err := s.Run(t.Context(), id, code)
	if err != nil {
		t.Fatalf("%s: %v", code, err)
	}
	if r.Status != event.StatusOK || r.Text != text {
		t.Fatalf("%s: got %s %q %+v, want %q", code, r.Status, r.Text, r.Errors, text)
	}
}

// processes counts the host processes of a sandbox.
func processes(t *testing.T, id string) int {
	t.Helper()
	n := 0
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, _ := os.ReadFile(file); bytes.Contains(text, []byte(id)) {
			n++
		}
	}
	return n
}

const memories = `
import threading, time
import pandas as pd
frame = pd.DataFrame({"a": range(1000)})
handle = open("/workspace/open.txt", "w+")
handle.write("first\n"); handle.flush()
ticks = []
def tick():
    while True:
        ticks.append(time.time())
        time.sleep(0.01)
threading.Thread(target=tick, daemon=True).start()
open("/tmp/other.txt", "w").write("kept")
`

func TestASandboxSleepsWithoutMemoryAndWakesWithEverything(t *testing.T) {
	data := servertest.DataDir(t)
	s := start(t, data)
	sb := s.create(t)
	s.want(t, sb.ID, memories, "")
	s.pause(t, sb.ID)
	if n := processes(t, sb.ID); n != 0 {
		t.Errorf("%d processes of a sandbox that sleeps", n)
	}
	if got := s.get(t, sb.ID); got.State != "paused" {
		t.Errorf("looking at it woke it: %s", got.State)
	}
	s.want(t, sb.ID, "print(frame.a.sum(), len(frame))", "499500 1000\n")
	if got := s.get(t, sb.ID); got.State != "running" || got.Restarted != nil {
		t.Errorf("awake: state %s, restarted %+v", got.State, got.Restarted)
	}
	s.want(t, sb.ID, `handle.write("second\n"); handle.seek(0); print(handle.read(), end="")`, "first\nsecond\n")
	s.want(t, sb.ID, `print(open("/tmp/other.txt").read())`, "kept\n")
	s.want(t, sb.ID, `
n = len(ticks)
deadline = time.time() + 20
while len(ticks) == n and time.time() < deadline:
    time.sleep(0.01)
print(len(ticks) > n)`, "True\n")

	// Asleep over a kill of the server.
	s.pause(t, sb.ID)
	s.Kill()
	s = start(t, data)
	if got := s.get(t, sb.ID); got.State != "paused" {
		t.Fatalf("after a restart of the server: %s", got.State)
	}
	s.want(t, sb.ID, "print(frame.a.max())", "999\n")

	// Every door wakes it.
	for _, door := range []struct{ name, method, path string }{
		{"files", http.MethodGet, "/files?path=/workspace"},
		{"kernels", http.MethodGet, "/kernels"},
		{"resume", http.MethodPost, "/resume"},
	} {
		s.pause(t, sb.ID)
		if err := s.call(t.Context(), door.method, "/v1/sandboxes/"+sb.ID+door.path, nil, nil); err != nil {
			t.Errorf("%s: %v", door.name, err)
		}
		if got := s.get(t, sb.ID); got.State != "running" {
			t.Errorf("%s did not wake it: %s", door.name, got.State)
		}
	}
	if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
		t.Fatal(err)
	}

	// One that sleeps can be deleted.
	sb = s.create(t)
	s.want(t, sb.ID, "x = 1", "")
	s.pause(t, sb.ID)
	if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
		t.Fatal(err)
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

func TestManyCallersWakeASandboxOnce(t *testing.T) {
	s := start(t, servertest.DataDir(t))
	sb := s.create(t)
	s.want(t, sb.ID, "n = 0", "")
	for range 3 {
		s.pause(t, sb.ID)
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if r, err := s.Run(t.Context(), sb.ID, "n += 1"); err != nil || r.Status != event.StatusOK {
					t.Errorf("%v %+v", err, r)
				}
			})
		}
		wg.Wait()
	}
	s.want(t, sb.ID, "print(n)", "60\n")
}

func TestPauseUnderLoadLosesNoExecution(t *testing.T) {
	s := start(t, servertest.DataDir(t))
	sb := s.create(t)
	s.want(t, sb.ID, "n = 0", "")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	paused, refused := 0, 0
	wg.Go(func() {
		for ctx.Err() == nil && paused < 10 {
			switch err := s.call(ctx, http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil); {
			case err == nil:
				paused++
			case hasCode(err, "sandbox-busy"):
				refused++
			case ctx.Err() == nil:
				t.Error(err)
			}
		}
	})
	const runs = 150
	for i := range runs {
		s.want(t, sb.ID, fmt.Sprintf("n += 1; print(n, 'x' * %d)", i), fmt.Sprintf("%d %s\n", i+1, strings.Repeat("x", i)))
	}
	cancel()
	wg.Wait()
	t.Logf("%d pauses, %d refused", paused, refused)
	if paused == 0 {
		t.Error("it never slept")
	}
}

// cycles is what the product promises to be tested with, over both frames.
const cycles = 500

func TestAGrowingFrameSurvivesManyCycles(t *testing.T) {
	// In memory: what a slow disk does to a pause is not the point here, and
	// would take most of the time.
	data := servertest.DataDir(t)
	state := filepath.Join(data, "state")
	if err := os.Mkdir(state, 0o711); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, state, 2<<30)
	s := start(t, data)
	frames := [2]*growing{{sb: s.create(t)}, {sb: s.create(t)}} // one a processor of a small machine
	for _, f := range frames {
		s.want(t, f.sb.ID, "import pandas as pd\nframe = pd.DataFrame({'i': [], 'square': []}, dtype='int64')", "")
	}
	grow := func(name string, rows int) {
		t.Run(name, func(t *testing.T) {
			for i, f := range frames {
				t.Run(strconv.Itoa(i), func(t *testing.T) {
					t.Parallel()
					f.grow(t, s, rows)
				})
			}
		})
	}
	grow("begin", cycles/20)
	early := s.use(t)
	grow("go on", cycles/2-cycles/20)
	for _, f := range frames {
		if got := s.get(t, f.sb.ID); got.Restarted != nil {
			t.Errorf("it was started anew: %+v", got.Restarted)
		}
	}
	// What one cycle left behind, the others would have, too.
	late := s.use(t)
	t.Logf("the server after %d cycles: %+v, after %d: %+v", cycles/10, early, cycles, late)
	if late.files > early.files+20 || late.threads > early.threads+20 || late.rss > early.rss+32<<20 {
		t.Error("it holds more and more")
	}
	s.DeleteAll(t)
	s.Stop(t)
}

// growing is a sandbox with a frame that gets a row with each sleep.
type growing struct {
	sb        v1.Sandbox
	rows, sum int
}

func (f *growing) grow(t *testing.T, s server, rows int) {
	for range rows {
		s.want(t, f.sb.ID, fmt.Sprintf("frame.loc[len(frame)] = [%d, %d]", f.rows, f.rows*f.rows), "")
		s.pause(t, f.sb.ID)
		f.sum += f.rows * f.rows
		f.rows++
		s.want(t, f.sb.ID, "print(len(frame), frame.square.sum(), (frame.i ** 2 == frame.square).all())", fmt.Sprintf("%d %d True\n", f.rows, f.sum))
	}
}

// use is what a server holds.
type use struct {
	rss            int64
	files, threads int
}

func (s server) use(t *testing.T) use {
	t.Helper()
	u := use{rss: s.Memory(t).RSS}
	for dir, n := range map[string]*int{"fd": &u.files, "task": &u.threads} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", s.PID, dir))
		if err != nil {
			t.Fatal(err)
		}
		*n = len(entries)
	}
	return u
}

func TestAKilledServerLosesNeitherSandboxNorState(t *testing.T) {
	data := servertest.DataDir(t)
	s := start(t, data)
	sb := s.create(t)
	s.want(t, sb.ID, "import pandas as pd\nframe = pd.DataFrame({'a': range(100000)})\nn = 0", "")
	states := map[string]int{}
	for i := range 12 {
		// The moment of the kill is the test's input: from before the first step
		// of a pause to after its last.
		after := time.Duration(i) * 30 * time.Millisecond
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil)
		}()
		time.Sleep(after)
		s.Kill()
		<-done
		s = start(t, data)
		got := s.get(t, sb.ID)
		states[got.State]++
		s.want(t, sb.ID, "n += 1; print(n, frame.a.sum())", fmt.Sprintf("%d 4999950000\n", i+1))
		if got := s.get(t, sb.ID); got.Restarted != nil {
			t.Fatalf("killed after %v: started anew: %+v", after, got.Restarted)
		}
	}
	t.Logf("found after the kills: %v", states)

	// Killed while it wakes.
	for i := range 6 {
		s.pause(t, sb.ID)
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/resume", nil, nil)
		}()
		time.Sleep(time.Duration(i) * 40 * time.Millisecond)
		s.Kill()
		<-done
		s = start(t, data)
		s.want(t, sb.ID, "print(frame.a.sum())", "4999950000\n")
		if got := s.get(t, sb.ID); got.Restarted != nil {
			t.Fatalf("killed while waking: started anew: %+v", got.Restarted)
		}
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

// savedFile finds a file of a sandbox's saved state.
func savedFile(t *testing.T, data, id, name string) string {
	t.Helper()
	var found string
	err := filepath.WalkDir(filepath.Join(data, "state"), func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.Contains(path, id) && filepath.Base(path) == name {
			found = path
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("no %s of %s: %v", name, id, err)
	}
	return found
}

func TestDamagedMemoryIsToldAndFilesAreKept(t *testing.T) {
	data := servertest.DataDir(t)
	s := start(t, data)
	for _, c := range []struct {
		name, reason string
		damage       func(t *testing.T, id string)
	}{
		{"a changed page", "snapshot-damaged", func(t *testing.T, id string) { flip(t, savedFile(t, data, id, "pages.img")) }},
		{"a changed state file", "snapshot-damaged", func(t *testing.T, id string) { flip(t, savedFile(t, data, id, "checkpoint.img")) }},
		{"a cut file", "snapshot-damaged", func(t *testing.T, id string) {
			if err := os.Truncate(savedFile(t, data, id, "pages.img"), 1<<20); err != nil {
				t.Fatal(err)
			}
		}},
		{"a missing file", "snapshot-damaged", func(t *testing.T, id string) {
			if err := os.Remove(savedFile(t, data, id, "pages_meta.img")); err != nil {
				t.Fatal(err)
			}
		}},
		{"another machine's", "snapshot-incompatible", func(t *testing.T, id string) {
			path := savedFile(t, data, id, "manifest.json")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			var m map[string]any
			if err := json.Unmarshal(text, &m); err != nil {
				t.Fatal(err)
			}
			if _, ok := m["key"].(string); !ok {
				t.Fatalf("no key in %s", text)
			}
			m["key"] = "of another processor"
			if text, err = json.Marshal(m); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(inner *testing.T) {
			outer := t // the server that begins here serves the cases that follow, too
			t := inner
			sb := s.create(t)
			s.want(t, sb.ID, "x = 41\nimport os\nos.makedirs('/workspace/a/b')\nopen('/workspace/a/b/kept.txt', 'w').write('kept')\nos.symlink('kept.txt', '/workspace/a/b/link')", "")
			s.pause(t, sb.ID)
			// The server may hold what it knows of the state: a new one does not.
			s.Kill()
			c.damage(t, sb.ID)
			s = start(outer, data)
			r, err := s.Run(t.Context(), sb.ID, "x")
			if err != nil {
				t.Fatal(err)
			}
			if len(r.Errors) != 1 || r.Errors[0].Name != "NameError" {
				t.Errorf("x: got %+v, want a NameError", r)
			}
			s.want(t, sb.ID, "print(open('/workspace/a/b/link').read())", "kept\n")
			got := s.get(t, sb.ID)
			if got.Restarted == nil || got.Restarted.Reason != c.reason || !strings.Contains(got.Restarted.Message, "files") {
				t.Errorf("restarted: %+v, want reason %s and a sentence about files", got.Restarted, c.reason)
			}
			// It can sleep and wake again.
			s.want(t, sb.ID, "x = 42", "")
			s.pause(t, sb.ID)
			s.want(t, sb.ID, "print(x)", "42\n")
			if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
				t.Error(err)
			}
		})
	}
}

// flip changes one bit in the middle of a file.
func flip(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, info.Size()/2); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskRefusesSleepAndLosesNothing(t *testing.T) {
	data := servertest.DataDir(t)
	state := filepath.Join(data, "state")
	if err := os.Mkdir(state, 0o711); err != nil {
		t.Fatal(err)
	}
	mountSmall(t, state, 400<<20)
	s := start(t, data, "--snapshots=false")
	sb := s.create(t)
	s.want(t, sb.ID, "import pandas as pd\nframe = pd.DataFrame({'a': range(1000)})\nopen('/workspace/f', 'w').write('kept')", "")
	filler := filepath.Join(state, "filler")
	fill(t, filler, 20<<20)
	for range 3 {
		err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil)
		if !hasCode(err, "host-disk-full") {
			t.Fatalf("pause with a full disk: %v", err)
		}
		s.want(t, sb.ID, "print(frame.a.sum(), open('/workspace/f').read())", "499500 kept\n")
		if got := s.get(t, sb.ID); got.State != "running" || got.Restarted != nil {
			t.Fatalf("state %s, restarted %+v", got.State, got.Restarted)
		}
	}
	err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/snapshot", v1.SnapshotSandbox{Name: "full"}, nil)
	if !hasCode(err, "host-disk-full") {
		t.Errorf("snapshot with a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	s.pause(t, sb.ID)
	s.want(t, sb.ID, "print(frame.a.sum(), open('/workspace/f').read())", "499500 kept\n")
	s.DeleteAll(t)
	s.Stop(t)
}

func TestForksAreIndependentAndARunningCellGoesOn(t *testing.T) {
	s := start(t, servertest.DataDir(t))
	sb := s.create(t)
	s.want(t, sb.ID, "import random, time\nx = 1\nopen('/workspace/f', 'w').write('parent')", "")
	var forks v1.SandboxList
	finished := make(chan servertest.Result, 1)
	_, err := s.Follow(t.Context(), sb.ID, v1.Execute{Code: "x = 2\nfor i in range(40):\n    print(i, flush=True)\n    time.sleep(0.05)\nx = 3"},
		func(_ string, e event.Event, r *servertest.Result) {
			switch {
			case e.Type == event.OutputStream && forks.Sandboxes == nil:
				if err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/fork", v1.ForkSandbox{Count: 3}, &forks); err != nil {
					t.Errorf("fork: %v", err)
					forks.Sandboxes = []v1.Sandbox{}
				}
			case e.Type == event.ExecutionFinished:
				finished <- *r
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	r := <-finished
	var lines strings.Builder
	for i := range 40 {
		lines.WriteString(strconv.Itoa(i) + "\n")
	}
	if r.Status != event.StatusOK || r.Text != lines.String() {
		t.Errorf("the cell that ran: %s %q", r.Status, r.Text)
	}
	s.want(t, sb.ID, "print(x)", "3\n")
	if len(forks.Sandboxes) != 3 {
		t.Fatalf("%d forks", len(forks.Sandboxes))
	}
	randoms := map[string]bool{}
	for i, f := range forks.Sandboxes {
		// Its cell was interrupted.
		s.want(t, f.ID, "print(x, open('/workspace/f').read())", "2 parent\n")
		s.want(t, f.ID, fmt.Sprintf("x = 'fork %d'; open('/workspace/f', 'w').write(x) and None", i), "")
		got, err := s.Run(t.Context(), f.ID, "print(random.random())")
		if err != nil {
			t.Fatal(err)
		}
		randoms[got.Text] = true
	}
	for i, f := range forks.Sandboxes {
		s.want(t, f.ID, "print(x, open('/workspace/f').read())", fmt.Sprintf("fork %d fork %d\n", i, i))
	}
	s.want(t, sb.ID, "print(x, open('/workspace/f').read())", "3 parent\n")
	if len(randoms) != 3 {
		t.Errorf("the forks draw the same random numbers: %v", randoms)
	}
	// A fork of a fork that sleeps, after the first is gone.
	s.pause(t, forks.Sandboxes[0].ID)
	var again v1.SandboxList
	if err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+forks.Sandboxes[0].ID+"/fork", nil, &again); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteSandbox(t.Context(), forks.Sandboxes[0].ID); err != nil {
		t.Fatal(err)
	}
	s.want(t, again.Sandboxes[0].ID, "print(x)", "fork 0\n")
}

func TestASnapshotIsThereOnAnotherDay(t *testing.T) {
	data := servertest.DataDir(t)
	s := start(t, data)
	sb := s.create(t)
	s.want(t, sb.ID, "x = {'a': 1}\nopen('/workspace/f', 'w').write('one')", "")
	var snap v1.Snapshot
	if err := s.call(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/snapshot", v1.SnapshotSandbox{Name: "start-here"}, &snap); err != nil {
		t.Fatal(err)
	}
	s.want(t, sb.ID, "x['a'] = 2\nopen('/workspace/f', 'w').write('two')", "")
	if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)

	s = start(t, data)
	var list v1.SnapshotList
	if err := s.call(t.Context(), http.MethodGet, "/v1/snapshots", nil, &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Snapshots) != 1 || list.Snapshots[0].ID != snap.ID || list.Snapshots[0].Name != "start-here" || !list.Snapshots[0].Memory {
		t.Fatalf("snapshots: %+v", list.Snapshots)
	}
	for _, by := range []string{"start-here", snap.ID} {
		made, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Snapshot: by})
		if err != nil {
			t.Fatal(err)
		}
		s.want(t, made.ID, "print(x, open('/workspace/f').read())", "{'a': 1} one\n")
	}
	if err := s.call(t.Context(), http.MethodDelete, "/v1/snapshots/start-here", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Snapshot: "start-here"}); !hasCode(err, "snapshot-not-found") {
		t.Errorf("from a deleted snapshot: %v", err)
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}
