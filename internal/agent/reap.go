package agent

import (
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Reaper waits for processes whose parents have ended, as the first process of
// a sandbox must, without taking the exit status of the agent's own children:
// those are known by number and left to whoever waits for them.
type Reaper struct {
	mu   sync.Mutex
	own  map[int]bool
	news chan os.Signal
	done chan struct{}
	stop chan struct{}
}

// NewReaper starts a Reaper.
func NewReaper() *Reaper {
	r := &Reaper{own: make(map[int]bool), news: make(chan os.Signal, 1), done: make(chan struct{}), stop: make(chan struct{})}
	signal.Notify(r.news, syscall.SIGCHLD)
	go r.run()
	return r
}

// Spawn runs start, which starts a child and gives its number. No orphan is
// waited for meanwhile, so that a child that ends at once is not mistaken for one.
func (r *Reaper) Spawn(start func() (pid int, err error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := start()
	if err == nil {
		r.own[pid] = true
	}
	return err
}

// Close stops the Reaper.
func (r *Reaper) Close() {
	signal.Stop(r.news)
	close(r.stop)
	<-r.done
}

func (r *Reaper) run() {
	defer close(r.done)
	for {
		select {
		case <-r.news:
			for r.sweep() {
				// One of our own has ended and hides those behind it until its
				// owner, who is waiting, takes it.
				time.Sleep(time.Millisecond)
			}
		case <-r.stop:
			return
		}
	}
}

// sweep takes all orphans it can see and reports whether it has to look again.
func (r *Reaper) sweep() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var info unix.Siginfo
		// WNOWAIT only looks.
		if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != nil {
			if err == unix.EINTR { //nolint:errorlint // a bare errno
				continue
			}
			return false // no children
		}
		pid := siginfoPID(&info)
		if pid == 0 {
			return false
		}
		if r.own[pid] {
			// A number that was ours stays in the map until it is seen to be free.
			return true
		}
		if _, err := unix.Wait4(pid, nil, unix.WNOHANG, nil); err != nil && err != unix.EINTR { //nolint:errorlint // a bare errno
			return false
		}
	}
}

// Forget says that child pid has been waited for, so its number may be used again.
func (r *Reaper) Forget(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.own, pid)
}
