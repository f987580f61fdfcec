package sleep

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

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
		err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/pause", nil, nil)
		if !hasCode(err, "host-disk-full") {
			t.Fatalf("pause with a full disk: %v", err)
		}
		s.want(t, sb.ID, "print(frame.a.sum(), open('/workspace/f').read())", "499500 kept\n")
		if got := s.get(t, sb.ID); got.State != "running" || got.Restarted != nil {
			t.Fatalf("state %s, restarted %+v", got.State, got.Restarted)
		}
	}
	err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/snapshot", v1.SnapshotSandbox{Name: "full"}, nil)
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
				if err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/fork", v1.ForkSandbox{Count: 3}, &forks); err != nil {
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
	if err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+forks.Sandboxes[0].ID+"/fork", nil, &again); err != nil {
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
	if err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+sb.ID+"/snapshot", v1.SnapshotSandbox{Name: "start-here"}, &snap); err != nil {
		t.Fatal(err)
	}
	s.want(t, sb.ID, "x['a'] = 2\nopen('/workspace/f', 'w').write('two')", "")
	if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)

	s = start(t, data)
	var list v1.SnapshotList
	if err := s.JSON(t.Context(), http.MethodGet, "/v1/snapshots", nil, &list); err != nil {
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
	if err := s.JSON(t.Context(), http.MethodDelete, "/v1/snapshots/start-here", nil, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Snapshot: "start-here"}); !hasCode(err, "snapshot-not-found") {
		t.Errorf("from a deleted snapshot: %v", err)
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}
