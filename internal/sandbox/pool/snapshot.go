package pool

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// snapshotPrefix begins the names of templates' snapshots, and templateLabel
	// says of which template.
	snapshotPrefix = "template/"
	templateLabel  = "caesarion.template"

	// warmChecks inert cells run in a sandbox before it is saved or called ready:
	// the first ones load what every cell needs.
	warmChecks = 3
	// checkTimeout bounds one of them.
	checkTimeout = 5 * time.Second
	// restoreTries in a row may fail before the snapshot is made anew.
	restoreTries = 3
)

// Own reports whether s is a template's snapshot, which is the pool's and
// nobody else's.
func Own(s sandbox.Snapshot) bool {
	name, ok := strings.CutPrefix(s.Name, snapshotPrefix)
	return ok && s.Labels[templateLabel] == name
}

// forgetSnapshots deletes the snapshots of templates that are no more.
func (p *Pool) forgetSnapshots() {
	if p.snap == nil {
		return
	}
	snaps, err := p.snap.Snapshots(p.ctx)
	if err != nil {
		p.log.Error("could not list snapshots", "err", err)
		return
	}
	for _, s := range snaps {
		if Own(s) && p.templates[s.Labels[templateLabel]] == nil {
			p.forget(s, "its template is gone")
		}
	}
}

func (p *Pool) forget(s sandbox.Snapshot, why string) {
	p.log.Info("template snapshot is deleted", "template", s.Labels[templateLabel], "snapshot_id", s.ID, "reason", why)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), removeTimeout)
	defer cancel()
	if err := p.snap.DeleteSnapshot(ctx, s.ID); err != nil {
		p.log.Error("could not delete a snapshot", "snapshot_id", s.ID, "err", err)
	}
}

// ensureSnapshot finds the snapshot of an earlier process or makes one. When
// neither is possible sandboxes are started cold until it is.
func (p *Pool) ensureSnapshot(t *template) {
	snaps, err := p.snap.Snapshots(p.ctx)
	if err == nil {
		p.mu.Lock()
		bad := t.bad
		p.mu.Unlock()
		var found *sandbox.Snapshot
		for _, s := range slices.SortedFunc(slices.Values(snaps), func(a, b sandbox.Snapshot) int { return b.CreatedAt.Compare(a.CreatedAt) }) {
			switch {
			case !Own(s) || s.Labels[templateLabel] != t.name:
			case s.ID == bad:
				p.forget(s, "it can't be restored")
			case found == nil && s.Key == t.stateKey && s.Memory:
				found = &s
			default:
				p.forget(s, "it is of another build, image or machine")
			}
		}
		if found != nil {
			p.log.Info("template snapshot found", "template", t.name, "snapshot_id", found.ID, "bytes", found.MemoryBytes)
			p.settle(t, *found)
			return
		}
		var s sandbox.Snapshot
		if s, err = p.makeSnapshot(t); err == nil {
			p.settle(t, s)
			return
		}
	}
	if p.ctx.Err() != nil {
		return
	}
	t.snapAgain.failed(retryLast)
	p.log.Warn("a template has no snapshot: its sandboxes start cold", "template", t.name, "err", err, "again_in", t.snapAgain.wait)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.state, t.message = snapshotFailed, "the snapshot could not be made, sandboxes start cold; the log says why"
}

// settle has restores use s from now on.
func (p *Pool) settle(t *template, s sandbox.Snapshot) {
	t.snapAgain.reset()
	p.mu.Lock()
	defer p.mu.Unlock()
	t.state, t.snapshot, t.failures, t.message = snapshotReady, s, 0, ""
}

// makeSnapshot starts a sandbox of t, has it ready, saves and deletes it.
func (p *Pool) makeSnapshot(t *template) (_ sandbox.Snapshot, err error) {
	p.say(t, snapshotMaking, "waiting to start")
	leave, err := p.gate.whenIdle(p.ctx)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	defer leave()
	begin := time.Now()
	stage := begin
	next := func(done, doing string) {
		p.log.Debug("template snapshot is being made", "template", t.name, "stage", done, "duration", time.Since(stage))
		stage = time.Now()
		p.say(t, snapshotMaking, doing)
	}
	p.log.Info("template snapshot is being made", "template", t.name, "stage", "begin", "preload", t.Preload)
	p.say(t, snapshotMaking, "starting a sandbox and loading "+strings.Join(append([]string{"Python"}, t.Preload...), ", "))
	spec := t.spec(t.key)
	info, err := p.driver.Create(p.ctx, spec)
	if err != nil {
		return sandbox.Snapshot{}, fmt.Errorf("start a sandbox: %w", err)
	}
	client := p.connect(info)
	defer func() {
		client.CloseIdle()
		if err := p.remove(info.ID); err != nil {
			p.log.Error("could not delete a sandbox", "sandbox_id", info.ID, "err", err)
		}
	}()
	next("start", "running inert cells")
	ctx, cancel := context.WithTimeout(p.ctx, time.Minute)
	defer cancel()
	kernelID, err := prestarted(ctx, client)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	for range warmChecks {
		if err := client.Check(ctx, kernelID); err != nil {
			return sandbox.Snapshot{}, fmt.Errorf("run an inert cell: %w", err)
		}
	}
	if err := client.Trim(ctx); err != nil {
		return sandbox.Snapshot{}, fmt.Errorf("give memory back: %w", err)
	}
	next("check", "saving")
	client.CloseIdle()
	s, err := p.snap.Snapshot(p.ctx, info.ID, sandbox.SnapshotOptions{
		Name: snapshotPrefix + t.name, Labels: map[string]string{templateLabel: t.name},
	})
	if err != nil {
		return sandbox.Snapshot{}, fmt.Errorf("save it: %w", err)
	}
	next("save", "")
	p.log.Info("template snapshot made", "template", t.name, "snapshot_id", s.ID, "bytes", s.MemoryBytes, "duration", time.Since(begin))
	return s, nil
}

func (p *Pool) say(t *template, state, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t.state, t.message = state, message
}

// restoreFailed counts a failed restore. A snapshot that fails again and again,
// or is known to be useless, is made anew.
func (p *Pool) restoreFailed(t *template, s sandbox.Snapshot, err error) {
	code := errdefs.CodeOf(err)
	useless := code == sandbox.CodeDamaged || code == sandbox.CodeNoMemory || code == sandbox.CodeIncompatible || code == "snapshot-not-found"
	p.log.Warn("a restore failed: the sandbox starts cold", "template", t.name, "snapshot_id", s.ID, "err", err)
	p.mu.Lock()
	if t.snapshot.ID != s.ID || t.state != snapshotReady {
		p.mu.Unlock()
		return
	}
	t.failures++
	anew := useless || t.failures >= restoreTries
	if anew {
		t.state, t.snapshot, t.failures, t.message = snapshotNone, sandbox.Snapshot{}, 0, "the snapshot can't be restored and is made anew"
		t.bad = s.ID // tend deletes it
		p.tellLocked(t)
	}
	p.mu.Unlock()
	if anew {
		p.log.Warn("a template's snapshot is made anew", "template", t.name, "snapshot_id", s.ID)
	}
}

func (p *Pool) restored(t *template, s sandbox.Snapshot) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if t.snapshot.ID == s.ID {
		t.failures = 0
	}
}
