package agentapi

import (
	"context"
	"io"
	"net"
	"sync"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// ErrHeld is why the events of an execution end when the client is held: ask
// for them again from the last number.
var ErrHeld = errdefs.New(errdefs.ErrUnavailable, "sandbox-held", "the sandbox is being saved").
	WithHint("follow the execution again from its last event")

var errBusy = errdefs.New(errdefs.ErrConflict, "sandbox-busy", "a process runs in the sandbox, or files are on the way").
	WithHint("wait until it is over, and try again")

// gate lets calls through, and can be shut: a sandbox is saved while nobody
// speaks to it and no connection is open.
//
//	open ──Hold──▶ shut, calls under way are awaited ──▶ empty: streams cut, connections closed
//	  ▲                          │ the caller's time ends                    │ release
//	  └──────────────────────────┴─────────────────────────────────────────────┘
type gate struct {
	mu      sync.Mutex
	shut    chan struct{} // closed when it opens again; nil: open
	calls   int           // under way
	empty   chan struct{} // closed when calls is 0; nil: nobody waits
	sealed  bool          // no connection may be opened
	streams map[*heldBody]struct{}
	conns   map[*trackedConn]struct{}
}

// enter waits until the gate is open and counts a call, until leave.
func (g *gate) enter(ctx context.Context) error {
	for {
		g.mu.Lock()
		shut := g.shut
		if shut == nil {
			g.calls++
			g.mu.Unlock()
			return nil
		}
		g.mu.Unlock()
		select {
		case <-shut:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leaveLocked()
}

func (g *gate) leaveLocked() {
	g.calls--
	if g.calls == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// Hold makes new calls wait, waits for those under way, cuts the events of
// executions (which fail with ErrHeld) and closes every connection. It lasts
// until release. A Hold that fails changes nothing: with "sandbox-busy" when
// ctx ends before the calls do.
func (c *Client) Hold(ctx context.Context) (release func(), err error) {
	g := &c.gate
	var shut chan struct{}
	for shut == nil {
		g.mu.Lock()
		other := g.shut
		if other == nil {
			shut = make(chan struct{})
			g.shut = shut
		}
		empty := make(chan struct{})
		if other == nil {
			if g.calls == 0 {
				close(empty)
			} else {
				g.empty = empty
			}
		}
		g.mu.Unlock()
		if other != nil {
			select {
			case <-other:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			continue
		}
		select {
		case <-empty:
		case <-ctx.Done():
			g.open(shut)
			return nil, errBusy
		}
	}
	g.mu.Lock()
	streams, conns := g.streams, g.conns
	g.streams, g.conns, g.sealed = nil, nil, true
	g.mu.Unlock()
	for s := range streams {
		s.cut(ErrHeld)
	}
	c.CloseIdle()
	for conn := range conns {
		_ = conn.Conn.Close()
	}
	var once sync.Once
	return func() { once.Do(func() { g.open(shut) }) }, nil
}

func (g *gate) open(shut chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.empty, g.sealed = nil, nil, false
	close(shut)
}

// heldBody is an answer that is still being read: a call under way until it is
// closed, or, once it is said to be a stream, something that Hold may cut.
type heldBody struct {
	io.ReadCloser
	gate *gate
	cut  context.CancelCauseFunc // set once it is a stream
	once sync.Once
}

// stream says that the answer has no end of its own and can be asked for again.
func (b *heldBody) stream(cut context.CancelCauseFunc) {
	g := b.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	b.cut = cut
	if g.streams == nil {
		g.streams = map[*heldBody]struct{}{}
	}
	g.streams[b] = struct{}{}
	g.leaveLocked()
}

func (b *heldBody) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(func() {
		g := b.gate
		g.mu.Lock()
		defer g.mu.Unlock()
		if b.cut == nil {
			g.leaveLocked()
		} else {
			delete(g.streams, b)
		}
	})
	return err
}

// trackedConn is a connection that Hold finds.
type trackedConn struct {
	net.Conn
	gate *gate
}

// track keeps a connection to be found. One that comes too late is closed:
// net/http opens some for calls that meanwhile found another.
func (g *gate) track(conn net.Conn) (*trackedConn, error) {
	t := &trackedConn{conn, g}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed {
		_ = conn.Close()
		return nil, ErrHeld
	}
	if g.conns == nil {
		g.conns = map[*trackedConn]struct{}{}
	}
	g.conns[t] = struct{}{}
	return t, nil
}

func (t *trackedConn) Close() error {
	t.gate.mu.Lock()
	delete(t.gate.conns, t)
	t.gate.mu.Unlock()
	return t.Conn.Close()
}
