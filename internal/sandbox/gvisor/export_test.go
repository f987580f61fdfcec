package gvisor

import (
	"context"
	"os"
	"path/filepath"
	"time"

	gvisorsandbox "gvisor.dev/gvisor/runsc/sandbox"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// The states in which a kill can leave a pause or a resume, made by the same
// steps; the driver is then closed as it is.

// CutFrozen leaves a sandbox frozen.
func (d *Driver) CutFrozen(id sandbox.ID) error {
	l := d.boxes[id].life
	return l.container.Sandbox.Pause(l.container.ID)
}

// CutSaving leaves a sandbox in the middle of a checkpoint, which gVisor ends
// later.
func (d *Driver) CutSaving(id sandbox.ID) error {
	b := d.boxes[id]
	dir := filepath.Join(b.dir, tmpPrefix+"saved")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	c := b.life.container
	if err := c.Sandbox.Pause(c.ID); err != nil {
		return err
	}
	go func() { _ = c.Sandbox.Checkpoint(nil, c.ID, dir, gvisorsandbox.CheckpointOpts{Resume: true}) }()
	for range 1000 {
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return os.ErrDeadlineExceeded
}

// CutSaved leaves a sandbox frozen with its state complete; its record does
// not say so.
func (d *Driver) CutSaved(id sandbox.ID) error {
	b := d.boxes[id]
	m, err := d.describe(context.Background(), &b.record)
	if err != nil {
		return err
	}
	tmp := filepath.Join(b.dir, tmpPrefix+"saved")
	if err := d.save(b.life, tmp, true); err != nil {
		return err
	}
	if err := seal(tmp, m, true); err != nil {
		return err
	}
	return publish(tmp, b.savedDir())
}

// CutRecorded leaves a sandbox frozen, saved, and its record saying so.
func (d *Driver) CutRecorded(id sandbox.ID) error {
	if err := d.CutSaved(id); err != nil {
		return err
	}
	return d.boxes[id].write(true, func(r *record) { r.PausedAt, r.Sentry, r.Gofer = time.Now().UTC(), process{}, process{} })
}

// CutWaking leaves a paused sandbox with its processes restored; its record
// does not say so.
func (d *Driver) CutWaking(id sandbox.ID) error {
	b := d.boxes[id]
	r := b.record
	root, err := d.opts.Rootfs(context.Background(), r.Image)
	if err != nil {
		return err
	}
	l, err := d.launch(context.Background(), &r, root, source{saved: b.saved})
	b.life = l // for Close, which a kill leaves out
	return err
}

// KillSentry ends a sandbox's processes.
func (d *Driver) KillSentry(id sandbox.ID) error { return d.boxes[id].life.kill() }
