package agent

import (
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
)

// Finished executions are remembered so that a reader whose connection broke
// can read the rest. Beyond these bounds the oldest go.
const (
	maxRemembered      = 256
	maxRememberedBytes = 32 << 20
)

// execution is one piece of code on its way through a kernel.
//
//	queued ──▶ running ──▶ finished
//	   └──────────────────────▲   aborted
type execution struct {
	id     string
	keeper *keeper
	req    agentapi.Execute
	log    *event.Log
	out    *output
	done   chan struct{} // closed when finished

	finishedSeq atomic.Int64 // number of execution.finished; 0 before

	// Guarded by keeper.mu.
	started  time.Time // zero while queued
	reply    *executeReply
	finished bool
	asking   json.RawMessage // header of the input_request that waits for an answer
	rung     int             // steps of the interrupt ladder taken
	why      string          // "requested" or "timeout": who started the ladder
	note     event.Reason    // what befell it that did not end the kernel
	noteText string
	timers   []*time.Timer
}

// executeReply is the content of execute_reply.
type executeReply struct {
	Status          string          `json:"status"`
	ExecutionCount  int             `json:"execution_count"`
	Name            string          `json:"ename"`
	Value           string          `json:"evalue"`
	Payload         json.RawMessage `json:"payload"`
	UserExpressions json.RawMessage `json:"user_expressions"`
}

func (a *Agent) newExecution(k *keeper, req agentapi.Execute) *execution {
	// The log never drops anything before the end, because output is limited;
	// the rest is room for JSON's escapes and for late output.
	limit := req.OutputLimitBytes
	if limit <= 0 {
		limit = DefaultOutputLimit
	}
	log := event.NewLog(event.LogOptions{MaxBytes: 2*min(limit, maxOutputLimit) + 4*maxRich, MaxRecords: 2 * maxEvents})
	return &execution{
		id: req.ID, keeper: k, req: req, log: log, done: make(chan struct{}),
		out: newOutput(log, limit, func() *spill { return a.openSpill(req.ID) }),
	}
}

// stopTimers is called with keeper.mu held.
func (e *execution) stopTimers() {
	for _, t := range e.timers {
		t.Stop()
	}
	e.timers = nil
}

// finishLocked ends e with fin; keeper.mu is held and e.out has finished.
func (e *execution) finishLocked(fin event.Finished) {
	e.stopTimers()
	e.finished, e.asking = true, nil
	if !e.started.IsZero() {
		fin.DurationMS = float64(time.Since(e.started).Microseconds()) / 1000
	}
	ev, err := e.log.Append(event.ExecutionFinished, fin)
	if err == nil {
		e.finishedSeq.Store(ev.Seq)
	}
	e.req.Code = "" // may be large, and is not needed again
	close(e.done)
}

// remember adds a new execution, and forgets old ones that are over.
func (a *Agent) remember(e *execution) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.executions[e.id] = e
	a.order = append(a.order, e)
	if len(a.order) > maxRemembered || len(a.order)%8 == 0 {
		a.forgetLocked()
	}
}

// forgetLocked drops the oldest finished executions until the bounds hold.
func (a *Agent) forgetLocked() {
	var bytes int64
	for _, e := range a.order {
		bytes += e.log.Bytes()
	}
	over := len(a.order) - maxRemembered
	kept := a.order[:0]
	for _, e := range a.order {
		if (over > 0 || bytes > maxRememberedBytes) && e.finishedSeq.Load() > 0 {
			over--
			bytes -= e.log.Bytes()
			delete(a.executions, e.id)
			e.log.Close(nil)
			continue
		}
		kept = append(kept, e)
	}
	clear(a.order[len(kept):])
	a.order = kept
}

func (a *Agent) execution(id string) *execution {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.executions[id]
}
