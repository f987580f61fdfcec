package gvisor

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// newLoopbackNetNS makes a network namespace in which only the loopback
// interface exists, up, and gives a file that holds it.
//
// One serves all sandboxes: each has its own network stack inside the sentry,
// and the namespace has no way out. gVisor copies its interfaces when a
// sandbox starts; with the loopback down, dialling the agent would give
// "network is unreachable".
func newLoopbackNetNS() (*os.File, error) {
	type result struct {
		file *os.File
		err  error
	}
	done := make(chan result)
	var enter func()
	enter = func() {
		// The thread is never unlocked, so it ends with this goroutine and
		// nobody else runs in the new namespace.
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			// The process's first thread can't end: it would stay in the new
			// namespace and show it as the process's own. Hold it here, so
			// that another is taken.
			defer runtime.UnlockOSThread()
			held := make(chan struct{})
			go func() { defer close(held); enter() }()
			<-held
			return
		}
		file, err := func() (*os.File, error) {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return nil, fmt.Errorf("unshare network namespace: %w", err)
			}
			if err := loopbackUp(); err != nil {
				return nil, err
			}
			return os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
		}()
		done <- result{file, err}
	}
	go enter()
	r := <-done
	return r.file, r.err
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}
