package fleet

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// What one sandbox may have. Each unfinished execution holds a connection to
// the agent; each remembered one some memory.
const (
	maxUnfinished = 256
	maxRemembered = 1000
)

// ExecuteRequest asks for code to be run.
type ExecuteRequest struct {
	Code             string
	KernelID         string        // empty: the default kernel
	Timeout          time.Duration // running time; 0: the sandbox's bound, which is also the most
	AllowStdin       bool
	StopOnError      bool
	NoHistory        bool
	Silent           bool
	UserExpressions  json.RawMessage
	OutputLimitBytes int64
	IdempotencyKey   string // the same key gives the same execution; empty: always a new one
	ID               string // "exe_…", for callers that must know it before it runs; empty: a new one
}

// Execute has a kernel run code, and returns once the agent has taken it. The
// execution goes on when ctx ends. Beside it, Execute says whether it is new:
// a repeated idempotency key gives the one that was made first.
func (s *Sandbox) Execute(ctx context.Context, req ExecuteRequest) (*Execution, bool, error) {
	done := s.Use()
	e, isNew, err := s.prepare(ctx, req, done)
	if err != nil {
		done()
		return nil, false, err
	}
	if !isNew {
		done()
		select {
		case <-e.accepted:
			return e, false, e.acceptErr
		case <-ctx.Done():
			return nil, false, context.Cause(ctx)
		}
	}
	leave, err := s.turnToRun(ctx)
	var stream *agentapi.Stream
	if err == nil {
		defer leave()
		stream, err = s.submit(e, req)
	}
	if err != nil {
		e.acceptErr = err
		s.execs.drop(e)
		close(e.accepted)
		done()
		return nil, false, err
	}
	close(e.accepted)
	if stream.Whole() {
		// A short cell is over before its answer is here: no goroutine has to
		// be woken for it.
		_ = e.drain(stream) // what is missing nevertheless is asked for by pump
		_ = stream.Close()
		if e.ended() {
			return e, true, nil
		}
	}
	if !s.fleet.background(func() { e.pump(stream) }) {
		_ = stream.Close()
		return nil, false, errClosed // the next process of the server finds it
	}
	return e, true, nil
}

// prepare makes the execution, or finds the one with the same key.
func (s *Sandbox) prepare(ctx context.Context, req ExecuteRequest, release func()) (*Execution, bool, error) {
	s.mu.Lock()
	most, gone := s.rec.execution, s.gone
	s.mu.Unlock()
	if gone != "" {
		return nil, false, s.goneError()
	}
	if req.Timeout < 0 || req.Timeout > most {
		return nil, false, errdefs.New(errdefs.ErrInvalid, "limit-too-high",
			"timeout_ms is %d, and this sandbox allows at most %d.", req.Timeout.Milliseconds(), most.Milliseconds())
	}
	if req.Timeout == 0 {
		req.Timeout = most
	}
	if err := s.admitExecution(ctx, req); err != nil {
		return nil, false, err
	}
	if err := s.awaken(ctx); err != nil {
		return nil, false, err
	}
	kernel := req.KernelID
	if kernel == "" {
		var err error
		if kernel, err = s.DefaultKernel(ctx); err != nil {
			return nil, false, err
		}
	}
	if req.ID == "" {
		req.ID = NewExecutionID()
	}
	e := newExecution(s, req.ID, kernel)
	e.timeout, e.release = req.Timeout, release
	if req.IdempotencyKey != "" {
		e.ID = keyedID(s.id, req.IdempotencyKey)
		e.hash = req.hash()
	}
	return s.execs.add(e)
}

// NewExecutionID makes an identifier for ExecuteRequest.ID.
func NewExecutionID() string { return "exe_" + sandbox.RandomSuffix() }

func newExecution(s *Sandbox, id, kernelID string) *Execution {
	return &Execution{
		ID:       id,
		KernelID: kernelID,
		sandbox:  s,
		log:      event.NewLog(event.LogOptions{MaxBytes: maxLogBytes, MaxRecords: maxLogRecords}),
		accepted: make(chan struct{}),
		done:     make(chan struct{}),
		state:    ExecutionState{Status: StatusQueued, CreatedAt: time.Now().UTC()},
	}
}

func (s *Sandbox) submit(e *Execution, req ExecuteRequest) (*agentapi.Stream, error) {
	// The fleet's context, not the caller's: once the agent has it, it runs.
	return s.client.Execute(s.fleet.ctx, e.KernelID, agentapi.Execute{
		ID:               e.ID,
		Code:             req.Code,
		Silent:           req.Silent,
		StoreHistory:     !req.NoHistory && !req.Silent,
		AllowStdin:       req.AllowStdin,
		StopOnError:      req.StopOnError,
		UserExpressions:  req.UserExpressions,
		TimeoutMS:        e.timeout.Milliseconds(),
		OutputLimitBytes: req.OutputLimitBytes,
	})
}

// keyedID makes the execution's id from the key, so that the agent, which
// remembers ids, also answers for a key that a restart of the server forgot.
func keyedID(id sandbox.ID, key string) string {
	sum := sha256.Sum256([]byte(string(id) + "\x00" + key))
	return "exe_" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))[:26]
}

func (r ExecuteRequest) hash() [32]byte {
	h := sha256.New()
	for _, s := range []string{r.KernelID, r.Code, string(r.UserExpressions)} {
		_ = binary.Write(h, binary.BigEndian, int64(len(s))) // a hash never fails
		_, _ = h.Write([]byte(s))
	}
	_ = binary.Write(h, binary.BigEndian, []int64{int64(r.Timeout), r.OutputLimitBytes})
	_ = binary.Write(h, binary.BigEndian, []bool{r.AllowStdin, r.StopOnError, r.NoHistory, r.Silent})
	return [32]byte(h.Sum(nil))
}

// Execution finds an execution that is still remembered.
func (s *Sandbox) Execution(id string) (*Execution, error) {
	if e := s.execs.get(id); e != nil {
		return e, nil
	}
	return nil, errdefs.New(errdefs.ErrNotFound, "execution-not-found", "The sandbox has no execution %.80q.", id).
		WithHint("Finished executions are remembered for a while only.")
}

// Executions gives the executions that are still remembered, newest first.
func (s *Sandbox) Executions() []*Execution { return s.execs.list() }

// adoptExecutions takes over what an earlier process of the server started,
// and finds the default kernel again.
func (s *Sandbox) adoptExecutions(ctx context.Context) error {
	kernels, err := s.client.Kernels(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	most := s.rec.execution
	for _, k := range kernels {
		if k.ID == s.rec.kernelID {
			s.kernel = startedKernel(k.ID)
		}
	}
	s.mu.Unlock()
	known, err := s.client.Executions(ctx)
	if err != nil {
		return err
	}
	for _, x := range known {
		e := newExecution(s, x.ID, x.KernelID)
		e.timeout, e.release = most, s.Use() // its own bound is forgotten; it was not more
		e.past = x.Finished
		close(e.accepted)
		if _, isNew, err := s.execs.add(e); err != nil || !isNew {
			e.release()
			continue
		}
		stream, err := s.client.Events(s.fleet.ctx, x.ID, 0)
		if err != nil {
			e.giveUp(err)
			continue
		}
		s.fleet.background(func() { e.pump(stream) })
	}
	return nil
}

// executions is the executions of one sandbox.
type executions struct {
	mu    sync.Mutex
	byID  map[string]*Execution
	order []*Execution // oldest first
	open  int
}

func (x *executions) init() { x.byID = map[string]*Execution{} }

// add keeps e, or gives the one that already has its id.
func (x *executions) add(e *Execution) (*Execution, bool, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if old := x.byID[e.ID]; old != nil {
		if old.hash != e.hash && old.hash != [32]byte{} {
			return nil, false, errdefs.New(errdefs.ErrConflict, "idempotency-key-reused",
				"This Idempotency-Key was sent before with another request.").WithHint("Use a new key for each execution.")
		}
		return old, false, nil
	}
	if x.open >= maxUnfinished {
		return nil, false, errdefs.New(errdefs.ErrExhausted, "too-many-executions",
			"%d executions of this sandbox have not ended.", x.open).WithHint("Wait for them, or interrupt some.")
	}
	x.byID[e.ID] = e
	x.order = append(x.order, e)
	x.open++
	if len(x.order) > maxRemembered {
		if i := slices.IndexFunc(x.order, func(e *Execution) bool { return closed(e.done) }); i >= 0 {
			delete(x.byID, x.order[i].ID)
			x.order = slices.Delete(x.order, i, i+1)
		}
	}
	return e, true, nil
}

func (x *executions) get(id string) *Execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.byID[id]
}

// finished says that an execution no longer counts as open.
func (x *executions) finished(*Execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open--
}

// drop forgets an execution that the agent never took.
func (x *executions) drop(e *Execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.open--
	x.forgetLocked(e)
}

// forget forgets an execution that has ended.
func (x *executions) forget(e *Execution) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.forgetLocked(e)
}

func (x *executions) forgetLocked(e *Execution) {
	if x.byID[e.ID] != e {
		return
	}
	delete(x.byID, e.ID)
	x.order = slices.DeleteFunc(x.order, func(o *Execution) bool { return o == e })
}

// running reports whether an execution has not ended.
func (x *executions) running() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.open > 0
}

// newest gives the execution that came last, nil if there is none.
func (x *executions) newest() *Execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	if len(x.order) == 0 {
		return nil
	}
	return x.order[len(x.order)-1]
}

func (x *executions) list() []*Execution {
	x.mu.Lock()
	defer x.mu.Unlock()
	l := slices.Clone(x.order)
	slices.Reverse(l)
	return l
}

func (x *executions) unfinished() []*Execution {
	return slices.DeleteFunc(x.list(), func(e *Execution) bool { return closed(e.done) })
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// keeper bounds the memory of finished executions over all sandboxes: the ones
// that finished first are forgotten first.
type keeper struct {
	mu    sync.Mutex
	max   int64
	total int64
	list  *list.List // of *keptExecution, oldest first
	items map[*Execution]*list.Element
}

type keptExecution struct {
	e     *Execution
	bytes int64
}

// An execution without any output costs about this much.
const executionOverhead = 2 << 10

func newKeeper(limit int64) *keeper {
	return &keeper{max: limit, list: list.New(), items: map[*Execution]*list.Element{}}
}

// add counts a finished execution, again if it has grown.
func (k *keeper) add(e *Execution) {
	size := e.log.Bytes() + executionOverhead
	var evicted []*Execution
	k.mu.Lock()
	if el, ok := k.items[e]; ok {
		item := el.Value.(*keptExecution) //nolint:forcetypeassert // the list holds nothing else
		k.total += size - item.bytes
		item.bytes = size
	} else {
		k.items[e] = k.list.PushBack(&keptExecution{e, size})
		k.total += size
	}
	for k.total > k.max && k.list.Len() > 1 {
		evicted = append(evicted, k.removeLocked(k.list.Front()))
	}
	k.mu.Unlock()
	for _, old := range evicted {
		old.sandbox.execs.forget(old)
	}
}

// forget no longer counts the executions of a sandbox nobody can find.
func (k *keeper) forget(s *Sandbox) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for el := k.list.Front(); el != nil; {
		next := el.Next()
		if el.Value.(*keptExecution).e.sandbox == s { //nolint:forcetypeassert // see add
			k.removeLocked(el)
		}
		el = next
	}
}

func (k *keeper) removeLocked(el *list.Element) *Execution {
	item := k.list.Remove(el).(*keptExecution) //nolint:forcetypeassert // see add
	k.total -= item.bytes
	delete(k.items, item.e)
	return item.e
}
