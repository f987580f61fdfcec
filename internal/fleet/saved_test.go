package fleet_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
)

// album is a driver whose snapshots are notes: what is made from one is empty.
type album struct {
	*fake.Driver
	mu       sync.Mutex
	saved    map[sandbox.SnapshotID]sandbox.Snapshot
	restored []sandbox.Spec
	refuse   error // of restores with memory
	after    int   // restores that succeed before the others are refused
}

func newAlbum(h *fake.Host) *album {
	return &album{Driver: h.Driver(), saved: map[sandbox.SnapshotID]sandbox.Snapshot{}}
}

func (d *album) StateKey(context.Context, sandbox.Spec) (string, error) { return "key", nil }

func (d *album) Snapshot(ctx context.Context, id sandbox.ID, opts sandbox.SnapshotOptions) (sandbox.Snapshot, error) {
	info, err := d.Get(ctx, id)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	if info.State != sandbox.StateRunning {
		return sandbox.Snapshot{}, errors.New("it does not run")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := sandbox.Snapshot{
		ID: sandbox.NewSnapshotID(), Name: opts.Name, Labels: opts.Labels, Template: info.Template, Image: info.Image, Limits: info.Limits,
		Sandbox: id, Memory: true, MemoryBytes: 100, CreatedAt: time.Now(),
	}
	d.saved[s.ID] = s
	return s, nil
}

func (d *album) Restore(ctx context.Context, id sandbox.SnapshotID, spec sandbox.Spec, filesOnly bool) (sandbox.Info, error) {
	d.mu.Lock()
	_, ok := d.saved[id]
	refuse := d.refuse
	if len(d.restored) < d.after {
		refuse = nil
	}
	if ok && (filesOnly || refuse == nil) {
		d.restored = append(d.restored, spec)
	}
	d.mu.Unlock()
	switch {
	case !ok:
		return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "snapshot-not-found", "no")
	case refuse != nil && !filesOnly:
		return sandbox.Info{}, refuse
	}
	return d.Create(ctx, spec)
}

func (d *album) Snapshots(context.Context) (list []sandbox.Snapshot, _ error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.saved {
		list = append(list, s)
	}
	return list, nil
}

func (d *album) RenameSnapshot(_ context.Context, id sandbox.SnapshotID, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s, ok := d.saved[id]
	if !ok {
		return errdefs.New(errdefs.ErrNotFound, "snapshot-not-found", "no")
	}
	s.Name = name
	d.saved[id] = s
	return nil
}

func (d *album) DropMemory(context.Context, sandbox.SnapshotID) error { return nil }

func (d *album) DeleteSnapshot(_ context.Context, id sandbox.SnapshotID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.saved, id)
	return nil
}

func TestForkWhileACellRuns(t *testing.T) {
	d := newAlbum(newPythonHost(t))
	f := newFleet(t, d, fleet.Template{}, 0)
	s := create(t, f, fleet.CreateRequest{Labels: map[string]string{"a": "b"}, Session: "ses"})
	e, _, err := s.Execute(t.Context(), fleet.ExecuteRequest{Code: "import time\nfor i in range(200):\n  print(i); time.sleep(0.005)"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		copies, err := s.Fork(t.Context(), 2, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range copies {
			v := c.View()
			if v.Labels["a"] != "b" || v.Session != "" || v.ID == s.ID() || v.SeedID == s.View().SeedID || v.Start != "restore" {
				t.Errorf("copy %+v", v)
			}
			if err := c.Delete(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	if e.State().Status != fleet.StatusRunning {
		t.Errorf("the cell is %s after the forks", e.State().Status)
	}
	lines := strings.Fields(output(t, e))
	if len(lines) != 200 || lines[0] != "0" || lines[199] != "199" {
		t.Errorf("the cell printed %d lines, %v", len(lines), lines)
	}
	if len(d.saved) != 0 {
		t.Errorf("%d temporary snapshots are left", len(d.saved))
	}
}

func TestForksThatFailLeaveNothing(t *testing.T) {
	d := newAlbum(newHost(t))
	f := newFleet(t, d, fleet.Template{}, 5)
	s := create(t, f, fleet.CreateRequest{})
	d.refuse, d.after = errors.New("scripted"), 1
	if _, err := s.Fork(t.Context(), 3, nil); !errors.Is(err, d.refuse) {
		t.Errorf("fork = %v", err)
	}
	if f.Count() != 1 || len(d.saved) != 0 {
		t.Errorf("%d sandboxes, %d snapshots", f.Count(), len(d.saved))
	}
	if _, err := s.Fork(t.Context(), 5, nil); !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("more than there is place for: %v", err)
	}
	if _, err := s.Fork(t.Context(), 17, nil); codeOf(err) != "invalid-count" {
		t.Errorf("too many: %v", err)
	}
	for range 4 {
		create(t, f, fleet.CreateRequest{}) // every place was given back
	}
}

func TestSnapshotsHaveNames(t *testing.T) {
	d := newAlbum(newHost(t))
	d.saved["snp_t"] = sandbox.Snapshot{ID: "snp_t", Name: "template/python", Labels: map[string]string{"caesarion.template": "python"}}
	f := newFleet(t, d, fleet.Template{Limits: sandbox.Limits{MemoryBytes: 1 << 30, DiskBytes: 1 << 30}}, 0)
	s := create(t, f, fleet.CreateRequest{Labels: map[string]string{"a": "b"}})
	pause(t, s)
	first, err := s.Snapshot(t.Context(), "base") // wakes it
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Snapshot(t.Context(), "base")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a/b", "", ".", "snp_x", strings.Repeat("a", 64)} {
		if _, err := s.Snapshot(t.Context(), name); name != "" && codeOf(err) != "snapshot-name-invalid" {
			t.Errorf("name %q: %v", name, err)
		}
	}
	list, err := f.Snapshots(t.Context())
	if err != nil || len(list) != 3 || slices.ContainsFunc(list, func(s sandbox.Snapshot) bool { return s.ID == "snp_t" }) {
		t.Errorf("list = %+v, %v", list, err)
	}
	if got, err := f.Snapshot(t.Context(), "base"); err != nil || got.ID != second.ID {
		t.Errorf("base is %s, %v, want the newer one", got.ID, err)
	}
	if d.saved[first.ID].Name != "" || d.saved["snp_t"].Name == "" {
		t.Errorf("the older one is called %q", d.saved[first.ID].Name)
	}
	c := create(t, f, fleet.CreateRequest{Snapshot: string(first.ID), Limits: sandbox.Limits{MemoryBytes: 1 << 29}})
	if v := c.View(); v.Labels["a"] != "b" || v.Restarted != nil || v.Start != "restore" || v.Limits.MemoryBytes != 1<<29 {
		t.Errorf("made from a snapshot: %+v", v)
	}
	d.refuse = errdefs.New(errdefs.ErrConflict, sandbox.CodeIncompatible, "scripted")
	c = create(t, f, fleet.CreateRequest{Snapshot: "base", Labels: map[string]string{}})
	if v := c.View(); v.Restarted == nil || v.Restarted.Reason != sandbox.CodeIncompatible || v.Start != "cold" || len(v.Labels) != 0 {
		t.Errorf("made from its files: %+v", v)
	}
	for code, req := range map[string]fleet.CreateRequest{
		"snapshot-not-found": {Snapshot: "template/python"},
		"template-mismatch":  {Snapshot: "base", Template: "other"},
		"invalid-limit":      {Snapshot: "base", Limits: sandbox.Limits{DiskBytes: 1}},
	} {
		if _, err := f.Create(t.Context(), req); codeOf(err) != code {
			t.Errorf("%+v: %v, want %s", req, err, code)
		}
	}
	if err := f.DeleteSnapshot(t.Context(), "base"); err != nil {
		t.Fatal(err)
	}
	if got, err := f.Snapshot(t.Context(), "base"); codeOf(err) != "snapshot-not-found" {
		t.Errorf("the name went back to %s, %v", got.ID, err)
	}
}

func TestSnapshotsFillTheQuota(t *testing.T) {
	d := newAlbum(newHost(t))
	f, err := fleet.New(t.Context(), d, nil, fleet.Options{Templates: map[string]fleet.Template{"python": {}}, DiskQuota: 250})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := create(t, f, fleet.CreateRequest{})
	for i := range 3 {
		_, err := s.Snapshot(t.Context(), "")
		if i < 2 && err != nil || i == 2 && (codeOf(err) != "disk-quota" || !errors.Is(err, errdefs.ErrExhausted)) {
			t.Errorf("snapshot %d: %v", i, err)
		}
	}
	if len(d.saved) != 2 {
		t.Errorf("%d are kept", len(d.saved))
	}
}

func TestCopiesUnderWayCountForNoQuota(t *testing.T) {
	d := newAlbum(newHost(t))
	f, err := fleet.New(t.Context(), d, nil, fleet.Options{Templates: map[string]fleet.Template{"python": {}}, DiskQuota: 1000})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := create(t, f, fleet.CreateRequest{})
	d.mu.Lock()
	d.saved["snp_other"] = sandbox.Snapshot{ID: "snp_other", Labels: map[string]string{"caesarion.fork": "sbx_other"}, MemoryBytes: 1 << 30}
	d.mu.Unlock()
	if _, err := s.Snapshot(t.Context(), "mine"); err != nil {
		t.Errorf("while somebody else copies a sandbox: %v", err)
	}
}

func TestCopiesMustFitIntoMemory(t *testing.T) {
	d := newAlbum(newHost(t)) // its snapshots have 100 bytes of memory
	f, err := fleet.New(t.Context(), d, nil, fleet.Options{Templates: map[string]fleet.Template{"python": {}}, MaxSandboxes: 50}.WithMemory(1600, 450))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	s := create(t, f, fleet.CreateRequest{})
	if _, err := s.Fork(t.Context(), 4, nil); codeOf(err) != "host-memory-short" {
		t.Errorf("four copies = %v", err)
	}
	if len(d.saved) != 0 || f.Count() != 1 {
		t.Errorf("%d snapshots and %d sandboxes are left", len(d.saved), f.Count())
	}
	if _, err := s.Fork(t.Context(), 3, nil); err != nil {
		t.Errorf("three copies = %v", err)
	}
}
