// Package quiet reads and writes sockets and pipes without waking the Go
// runtime's monitor thread.
//
// The monitor sleeps while a program has nothing to do, and the first ordinary
// system call after a pause wakes it: it then looks around every 20 µs until
// the program sleeps again. On a host nobody notices. In gVisor each look is two switches
// of a thread, on the processor that the kernel or the server could use.
//
// Reads and writes here are raw system calls on descriptors that never block,
// so the runtime need not know of them. What is no longer quiet, because data
// comes or goes without a pause, uses ordinary calls: a busy program needs the
// monitor, which sees to it that all its goroutines get their turn.
package quiet

import (
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"
)

// patience is how many calls in a row without a pause are quiet.
const patience = 6

// Conn wraps a connection that has a descriptor; others are given back as they are.
func Conn(c net.Conn) net.Conn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return c
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return c
	}
	return &conn{Conn: c, raw: raw}
}

type conn struct {
	net.Conn
	raw  syscall.RawConn
	busy atomic.Int32 // calls since the last read that found nothing
}

func (c *conn) Read(p []byte) (int, error) {
	if len(p) == 0 || c.busy.Load() >= patience {
		c.busy.Store(0)
		return c.Conn.Read(p)
	}
	var n int
	var err error
	waitErr := c.raw.Read(func(fd uintptr) bool {
		n, err = Read(fd, p)
		if !errors.Is(err, syscall.EAGAIN) {
			return true
		}
		c.busy.Store(0)
		return false
	})
	c.busy.Add(1)
	switch {
	case waitErr != nil: // a deadline, or closed
		return 0, waitErr
	case err != nil:
		return 0, c.named("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *conn) Write(p []byte) (int, error) {
	if c.busy.Add(1) > patience {
		return c.Conn.Write(p)
	}
	n := 0
	var err error
	waitErr := c.raw.Write(func(fd uintptr) bool {
		// Once: whatever does not fit has to wait, which is not quiet.
		n, err = write(fd, p)
		return true
	})
	switch {
	case waitErr != nil:
		return n, waitErr
	case err != nil && !errors.Is(err, syscall.EAGAIN):
		return n, c.named("write", err)
	case n < len(p):
		more, err := c.Conn.Write(p[n:])
		return n + more, err
	}
	return n, nil
}

// named gives an error the form that package net gives it.
func (c *conn) named(op string, err error) error {
	return &net.OpError{Op: op, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: os.NewSyscallError(op, err)}
}

// Read reads once from a descriptor that does not block. It gives 0 at the end.
func Read(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_READ, fd, p) }

func write(fd uintptr, p []byte) (int, error) { return call(syscall.SYS_WRITE, fd, p) }

func call(trap, fd uintptr, p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for {
		n, _, errno := syscall.RawSyscall(trap, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p))) //nolint:gosec // as package syscall does it
		switch errno {
		case 0:
			return int(n), nil
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
