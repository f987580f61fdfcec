package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

const (
	// maxQueue bounds the executions that wait for one kernel.
	maxQueue = 64
	// maxQuickDeaths is how many kernels in a row may end before they ran
	// anything until the agent stops trying.
	maxQuickDeaths = 4
	// quickDeath is how soon an end counts as one of them.
	quickDeath = 2 * time.Second
)

// keeper keeps one kernel alive.
type keeper struct {
	agent     *Agent
	name      atomic.Pointer[string] // the id; changes once, when a kernel started beforehand is handed over
	startedAt time.Time
	ctx       context.Context //nolint:containedctx // the keeper's life, ended by close
	cancel    context.CancelFunc
	stopped   chan struct{} // closed when run has returned
	poke      chan struct{} // wakes run when the kernel is dead and is wanted again

	mu       sync.Mutex
	dir      string // in the sandbox
	env      map[string]string
	state    agentapi.KernelState
	changed  chan struct{} // closed and replaced at each change of state
	inc      *incarnation  // nil while there is no process
	current  *execution
	queue    []*execution
	last     *execution // gets output that no execution owns
	count    int        // execution_count of the last reply
	restarts int
	deaths   int    // quick ones in a row
	reason   string // why the last kernel ended
	failure  *errdefs.Error
	active   time.Time
	closed   bool
	reseed   bool // before the next cell: this sandbox was copied while one ran
}

// ending is why a kernel was or is to be ended, and what becomes of its execution.
type ending struct {
	status  event.Status
	reason  event.Reason
	message string
}

func (a *Agent) newKeeper(id, dir string, env map[string]string) *keeper {
	ctx, cancel := context.WithCancel(context.Background())
	k := &keeper{
		agent: a, dir: cmp.Or(dir, agentapi.WorkspaceDir), env: env, startedAt: time.Now().UTC(),
		ctx: ctx, cancel: cancel, stopped: make(chan struct{}), poke: make(chan struct{}, 1),
		state: agentapi.KernelStarting, changed: make(chan struct{}), active: time.Now().UTC(),
	}
	k.name.Store(&id)
	return k
}

func (k *keeper) id() string { return *k.name.Load() }

// run makes kernels until the keeper is closed.
func (k *keeper) run() {
	defer close(k.stopped)
	for k.ctx.Err() == nil {
		inc, err := k.spawn()
		if err != nil {
			k.die(startFailure(err))
		} else {
			end := inc.attend()
			if again, delay := k.ended(inc, end); again {
				select {
				case <-time.After(delay):
				case <-k.ctx.Done():
				}
				continue
			}
		}
		select {
		case <-k.poke:
			k.mu.Lock()
			k.deaths, k.failure = 0, nil
			k.setStateLocked(agentapi.KernelRestarting)
			k.mu.Unlock()
		case <-k.ctx.Done():
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.setStateLocked(agentapi.KernelDead)
	k.abortLocked(event.StatusAborted, event.ReasonRestarted, "The kernel was deleted.")
}

func startFailure(err error) *errdefs.Error {
	if errors.Is(err, exec.ErrNotFound) {
		return errdefs.New(errdefs.ErrUnsupported, "python-not-found", "this image has no Python that could be started").
			WithHint("use an image with Python 3 and IPython").WithCause(err)
	}
	return errdefs.New(errdefs.ErrUnavailable, "kernel-start-failed", "the kernel could not be started: %v", err)
}

// close ends the kernel and waits until all it started is gone.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	inc := k.inc
	k.mu.Unlock()
	k.cancel()
	if inc != nil {
		inc.end(ending{status: event.StatusKilled, reason: event.ReasonRestarted, message: "The kernel was deleted."})
	}
	<-k.stopped
}

func (k *keeper) setStateLocked(s agentapi.KernelState) {
	k.state = s
	k.active = time.Now().UTC()
	close(k.changed)
	k.changed = make(chan struct{})
}

// info describes the kernel.
func (k *keeper) info() agentapi.Kernel {
	k.mu.Lock()
	defer k.mu.Unlock()
	return agentapi.Kernel{
		ID: k.id(), Language: "python", State: k.state, Dir: k.dir, ExecutionCount: k.count, Queued: len(k.queue),
		Restarts: k.restarts, Reason: k.reason, StartedAt: k.startedAt, LastActivity: k.active,
	}
}

// waitReady waits until the kernel can run code, or is dead.
func (k *keeper) waitReady(ctx context.Context) error {
	for {
		k.mu.Lock()
		state, failure, changed := k.state, k.failure, k.changed
		k.mu.Unlock()
		switch state {
		case agentapi.KernelIdle, agentapi.KernelBusy:
			return nil
		case agentapi.KernelDead:
			return deadError(k.id(), failure)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// usable reports whether the kernel can run code.
func (k *keeper) usable() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.state == agentapi.KernelIdle || k.state == agentapi.KernelBusy
}

func deadError(id string, failure *errdefs.Error) error {
	if failure != nil {
		return failure
	}
	return errdefs.New(errdefs.ErrConflict, "kernel-dead", "kernel %s is dead", id).WithHint("restart it")
}

// submit takes code to run. It never waits.
func (k *keeper) submit(req agentapi.Execute) (*execution, error) {
	e := k.agent.newExecution(k, req)
	k.mu.Lock()
	switch {
	case k.closed:
		k.mu.Unlock()
		return nil, errKernelNotFound(k.id())
	case k.state == agentapi.KernelDead:
		failure := k.failure
		k.mu.Unlock()
		return nil, deadError(k.id(), failure)
	case len(k.queue) >= maxQueue:
		k.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "kernel-queue-full", "%d executions wait for this kernel already", maxQueue).
			WithHint("wait for some of them to finish, or use another kernel")
	}
	// Registered before anything can end it, so that nobody misses its end.
	k.agent.remember(e)
	if k.current == nil && k.state == agentapi.KernelIdle {
		inc := k.startLocked(e)
		k.mu.Unlock()
		k.start(inc, e)
		return e, nil
	}
	ahead := len(k.queue)
	if k.current != nil {
		ahead++
	}
	k.queue = append(k.queue, e)
	_, _ = e.log.Append(event.ExecutionQueued, event.Queued{Ahead: ahead})
	k.mu.Unlock()
	return e, nil
}

// startLocked makes e the running execution; the caller then calls start,
// without the lock.
func (k *keeper) startLocked(e *execution) *incarnation {
	now := time.Now()
	k.current, e.started, e.out.start = e, now, now
	k.setStateLocked(agentapi.KernelBusy)
	_, _ = e.log.AppendHeld(event.ExecutionStarted, event.Started{KernelID: k.id()})
	e.timers = append(e.timers, time.AfterFunc(hold, e.log.Publish))
	if e.req.TimeoutMS > 0 {
		e.timers = append(e.timers, time.AfterFunc(milliseconds(e.req.TimeoutMS), func() { k.climb(e, "timeout") }))
	}
	k.agent.watch.begin()
	return k.inc
}

// nextLocked starts what waits, if the kernel is free. The send may block, so
// it gets a goroutine of its own: the caller may be the one that reads.
func (k *keeper) nextLocked() {
	if k.current != nil || k.inc == nil || !k.inc.ready {
		return
	}
	if len(k.queue) == 0 {
		if k.state != agentapi.KernelIdle {
			k.setStateLocked(agentapi.KernelIdle)
		}
		return
	}
	e := k.queue[0]
	k.queue = slices.Delete(k.queue, 0, 1)
	inc := k.startLocked(e)
	go k.start(inc, e)
}

// complete ends the running execution after its reply and its idle.
func (k *keeper) complete(e *execution) {
	k.mu.Lock()
	reply, rung, why, note, noteText := e.reply, e.rung, e.why, e.note, e.noteText
	k.mu.Unlock()
	fin := event.Finished{
		ExecutionCount: reply.ExecutionCount, Payload: emptyAsNil(reply.Payload), UserExpressions: emptyAsNil(reply.UserExpressions),
	}
	switch {
	case why == "timeout" && rung > 0:
		fin.Status = event.StatusTimeout
		fin.Message = fmt.Sprintf("The code ran longer than its limit of %v and was interrupted. Variables are kept.", milliseconds(e.req.TimeoutMS))
	case reply.Status == "ok":
		fin.Status = event.StatusOK
	case rung > 0:
		fin.Status = event.StatusInterrupted
	case reply.Status == "aborted":
		fin.Status = event.StatusAborted
	default:
		fin.Status = event.StatusError
	}
	if reply.Status == "error" && k.agent.diskFull(reply) {
		fin.Reason = event.ReasonDiskFull
		fin.Message = "The sandbox's disk is full. Delete files that are not needed and run the code again."
	}
	if note != "" && fin.Status != event.StatusOK {
		fin.Reason, fin.Message = note, noteText
	}
	e.out.finish(&fin)

	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != e {
		return
	}
	k.current, k.last = nil, e
	k.deaths = 0
	if reply.ExecutionCount > 0 {
		k.count = reply.ExecutionCount
	}
	// The kernel is free before anybody can learn that this execution is over.
	if len(k.queue) == 0 {
		k.setStateLocked(agentapi.KernelIdle)
	}
	e.finishLocked(fin)
	k.agent.watch.finish()
	if e.req.StopOnError && fin.Status != event.StatusOK {
		k.abortLocked(event.StatusAborted, "", "An execution before this one failed.")
	}
	k.nextLocked()
}

func emptyAsNil(raw json.RawMessage) json.RawMessage {
	switch string(raw) {
	case "", "[]", "{}", "null":
		return nil
	}
	return raw
}

// abortLocked ends everything that waits.
func (k *keeper) abortLocked(status event.Status, reason event.Reason, message string) {
	for _, e := range k.queue {
		e.finishLocked(event.Finished{Status: status, Reason: reason, Message: message})
	}
	k.queue = nil
}

// interrupt stops e: what waits is aborted, what runs climbs the ladder.
func (k *keeper) interrupt(e *execution) {
	k.mu.Lock()
	if i := slices.Index(k.queue, e); i >= 0 {
		k.queue = slices.Delete(k.queue, i, i+1)
		e.finishLocked(event.Finished{Status: event.StatusAborted, Message: "It was interrupted before it began."})
	}
	k.mu.Unlock()
	k.climb(e, "requested")
}

// The rungs of the interrupt ladder, from its beginning.
const (
	secondInterrupt = 2 * time.Second
	lastInterrupt   = 5 * time.Second
)

// climb starts the interrupt ladder for e if it runs. Someone who asks again
// gets another SIGINT, and the ladder goes on as it was.
func (k *keeper) climb(e *execution, why string) {
	k.mu.Lock()
	if k.current != e || k.inc == nil {
		k.mu.Unlock()
		return
	}
	inc, first := k.inc, e.rung == 0
	if first {
		e.rung, e.why = 1, why
		k.rungLocked(inc, e, 2, secondInterrupt)
		k.rungLocked(inc, e, 3, lastInterrupt)
	}
	k.mu.Unlock()
	if first {
		e.out.event(event.KernelInterrupted, event.Interrupt{Step: "sigint", Reason: why})
	}
	inc.interrupt(e)
}

// asleep is how late a timer is that the sandbox slept through. Clocks go on
// while it is saved, and every timer that was due then fires when it wakes.
const asleep = time.Second

// rungLocked takes a step of the ladder after delay.
func (k *keeper) rungLocked(inc *incarnation, e *execution, step int, delay time.Duration) {
	due := time.Now().Add(delay)
	e.timers = append(e.timers, time.AfterFunc(delay, func() {
		if time.Since(due) < asleep {
			k.rung(inc, e, step)
			return
		}
		// The code had no chance to react to the step before.
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.current == e && k.inc == inc {
			k.rungLocked(inc, e, step, delay)
		}
	}))
}

func (k *keeper) rung(inc *incarnation, e *execution, step int) {
	k.mu.Lock()
	if k.current != e || k.inc != inc {
		k.mu.Unlock()
		return
	}
	e.rung = step
	why := e.why
	k.mu.Unlock()
	if step == 2 {
		e.out.event(event.KernelInterrupted, event.Interrupt{Step: "sigint_again", Reason: why})
		inc.interrupt(e)
		return
	}
	e.out.event(event.KernelInterrupted, event.Interrupt{Step: "kill", Reason: why})
	end := ending{
		status:  event.StatusInterrupted,
		message: "The code did not react to two interrupts, so its kernel was killed and a fresh one started. Variables are lost.",
	}
	if why == "timeout" {
		end.status = event.StatusTimeout
		end.message = fmt.Sprintf("The code ran longer than its limit of %v and did not react to interrupts, so its kernel was killed and a fresh one started. Variables are lost.",
			milliseconds(e.req.TimeoutMS))
	}
	inc.end(end)
}

// restart replaces the kernel and waits for the fresh one.
func (k *keeper) restart(ctx context.Context) error {
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return errKernelNotFound(k.id())
	}
	inc := k.inc
	switch {
	case inc != nil:
		k.setStateLocked(agentapi.KernelRestarting)
	case k.state == agentapi.KernelDead:
		k.setStateLocked(agentapi.KernelRestarting)
		k.poke <- struct{}{} // has room: run takes it before the state can be dead again
	}
	k.abortLocked(event.StatusAborted, event.ReasonRestarted, "The kernel was restarted before this execution began.")
	k.mu.Unlock()
	if inc != nil {
		inc.end(ending{status: event.StatusKilled, reason: event.ReasonRestarted, message: "The kernel was restarted while this code ran. Variables are lost."})
	}
	return k.waitReady(ctx)
}

// ended takes note that an incarnation is gone, and says whether and when to
// make another.
func (k *keeper) ended(inc *incarnation, end ending) (again bool, delay time.Duration) {
	k.mu.Lock()
	e := k.current
	quick := !inc.ready || time.Since(inc.readyAt) < quickDeath && e == nil
	asked := inc.cause != nil && inc.cause.reason == event.ReasonRestarted
	k.inc, k.reseed = nil, false
	k.reason = end.message
	k.restarts++
	if quick && !asked {
		k.deaths++
	} else {
		k.deaths = 0
	}
	dead := k.deaths >= maxQuickDeaths || !inc.ready && !asked && k.restarts == 1
	if dead {
		k.failure = errdefs.New(errdefs.ErrUnavailable, "kernel-start-failed", "%s", end.message)
	}
	k.count = 0
	delay = time.Duration(max(k.deaths-1, 0)) * 500 * time.Millisecond
	logs := k.logsLocked()
	k.mu.Unlock()

	fin := event.Finished{Status: end.status, Reason: end.reason, Message: end.message}
	if e != nil {
		e.out.event(event.KernelRestarted, event.Restarted{KernelID: k.id(), Reason: end.reason})
		e.out.finish(&fin)
	}

	k.mu.Lock()
	defer k.mu.Unlock()
	k.current = nil
	switch {
	case k.closed:
	case dead:
		k.setStateLocked(agentapi.KernelDead)
	default:
		k.setStateLocked(agentapi.KernelRestarting)
	}
	if e != nil {
		k.last = e
		e.finishLocked(fin)
		k.agent.watch.finish()
	}
	k.abortLocked(event.StatusAborted, event.ReasonRestarted, "The kernel ended before this execution began: "+end.message)
	for _, e := range logs {
		e.log.Close(nil) // nothing can come any more
	}
	k.last = nil
	return !dead && !k.closed, delay
}

// logsLocked gives the executions that end with this kernel process, those
// that wait excepted.
func (k *keeper) logsLocked() []*execution {
	k.agent.mu.Lock()
	defer k.agent.mu.Unlock()
	var list []*execution
	for _, e := range k.agent.order {
		if e.keeper == k && !e.started.IsZero() {
			list = append(list, e)
		}
	}
	return list
}

// die takes note that no kernel could be started.
func (k *keeper) die(why *errdefs.Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failure, k.reason = why, why.Msg
	k.setStateLocked(agentapi.KernelDead)
	k.abortLocked(event.StatusKilled, event.ReasonKernelDied, why.Msg)
}

// becameReady is called when an incarnation can run code.
func (k *keeper) becameReady(inc *incarnation) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inc != inc || inc.ready {
		return
	}
	inc.ready, inc.readyAt = true, time.Now()
	if len(k.queue) == 0 {
		k.setStateLocked(agentapi.KernelIdle)
	}
	k.nextLocked()
}

func milliseconds(ms int64) time.Duration {
	return time.Duration(min(ms, int64(365*24*time.Hour/time.Millisecond))) * time.Millisecond
}

func errKernelNotFound(id string) error {
	return errdefs.New(errdefs.ErrNotFound, "kernel-not-found", "there is no kernel %s in this sandbox", id)
}
