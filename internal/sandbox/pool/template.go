package pool

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// keyLabel is kept with pooled sandboxes: what they were made from.
	keyLabel = "caesarion.pool.key"

	// lookEvery is how often it is looked whether the image is another one.
	lookEvery = 10 * time.Second
	// removeTimeout bounds the deletion of a sandbox nobody waits for.
	removeTimeout = time.Minute
	// retryFirst and retryLast bound the waiting after a failure in the background.
	retryFirst = time.Second
	retryLast  = 2 * time.Minute
	// retryMissing bounds it for an image that is not there: somebody may be
	// building it, and looking is cheap.
	retryMissing = 5 * time.Second
)

// States of a template's snapshot, as Stats has them.
const (
	snapshotNone   = "none"
	snapshotMaking = "making"
	snapshotReady  = "ready"
	snapshotFailed = "failed"
)

// Why ready sandboxes are deleted.
const (
	evictAge          = "age"
	evictSurplus      = "surplus" // handed back when the pool was full
	evictMemory       = "memory"
	evictLost         = "lost"
	evictOutdated     = "outdated" // made from what the template no longer is
	evictSlow         = "slow"
	evictUnresponsive = "unresponsive"
	evictAbandoned    = "abandoned" // its caller left while it was handed over: it may have seen an environment
)

// template is one template's pool. What is not fixed is guarded by Pool.mu,
// but for what only its own goroutine (tend) uses.
type template struct {
	name string
	Template
	wake chan struct{} // has something to do before its time

	ready    []*entry // what was checked longest ago first
	away     int      // being checked: out of ready for a moment
	starting int
	waiters  []*waiter
	// key is what sandboxes are made from now; "" until that is known.
	key, stateKey string
	state         string
	snapshot      sandbox.Snapshot   // of key, if state is ready
	bad           sandbox.SnapshotID // can't be restored
	message       string
	failures      int // restores in a row that failed
	hits, misses  int64
	short         bool      // of memory: it lacks sandboxes and will for a while
	lacking       time.Time // when it last became less than full
	leased        time.Time // when a sandbox was last handed over
	checks        recent[time.Duration]
	taken, used   recent[int64] // bytes, see costLocked
	again         backoff       // of looking and refilling; only tend
	snapAgain     backoff       // of making the snapshot; only tend
	looked        time.Time     // when key was last asked for; only tend
	warnedMissing bool          // the log knows that the image is missing; only tend
}

// entry is one ready sandbox.
type entry struct {
	t        *template
	info     sandbox.Info
	key      string
	client   *agentapi.Client
	kernelID string // under which the kernel is checked
	born     time.Time
	checked  time.Time
	slow     int           // slow answers in a row
	taken    chan struct{} // closed when it is nobody's business here any more
}

// waiter is a request that waits for its turn, or for a sandbox that becomes ready.
type waiter struct{ ch chan *entry }

// popLocked takes the first ready sandbox. The caller tells the others.
func (t *template) popLocked() *entry {
	if len(t.ready) == 0 {
		return nil
	}
	e := t.ready[0]
	t.ready = slices.Delete(t.ready, 0, 1)
	return e
}

// tellLocked follows a change of the number of ready sandboxes.
func (p *Pool) tellLocked(t *template) {
	p.opts.Metrics.Pool(t.name, len(t.ready), t.Size)
	if len(t.ready)+t.away < t.Size && t.lacking.IsZero() {
		t.lacking = time.Now()
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// offer makes a sandbox ready: for the first who waits, or for later.
func (p *Pool) offer(e *entry, away bool) {
	t := e.t
	p.mu.Lock()
	defer p.mu.Unlock()
	if away {
		t.away--
	}
	switch {
	case len(t.waiters) > 0 && !p.closed:
		w := t.waiters[0]
		t.waiters = slices.Delete(t.waiters, 0, 1)
		w.ch <- e
	default:
		t.ready = append(t.ready, e)
	}
	if len(t.ready)+t.away >= t.Size {
		t.lacking = time.Time{}
	}
	p.tellLocked(t)
}

// evict deletes a sandbox that is in nobody's list any more.
func (p *Pool) evict(e *entry, reason string) {
	p.opts.Metrics.Evicted(e.t.name, reason)
	p.log.Info("ready sandbox evicted", "template", e.t.name, "sandbox_id", e.info.ID, "reason", reason, "age", time.Since(e.born))
	close(e.taken)
	p.discard(e.client, e.info.ID)
}

// discard deletes a sandbox in the background.
func (p *Pool) discard(client *agentapi.Client, id sandbox.ID) {
	client.CloseIdle()
	p.wg.Go(func() {
		if err := p.remove(id); err != nil {
			// One that is still called pooled is deleted by the next process; one
			// that was claimed ends with its idle time.
			p.log.Error("could not delete a sandbox", "sandbox_id", id, "err", err)
		}
	})
}

func (p *Pool) remove(id sandbox.ID) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(p.ctx), removeTimeout)
	defer cancel()
	return p.driver.Delete(ctx, id)
}

func (p *Pool) deleteAll(infos []sandbox.Info, why string) {
	for _, info := range infos {
		p.log.Info("ready sandbox of an earlier process is deleted", "template", info.Template, "sandbox_id", info.ID, "reason", why)
		if err := p.remove(info.ID); err != nil {
			p.log.Error("could not delete a sandbox", "sandbox_id", info.ID, "err", err)
		}
	}
}

func (p *Pool) connect(info sandbox.Info) *agentapi.Client {
	return agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return p.driver.Dial(ctx, info.ID) }, info.AgentToken)
}

// spec is what a ready sandbox of t, or its snapshot, is made from.
func (t *template) spec(key string) sandbox.Spec {
	return sandbox.Spec{
		Template: t.name, Image: t.Image, Limits: t.Limits, Labels: map[string]string{keyLabel: key},
		Prestart: true, Preload: t.Preload, Pooled: true,
	}
}

// keyOf says what sandboxes of t are made from at present, and what their
// snapshot depends on.
func (p *Pool) keyOf(ctx context.Context, t *template) (key, state string, err error) {
	if s, ok := p.driver.(sandbox.Snapshotter); ok {
		if state, err = s.StateKey(ctx, t.spec("")); err != nil {
			return "", "", err
		}
	}
	b, err := json.Marshal([]any{state, t.Image, t.Limits, t.Preload})
	if err != nil {
		return "", "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), state, nil
}

// backoff spaces tries after failures.
type backoff struct {
	wait time.Duration
	next time.Time
}

func (b *backoff) due() bool { return !time.Now().Before(b.next) }

// left is how long it is until the next try.
func (b *backoff) left() time.Duration { return max(0, time.Until(b.next)) }

func (b *backoff) failed(most time.Duration) {
	b.wait = min(max(2*b.wait, retryFirst), most)
	b.next = time.Now().Add(b.wait)
}

func (b *backoff) reset() { *b = backoff{} }

// tend looks after one template until the pool closes.
func (p *Pool) tend(t *template, left []sandbox.Info) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	adopted := len(left) == 0
	for {
		select {
		case <-timer.C:
		case <-t.wake:
		case <-p.ctx.Done():
			return
		}
		if !adopted {
			adopted = p.adopt(t, left)
		}
		timer.Reset(p.step(t))
	}
}

// step does what there is to do and says when to look again at the latest.
func (p *Pool) step(t *template) time.Duration {
	if t.again.due() {
		err := p.look(t)
		most := retryMissing
		if err == nil {
			p.expire(t)
			most = retryLast
			err = p.refill(t)
		}
		if p.ctx.Err() != nil {
			return time.Hour
		}
		if err == nil {
			t.again.reset()
		} else {
			t.again.failed(most)
		}
	}
	next := p.check(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !t.again.due():
		return min(next, t.again.left())
	case t.key != "" && p.lacksLocked(t) && !t.short:
		return 0
	}
	return min(next, lookEvery)
}

// look finds out what sandboxes are made from now, and has the snapshot of it.
func (p *Pool) look(t *template) error {
	p.mu.Lock()
	known := t.key != "" && (t.state == snapshotReady || p.snap == nil || !t.snapAgain.due())
	p.mu.Unlock()
	if known && time.Since(t.looked) < lookEvery {
		return nil
	}
	key, stateKey, err := p.keyOf(p.ctx, t)
	if err != nil {
		p.missing(t, err)
		return err
	}
	t.looked, t.warnedMissing = time.Now(), false
	p.mu.Lock()
	changed := t.key != key
	var old []*entry
	if changed {
		t.key, t.stateKey = key, stateKey
		t.state, t.snapshot, t.failures, t.message = snapshotNone, sandbox.Snapshot{}, 0, ""
		t.snapAgain.reset()
		old = t.outdatedLocked()
		p.tellLocked(t)
	}
	state := t.state
	p.mu.Unlock()
	for _, e := range old {
		p.evict(e, evictOutdated)
	}
	if p.snap != nil && state != snapshotReady && t.snapAgain.due() {
		p.ensureSnapshot(t)
	}
	return nil
}

// outdatedLocked takes the ready sandboxes that were made from something else.
func (t *template) outdatedLocked() (old []*entry) {
	t.ready = slices.DeleteFunc(t.ready, func(e *entry) bool {
		if e.key == t.key {
			return false
		}
		old = append(old, e)
		return true
	})
	return old
}

// missing notes that a template's image can't be used, once in the log.
func (p *Pool) missing(t *template, err error) {
	if p.ctx.Err() != nil {
		return
	}
	if !t.warnedMissing {
		t.warnedMissing = true
		p.log.Warn("no sandbox can be kept ready: its image can't be used", "template", t.name, "err", err)
	}
	message := "the image can't be used"
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		message = e.Msg
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.message = message
	t.key = ""
}
