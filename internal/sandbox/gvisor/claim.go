package gvisor

import (
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

var _ sandbox.Claimer = (*Driver)(nil)

// claim is what Claim says of a sandbox whose record still calls it pooled. It
// lies in memory (RunDir), because the claimer waits for it.
type claim struct {
	Labels    map[string]string `json:"labels"`
	Env       map[string]string `json:"env,omitempty"`
	CreatedAt time.Time         `json:"created_at"`
}

func (c claim) apply(r *record) {
	r.Pooled, r.Labels, r.Env, r.CreatedAt = false, c.Labels, c.Env, c.CreatedAt
}

func (d *Driver) claimFile(id sandbox.ID) string {
	return filepath.Join(d.opts.RunDir, "claim-"+string(id)+".json")
}

// Claim hands over a pooled sandbox. See sandbox.Claimer.
func (d *Driver) Claim(_ context.Context, id sandbox.ID, labels, env map[string]string) (sandbox.Info, error) {
	d.busy.Add(1)
	defer d.busy.Done()
	b, err := d.lookup(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	c := claim{Labels: maps.Clone(labels), Env: maps.Clone(env), CreatedAt: time.Now().UTC()}
	b.mu.Lock()
	switch {
	case b.gone:
		b.mu.Unlock()
		return sandbox.Info{}, notFound(id)
	case !b.record.Pooled:
		b.mu.Unlock()
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-claimed", "sandbox %s has an owner already", id)
	case b.ended:
		b.mu.Unlock()
		return sandbox.Info{}, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "sandbox %s has stopped", id)
	}
	c.apply(&b.record)
	info := b.infoLocked()
	b.mu.Unlock()

	data, err := json.Marshal(c)
	if err == nil {
		err = writeFile(d.claimFile(id), data, false)
	}
	if err != nil {
		// No room in memory for a note: then on disk, at once.
		return info, b.write(false, c.apply)
	}
	d.busy.Go(func() {
		// With the record as it is by then: labels may have been set again.
		if err := b.write(false, func(*record) {}); err != nil {
			return // deleted; or the disk is full, and the note stays
		}
		_ = os.Remove(d.claimFile(id))
	})
	return info, nil
}

// claimed completes a record by what was claimed before an earlier process
// could write it, and reports whether that was so.
func (d *Driver) claimed(r *record) bool {
	b, err := os.ReadFile(d.claimFile(r.ID))
	if err != nil || !r.Pooled {
		return false
	}
	var c claim
	if json.Unmarshal(b, &c) != nil {
		return false
	}
	c.apply(r)
	return true
}
