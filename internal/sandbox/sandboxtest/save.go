package sandboxtest

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// optional is the part of the suite for what only some drivers can do.
func optional(t *testing.T, newHarness func(testing.TB) Harness) {
	h := newHarness(t)
	d := h.open(t)
	if _, ok := d.(sandbox.Pauser); ok {
		t.Run("a paused sandbox wakes as it was", func(t *testing.T) { testPause(t, newHarness(t)) })
		t.Run("a restart finds paused sandboxes", func(t *testing.T) { testPausedRestart(t, newHarness(t)) })
		t.Run("pauses, resumes and deletes side by side", func(t *testing.T) { testPauseRaces(t, newHarness(t)) })
		t.Run("a pause that can't be leaves the sandbox running", func(t *testing.T) { testPauseFails(t, newHarness(t)) })
		t.Run("files stay when memory is forgotten", func(t *testing.T) { testForget(t, newHarness(t)) })
	}
	if _, ok := d.(sandbox.Claimer); ok {
		t.Run("a pooled sandbox is claimed once", func(t *testing.T) { testClaim(t, newHarness(t)) })
	}
	if _, ok := d.(sandbox.Snapshotter); ok {
		t.Run("copies of a snapshot are sandboxes of their own", func(t *testing.T) { testSnapshot(t, newHarness(t)) })
	}
}

func put(t testing.TB, d sandbox.Driver, info sandbox.Info, content string) {
	t.Helper()
	c := Client(t, d, info)
	defer c.CloseIdle()
	if _, err := c.Upload(patient(t), "/workspace/kept", strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("upload: %v", err)
	}
}

func wantContent(t testing.TB, d sandbox.Driver, info sandbox.Info, want string) {
	t.Helper()
	c := Client(t, d, info)
	defer c.CloseIdle()
	content, err := c.Download(patient(t), "/workspace/kept", "")
	if err != nil {
		t.Errorf("download: %v", err)
		return
	}
	defer content.Body.Close()
	if got, err := io.ReadAll(content.Body); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func wantCode(t testing.TB, what string, err error, code string) {
	t.Helper()
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != code {
		t.Errorf("%s: got %v, want %s", what, err, code)
	}
}

// pauser is d, which can pause.
func pauser(t testing.TB, d sandbox.Driver) sandbox.Pauser {
	t.Helper()
	p, ok := d.(sandbox.Pauser)
	if !ok {
		t.Fatal("the driver can't pause any more")
	}
	return p
}

func testPause(t *testing.T, h Harness) {
	d := h.open(t)
	p := pauser(t, d)
	info := h.create(t, d, map[string]string{"a": "1"})
	put(t, d, info, "before")
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second changes nothing
		if err := p.Pause(patient(t), info.ID); err != nil {
			t.Fatalf("pause: %v", err)
		}
	}
	got, err := d.Get(patient(t), info.ID)
	if err != nil || got.State != sandbox.StatePaused || got.PausedAt.IsZero() || got.MemoryBytes <= 0 || got.FilesBytes <= 0 || got.AgentToken != info.AgentToken {
		t.Errorf("paused: %+v, %v", got, err)
	}
	if conn, err := d.Dial(patient(t), info.ID); err == nil {
		_ = conn.Close()
		t.Error("a paused sandbox can be dialled")
	} else {
		wantCode(t, "dial", err, "sandbox-paused")
	}
	if err := d.SetLabels(patient(t), info.ID, map[string]string{"b": "2"}); err != nil {
		t.Errorf("set labels of a paused sandbox: %v", err)
	}
	for range 2 {
		got, err = p.Resume(patient(t), info.ID, false)
		if err != nil {
			t.Fatalf("resume: %v", err)
		}
		if got.State != sandbox.StateRunning || !got.PausedAt.IsZero() || got.AgentToken != info.AgentToken || !got.CreatedAt.Equal(info.CreatedAt) {
			t.Errorf("resumed: %+v, want %+v", got, info)
		}
		if diff := cmp.Diff(map[string]string{"b": "2"}, got.Labels); diff != "" {
			t.Errorf("labels (-want +got):\n%s", diff)
		}
	}
	wantContent(t, d, info, "before")
	select {
	case <-lost:
		t.Error("the pause closed the channel of Lost")
	default:
	}
	if lost, err = d.Lost(info.ID); err != nil {
		t.Fatal(err)
	}
	if err := d.Delete(patient(t), info.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	closedSoon(t, lost)
	for what, err := range map[string]error{
		"pause":  p.Pause(patient(t), info.ID),
		"resume": func() error { _, err := p.Resume(patient(t), info.ID, false); return err }(),
		"forget": p.ForgetMemory(patient(t), info.ID),
	} {
		if !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%s after delete: %v", what, err)
		}
	}
}

func testPausedRestart(t *testing.T, h Harness) {
	first := h.Open(t)
	spec := h.Spec
	spec.Labels = map[string]string{"a": "1"}
	info, err := first.Create(patient(t), spec)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	put(t, first, info, "before")
	if err := pauser(t, first).Pause(patient(t), info.ID); err != nil {
		t.Errorf("pause: %v", err)
	}
	want, err := first.Get(patient(t), info.ID)
	if err != nil {
		t.Error(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	d := h.open(t)
	if diff := cmp.Diff([]sandbox.Info{want}, listed(t, d)); diff != "" {
		t.Errorf("after the restart (-want +got):\n%s", diff)
	}
	if _, err := pauser(t, d).Resume(patient(t), info.ID, false); err != nil {
		t.Errorf("resume: %v", err)
	}
	wantContent(t, d, info, "before")
	if err := pauser(t, d).Pause(patient(t), info.ID); err != nil {
		t.Errorf("pause: %v", err)
	}
	lost, err := d.Lost(info.ID)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Delete(patient(t), info.ID); err != nil {
			t.Errorf("delete of a paused sandbox: %v", err)
		}
	}
	closedSoon(t, lost)
	if list := listed(t, d); len(list) != 0 {
		t.Errorf("after delete: %+v", list)
	}
}

func testPauseRaces(t *testing.T, h Harness) {
	d := h.open(t)
	p := pauser(t, d)
	info := h.create(t, d, nil)
	put(t, d, info, "before")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := p.Pause(patient(t), info.ID); err != nil {
				t.Errorf("pause: %v", err)
			}
		})
		wg.Go(func() {
			if _, err := p.Resume(patient(t), info.ID, false); err != nil {
				t.Errorf("resume: %v", err)
			}
		})
	}
	wg.Wait()
	if _, err := p.Resume(patient(t), info.ID, false); err != nil {
		t.Errorf("resume: %v", err)
	}
	wantContent(t, d, info, "before")
	// A delete wins against a pause, whenever it comes.
	wg.Go(func() {
		if err := p.Pause(patient(t), info.ID); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("pause while it is deleted: %v", err)
		}
	})
	wg.Go(func() {
		if err := d.Delete(patient(t), info.ID); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	wg.Wait()
	if _, err := d.Get(patient(t), info.ID); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("get after delete: %v", err)
	}
}

func testPauseFails(t *testing.T, h Harness) {
	d := h.open(t)
	p := pauser(t, d)
	info := h.create(t, d, nil)
	put(t, d, info, "before")
	conn, err := d.Dial(patient(t), info.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantCode(t, "pause with an open connection", p.Pause(patient(t), info.ID), "sandbox-busy")
	wantContent(t, d, info, "before")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
	left := errors.New("the caller left")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(left)
	if err := p.Pause(ctx, info.ID); !errors.Is(err, left) {
		t.Errorf("pause with a context that has ended: %v, want its cause", err)
	}
	wantContent(t, d, info, "before")
	if err := p.Pause(patient(t), info.ID); err != nil {
		t.Errorf("pause after one that failed: %v", err)
	}
	if _, err := p.Resume(ctx, info.ID, false); !errors.Is(err, left) {
		t.Errorf("resume with a context that has ended: %v, want its cause", err)
	}
	if _, err := p.Resume(patient(t), info.ID, false); err != nil {
		t.Errorf("resume: %v", err)
	}
	wantContent(t, d, info, "before")
	if h.Kill != nil {
		lost, err := d.Lost(info.ID)
		if err != nil {
			t.Fatal(err)
		}
		h.Kill(t, d, info.ID)
		closedSoon(t, lost)
		wantCode(t, "pause of a sandbox that ended", p.Pause(patient(t), info.ID), "sandbox-lost")
	}
}

func testForget(t *testing.T, h Harness) {
	d := h.open(t)
	p := pauser(t, d)
	info := h.create(t, d, nil)
	put(t, d, info, "before")
	if err := p.ForgetMemory(patient(t), info.ID); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("forget the memory of a running sandbox: %v", err)
	}
	if err := p.Pause(patient(t), info.ID); err != nil {
		t.Fatalf("pause: %v", err)
	}
	for range 2 {
		if err := p.ForgetMemory(patient(t), info.ID); err != nil {
			t.Errorf("forget: %v", err)
		}
	}
	if got, err := d.Get(patient(t), info.ID); err != nil || got.State != sandbox.StatePaused || got.MemoryBytes != 0 || got.FilesBytes <= 0 {
		t.Errorf("get: %+v, %v", got, err)
	}
	_, err := p.Resume(patient(t), info.ID, false)
	wantCode(t, "resume without memory", err, sandbox.CodeNoMemory)
	got, err := p.Resume(patient(t), info.ID, true)
	if err != nil || got.State != sandbox.StateRunning || got.AgentToken != info.AgentToken {
		t.Fatalf("resume with files only: %+v, %v", got, err)
	}
	wantContent(t, d, info, "before")
	// It is a sandbox like any other.
	if err := p.Pause(patient(t), info.ID); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if _, err := p.Resume(patient(t), info.ID, false); err != nil {
		t.Fatalf("resume: %v", err)
	}
	wantContent(t, d, info, "before")
}

func testClaim(t *testing.T, h Harness) {
	first := h.Open(t)
	claimer, ok := first.(sandbox.Claimer)
	if !ok {
		t.Fatal("the driver can't claim any more")
	}
	ordinary := h.create(t, first, nil)
	if _, err := claimer.Claim(patient(t), ordinary.ID, nil, nil); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("claim of a sandbox that is not pooled: %v", err)
	}
	if _, err := claimer.Claim(patient(t), sandbox.NewID(), nil, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("claim of an unknown sandbox: %v", err)
	}
	spec := h.Spec
	spec.Pooled = true
	waiting, err := first.Create(patient(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	claimed, err := first.Create(patient(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	if !waiting.Pooled || !claimed.Pooled {
		t.Errorf("made for the pool: %+v, %+v", waiting, claimed)
	}
	labels := map[string]string{"session": "ses_1"}
	var wg sync.WaitGroup
	var won atomic.Int64
	for range 8 {
		wg.Go(func() {
			info, err := claimer.Claim(patient(t), claimed.ID, labels, nil)
			switch {
			case err == nil:
				won.Add(1)
				if info.Pooled || info.CreatedAt.Before(claimed.CreatedAt) || info.AgentToken != claimed.AgentToken || !cmp.Equal(labels, info.Labels) {
					t.Errorf("claimed: %+v", info)
				}
			case !errors.Is(err, errdefs.ErrConflict):
				t.Errorf("claim: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d of 8 claims succeeded, want 1", n)
	}
	want, err := first.Get(patient(t), claimed.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	d := h.open(t)
	if got, err := d.Get(patient(t), claimed.ID); err != nil || !cmp.Equal(want, got) {
		t.Errorf("the claimed one after a restart: %v\n%s", err, cmp.Diff(want, got))
	}
	if got, err := d.Get(patient(t), waiting.ID); err != nil || !got.Pooled {
		t.Errorf("the waiting one after a restart: %+v, %v", got, err)
	}
	for _, id := range []sandbox.ID{ordinary.ID, waiting.ID, claimed.ID} {
		if err := d.Delete(patient(t), id); err != nil {
			t.Errorf("delete: %v", err)
		}
	}
}

func testSnapshot(t *testing.T, h Harness) {
	first := h.Open(t)
	s, ok := first.(sandbox.Snapshotter)
	if !ok {
		t.Fatal("the driver can't make snapshots any more")
	}
	spec := h.Spec
	info, err := first.Create(patient(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	put(t, first, info, "before")
	key, err := s.StateKey(patient(t), spec)
	if err != nil || key == "" {
		t.Errorf("key: %q, %v", key, err)
	}
	var made []sandbox.Snapshot
	for _, files := range []bool{true, false} {
		snap, err := s.Snapshot(patient(t), info.ID, sandbox.SnapshotOptions{Name: "mine", Labels: map[string]string{"a": "1"}, Files: files})
		if err != nil {
			t.Fatalf("snapshot: %v", err)
		}
		if !snap.ID.Valid() || snap.Name != "mine" || snap.Labels["a"] != "1" || snap.Sandbox != info.ID || snap.Key != key || !snap.Memory ||
			snap.MemoryBytes <= 0 || (snap.FilesBytes > 0) != files || snap.CreatedAt.IsZero() || snap.Limits != info.Limits || snap.Image != info.Image {
			t.Errorf("snapshot: %+v", snap)
		}
		made = append(made, snap)
	}
	put(t, first, info, "after")
	if err := first.Delete(patient(t), info.ID); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Errorf("close: %v", err)
	}

	d := h.open(t)
	s = d.(sandbox.Snapshotter) //nolint:forcetypeassert // the same driver as above
	sorted := cmp.Transformer("byID", func(list []sandbox.Snapshot) map[sandbox.SnapshotID]sandbox.Snapshot {
		out := map[sandbox.SnapshotID]sandbox.Snapshot{}
		for _, snap := range list {
			out[snap.ID] = snap
		}
		return out
	})
	list, err := s.Snapshots(patient(t))
	if err != nil || !cmp.Equal(made, list, sorted) {
		t.Errorf("after the restart: %v\n%s", err, cmp.Diff(made, list, sorted))
	}
	restore := func(id sandbox.SnapshotID, filesOnly bool) sandbox.Info {
		t.Helper()
		spec := h.Spec
		spec.Labels = map[string]string{"copy": "1"}
		got, err := s.Restore(patient(t), id, spec, filesOnly)
		if err != nil {
			t.Fatalf("restore: %v", err)
		}
		t.Cleanup(func() {
			if err := d.Delete(context.WithoutCancel(t.Context()), got.ID); err != nil {
				t.Errorf("delete: %v", err)
			}
		})
		if got.ID == info.ID || got.AgentToken == info.AgentToken || got.State != sandbox.StateRunning || got.Labels["copy"] != "1" {
			t.Errorf("restored: %+v", got)
		}
		healthy(t, d, got)
		wantContent(t, d, got, "before")
		return got
	}
	one, two := restore(made[0].ID, false), restore(made[0].ID, false)
	put(t, d, one, "one")
	put(t, d, two, "two")
	wantContent(t, d, one, "one")
	restore(made[0].ID, true)
	if err := s.RenameSnapshot(patient(t), made[1].ID, "other"); err != nil {
		t.Errorf("rename: %v", err)
	}
	restore(made[1].ID, false)
	if err := s.RenameSnapshot(patient(t), sandbox.NewSnapshotID(), "other"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("rename of an unknown snapshot: %v", err)
	}
	list, err = s.Snapshots(patient(t))
	for _, snap := range list {
		if want := map[bool]string{true: "mine", false: "other"}[snap.ID == made[0].ID]; snap.Name != want {
			t.Errorf("after the rename: %q, want %q", snap.Name, want)
		}
	}
	if err != nil || len(list) != 2 {
		t.Errorf("after the rename: %+v, %v", list, err)
	}
	_, err = s.Restore(patient(t), made[1].ID, h.Spec, true)
	wantCode(t, "restore of files that were not kept", err, "snapshot-no-files")
	other := h.Spec
	other.Limits.DiskBytes += 1 << 20
	_, err = s.Restore(patient(t), made[0].ID, other, false)
	wantCode(t, "restore with another disk limit", err, sandbox.CodeIncompatible)

	for range 2 {
		if err := s.DropMemory(patient(t), made[0].ID); err != nil {
			t.Errorf("drop memory: %v", err)
		}
	}
	_, err = s.Restore(patient(t), made[0].ID, h.Spec, false)
	wantCode(t, "restore without memory", err, sandbox.CodeNoMemory)
	restore(made[0].ID, true)
	if err := s.DropMemory(patient(t), made[1].ID); err != nil { // it has nothing else
		t.Errorf("drop memory: %v", err)
	}
	if list, err := s.Snapshots(patient(t)); err != nil || len(list) != 1 || list[0].Memory || list[0].MemoryBytes != 0 || list[0].FilesBytes == 0 {
		t.Errorf("with its files only: %+v, %v", list, err)
	}
	for range 2 {
		if err := s.DeleteSnapshot(patient(t), made[0].ID); err != nil {
			t.Errorf("delete snapshot: %v", err)
		}
	}
	if list, err := s.Snapshots(patient(t)); err != nil || len(list) != 0 {
		t.Errorf("after delete: %+v, %v", list, err)
	}
	for _, id := range []sandbox.SnapshotID{made[0].ID, "../../etc", ""} {
		if _, err := s.Restore(patient(t), id, h.Spec, false); !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("restore of %q: %v", id, err)
		}
	}
	if _, err := s.Snapshot(patient(t), sandbox.NewID(), sandbox.SnapshotOptions{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("snapshot of an unknown sandbox: %v", err)
	}
}
