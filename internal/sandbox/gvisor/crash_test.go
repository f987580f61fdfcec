package gvisor_test

import (
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// TestAKillBetweenAnyTwoStepsLosesNothing closes the driver in the middle of a
// pause or a resume and looks at what the next one finds.
func TestAKillBetweenAnyTwoStepsLosesNothing(t *testing.T) {
	img := gvisortest.Image(t)
	for _, tt := range []struct {
		name string
		cut  func(d *gvisor.Driver, id sandbox.ID) error
		want sandbox.State
	}{
		{"frozen", (*gvisor.Driver).CutFrozen, sandbox.StateRunning},
		{"in the middle of a checkpoint", (*gvisor.Driver).CutSaving, sandbox.StateRunning},
		{"saved, not recorded", (*gvisor.Driver).CutSaved, sandbox.StateRunning},
		{"saved, not recorded, and its processes ended", func(d *gvisor.Driver, id sandbox.ID) error {
			if err := d.CutSaved(id); err != nil {
				return err
			}
			return d.KillSentry(id)
		}, sandbox.StatePaused},
		{"recorded, not ended", (*gvisor.Driver).CutRecorded, sandbox.StatePaused},
		{"asleep", func(d *gvisor.Driver, id sandbox.ID) error { return d.Pause(t.Context(), id) }, sandbox.StatePaused},
		{"restored, not recorded", func(d *gvisor.Driver, id sandbox.ID) error {
			if err := d.Pause(t.Context(), id); err != nil {
				return err
			}
			return d.CutWaking(id)
		}, sandbox.StatePaused},
		{"awake", func(d *gvisor.Driver, id sandbox.ID) error {
			if err := d.Pause(t.Context(), id); err != nil {
				return err
			}
			_, err := d.Resume(t.Context(), id, false)
			return err
		}, sandbox.StateRunning},
	} {
		t.Run(tt.name, func(t *testing.T) {
			opts := options(t, img, gvisortest.StateDir(t))
			t.Cleanup(func() { wantNothingLeft(t, opts.StateDir) })
			d := open(t, opts)
			p := newPython(t, d)
			p.run("x = 41; f = open('/workspace/f', 'w+'); f.write('hello')")
			if err := tt.cut(d, p.id); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = open(t, opts)
			info, err := d.Get(t.Context(), p.id)
			if err != nil || info.State != tt.want || info.Labels["a"] != "1" {
				t.Fatalf("got %+v, %v, want %s", info, err, tt.want)
			}
			if tt.want == sandbox.StatePaused {
				if procs := processes(opts.StateDir); len(procs) > 0 {
					t.Errorf("it sleeps, and these run: %q", procs)
				}
				if info, err = d.Resume(t.Context(), p.id, false); err != nil {
					t.Fatal(err)
				}
			}
			for _, pattern := range []string{".tmp-*", "saved"} {
				if left, _ := filepath.Glob(filepath.Join(opts.StateDir, "sandboxes", "*", pattern)); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			}
			p = &python{t, d, client(d, info), info.ID}
			p.want("f.write(' world'); f.flush(); x += 1; print(x, open('/workspace/f').read())", "42 hello world")
			// And it can sleep again.
			if err := d.Pause(t.Context(), p.id); err != nil {
				t.Fatal(err)
			}
			if procs := processes(opts.StateDir); len(procs) > 0 {
				t.Errorf("it sleeps, and these run: %q", procs)
			}
		})
	}
}

func TestWhatAKillLeavesOfSnapshotsIsRemoved(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	d := open(t, opts)
	p := newPython(t, d)
	s := snapshot(t, d, p.id, sandbox.SnapshotOptions{Name: "kept"})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(opts.StateDir, "snapshots")
	copyDir(t, filepath.Join(dir, string(s.ID)), filepath.Join(dir, ".tmp-"+string(sandbox.NewSnapshotID())))
	d = open(t, opts)
	if left, _ := filepath.Glob(filepath.Join(dir, ".tmp-*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	list, err := d.Snapshots(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "kept" {
		t.Errorf("snapshots: %+v, %v", list, err)
	}
	info, err := d.Restore(t.Context(), s.ID, sandbox.Spec{Limits: smallLimits}, false)
	if err != nil {
		t.Fatal(err)
	}
	(&python{t, d, client(d, info), info.ID}).want("print(1)", "1")
}
