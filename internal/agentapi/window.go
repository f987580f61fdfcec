package agentapi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// gVisor's port forwarding copies 16 KiB at a time between the host's socket
// and the sandbox's and ignores how much of a copy was taken: as soon as a
// buffer on the way is full, bytes are lost (runsc/boot/portforward, doCopy).
// A windowed connection never lets a buffer fill: at most windowBytes are on
// the way that the other end's reader has not yet consumed.
//
// The same copy also sleeps through data at times: it reads, finds nothing, and
// only then asks to be woken, so what comes in between lies there until more
// comes. Whoever accepted a windowed connection therefore nudges: some moments
// after its last frame it sends empty ones, which wake the copy.
//
//	frame: kind 1 byte | length 3 bytes, big-endian | length bytes, for data
//
// An ack frame's length says how many bytes were consumed since the last one; a
// nudge has length 0 and means nothing.
// The end that dials begins with windowPreface, whose first byte no HTTP
// request begins with, so that a listener takes plain HTTP on the same port
// (Kubernetes probes and plain TCP need no window).
const (
	windowBytes   = 512 << 10 // below every buffer on the way: netstack has 1 MiB, see WindowSocketBytes
	windowFrame   = 64 << 10  // largest data frame
	windowAck     = windowBytes / 4
	windowHeader  = 4
	windowPreface = "\x00caesarion-window/1\n"

	frameData  = 0
	frameAck   = 1
	frameNudge = 2

	// WindowSocketBytes is the send buffer that the host's end of a forwarded
	// socket needs so that a window fits with all its overhead.
	WindowSocketBytes = 4 << 20
)

// nudges says when to nudge after the last frame, each counted from the one
// before. The first comes too early if the copy lost its processor just then;
// the last has to be late enough on the busiest machine.
var nudges = []time.Duration{3 * time.Millisecond, 30 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second}

// windowConn is one end of a windowed connection.
//
// There is no goroutine behind it: whoever reads, or waits for room to write,
// takes the next frame from the wire, for all.
type windowConn struct {
	net.Conn
	in *bufio.Reader // used by whoever holds reading

	wmu     sync.Mutex // one Write at a time
	out     net.Buffers
	preface bool // still to be sent; guarded by wmu and frameMu

	frameMu sync.Mutex  // one frame at a time on the wire
	nudge   *time.Timer // nil on the end that dialled; guarded by frameMu
	nudged  int         // nudges since the last frame; guarded by frameMu

	mu       sync.Mutex
	changed  *sync.Cond
	credit   int    // bytes that may still be sent; guarded by mu
	reading  bool   // somebody takes a frame from the wire; guarded by mu
	frame    int    // bytes of the current data frame not yet taken; guarded by mu
	pending  []byte // taken by a writer that waited for credit; guarded by mu
	consumed int    // taken by Read and not yet acknowledged; guarded by mu
	err      error  // why reading ended; guarded by mu
}

// Window wraps a connection that this end dialled.
func Window(conn net.Conn) net.Conn {
	return newWindow(conn, bufio.NewReaderSize(conn, windowFrame), true)
}

func newWindow(conn net.Conn, in *bufio.Reader, preface bool) *windowConn {
	w := &windowConn{Conn: conn, in: in, credit: windowBytes, preface: preface}
	w.changed = sync.NewCond(&w.mu)
	return w
}

// Read gives data as it comes and acknowledges it.
func (w *windowConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	w.mu.Lock()
	for {
		switch {
		case len(w.pending) > 0:
			n := copy(p, w.pending)
			if w.pending = w.pending[n:]; len(w.pending) == 0 {
				w.pending = nil
			}
			return w.consumedLocked(n)
		case w.reading:
			w.changed.Wait()
		case w.err != nil:
			defer w.mu.Unlock()
			return 0, w.err
		default:
			n, err := w.takeLocked(p)
			if n > 0 {
				return w.consumedLocked(n)
			}
			if err != nil {
				w.mu.Unlock()
				return 0, err
			}
		}
	}
}

// consumedLocked counts n bytes that the reader got, acknowledges when enough
// came together, and unlocks.
func (w *windowConn) consumedLocked(n int) (int, error) {
	w.consumed += n
	ack := 0
	if w.consumed >= windowAck {
		ack, w.consumed = w.consumed, 0
	}
	w.mu.Unlock()
	if ack > 0 {
		// A failed ack shows at the next read or write; the data is here.
		_ = w.send(frameAck, ack, nil)
	}
	return n, nil
}

// takeLocked takes one frame from the wire, or what is left of a data frame,
// without holding mu meanwhile. Data goes to p, as much as fits.
func (w *windowConn) takeLocked(p []byte) (n int, err error) {
	w.reading = true
	frame := w.frame
	w.mu.Unlock()
	credit := 0
	if frame == 0 {
		frame, credit, err = w.header()
	}
	if err == nil && frame > 0 {
		n, err = w.in.Read(p[:min(len(p), frame)])
		frame -= n
	}
	w.mu.Lock()
	w.reading = false
	w.frame = frame
	w.credit += credit
	if w.credit > windowBytes {
		err = errors.New("agentapi: window: acknowledged more than was sent")
	}
	// A deadline is the caller's; everything else is the end.
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		w.err = err
	}
	w.changed.Broadcast()
	return n, err
}

// header reads the next frame's header. A deadline in the middle leaves what
// came in the buffer.
func (w *windowConn) header() (data, ack int, err error) {
	b, err := w.in.Peek(windowHeader)
	if err != nil {
		if len(b) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, 0, err
	}
	size := int(binary.BigEndian.Uint32(b) & 0xffffff)
	kind := b[0]
	_, _ = w.in.Discard(windowHeader) // was peeked
	switch {
	case kind == frameData && size > 0 && size <= windowFrame:
		return size, 0, nil
	case kind == frameAck && size <= windowBytes:
		return 0, size, nil
	case kind == frameNudge && size == 0:
		return 0, 0, nil
	}
	return 0, 0, fmt.Errorf("agentapi: window: bad frame (kind %d, %d bytes)", kind, size)
}

// Write sends p as the other end makes room.
func (w *windowConn) Write(p []byte) (int, error) {
	w.wmu.Lock()
	defer w.wmu.Unlock()
	sent := 0
	for sent < len(p) {
		n, err := w.reserve(min(len(p)-sent, windowFrame))
		if err != nil {
			return sent, err
		}
		if err := w.send(frameData, n, p[sent:sent+n]); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// reserve waits for room and takes up to want bytes of it.
func (w *windowConn) reserve(want int) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.credit == 0 {
		switch {
		case w.reading:
			w.changed.Wait()
		case w.err != nil:
			return 0, w.err
		default:
			// Nobody reads, so the ack would not be seen: take a frame here.
			// What it holds is kept for the reader; the other end's window
			// bounds it.
			buf := make([]byte, windowFrame)
			n, err := w.takeLocked(buf)
			w.pending = append(w.pending, buf[:n]...)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				// The read deadline is the reader's affair: try again.
				w.mu.Unlock()
				time.Sleep(time.Millisecond)
				w.mu.Lock()
			} else if err != nil {
				return 0, err
			}
		}
	}
	n := min(want, w.credit)
	w.credit -= n
	return n, nil
}

// send puts one frame on the wire, whole.
func (w *windowConn) send(kind byte, size int, data []byte) error {
	w.frameMu.Lock()
	defer w.frameMu.Unlock()
	if w.nudge != nil {
		w.nudged = 0
		w.nudge.Reset(nudges[0])
	}
	head := make([]byte, 0, len(windowPreface)+windowHeader)
	if w.preface {
		head = append(head, windowPreface...)
		w.preface = false
	}
	head = binary.BigEndian.AppendUint32(head, uint32(kind)<<24|uint32(size)) //nolint:gosec // at most windowBytes
	if len(data) == 0 {
		_, err := w.Conn.Write(head)
		return err
	}
	if len(data) <= 4<<10 { // one plain write is cheaper than a gathering one
		_, err := w.Conn.Write(append(head, data...))
		return err
	}
	w.out = append(w.out[:0], head, data)
	bufs := w.out // WriteTo consumes its receiver
	_, err := bufs.WriteTo(w.Conn)
	return err
}

// startNudging makes the connection nudge after its last frame.
func (w *windowConn) startNudging() {
	w.frameMu.Lock()
	defer w.frameMu.Unlock()
	w.nudge = time.AfterFunc(time.Hour, func() {
		w.frameMu.Lock()
		defer w.frameMu.Unlock()
		if _, err := w.Conn.Write([]byte{frameNudge, 0, 0, 0}); err != nil {
			return // closed
		}
		if w.nudged++; w.nudged < len(nudges) {
			w.nudge.Reset(nudges[w.nudged])
		}
	})
	w.nudge.Stop()
}

// Listener accepts windowed connections and plain ones alike.
func Listener(l net.Listener) net.Listener { return windowListener{l} }

type windowListener struct{ net.Listener }

func (l windowListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &sniffConn{Conn: conn, in: bufio.NewReaderSize(conn, windowFrame)}, nil
}

// sniffConn decides at its first read what the other end speaks. Reads of one
// connection are never concurrent before the first has returned.
type sniffConn struct {
	net.Conn
	in   *bufio.Reader
	mu   sync.Mutex
	real net.Conn // what to speak; nil until the first byte came; guarded by mu
}

func (c *sniffConn) Read(p []byte) (int, error) {
	conn, err := c.sniff()
	if err != nil {
		return 0, err
	}
	return conn.Read(p)
}

func (c *sniffConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	conn := c.real
	c.mu.Unlock()
	if conn == nil { // an answer before the request: only an error page can be
		conn = c.Conn
	}
	return conn.Write(p)
}

func (c *sniffConn) sniff() (net.Conn, error) {
	c.mu.Lock()
	conn := c.real
	c.mu.Unlock()
	if conn != nil {
		return conn, nil
	}
	b, err := c.in.Peek(1)
	if err != nil {
		return nil, err
	}
	if b[0] == windowPreface[0] {
		b, err := c.in.Peek(len(windowPreface))
		if err != nil {
			return nil, err
		}
		if string(b) != windowPreface {
			return nil, errors.New("agentapi: window: unknown preface")
		}
		_, _ = c.in.Discard(len(windowPreface)) // was peeked
		w := newWindow(c.Conn, c.in, false)
		w.startNudging()
		conn = w
	} else {
		conn = plainConn{c.Conn, c.in}
	}
	c.mu.Lock()
	c.real = conn
	c.mu.Unlock()
	return conn, nil
}

// plainConn is a connection whose first bytes are in a buffer.
type plainConn struct {
	net.Conn
	in *bufio.Reader
}

func (c plainConn) Read(p []byte) (int, error) { return c.in.Read(p) }
