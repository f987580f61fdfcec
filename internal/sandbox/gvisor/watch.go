package gvisor

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when a process of the host has ended, child or not, without
// a thread of its own: a pidfd waits in the runtime's poller.
type watcher struct {
	process
	file *os.File
	done chan struct{} // closed when the process has ended
}

// watch starts to watch p. A process that has ended already gives a watcher
// that is done.
func watch(p process) (*watcher, error) {
	w := &watcher{process: p, done: make(chan struct{})}
	fd, err := unix.PidfdOpen(p.PID, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		close(w.done)
		return w, nil
	}
	if err != nil {
		return nil, err
	}
	w.file = os.NewFile(uintptr(fd), "pidfd")
	if !p.alive() { // another process has the number now, or it just ended
		w.reap()
		_ = w.file.Close()
		close(w.done)
		return w, nil
	}
	conn, err := w.file.SyscallConn()
	if err != nil {
		_ = w.file.Close()
		return nil, err
	}
	go func() {
		err := conn.Read(func(fd uintptr) bool {
			// Readable means ended; asking poll tells a spurious wake-up apart.
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if err != nil {
			return // closed: nothing is known of the process any more
		}
		w.reap()
		close(w.done)
	}()
	return w, nil
}

// reap collects the exit status when the process is ours to wait for: as the
// nearest subreaper we inherit what runsc leaves.
func (w *watcher) reap() {
	var status unix.WaitStatus
	_, _ = unix.Wait4(w.PID, &status, unix.WNOHANG, nil) // ECHILD: an earlier server's, init has it
}

// kill ends the process and waits until it is gone.
func (w *watcher) kill(timeout time.Duration) error {
	select {
	case <-w.done:
		return nil
	default:
	}
	if conn, err := w.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
	select {
	case <-w.done:
		return nil
	case <-time.After(timeout):
		return errors.New("process does not end on SIGKILL")
	}
}

// close stops watching without touching the process.
func (w *watcher) close() {
	if w.file != nil {
		_ = w.file.Close()
	}
}
