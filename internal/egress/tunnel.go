package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// A connection that says nothing holds a small buffer; one that fills it gets
	// a large one while it goes on doing so: what the agent takes as one frame.
	smallBuffer = 4 << 10
	largeBuffer = 63 << 10
	// drainFor is how long an intercepted connection goes on after the program
	// has closed its side: there TLS has no way to pass that on.
	drainFor = 10 * time.Second
)

var large = sync.Pool{New: func() any { b := make([]byte, largeBuffer); return &b }}

// errCut ends a copy; the stream knows why.
var errCut = errors.New("egress: cut off")

// tunnel passes bytes until both sides have ended, or something cuts it. The
// program's end of one direction is passed on. When the outside ends its
// direction the whole stream ends, since an HTTP/2 handler ends its answer by
// returning; a clean end is the program's end of file, everything else a reset.
func (s *stream) tunnel(w http.ResponseWriter, r *http.Request, out net.Conn, p Policy) {
	defer out.Close()                                              //nolint:errcheck // it may be closed already
	stop := context.AfterFunc(r.Context(), func() { out.Close() }) //nolint:errcheck,gosec // to end what waits
	defer stop()

	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	if rc.Flush() != nil {
		return
	}
	idle := newIdleTimer(p.IdleTimeout, func() {
		s.refused(limited(codeIdle, "nothing passed for %s", p.IdleTimeout))
		out.Close()                              //nolint:errcheck,gosec // to end what waits for the outside
		_ = rc.SetWriteDeadline(time.Unix(1, 0)) //nolint:errcheck // and what waits for the program
	})
	defer idle.stop()

	up := make(chan struct{})
	go func() {
		defer close(up)
		var in io.Reader = r.Body
		if s.mayName != nil {
			in = &helloReader{src: r.Body, allowed: s.mayName, refused: s.refused}
		}
		err := pump(out, in, func(n int) *Refusal { idle.touch(); return s.sent(n) }, nil)
		h, half := out.(halfCloser)
		switch {
		case err != nil:
			out.Close() //nolint:errcheck,gosec // the program is gone, or the limit is reached
		case half:
			_ = h.CloseWrite() //nolint:errcheck // the other side may be gone
		default:
			idle.shorten(drainFor)
		}
	}()
	err := pump(w, out, func(n int) *Refusal { idle.touch(); return s.got(n) }, rc.Flush)
	out.Close()    //nolint:errcheck,gosec // ends the other direction
	r.Body.Close() //nolint:errcheck,gosec // so does this
	<-up
	if err != nil {
		panic(http.ErrAbortHandler) // a reset, not an end of file
	}
}

// pump copies until src ends or something fails; flush may be nil.
func pump(dst io.Writer, src io.Reader, count func(int) *Refusal, flush func() error) error {
	small := make([]byte, smallBuffer)
	buf := small
	var big *[]byte
	defer func() {
		if big != nil {
			large.Put(big)
		}
	}()
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if count(n) != nil {
				return errCut
			}
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
			if flush != nil && n < smallBuffer {
				if err := flush(); err != nil {
					return err
				}
			}
		}
		switch {
		case err == io.EOF: //nolint:errorlint // readers give it bare
			return nil
		case err != nil:
			return err
		case big == nil && n == len(buf):
			big = large.Get().(*[]byte) //nolint:errcheck,revive // the pool holds nothing else
			buf = *big
		case big != nil && n < smallBuffer:
			large.Put(big)
			big, buf = nil, small
		}
	}
}

// idleTimer calls a function when nothing was touched for some time. A touch
// costs one store, not a timer.
type idleTimer struct {
	last  atomic.Int64
	after atomic.Int64
	timer *time.Timer
	mu    sync.Mutex // guards ended and the timer's rearming
	ended bool
}

func newIdleTimer(after time.Duration, do func()) *idleTimer {
	t := &idleTimer{}
	t.after.Store(int64(after))
	t.touch()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.timer = time.AfterFunc(after, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.ended {
			return
		}
		if rest := t.after.Load() - (time.Now().UnixNano() - t.last.Load()); rest > 0 {
			t.timer.Reset(time.Duration(rest))
			return
		}
		t.ended = true
		do()
	})
	return t
}

func (t *idleTimer) touch() { t.last.Store(time.Now().UnixNano()) }

// shorten makes the timer come earlier from now on.
func (t *idleTimer) shorten(after time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.ended && int64(after) < t.after.Load() {
		t.after.Store(int64(after))
		t.timer.Reset(after)
	}
}

func (t *idleTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	t.timer.Stop()
}
