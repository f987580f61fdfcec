package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/kernel"
)

// readGrace is how long the socket may still be read after the process ended:
// what it sent last is there already, but a child that inherited the socket
// could keep it open for ever.
const readGrace = 500 * time.Millisecond

// exitGrace is how long a process whose socket was closed may take to end: an
// exit closes it before it can be waited for. On a busy machine the time between was
// above 7 ms in 5 of 30 exits, and once 250 ms. Shorter, an exit would be
// taken for a kernel that closed its own socket.
const exitGrace = 3 * time.Second

// incarnation is one kernel process from its start to its end.
type incarnation struct {
	keeper *keeper
	proc   *kernel.Process
	owner  owner
	pipes  [2]*pipe
	read   chan error // gets the reason why the socket ended
	// drained says that the pipes were emptied since the socket was last read;
	// it belongs to the goroutine that receives.
	drained bool

	// sendMu keeps the order of execute requests and interrupts: the kernel
	// takes an interrupt for the execution that it was last sent.
	sendMu sync.Mutex

	requestMu sync.Mutex
	requests  map[string]chan *kernel.Message // waiting for a reply, by msg_id
	lastID    int

	// Guarded by keeper.mu.
	ready   bool
	readyAt time.Time
	cause   *ending // why it was killed by us; nil if it was not

	startText tailBuffer // what it wrote before it was ready; guarded by keeper.mu
}

// spawn starts a kernel process and makes it the keeper's.
func (k *keeper) spawn() (*incarnation, error) {
	a := k.agent
	k.mu.Lock()
	dir, env := k.dir, k.env
	k.mu.Unlock()
	inc := &incarnation{keeper: k, owner: newOwner(), read: make(chan error, 1), requests: make(map[string]chan *kernel.Message)}
	opts := kernel.Options{
		Python: a.opts.Python, Dir: a.realDir(dir), Preload: a.opts.Preload, ProgramDir: a.opts.ProgramDir,
		Env: append(a.environ(env), inc.owner.variable()),
	}
	a.spawning.RLock()
	defer a.spawning.RUnlock()
	err := a.spawner(func() (pid int, err error) {
		if inc.proc, err = kernel.Start(k.ctx, opts); err != nil {
			return 0, err
		}
		return inc.proc.Pid(), nil
	})
	if err != nil {
		return nil, err
	}
	inc.owner.pid = inc.proc.Pid()
	a.limitProcess(inc.owner.pid)
	inc.pipes = [2]*pipe{
		newPipe("stdout", inc.proc.Stdout, inc.piped), newPipe("stderr", inc.proc.Stderr, inc.piped),
	}
	k.mu.Lock()
	k.inc = inc
	if k.closed { // between our look at ctx and now: close has found no process to end
		_ = syscall.Kill(-inc.owner.pid, syscall.SIGKILL) // attend does the rest
	}
	k.mu.Unlock()
	return inc, nil
}

// attend serves the process until it is gone with all it started, and says how it ended.
func (inc *incarnation) attend() ending {
	var pumps sync.WaitGroup
	for _, p := range inc.pipes {
		pumps.Go(p.pump)
	}
	go func() { inc.read <- inc.receive() }()

	var readErr error
	reading := true
	select {
	case <-inc.proc.Done():
	case readErr = <-inc.read:
		reading = false
		inc.socketEnded(readErr)
	}
	inc.keeper.agent.killTree(inc)
	if reading {
		select {
		case readErr = <-inc.read:
			reading = false
		case <-time.After(readGrace):
		}
	}
	_ = inc.proc.Conn().Close()
	if reading {
		<-inc.read //nolint:errcheck // its end is waited for; howEnded has said why
	}
	for _, p := range inc.pipes {
		p.finish()
	}
	pumps.Wait()
	inc.failRequests()
	inc.keeper.agent.reaped(inc.owner.pid)
	return inc.howEnded(readErr)
}

// socketEnded is called when the socket is of no use any more though the
// process may live.
func (inc *incarnation) socketEnded(err error) {
	grace := exitGrace
	if errors.Is(err, errShape) || errors.Is(err, kernel.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
		grace = readGrace // it is still writing
	}
	select {
	case <-inc.proc.Done():
		return
	case <-time.After(grace):
	}
	message := "The kernel closed its own connection to the sandbox's agent, so it was replaced by a fresh one. Variables are lost."
	if errors.Is(err, kernel.ErrProtocol) || errors.Is(err, errShape) {
		message = "Something other than a message was written to the kernel's own socket, so the kernel was replaced by a fresh one. Variables are lost."
	}
	k := inc.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if inc.cause == nil {
		inc.cause = &ending{status: event.StatusKilled, reason: event.ReasonKernelBroken, message: message}
	}
}

// end kills the process because of cause, unless it was killed before.
func (inc *incarnation) end(cause ending) {
	k := inc.keeper
	k.mu.Lock()
	if inc.cause == nil {
		inc.cause = &cause
	}
	k.mu.Unlock()
	k.agent.killTree(inc)
}

func (inc *incarnation) howEnded(readErr error) ending {
	state := inc.proc.Wait()
	k := inc.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if inc.cause != nil {
		return *inc.cause
	}
	if state.Signal == 0 && errors.Is(readErr, kernel.ErrProtocol) {
		return ending{
			status: event.StatusKilled, reason: event.ReasonKernelBroken,
			message: "The kernel ended after it had written something other than a message to its own socket. Variables are lost.",
		}
	}
	if !inc.ready {
		text := strings.TrimSpace(inc.startText.String())
		if i := strings.LastIndexByte(text, '\n'); i >= 0 {
			text = text[i+1:] // of a Python traceback this line says what is wrong
		}
		return ending{
			status: event.StatusKilled, reason: event.ReasonKernelDied,
			message: fmt.Sprintf("The kernel ended before it was ready (%s). %s", describeExit(state), text),
		}
	}
	return ending{
		status: event.StatusKilled, reason: event.ReasonKernelDied,
		message: fmt.Sprintf("The kernel process ended (%s). A fresh kernel was started; variables are lost.", describeExit(state)),
	}
}

func describeExit(state kernel.ExitState) string {
	switch {
	case state.Signal == syscall.SIGKILL:
		return "killed by signal SIGKILL"
	case state.Signal == syscall.SIGSEGV:
		return "segmentation fault, signal SIGSEGV"
	case state.Signal != 0:
		return "signal " + signalName(state.Signal)
	}
	return "exit code " + strconv.Itoa(state.Code)
}

// execute sends e's code, if e is still what runs.
func (inc *incarnation) execute(e *execution) {
	k := inc.keeper
	content, err := json.Marshal(struct {
		Code            string          `json:"code"`
		Silent          bool            `json:"silent"`
		StoreHistory    bool            `json:"store_history"`
		UserExpressions json.RawMessage `json:"user_expressions"`
		AllowStdin      bool            `json:"allow_stdin"`
		StopOnError     bool            `json:"stop_on_error"` // the queue is the agent's
	}{e.req.Code, e.req.Silent, e.req.StoreHistory && !e.req.Silent, orObject(e.req.UserExpressions), e.req.AllowStdin, false})
	if err != nil {
		return // strings and booleans encode; submit checked the raw part
	}
	inc.sendMu.Lock()
	defer inc.sendMu.Unlock()
	k.mu.Lock()
	current := k.current == e
	k.mu.Unlock()
	if !current {
		return
	}
	// An error means that the connection is broken: whoever reads it sees that
	// too and ends the execution.
	_ = inc.proc.Conn().Send(&kernel.Message{Channel: kernel.Shell, Header: header(e.id, "execute_request"), Content: content})
}

// interrupt sends SIGINT, if e is still what runs.
func (inc *incarnation) interrupt(e *execution) {
	inc.sendMu.Lock()
	defer inc.sendMu.Unlock()
	inc.keeper.mu.Lock()
	current := inc.keeper.current == e
	inc.keeper.mu.Unlock()
	if current {
		_ = inc.proc.Interrupt() // it has ended: attend sees that
	}
}

func orObject(raw json.RawMessage) json.RawMessage {
	if len(raw) == 0 || string(raw) == "null" {
		return json.RawMessage("{}")
	}
	return raw
}

func header(id, typ string) kernel.Header {
	return kernel.Header{MsgID: id, MsgType: typ, Session: "agent", Username: "user", Version: kernel.ProtocolVersion, Date: time.Now().UTC().Format(time.RFC3339Nano)}
}

// receive takes messages until the connection ends.
func (inc *incarnation) receive() error {
	conn := inc.proc.Conn()
	for {
		inc.drained = inc.drained && conn.Buffered()
		m, err := conn.Receive()
		if err != nil {
			return err
		}
		if err := inc.handle(m); err != nil {
			return err
		}
	}
}

var errShape = errors.New("agent: the kernel sent a message of the wrong shape")

var outputTypes = map[string]event.Type{
	"display_data":        event.OutputDisplay,
	"update_display_data": event.OutputUpdate,
	"execute_result":      event.OutputResult,
	"error":               event.OutputError,
	"clear_output":        event.OutputClear,
	"comm_open":           event.CommOpen,
	"comm_msg":            event.CommMessage,
	"comm_close":          event.CommClose,
}

func (inc *incarnation) handle(m *kernel.Message) error {
	switch m.Channel {
	case kernel.IOPub:
		switch m.Header.MsgType {
		case "status":
			return inc.status(m)
		case "stream":
			var s event.Stream
			if err := json.Unmarshal(m.Content, &s); err != nil || s.Name != "stdout" && s.Name != "stderr" {
				return errShape
			}
			inc.drain()
			if e := inc.target(m.ParentID); e != nil {
				e.out.text(s.Name, []byte(s.Text))
			} else {
				inc.early([]byte(s.Text))
			}
			return nil
		}
		typ, ok := outputTypes[m.Header.MsgType]
		if !ok {
			return nil // execute_input and what later protocols may add
		}
		data := m.Content
		if len(m.Buffers) > 0 {
			data = withBuffers(data, m.Buffers)
		}
		if err := agentapi.CheckData(typ, data); err != nil {
			return errShape
		}
		if typ == event.OutputError {
			data = cutError(data)
		}
		inc.drain()
		if e := inc.target(m.ParentID); e != nil {
			e.out.rich(typ, data)
		}
		return nil
	case kernel.Stdin:
		if m.Header.MsgType == "input_request" {
			return inc.inputRequest(m)
		}
		return nil
	}
	if m.Header.MsgType == "execute_reply" && !inc.asked(m.ParentID) {
		return inc.executeReply(m)
	}
	inc.requestMu.Lock()
	defer inc.requestMu.Unlock()
	if waiting, ok := inc.requests[m.ParentID]; ok {
		delete(inc.requests, m.ParentID)
		waiting <- m // has room for one
	}
	return nil
}

func (inc *incarnation) status(m *kernel.Message) error {
	var s struct {
		State string `json:"execution_state"`
	}
	if err := json.Unmarshal(m.Content, &s); err != nil {
		return errShape
	}
	if s.State != "idle" {
		return nil
	}
	if m.ParentID == "" {
		inc.keeper.becameReady(inc)
		return nil
	}
	k := inc.keeper
	k.mu.Lock()
	e := k.current
	over := e != nil && e.id == m.ParentID && e.reply != nil
	k.mu.Unlock()
	if over {
		k.complete(e)
	}
	return nil
}

func (inc *incarnation) executeReply(m *kernel.Message) error {
	var reply executeReply
	if err := json.Unmarshal(m.Content, &reply); err != nil {
		return errShape
	}
	if len(m.Content) > maxRich {
		reply.Payload, reply.UserExpressions = nil, nil // the finished event must fit in a line
	}
	inc.drain()
	k := inc.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.current != nil && k.current.id == m.ParentID {
		k.current.reply = &reply
		k.current.asking = nil
	}
	return nil
}

func (inc *incarnation) inputRequest(m *kernel.Message) error {
	var in event.Input
	if err := json.Unmarshal(m.Content, &in); err != nil {
		return errShape
	}
	head, err := json.Marshal(m.Header)
	if err != nil {
		return errShape
	}
	inc.drain()
	k := inc.keeper
	k.mu.Lock()
	e := k.current
	if e == nil || e.id != m.ParentID {
		k.mu.Unlock()
		return nil
	}
	e.asking = head
	k.mu.Unlock()
	in.Prompt = in.Prompt[:cutRune(in.Prompt, maxText)]
	e.out.event(event.InputRequested, in)
	return nil
}

// target finds the execution that a message belongs to: the one that runs, an
// earlier one, or for a comm's callbacks and other strangers the latest.
func (inc *incarnation) target(parent string) *execution {
	k := inc.keeper
	k.mu.Lock()
	current, last := k.current, k.last
	k.mu.Unlock()
	if current != nil && current.id == parent {
		return current
	}
	if parent != "" {
		if e := k.agent.execution(parent); e != nil && e.keeper == k {
			return e
		}
	}
	return cmp.Or(current, last)
}

// piped takes what came through a pipe.
func (inc *incarnation) piped(name string, text []byte) {
	if e := inc.target(""); e != nil {
		e.out.text(name, text)
		return
	}
	inc.early(text)
}

func (inc *incarnation) early(text []byte) {
	inc.keeper.mu.Lock()
	defer inc.keeper.mu.Unlock()
	if !inc.ready {
		inc.startText.write(text)
	}
}

// drain takes what is in the pipes now: it was written before the message at
// hand was sent. Messages that came in one read with one before which it was
// done need no other look.
func (inc *incarnation) drain() {
	if inc.drained {
		return
	}
	inc.drained = true
	for _, p := range inc.pipes {
		p.drain()
	}
}

// withBuffers adds a message's binary buffers to its content, as base64.
func withBuffers(content json.RawMessage, buffers [][]byte) json.RawMessage {
	text, err := json.Marshal(buffers)
	if err != nil {
		return content
	}
	head := content[:len(content)-1] // without the brace
	out := make(json.RawMessage, 0, len(content)+len(text)+16)
	out = append(out, head...)
	if strings.TrimSpace(string(head)) != "{" {
		out = append(out, ',')
	}
	out = append(append(out, `"buffers":`...), text...)
	return append(out, '}')
}

// tailBuffer keeps the last few kilobytes of a text.
type tailBuffer struct{ b []byte }

func (t *tailBuffer) write(p []byte) {
	const size = 4096
	t.b = append(t.b, p...)
	if len(t.b) > 2*size {
		t.b = append(t.b[:0], t.b[len(t.b)-size:]...)
	}
}

func (t *tailBuffer) String() string { return strings.ToValidUTF8(string(t.b), "\uFFFD") }
