package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// idleFor is how long a sandbox has been idle when its memory is read: what it
// gives back after work is back by then.
const idleFor = 10 * time.Second

// memory measures what idle sandboxes with imported libraries cost this
// machine, awake and asleep.
func memory(ctx context.Context, r *run) (err error) {
	if !r.server.Local {
		r.skip("memory", r.server, "it is measured beside the server, on its machine, and this one was named by its URL")
		return nil
	}
	for _, kind := range []struct{ name, code, note string }{
		{"memory-bare", "1+1", "as it is handed out"},
		{"memory", prepare, "awake and idle, after import of numpy, pandas and matplotlib"},
	} {
		if err := r.memoryOf(ctx, kind.name, kind.code, kind.note); err != nil {
			return err
		}
	}
	for _, peer := range r.once()[1:] {
		scale, ok := capable[weigher](peer)
		if !ok {
			continue
		}
		if err := r.weigh(ctx, peer, scale); err != nil {
			r.fail(peer, err)
		}
	}
	return nil
}

// memoryOf measures r.Idle sandboxes that ran code.
func (r *run) memoryOf(ctx context.Context, name, code, note string) (err error) {
	var sessions []Session
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	for range r.Idle {
		s, err := r.server.Create(ctx)
		if err != nil {
			return err
		}
		sessions = append(sessions, s)
		if _, err := s.Run(ctx, code); err != nil {
			return err
		}
	}
	if err := sleep(ctx, idleFor); err != nil {
		return err
	}
	if err := r.server.Ready(ctx); err != nil {
		return err
	}
	total := footprint{}
	for _, s := range sessions {
		one, err := footprintOf(s.(*caesarionSession).id) //nolint:forcetypeassert // a server gives no other
		if err != nil {
			return err
		}
		total.add(one)
	}
	n := float64(len(sessions))
	r.report(Result{
		Scenario: name, Subject: r.server.Name(), N: len(sessions), Value: total.mebibytes() / n, Unit: "MiB",
		Note: note + "; " + total.describe(n),
	})
	if name != "memory" {
		return nil
	}
	return r.asleep(ctx, sessions)
}

// asleep puts the sandboxes to sleep and measures what is left.
func (r *run) asleep(ctx context.Context, sessions []Session) error {
	left, disk := footprint{}, int64(0)
	for _, s := range sessions {
		id := s.(*caesarionSession).id //nolint:forcetypeassert // a server gives no other
		err := r.server.pause(ctx, id)
		if reason := unsupported(err); reason != "" {
			r.skip("memory-asleep", r.server, reason)
			return nil
		}
		if err != nil {
			return err
		}
		one, err := footprintOf(id)
		if err != nil && !errors.Is(err, errNoProcess) {
			return err
		}
		left.add(one)
		sb, err := r.server.Client.Sandbox(ctx, id)
		if err != nil {
			return err
		}
		if sb.State != "paused" {
			return fmt.Errorf("%s is %s, not paused", id, sb.State)
		}
		disk += sb.SavedBytes
	}
	n := float64(len(sessions))
	r.report(Result{
		Scenario: "memory-asleep", Subject: r.server.Name(), N: len(sessions), Value: left.mebibytes() / n, Unit: "MiB",
		Note: fmt.Sprintf("%.0f MiB each on disk", float64(disk)/n/(1<<20)),
	})
	return nil
}

// weigher is a peer whose sessions' memory can be told from the rest.
type weigher interface {
	// weigh gives the memory of a session's own processes in bytes.
	weigh(ctx context.Context, s Session) (int64, error)
}

// weigh measures a peer's sessions with the same libraries.
func (r *run) weigh(ctx context.Context, peer Subject, w weigher) (err error) {
	var sessions []Session
	defer func() {
		for _, s := range sessions {
			err = errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}()
	total := int64(0)
	for range r.Idle {
		s, err := peer.Create(ctx)
		if err != nil {
			return err
		}
		sessions = append(sessions, s)
		if _, err := s.Run(ctx, "import numpy, pandas, matplotlib.pyplot"); err != nil {
			return err
		}
	}
	if err := sleep(ctx, idleFor); err != nil {
		return err
	}
	for _, s := range sessions {
		bytes, err := w.weigh(ctx, s)
		if err != nil {
			return err
		}
		total += bytes
	}
	r.report(Result{
		Scenario: "memory", Subject: peer.Name(), N: len(sessions), Value: float64(total) / float64(len(sessions)) / (1 << 20), Unit: "MiB",
		Note: "the kernel's process with the same libraries, proportional share of what is shared; no sandbox around it",
	})
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// describe gives the parts, each divided by n.
func (f footprint) describe(n float64) string {
	var parts []string
	for _, p := range []struct {
		name  string
		bytes int64
	}{{"anonymous", f.anonymous}, {"shared memory", f.shared}, {"kernel", f.kernel}} {
		parts = append(parts, fmt.Sprintf("%s %.1f", p.name, float64(p.bytes)/n/(1<<20)))
	}
	return strings.Join(parts, ", ") + "; " + f.source
}
