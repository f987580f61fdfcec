package agent

import "golang.org/x/sys/unix"

// crowdTasks is from how many processes and threads in the sandbox on the
// watch no longer looks at each of them while they run. Reading some files a
// process takes hundreds of system calls, and beside a fork bomb each waits its
// turn among all the runnable: measured in gVisor, one look then takes many
// seconds in which the bomb fills the memory, and the host kills the whole
// sandbox. So one call counts, and one more stops everybody before the look.
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
