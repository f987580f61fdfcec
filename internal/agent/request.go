package agent

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/kernel"
)

// requestTypes are the shell requests that have one reply and no outputs.
var requestTypes = map[string]bool{
	"complete_request": true, "inspect_request": true, "is_complete_request": true,
	"kernel_info_request": true, "comm_info_request": true, "history_request": true,
	"variables_request": true, "table_request": true, // ours, not Jupyter's
}

const (
	defaultRequestTimeout = 10 * time.Second
	// maxRequests bounds the requests that wait for one kernel.
	maxRequests = 256
)

// request asks the kernel and waits for its answer.
func (k *keeper) request(ctx context.Context, req agentapi.Request) (agentapi.Reply, error) {
	if !requestTypes[req.Type] {
		return agentapi.Reply{}, errdefs.New(errdefs.ErrInvalid, "invalid-request-type", "%.80q is not a request that can be made here", req.Type).
			WithHint("use complete_request, inspect_request, is_complete_request, kernel_info_request, comm_info_request or history_request")
	}
	if err := checkObject(req.Content, "content"); err != nil {
		return agentapi.Reply{}, err
	}
	timeout := defaultRequestTimeout
	if req.TimeoutMS > 0 {
		timeout = milliseconds(req.TimeoutMS)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errdefs.New(errdefs.ErrUnavailable, "kernel-busy", "the kernel did not answer in %v", timeout).
		WithHint("it runs something else; try again when that is over"))
	defer cancel()
	inc, err := k.ready(ctx)
	if err != nil {
		return agentapi.Reply{}, err
	}
	m, err := inc.ask(ctx, req.Type, req.Content)
	if err != nil {
		return agentapi.Reply{}, err
	}
	return agentapi.Reply{Type: m.Header.MsgType, Content: m.Content}, nil
}

// ready gives the kernel process once it can take requests.
func (k *keeper) ready(ctx context.Context) (*incarnation, error) {
	if err := k.waitReady(ctx); err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inc == nil {
		return nil, errKernelGone
	}
	return k.inc, nil
}

var errKernelGone = errdefs.New(errdefs.ErrUnavailable, "kernel-died", "the kernel ended before it answered").WithHint("try again")

// ask sends a shell request and waits for its reply.
func (inc *incarnation) ask(ctx context.Context, typ string, content json.RawMessage) (*kernel.Message, error) {
	reply := make(chan *kernel.Message, 1)
	inc.requestMu.Lock()
	if inc.requests == nil {
		inc.requestMu.Unlock()
		return nil, errKernelGone
	}
	if len(inc.requests) >= maxRequests {
		inc.requestMu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "kernel-queue-full", "%d requests wait for this kernel already", maxRequests)
	}
	inc.lastID++
	id := "req_" + strconv.Itoa(inc.lastID)
	inc.requests[id] = reply
	inc.requestMu.Unlock()
	defer func() {
		inc.requestMu.Lock()
		defer inc.requestMu.Unlock()
		delete(inc.requests, id)
	}()
	// A busy kernel does not read; its socket holds many small requests, and
	// one that does not fit waits here without holding anything.
	sent := make(chan error, 1)
	go func() {
		sent <- inc.proc.Conn().Send(&kernel.Message{Channel: kernel.Shell, Header: header(id, typ), Content: content})
	}()
	for {
		select {
		case err := <-sent:
			if err != nil {
				return nil, errKernelGone
			}
			sent = nil
		case m := <-reply:
			if m == nil {
				return nil, errKernelGone
			}
			return m, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// asked reports whether id is a request of ask that waits.
func (inc *incarnation) asked(id string) bool {
	inc.requestMu.Lock()
	defer inc.requestMu.Unlock()
	_, ok := inc.requests[id]
	return ok
}

// failRequests answers those who wait for a kernel that is gone.
func (inc *incarnation) failRequests() {
	inc.requestMu.Lock()
	defer inc.requestMu.Unlock()
	for _, waiting := range inc.requests {
		close(waiting)
	}
	inc.requests = nil
}

// comm hands a comm message to the kernel.
func (k *keeper) comm(ctx context.Context, msg agentapi.Comm) error {
	switch msg.Type {
	case "comm_open", "comm_msg", "comm_close":
	default:
		return errdefs.New(errdefs.ErrInvalid, "invalid-request-type", "%.80q is not a comm message", msg.Type)
	}
	if err := checkObject(msg.Content, "content"); err != nil {
		return err
	}
	inc, err := k.ready(ctx)
	if err != nil {
		return err
	}
	inc.requestMu.Lock()
	inc.lastID++
	id := "comm_" + strconv.Itoa(inc.lastID)
	inc.requestMu.Unlock()
	return inc.send(ctx, &kernel.Message{Channel: kernel.Shell, Header: header(id, msg.Type), Content: msg.Content, Buffers: msg.Buffers})
}

// input answers the input() that e waits in.
func (k *keeper) input(ctx context.Context, e *execution, value string) error {
	content, err := json.Marshal(agentapi.Input{Value: value})
	if err != nil {
		return err
	}
	k.mu.Lock()
	inc, head := k.inc, e.asking
	if k.current != e || head == nil || inc == nil {
		k.mu.Unlock()
		return errdefs.New(errdefs.ErrConflict, "no-input-requested", "execution %s does not ask for input", e.id)
	}
	e.asking = nil
	k.mu.Unlock()
	return inc.send(ctx, &kernel.Message{Channel: kernel.Stdin, Header: header(e.id+"_input", "input_reply"), ParentHeader: head, Content: content})
}

// send writes a message, for no longer than ctx lasts.
func (inc *incarnation) send(ctx context.Context, m *kernel.Message) error {
	sent := make(chan error, 1)
	go func() { sent <- inc.proc.Conn().Send(m) }()
	select {
	case err := <-sent:
		if err != nil {
			return errKernelGone
		}
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func checkObject(raw json.RawMessage, name string) error {
	if len(raw) > 0 && raw[0] != '{' {
		return errdefs.New(errdefs.ErrInvalid, "invalid-body", "%s must be an object", name)
	}
	return nil
}
