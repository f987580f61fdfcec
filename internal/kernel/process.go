package kernel

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/quiet"
)

// Options configures a kernel. The zero value runs python3 of PATH in the current folder.
type Options struct {
	Python     string   // interpreter; default "python3"
	Dir        string   // working directory; default: the caller's
	Env        []string // environment as for exec.Cmd; default: the caller's
	Preload    []string // modules imported before the kernel says it is ready
	ProgramDir string   // from Unpack; default: a private temporary folder, removed when the kernel ends
	Limits     Limits   // what Conn accepts
	// SysProcAttr is the base for the process (credentials, for example); a
	// session of its own is always added.
	SysProcAttr *syscall.SysProcAttr
}

// Process is a running kernel.
type Process struct {
	// Stdout and Stderr are the read ends of the pipes that are the kernel's file descriptors 1
	// and 2: output of child processes and of C code. They are non-blocking underneath, so
	// SetReadDeadline works. The caller reads and closes them.
	Stdout, Stderr *os.File

	conn   Conn
	cmd    *exec.Cmd
	marker string
	done   chan struct{}
	state  ExitState // set before done is closed
}

// ExitState is how a kernel ended.
type ExitState struct {
	Code   int            // exit status, -1 if a signal ended it
	Signal syscall.Signal // 0 if it exited
	Err    error          // the status could not be read
}

// String gives the state in words.
func (s ExitState) String() string {
	switch {
	case s.Err != nil:
		return "unknown: " + s.Err.Error()
	case s.Signal != 0:
		return "signal: " + s.Signal.String()
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

const (
	// The variable that every descendant inherits; Kill looks for it in /proc.
	markerVariable = "CAESARION_KERNEL"
	// One chunk of output fits, so that the kernel hands it over without waiting.
	socketBuffer = 1 << 20
)

// Start starts a kernel and returns without waiting until it is ready: that is
// the first "idle" from Conn. The kernel lives on after ctx, which only bounds the start.
func Start(ctx context.Context, opts Options) (*Process, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("kernel: start: %w", err)
	}
	var undo []func()
	defer func() {
		for _, f := range undo {
			f()
		}
	}()
	programDir := opts.ProgramDir
	removeProgram := func() {}
	if programDir == "" {
		tmp, err := os.MkdirTemp("", "caesarion-kernel-*")
		if err != nil {
			return nil, fmt.Errorf("kernel: start: %w", err)
		}
		removeProgram = func() { _ = os.RemoveAll(tmp) }
		undo = append(undo, removeProgram)
		if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // the kernel's user reads it
			return nil, fmt.Errorf("kernel: start: %w", err)
		}
		if programDir, err = Unpack(tmp); err != nil {
			return nil, err
		}
	}

	ours, theirs, err := socketPair()
	if err != nil {
		return nil, fmt.Errorf("kernel: start: %w", err)
	}
	defer theirs.Close()
	undo = append(undo, func() { _ = ours.Close() })
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("kernel: start: %w", err)
	}
	defer outW.Close()
	undo = append(undo, func() { _ = outR.Close() })
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("kernel: start: %w", err)
	}
	defer errW.Close()
	undo = append(undo, func() { _ = errR.Close() })

	python := opts.Python
	if python == "" {
		python = "python3"
	}
	args := []string{programDir + "/launch.py", "3"}
	if len(opts.Preload) > 0 {
		args = append(args, strings.Join(opts.Preload, ","))
	}
	// Not CommandContext: the kernel outlives ctx.
	cmd := exec.Command(python, args...) //nolint:gosec,noctx // the interpreter is the caller's choice
	cmd.Dir, cmd.Env = opts.Dir, opts.Env
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	marker := rand.Text()
	cmd.Env = append(slices.Clip(cmd.Env), markerVariable+"="+marker)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = outW, errW, []*os.File{theirs}
	attr := syscall.SysProcAttr{}
	if opts.SysProcAttr != nil {
		attr = *opts.SysProcAttr
	}
	attr.Setsid = true
	cmd.SysProcAttr = &attr
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("kernel: start: %w", err)
	}
	undo = nil
	p := &Process{
		Stdout: outR, Stderr: errR, conn: NewConn(ours, opts.Limits),
		cmd: cmd, marker: marker, done: make(chan struct{}),
	}
	go func() {
		defer close(p.done)
		defer removeProgram()
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case err == nil:
		case errors.As(err, &exit):
			p.state.Code = exit.ExitCode()
			if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				p.state.Signal = ws.Signal()
			}
		default:
			p.state = ExitState{Code: -1, Err: err}
		}
	}()
	return p, nil
}

// socketPair gives our end as a connection and the kernel's as a file.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	for _, fd := range fds {
		// Best effort: with the default size large outputs take more wake-ups, nothing worse.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, socketBuffer)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "kernel"), os.NewFile(uintptr(fds[1]), "kernel-child")
	conn, err := net.FileConn(ours) // duplicates the descriptor
	if err = errors.Join(err, ours.Close()); err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return quiet.Conn(conn), theirs, nil
}

// Conn gives the connection. It stays readable after the kernel's end until
// everything that the kernel sent has been received; the caller closes it.
func (p *Process) Conn() Conn { return p.conn }

// Pid is the process id, which is also the id of its group and session.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the kernel process has ended and was waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the kernel process. It may be called many times and concurrently.
//
// A process that is init and reaps orphans must not take the kernel's status
// with wait4(-1): ExitState.Err is ECHILD then.
func (p *Process) Wait() ExitState {
	<-p.done
	return p.state
}

// interruptGrace bounds how long Interrupt waits for room in the socket before it signals anyway.
const interruptGrace = 50 * time.Millisecond

// Interrupt asks the kernel to stop the execution that it was last sent.
//
// It writes an interrupt_request on the control channel and then sends SIGINT to the kernel's
// process group, as jupyter_client does: children in the foreground have to
// stop too (while os.system waits, the C library makes the parent ignore SIGINT). The frame tells the
// kernel which execution is meant: its place among the requests decides,
// so an interrupt that comes too late never hits the next one. An idle kernel does nothing.
func (p *Process) Interrupt() error {
	select {
	case <-p.done:
		return fmt.Errorf("kernel: interrupt: %w", os.ErrProcessDone)
	default:
	}
	written := make(chan struct{})
	go func() {
		// On a broken connection the signal alone has to do. A blocked write ends
		// when the kernel reads or the connection is closed.
		_ = p.conn.Send(&Message{Channel: Control, Header: Header{MsgID: "interrupt", MsgType: "interrupt_request", Version: ProtocolVersion}})
		close(written)
	}()
	timer := time.NewTimer(interruptGrace)
	defer timer.Stop()
	select {
	case <-written:
	case <-timer.C:
	}
	if err := syscall.Kill(-p.Pid(), syscall.SIGINT); err != nil {
		return fmt.Errorf("kernel: interrupt: %w", err)
	}
	return nil
}

// Kill ends the kernel and everything that it started and that is still alive,
// also what has left its process group, and waits for the kernel's end. The
// error is nil if the kernel had already ended.
func (p *Process) Kill() error {
	select {
	case <-p.done:
	default:
		// The group first: it stops most of what could fork while we look.
		if err := syscall.Kill(-p.Pid(), syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kernel: kill: %w", err)
		}
		<-p.done
	}
	return p.killStragglers()
}
