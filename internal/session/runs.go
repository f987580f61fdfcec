package session

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/store"
)

// runs is the cells of a session that run or wait, in order. One goroutine
// works on them while there are some.
type runs struct {
	current *run
	queue   []*run
	working bool
}

// run is one cell on its way through the kernel.
type run struct {
	n       *node
	id      string // of the execution
	code    string
	timeout time.Duration // 0: the template's
	group   *group
	after   int64 // events of the execution up to this number are in the log
	ctx     context.Context
	cancel  context.CancelCauseFunc
	exec    *fleet.Execution // nil until the sandbox has it
	answer  *answer          // to input(), on its way to the kernel; nil: none
	done    chan struct{}    // closed when the cell has ended
}

// group is cells that were asked for together: after one that fails, the rest
// does not run.
type group struct{ failed bool }

// queuedRun is a run as the session's row keeps it.
type queuedRun struct {
	Item      string        `json:"item"`
	Execution string        `json:"execution"`
	Group     int           `json:"group"`
	Timeout   time.Duration `json:"timeout,omitempty"`
}

func (r *runs) busy() bool { return r.current != nil || len(r.queue) > 0 }

func (r *runs) rows() []queuedRun {
	groups := map[*group]int{} // 0 is the group of the cell that runs
	if r.current != nil {
		groups[r.current.group] = 0
	}
	var list []queuedRun
	for _, x := range r.queue {
		if _, ok := groups[x.group]; !ok {
			groups[x.group] = len(groups) + 1
		}
		list = append(list, queuedRun{x.n.item.ID, x.id, groups[x.group], x.timeout})
	}
	return list
}

// errInterrupted is the cause that a run ends with before the kernel has it.
var errInterrupted = errors.New("session: interrupted")

// Run runs cells in this order; after one that fails, the rest does not run.
func (s *Session) Run(req v1.RunItems) ([]v1.Item, error) {
	var out []v1.Item
	err := s.do(func() error {
		nodes := make([]*node, 0, len(req.Items))
		for _, id := range req.Items {
			n, err := s.tree.find(id)
			if err != nil {
				return err
			}
			code := n.item.Code
			if c, ok := req.Code[id]; ok {
				code = c
			}
			if err := checkRun(n, code); err != nil {
				return err
			}
			if !slices.Contains(nodes, n) {
				nodes = append(nodes, n)
			}
		}
		g := &group{}
		for _, n := range nodes {
			if code, ok := req.Code[n.item.ID]; ok {
				n.item.Code, n.item.Edited = code, false
				s.changedCodeLocked(n)
			}
			if strings.TrimSpace(n.item.Code) == "" {
				out = append(out, n.brief())
				continue // nothing to run, as an empty cell in Jupyter
			}
			s.queueLocked(n, g, 0)
			out = append(out, n.brief())
		}
		return nil
	})
	s.svc.list.notify(s.owner)
	return out, err
}

// changedCodeLocked tells of code that came with a run.
func (s *Session) changedCodeLocked(n *node) {
	s.emitPatchLocked(n, "", map[string]json.RawMessage{"code": encode(n.item.Code), "edited": json.RawMessage("null")})
}

func checkRun(n *node, code string) error {
	switch {
	case n.item.Kind != "cell":
		return errdefs.New(errdefs.ErrInvalid, "not-a-cell", "The item %s is no cell.", n.item.ID).WithHint("Only cells can be run.")
	case n.item.Status == "writing":
		return errdefs.New(errdefs.ErrConflict, "item-writing", "The model writes this cell.").WithHint("Stop it first, or wait.")
	case n.item.Status == "queued" || n.item.Status == "running":
		return errdefs.New(errdefs.ErrConflict, "item-running", "The cell runs or waits already.").WithHint("Interrupt it first, or wait.")
	case len(code) > maxText:
		return errdefs.New(errdefs.ErrTooLarge, "code-too-large", "The code is larger than %d MiB.", maxText>>20).
			WithHint("Upload large data or modules as files and read or import them.")
	case strings.ContainsRune(code, 0):
		return errdefs.New(errdefs.ErrInvalid, "code-has-nul", "The code has a NUL character, which Python source can't have.").WithHint("Write \\x00 in a string instead.")
	}
	return nil
}

// queueLocked puts a cell at the end of the queue.
func (s *Session) queueLocked(n *node, g *group, timeout time.Duration) *run {
	r := &run{n: n, id: fleet.NewExecutionID(), code: n.item.Code, timeout: timeout, group: g, done: make(chan struct{})}
	r.ctx, r.cancel = context.WithCancelCause(s.ctx)
	s.clearLocked(n, "", func(it *v1.Item) {
		it.Status, it.ExecutionID, it.Edited = "queued", r.id, false
	})
	s.titleLocked(n.item.Code, true)
	s.touchLocked()
	s.runs.queue = append(s.runs.queue, r)
	s.workLocked()
	return r
}

func (s *Session) workLocked() {
	if !s.runs.working && s.runs.busy() {
		s.runs.working = s.svc.background(s.work)
	}
}

// work runs what is queued until there is nothing.
func (s *Session) work() {
	for {
		s.mu.Lock()
		r := s.runs.current
		if r == nil && len(s.runs.queue) > 0 {
			r = s.runs.queue[0]
			s.runs.queue = s.runs.queue[1:]
			s.runs.current = r
			s.saveSessionLocked()
		}
		if r == nil || s.broken != nil || s.ctx.Err() != nil {
			s.runs.working = false
			s.mu.Unlock()
			return
		}
		skip := r.group.failed
		s.mu.Unlock()
		if skip {
			s.endRun(r, "aborted", "", "Not run: a cell before it failed.")
			continue
		}
		s.perform(r)
	}
}

// perform runs one cell to its end.
func (s *Session) perform(r *run) {
	if err := s.submit(r); err != nil {
		switch {
		case s.ctx.Err() != nil:
			return // the next process finds it
		case errors.Is(context.Cause(r.ctx), errInterrupted):
			s.endRun(r, "aborted", "", "Interrupted before it ran.")
		default:
			s.svc.log.Warn("a cell can't be run", "session_id", s.id, "err", err)
			s.endRun(r, "aborted", codeOf(err), "Not run: "+sentenceOf(err))
		}
		return
	}
	s.follow(r)
}

// submit gives the cell to the kernel, unless it has it.
func (s *Session) submit(r *run) error {
	if r.exec != nil {
		return nil
	}
	for try := 0; ; try++ {
		sb, err := s.Sandbox(r.ctx)
		if err != nil {
			return err
		}
		s.extend(r.ctx, sb)
		// The store must know the execution before it can be there: only so it
		// is found after a kill.
		if err := s.do(func() error {
			if cause := context.Cause(r.ctx); cause != nil {
				return cause
			}
			s.pendingLocked().executions[r.id] = store.Execution{ID: r.id, ItemID: r.n.item.ID, SandboxID: string(sb.ID())}
			s.busyLocked(true)
			return nil
		}); err != nil {
			return err
		}
		timeout := r.timeout
		if most := sb.View().ExecutionTimeout; timeout > most {
			timeout = most
		}
		exec, _, err := sb.Execute(r.ctx, fleet.ExecuteRequest{ID: r.id, Code: r.code, AllowStdin: true, Timeout: timeout})
		if err == nil {
			s.mu.Lock()
			r.exec = exec
			interrupted := errors.Is(context.Cause(r.ctx), errInterrupted)
			s.mu.Unlock()
			if interrupted {
				s.interruptExec(exec)
			}
			return nil
		}
		if err = sb.Explain(err); try > 0 || !errors.Is(err, errdefs.ErrNotFound) {
			return err
		}
		// It went away a moment ago; a new one takes its place.
		s.apply(func() { s.lostLocked(sb) })
	}
}

// endRun ends a cell that the kernel never had, or no longer has.
func (s *Session) endRun(r *run, status, reason, message string) {
	s.apply(func() { s.endRunLocked(r, status, reason, message) })
}

func (s *Session) endRunLocked(r *run, status, reason, message string) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	s.changeLocked(r.n, func(it *v1.Item) {
		it.Status, it.Reason, it.Message, it.Input, it.FinishedAt = status, reason, message, nil, &now
	})
	s.saveWholeLocked(r.n)
	s.closeRunLocked(r, true)
}

// closeRunLocked takes a run that has ended out of the queue.
func (s *Session) closeRunLocked(r *run, failed bool) {
	if failed {
		r.group.failed = true
	}
	if s.runs.current == r {
		s.runs.current = nil
		if len(s.runs.queue) == 0 {
			s.busyLocked(false)
		}
	}
	p := s.pendingLocked()
	delete(p.executions, r.id)
	p.ended = append(p.ended, r.id)
	s.touchLocked()
	r.cancel(nil)
	close(r.done)
}

// follow puts what the execution does into the log until it has ended.
func (s *Session) follow(r *run) {
	src := r.exec.Reader(r.after, true)
	for {
		batch, err := src.Next(s.ctx)
		var gap *event.GapError
		switch {
		case errors.As(err, &gap):
			src.Skip(gap.Oldest)
			continue
		case err != nil:
			select {
			case <-r.done: // late output has ended
				return
			default:
			}
			if s.ctx.Err() != nil || !errors.Is(err, io.EOF) {
				return // stopping: the next process goes on
			}
			s.endRun(r, "cut", "", "What became of this run is not known.")
			return
		}
		ended, err := s.take(r, batch)
		if err != nil {
			return
		}
		if ended {
			s.afterRun(r)
			s.followLate(r, src)
			return
		}
	}
}

// take translates a batch of the execution's events and returns when they are
// kept, so that a flood of them can't outrun the store.
func (s *Session) take(r *run, batch []event.Record) (ended bool, err error) {
	err = s.do(func() error {
		s.showAnswerLocked(r)
		for i := 0; i < len(batch); {
			var ev event.Event
			if json.Unmarshal(batch[i].Line, &ev) != nil {
				i++
				continue // the agent's client has checked it
			}
			data, n := joinStreams(ev, batch[i:])
			i += n
			l := s.emitAtLocked(ev.Time, ev.Type, r.n.item.ID, r.id, data)
			s.foldLocked(&l)
			if ev.Type == event.ExecutionFinished {
				ended = true
			}
		}
		r.after = batch[len(batch)-1].Seq
		if ended {
			s.saveWholeLocked(r.n)
			for _, n := range s.tree.nodes {
				if n.dirty && finished(n.item.Status) {
					s.saveWholeLocked(n)
				}
			}
			s.closeRunLocked(r, r.n.item.Status != "ok")
		} else if s.runs.current == r {
			s.pendingLocked().executions[r.id] = store.Execution{ID: r.id, ItemID: r.n.item.ID, SandboxID: string(r.exec.Sandbox().ID()), Seq: r.after}
		}
		return nil
	})
	return ended, err
}

// Joined text of one stream grows up to this, which is still one quick write.
const joinBytes = 64 << 10

// joinStreams gives the data of the first event, with the text of the events
// right behind it if they write to the same stream. The bytes of the text are
// taken as they are.
func joinStreams(first event.Event, batch []event.Record) (json.RawMessage, int) {
	if first.Type != event.OutputStream || len(batch) < 2 || batch[1].Type != event.OutputStream {
		return first.Data, 1
	}
	name, text, ok := streamText(first.Data)
	if !ok {
		return first.Data, 1
	}
	joined := append([]byte(nil), first.Data[:len(first.Data)-len(text)-2]...)
	joined = append(joined, text...)
	n := 1
	for n < len(batch) && batch[n].Type == event.OutputStream && len(joined) < joinBytes {
		var next event.Event
		if json.Unmarshal(batch[n].Line, &next) != nil {
			break
		}
		name2, text2, ok := streamText(next.Data)
		if !ok || name2 != name {
			break
		}
		joined = append(joined, text2...)
		n++
	}
	return append(joined, `"}`...), n
}

// streamText gives the name and the escaped text of a stream's data in the
// form our own agent writes it: {"name":"stdout","text":"…"}.
func streamText(data []byte) (name, text string, ok bool) {
	rest, ok := strings.CutPrefix(string(data), `{"name":"`)
	if !ok {
		return "", "", false
	}
	name, rest, ok = strings.Cut(rest, `","text":"`)
	if !ok || strings.ContainsAny(name, `"\`) {
		return "", "", false
	}
	text, ok = strings.CutSuffix(rest, `"}`)
	// A quote inside would mean that the text ends earlier.
	for i := 0; ok && i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			ok = false
		}
	}
	return name, text, ok
}

// followLate adds what threads write that the code left behind, until the
// kernel runs something else.
func (s *Session) followLate(r *run, src *fleet.Reader) {
	s.svc.background(func() {
		for {
			batch, err := src.Next(s.ctx)
			if err != nil {
				return
			}
			if _, err := s.take(r, batch); err != nil {
				return
			}
		}
	})
}

// Interrupt stops the cell that runs and takes back those that wait.
func (s *Session) Interrupt() {
	s.dropQueue("", "Interrupted before it ran.")
	s.mu.Lock()
	r := s.runs.current
	s.mu.Unlock()
	if r != nil {
		s.stopRun(r)
	}
}

// InterruptItem stops one cell, whether it runs or waits.
func (s *Session) InterruptItem(id string) error {
	s.mu.Lock()
	_, err := s.tree.find(id)
	r := s.runs.current
	s.mu.Unlock()
	if err != nil {
		return err
	}
	if r != nil && r.n.item.ID == id {
		s.stopRun(r)
		return nil
	}
	s.dropQueue(id, "Interrupted before it ran.")
	return nil
}

// stopRun interrupts a run, wherever it is.
func (s *Session) stopRun(r *run) {
	r.cancel(errInterrupted)
	s.mu.Lock()
	exec := r.exec
	s.mu.Unlock()
	if exec != nil {
		s.interruptExec(exec)
	}
}

const interruptTimeout = 10 * time.Second

func (s *Session) interruptExec(exec *fleet.Execution) {
	s.svc.background(func() {
		ctx, cancel := context.WithTimeout(s.ctx, interruptTimeout)
		defer cancel()
		if err := exec.Interrupt(ctx); err != nil && s.ctx.Err() == nil && !errors.Is(err, errdefs.ErrNotFound) {
			s.svc.log.Warn("a cell can't be interrupted", "session_id", s.id, "execution_id", exec.ID, "err", err)
		}
	})
}

// dropQueue takes back cells that wait: one, or with "" all.
func (s *Session) dropQueue(id, why string) {
	_ = s.do(func() error {
		for _, r := range slices.Clone(s.runs.queue) {
			if id != "" && r.n.item.ID != id {
				continue
			}
			s.runs.queue = slices.DeleteFunc(s.runs.queue, func(x *run) bool { return x == r })
			s.endRunLocked(r, "aborted", "", why)
		}
		return nil
	})
}
