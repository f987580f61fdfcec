package agent

import (
	"bytes"
	"os"
	"runtime/pprof"
	"sync"

	"golang.org/x/sys/unix"
)

// crowd is from how many processes and threads on the watch does not look at
// each of them while they run.
const crowd = 64

// count reads how many processes and threads there are and what they use, and
// nothing else of a reading. It is possible where the kernel tells of the
// sandbox alone: in gVisor, as the first process.
//
// Reading some files a process takes hundreds of system calls, and beside a
// fork bomb each waits its turn among all the runnable: measured in gVisor, one
// look then takes seconds in which the bomb fills the memory, and the host
// kills the whole sandbox. So a few calls count, and one more stops everybody
// before the look.
//
// Source: gVisor pkg/sentry/syscalls/linux, Sysinfo: procs counts threads too.
func (a *Agent) count() (reading, bool) {
	if !a.opts.Init || !insideGVisor() {
		return reading{}, false
	}
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return reading{}, false
	}
	memory, ok := anonymousMemory()
	if !ok {
		return reading{}, false
	}
	own := pprof.Lookup("threadcreate").Count()
	return reading{threads: max(int(si.Procs)-own, 0), memory: memory}, true
}

// yield has a process of the user's, and all that it starts, give way to the
// agent. In a pod under runc both live by one CPU limit, and a fork bomb would
// leave the agent no time to end it. Nobody else gains or loses by it: between
// pods the node shares out by cgroup. gVisor does not schedule by it.
func (a *Agent) yield(pid int) {
	if a.opts.Init && !insideGVisor() {
		_ = unix.Setpriority(unix.PRIO_PROCESS, pid, 19) // it may have ended
	}
}

// insideGVisor reports whether the kernel is gVisor, whose /proc/meminfo is
// about the sandbox and not about the host.
var insideGVisor = sync.OnceValue(func() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return unix.ByteSliceToString(u.Version[:]) == "#1 SMP Sun Jan 10 15:06:54 PST 2016" // fixed in gVisor's source
})

// anonymousMemory reads what processes and tmpfs hold and nobody could drop.
// Unlike the sum of resident sets it counts shared pages once.
//
// Source: gVisor pkg/sentry/fsimpl/proc, meminfoData: AnonPages is anonymous memory and tmpfs.
func anonymousMemory() (int64, bool) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, false
	}
	_, rest, ok := bytes.Cut(text, []byte("AnonPages:"))
	if !ok {
		return 0, false
	}
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0, false
	}
	return int64(number(fields[0])) << 10, true
}
