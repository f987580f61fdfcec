package sleep

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// until waits for a condition of a sandbox that sleeps.
func (s server) until(t *testing.T, id, what string, is func(v1.Sandbox, error) bool) {
	t.Helper()
	for end := time.Now().Add(servertest.Patience); ; time.Sleep(50 * time.Millisecond) {
		sb, err := s.Sandbox(t.Context(), id)
		if is(sb, err) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it never comes that %s: %+v, %v", what, sb, err)
		}
	}
}

func TestMemoryGoesBeforeFilesAndBothWithAReason(t *testing.T) {
	s := start(t, servertest.DataDir(t), "--keep-memory=3s", "--keep-files=12s")
	sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Env: map[string]string{"MINE": "yes"}})
	if err != nil {
		t.Fatal(err)
	}
	s.want(t, sb.ID, "x = 1\nopen('/workspace/f', 'w').write('kept')", "")
	full := s.pause(t, sb.ID).SavedBytes
	s.until(t, sb.ID, "its memory is dropped", func(sb v1.Sandbox, err error) bool {
		return err == nil && sb.SavedBytes > 0 && sb.SavedBytes < full/4
	})
	s.want(t, sb.ID, "import os; print('x' in globals(), open('/workspace/f').read(), os.environ['MINE'])", "False kept yes\n")
	got := s.get(t, sb.ID)
	if got.Restarted == nil || got.Restarted.Reason != "snapshot-no-memory" {
		t.Errorf("restarted: %+v", got.Restarted)
	}
	s.pause(t, sb.ID)
	s.until(t, sb.ID, "it is deleted", func(_ v1.Sandbox, err error) bool { return err != nil })
	if _, err := s.Run(t.Context(), sb.ID, "1"); err == nil || !strings.Contains(err.Error(), "not used for too long") {
		t.Errorf("a sandbox that is gone: %v", err)
	}
}

func TestTheQuotaTakesTheOldestMemory(t *testing.T) {
	const quota = 130 << 20
	s := start(t, servertest.DataDir(t), "--disk-quota="+strconv.Itoa(quota))
	var all []string
	for i := range 4 {
		sb := s.create(t)
		s.want(t, sb.ID, "import os\nx = os.urandom(30_000_000)\nopen('/workspace/f', 'w').write('kept')", "")
		s.pause(t, sb.ID)
		all = append(all, sb.ID)
		if i > 0 {
			s.until(t, all[i-1], "the one before has lost its memory, or there is room", func(v1.Sandbox, error) bool {
				var sum int64
				for _, id := range all {
					sum += s.get(t, id).SavedBytes
				}
				return sum <= quota
			})
		}
	}
	last := all[len(all)-1]
	s.want(t, last, "print(len(x))", "30000000\n")
	if got := s.get(t, last); got.Restarted != nil {
		t.Errorf("the one paused last: %+v", got.Restarted)
	}
	s.want(t, all[0], "print('x' in globals(), open('/workspace/f').read())", "False kept\n")
	if got := s.get(t, all[0]); got.Restarted == nil || got.Restarted.Reason != "snapshot-no-memory" {
		t.Errorf("the oldest: %+v", got.Restarted)
	}
	// Snapshots are never dropped, so at last there is no room for one more.
	for i := 0; ; i++ {
		_, err := s.Snapshot(t.Context(), last, v1.SnapshotSandbox{})
		if hasCode(err, "disk-quota") && i > 0 {
			break
		}
		if err != nil || i > 3 {
			t.Fatalf("snapshot %d: %v", i, err)
		}
	}
	list, err := s.Snapshots(t.Context())
	if err != nil || len(list) == 0 {
		t.Errorf("%d snapshots, %v", len(list), err)
	}
	for _, x := range list {
		if err := s.DeleteSnapshot(t.Context(), x.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestCopiesKeepTheEnvironmentAndTheClock(t *testing.T) {
	data := servertest.DataDir(t)
	s := start(t, data)
	sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Env: map[string]string{"SECRET": "of-this-sandbox"}})
	if err != nil {
		t.Fatal(err)
	}
	s.want(t, sb.ID, "import os, time; print(os.environ['SECRET'])", "of-this-sandbox\n")
	snap, err := s.Client.Snapshot(t.Context(), sb.ID, v1.SnapshotSandbox{Name: "env"})
	if err != nil {
		t.Fatal(err)
	}
	forks, err := s.Fork(t.Context(), sb.ID, v1.ForkSandbox{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	// What a copy starts has it too, and a start with its files alone.
	fork := forks[0].ID
	s.want(t, fork, "import subprocess; print(subprocess.run(['sh', '-c', 'echo $SECRET'], capture_output=True, text=True).stdout)", "of-this-sandbox\n\n")
	kernels, err := s.Kernels(t.Context(), fork)
	if err != nil || len(kernels) != 1 {
		t.Fatal(kernels, err)
	}
	if _, err := s.RestartKernel(t.Context(), fork, kernels[0].ID); err != nil {
		t.Fatal(err)
	}
	s.want(t, fork, "import os; print(os.environ['SECRET'])", "of-this-sandbox\n")
	s.pause(t, fork)
	s.pause(t, sb.ID)
	private(t, filepath.Join(data, "state"))
	s.Kill()
	flip(t, savedFile(t, data, fork, "pages.img"))
	flip(t, filepath.Join(data, "state", "snapshots", snap.ID, "pages.img"))
	s = start(t, data)
	s.want(t, fork, "import os; print(os.environ['SECRET'])", "of-this-sandbox\n")
	made, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Snapshot: "env"})
	if err != nil {
		t.Fatal(err)
	}
	s.want(t, made.ID, "import os; print(os.environ['SECRET'])", "of-this-sandbox\n")
	if got := s.get(t, made.ID); got.Restarted == nil || got.Restarted.Reason != "snapshot-damaged" {
		t.Errorf("restarted: %+v", got.Restarted)
	}

	r, err := s.Run(t.Context(), sb.ID, "print(time.time())")
	if err != nil {
		t.Fatal(err)
	}
	inside, err := strconv.ParseFloat(strings.TrimSpace(r.Text), 64)
	if off := time.Since(time.UnixMicro(int64(inside * 1e6))); err != nil || off < -time.Second || off > 5*time.Second {
		t.Errorf("after its sleep the clock is off by %v (%v)", off, err)
	}
	if err := s.JSON(t.Context(), http.MethodDelete, "/v1/snapshots/env", nil, nil); err != nil {
		t.Error(err)
	}
}

// private checks that nobody else can read what is saved.
func private(t *testing.T, state string) {
	t.Helper()
	n := 0
	err := filepath.Walk(state, func(path string, info os.FileInfo, err error) error {
		switch {
		case err != nil:
			return err
		case info.IsDir() && (info.Name() == "saved" || strings.HasPrefix(info.Name(), "snp_")):
			n++
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return filepath.SkipDir
		case info.Name() == "record.json" && info.Mode().Perm() != 0o600:
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || n < 3 {
		t.Errorf("%d saved states found, %v", n, err)
	}
}
