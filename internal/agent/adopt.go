package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/kernel"
)

// The kernel program's own requests, see identity.py and rehearsal.py. They are no code that is
// executed: what the user has made of the modules they touch is of no matter.
const (
	adoptRequest    = "adopt_request"
	reseedRequest   = "reseed_request"
	rehearseRequest = "rehearse_request"
)

// identityTimeout bounds how long a kernel that is said to be idle may take to
// take over an identity. One that does not is of no use to anybody.
const identityTimeout = 5 * time.Second

// adopt gives the kernel that was started beforehand the environment, folder
// and limits of the request it is handed to, in one round trip. Many sandboxes
// may wake from one saved kernel, so its random generators start anew.
func (k *keeper) adopt(ctx context.Context, req agentapi.StartKernel) error {
	a := k.agent
	k.mu.Lock()
	k.env = req.Env
	if req.Dir != "" {
		k.dir = req.Dir
	}
	dir := a.realDir(k.dir)
	k.mu.Unlock()
	inc, err := k.ready(ctx)
	if err != nil {
		return err
	}
	a.limitProcess(inc.owner.pid)
	env := make(map[string]string)
	if conf := a.conf.Load(); conf != nil {
		maps.Copy(env, conf.Env)
	}
	maps.Copy(env, req.Env)
	content, err := json.Marshal(struct {
		Env map[string]string `json:"env"`
		Dir string            `json:"cwd"`
	}{env, dir})
	if err != nil {
		return err
	}
	m, err := inc.ask(ctx, adoptRequest, content)
	if err != nil {
		return err
	}
	return checkReply(m, "the kernel could not be set up")
}

// checkReply reads the reply of one of the kernel program's own requests.
func checkReply(m *kernel.Message, what string) error {
	var reply executeReply
	if err := json.Unmarshal(m.Content, &reply); err != nil || reply.Status != "ok" {
		return errdefs.New(errdefs.ErrUnavailable, "kernel-start-failed", "%s: %.500s", what, reply.Value).WithCause(err)
	}
	return nil
}

// rehearse has the kernel try the usual sorts of cells and forget them. One
// that cannot is still of use.
func (k *keeper) rehearse(ctx context.Context) {
	inc, err := k.ready(ctx)
	if err != nil {
		return
	}
	m, err := inc.ask(ctx, rehearseRequest, json.RawMessage("{}"))
	if err == nil {
		err = checkReply(m, "cells could not be tried")
	}
	if err != nil {
		k.agent.log.Warn("kernel", "kernel", k.id(), "err", err)
	}
}

// takePrestarted gives the kernel that was started beforehand the name id, if
// there is one and the name is free.
func (a *Agent) takePrestarted(id string) *keeper {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := a.prestarted
	if k == nil || a.closed || a.kernels[id] != nil && a.kernels[id] != k {
		return nil
	}
	a.prestarted = nil
	delete(a.kernels, k.id())
	k.name.Store(&id)
	a.kernels[id] = k
	return k
}

// handOver makes the kernel that was started beforehand the kernel id. If it
// cannot be used it is ended: whoever asks for id then gets a fresh one.
func (a *Agent) handOver(ctx context.Context, id string) {
	k := a.takePrestarted(id)
	if k == nil {
		return // there is none, or a Configure that is repeated has it already
	}
	ctx, cancel := context.WithTimeoutCause(ctx, identityTimeout, errors.New("the kernel did not answer in time"))
	defer cancel()
	if err := k.adopt(ctx, agentapi.StartKernel{ID: id}); err != nil {
		a.log.Warn("kernel could not be handed over", "kernel", id, "err", err)
		a.mu.Lock()
		delete(a.kernels, id)
		a.mu.Unlock()
		go k.close()
	}
}

// becomeCopy makes this sandbox, which is a copy of another, one of its own.
func (a *Agent) becomeCopy(ctx context.Context) {
	a.egress.shutDoor()
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.kernels))
	for _, p := range a.processes {
		go p.end(ending{})
	}
	previewer := a.previewer
	// Their readers are the other sandbox's, and so are their numbers.
	clear(a.executions)
	clear(a.order)
	a.order = a.order[:0]
	a.mu.Unlock()
	if previewer != nil {
		go a.endPreview(previewer)
	}
	var wg sync.WaitGroup
	for _, k := range keepers {
		wg.Go(func() { k.becomeCopy(ctx) })
	}
	wg.Wait()
}

// becomeCopy ends what the other sandbox had given this kernel to do, and has
// its random generators start anew: now, or before the next cell.
func (k *keeper) becomeCopy(ctx context.Context) {
	k.mu.Lock()
	k.abortLocked(event.StatusAborted, event.ReasonRestarted, "This sandbox is a copy; the execution waits in the original.")
	k.last = nil
	e, inc := k.current, k.inc
	idle := k.state == agentapi.KernelIdle && inc != nil
	k.reseed = !idle && inc != nil
	k.mu.Unlock()
	if inc == nil {
		return // the next process begins with randomness of its own
	}
	k.agent.limitProcess(inc.owner.pid)
	if e != nil {
		go k.climb(e, "requested")
	}
	if !idle {
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, identityTimeout, errors.New("the kernel did not answer in time"))
	defer cancel()
	m, err := inc.ask(ctx, reseedRequest, json.RawMessage("{}"))
	if err == nil {
		err = checkReply(m, "the kernel's random generators could not be seeded")
	}
	if err != nil {
		k.agent.log.Warn("kernel of a copy", "kernel", k.id(), "err", err)
	}
}

// start gives e to the kernel process, after startLocked.
func (k *keeper) start(inc *incarnation, e *execution) {
	k.mu.Lock()
	reseed := k.reseed && k.inc == inc
	k.reseed = k.reseed && !reseed
	k.mu.Unlock()
	if reseed {
		// Its reply has no taker. An error shows when the code is sent.
		_ = inc.proc.Conn().Send(&kernel.Message{Channel: kernel.Shell, Header: header("req_reseed", reseedRequest), Content: json.RawMessage("{}")})
	}
	inc.execute(e)
}

// check has an idle kernel run a cell that leaves nothing behind.
func (k *keeper) check(ctx context.Context) error {
	k.mu.Lock()
	busy := k.current != nil || len(k.queue) > 0
	k.mu.Unlock()
	if busy {
		return errdefs.New(errdefs.ErrConflict, "kernel-busy", "kernel %s runs code", k.id()).WithHint("wait until it is idle")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, defaultRequestTimeout, errdefs.New(errdefs.ErrUnavailable, "kernel-busy", "the kernel did not answer in %v", defaultRequestTimeout).
		WithHint("restart it"))
	defer cancel()
	inc, err := k.ready(ctx)
	if err != nil {
		return err
	}
	m, err := inc.ask(ctx, "execute_request", inertCell)
	if err != nil {
		return err
	}
	return checkReply(m, "the kernel failed to run code that does nothing")
}

// inertCell is silent and not kept: neither history nor _, In, Out and the
// count know of it.
var inertCell = json.RawMessage(`{"code":"None","silent":true,"store_history":false,"user_expressions":{},"allow_stdin":false,"stop_on_error":false}`)
