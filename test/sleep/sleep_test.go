// Package sleep puts sandboxes of a real server to sleep, wakes, copies and
// damages them, and checks that nothing is lost but what is said to be.
package sleep

import (
	"context"
	"fmt"
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
		if err := s.JSON(t.Context(), door.method, "/v1/sandboxes/"+sb.ID+door.path, nil, nil); err != nil {
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
			switch err := s.JSON(ctx, http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil); {
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
			_ = s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil)
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
			_ = s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/resume", nil, nil)
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
