package kernel

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// ErrProtocol is what every ProtocolError is: the kernel's end of the connection broke the
// rules of doc.go. The stream cannot be read any further; the kernel has to be killed.
var ErrProtocol = errors.New("kernel: protocol violation")

// ProtocolError says which rule a frame broke.
type ProtocolError struct {
	Reason string // lower case, without what the kernel sent
	Err    error  // cause; may be nil
}

func (e *ProtocolError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("%v: %s: %v", ErrProtocol, e.Reason, e.Err)
	}
	return fmt.Sprintf("%v: %s", ErrProtocol, e.Reason)
}

func (e *ProtocolError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, ErrProtocol) hold.
func (e *ProtocolError) Is(target error) bool { return target == ErrProtocol }

// Limits bounds what Receive accepts. A zero field means its default.
type Limits struct {
	JSON    int64 // bytes of the JSON part; default 64 MiB
	Total   int64 // bytes of the JSON part and all buffers; default 256 MiB
	Buffers int   // number of buffers; default 1024
}

const (
	// A cell's figure or table of this size is no longer something to show.
	defaultJSONLimit = 64 << 20
	// Widgets send arrays as buffers; the agent's memory has to hold one such message.
	defaultTotalLimit = 256 << 20
	defaultMaxBuffers = 1024
	// Memory is taken as bytes arrive, not as they are announced: a hostile
	// kernel that announces much and sends little costs one step.
	readStep = 1 << 20
)

func (l Limits) withDefaults() Limits {
	if l.JSON <= 0 {
		l.JSON = defaultJSONLimit
	}
	if l.Total <= 0 {
		l.Total = defaultTotalLimit
	}
	if l.Buffers <= 0 {
		l.Buffers = defaultMaxBuffers
	}
	return l
}

// Conn carries messages to and from one kernel, whatever the transport.
type Conn interface {
	// Send writes one message. It may be called concurrently, and blocks
	// while the kernel does not read.
	Send(*Message) error
	// Receive gives the next message, io.EOF when the kernel has closed its
	// end, or an error for which errors.Is(err, ErrProtocol) holds. One
	// goroutine at a time.
	Receive() (*Message, error)
	// Buffered reports whether the next message, or its beginning, was sent
	// before the last one was received. For the goroutine that receives.
	Buffered() bool
	// Close ends the connection; blocked calls return.
	Close() error
}

// NewConn gives a Conn that speaks frames over rw.
func NewConn(rw io.ReadWriteCloser, limits Limits) Conn {
	return &frameConn{rw: rw, r: bufio.NewReaderSize(rw, 64<<10), limits: limits.withDefaults()}
}

type frameConn struct {
	rw     io.ReadWriteCloser
	r      *bufio.Reader
	limits Limits

	mu      sync.Mutex // held while one frame is written
	scratch []byte     // guarded by mu; reused between frames
}

// A frame larger than this is not worth keeping memory for.
const maxScratch = 256 << 10

func (c *frameConn) Send(m *Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	head, err := m.appendJSON(append(c.scratch[:0], 0, 0, 0, 0, 0, 0, 0, 0))
	if err != nil {
		return err
	}
	if cap(head) <= maxScratch {
		c.scratch = head
	}
	size := int64(len(head) - 8)
	if size > c.limits.JSON {
		return fmt.Errorf("kernel: send %s: %d bytes of JSON, limit %d", m.Header.MsgType, size, c.limits.JSON)
	}
	binary.BigEndian.PutUint32(head, uint32(size))               //nolint:gosec // bounded above
	binary.BigEndian.PutUint32(head[4:], uint32(len(m.Buffers))) //nolint:gosec // the kernel checks
	if len(m.Buffers) == 0 {
		_, err = c.rw.Write(head)
		return wrapSend(err)
	}
	frame := net.Buffers{head}
	for _, buf := range m.Buffers {
		if size += int64(len(buf)); size > c.limits.Total {
			return fmt.Errorf("kernel: send %s: message over %d bytes", m.Header.MsgType, c.limits.Total)
		}
		frame = append(frame, binary.BigEndian.AppendUint32(nil, uint32(len(buf))), buf) //nolint:gosec // bounded above
	}
	_, err = frame.WriteTo(c.rw)
	return wrapSend(err)
}

func wrapSend(err error) error {
	if err != nil {
		return fmt.Errorf("kernel: send: %w", err)
	}
	return nil
}

func (c *frameConn) Receive() (*Message, error) {
	var head [8]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, &ProtocolError{Reason: "stream ends inside a frame", Err: err}
		}
		return nil, err
	}
	size, count := int64(binary.BigEndian.Uint32(head[:])), binary.BigEndian.Uint32(head[4:])
	if size > c.limits.JSON {
		return nil, &ProtocolError{Reason: fmt.Sprintf("%d bytes of JSON announced, limit %d", size, c.limits.JSON)}
	}
	if int64(count) > int64(c.limits.Buffers) {
		return nil, &ProtocolError{Reason: fmt.Sprintf("%d buffers announced, limit %d", count, c.limits.Buffers)}
	}
	text, err := c.read(size)
	if err != nil {
		return nil, err
	}
	m := new(Message)
	if err := m.UnmarshalJSON(text); err != nil {
		return nil, &ProtocolError{Reason: "malformed message", Err: err}
	}
	total := size
	for range count {
		if _, err := io.ReadFull(c.r, head[:4]); err != nil {
			return nil, &ProtocolError{Reason: "stream ends inside a frame", Err: err}
		}
		size := int64(binary.BigEndian.Uint32(head[:4]))
		if total += size; total > c.limits.Total {
			return nil, &ProtocolError{Reason: fmt.Sprintf("message over %d bytes", c.limits.Total)}
		}
		buf, err := c.read(size)
		if err != nil {
			return nil, err
		}
		m.Buffers = append(m.Buffers, buf)
	}
	return m, nil
}

// read reads exactly size bytes.
func (c *frameConn) read(size int64) ([]byte, error) {
	buf := make([]byte, 0, min(size, readStep))
	for int64(len(buf)) < size {
		have := len(buf)
		step := int(min(size-int64(have), int64(max(have, readStep))))
		if cap(buf)-have < step {
			grown := make([]byte, have, have+step)
			copy(grown, buf)
			buf = grown
		}
		buf = buf[:have+step]
		if _, err := io.ReadFull(c.r, buf[have:]); err != nil {
			return nil, &ProtocolError{Reason: "stream ends inside a frame", Err: err}
		}
	}
	return buf, nil
}

func (c *frameConn) Buffered() bool { return c.r.Buffered() > 0 }

func (c *frameConn) Close() error { return c.rw.Close() }
