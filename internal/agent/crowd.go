package agent

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/event"
)

// crowdTasks is from how many processes and threads in the sandbox on the
// watch no longer looks at each of them. Reading some files a process takes
// hundreds of system calls, and beside a fork bomb each waits its turn among
// all the runnable: measured in gVisor, one look then takes many seconds in
// which the bomb fills the memory, and the host kills the whole sandbox.
const crowdTasks = 64

// crowd is what one system call tells of the whole sandbox.
type crowd struct {
	tasks  int
	memory int64
}

// lookAtCrowd reads it. Only gVisor's sysinfo is about the sandbox alone, and
// only as its init may the agent signal everybody at once.
//
// Source: gVisor pkg/sentry/syscalls/linux, Sysinfo: procs counts threads too.
func (a *Agent) lookAtCrowd() (crowd, bool) {
	if !a.opts.Init || !insideGVisor() {
		return crowd{}, false
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return crowd{}, false
	}
	return crowd{tasks: int(si.Procs), memory: int64((si.Totalram - si.Freeram) * uint64(si.Unit))}, true //nolint:gosec // sizes of memory
}

// disperse kills everything in the sandbox but the agent when a crowd is over
// a limit, and reports whether it did. Which kernel it came from can't be
// found out in time, so all of them start afresh.
func (a *Agent) disperse(c crowd) bool {
	conf := a.conf.Load()
	var end ending
	switch {
	case conf.Processes > 0 && c.tasks > conf.Processes:
		end = ending{status: event.StatusKilled, reason: event.ReasonProcessLimit, message: fmt.Sprintf(
			"There were %d processes and threads, more than the sandbox's limit of %d. All of them were killed and the kernels started afresh; variables are lost.",
			c.tasks, conf.Processes)}
	case conf.MemoryBytes > 0 && c.memory > conf.MemoryBytes && conf.Processes > 0 && c.tasks > conf.Processes/2:
		end = ending{status: event.StatusKilled, reason: event.ReasonProcessLimit, message: fmt.Sprintf(
			"%d processes and threads together used %d MiB, more than the sandbox's limit of %d MiB. All of them were killed and the kernels started afresh; variables are lost.",
			c.tasks, c.memory>>20, conf.MemoryBytes>>20)}
	case conf.MemoryBytes > 0 && c.memory > conf.MemoryBytes:
		end = ending{status: event.StatusKilled, reason: event.ReasonOutOfMemory, message: fmt.Sprintf(
			"The %d processes and threads together used %d MiB of memory, more than the sandbox's limit of %d MiB. All of them were killed and the kernels started afresh; variables are lost. Start fewer processes, or work on less data at a time.",
			c.tasks, c.memory>>20, conf.MemoryBytes>>20)}
	default:
		return false
	}
	a.mu.Lock()
	for _, k := range a.kernels {
		k.blame(end)
	}
	a.mu.Unlock()
	// One call ends all that exist when it is made; what was being born needs
	// another.
	for before := time.Now(); time.Since(before) < killPatience; {
		_ = unix.Kill(-1, unix.SIGKILL) // ESRCH: nobody is left
		if now, ok := a.lookAtCrowd(); !ok || now.tasks < crowdTasks {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// killPatience bounds how long disperse tries.
const killPatience = 10 * time.Second

// blame notes why the kernel is about to end.
func (k *keeper) blame(cause ending) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.inc != nil && k.inc.cause == nil {
		k.inc.cause = &cause
	}
}
