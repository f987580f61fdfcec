package agent

import (
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// usage reads the sandbox's counters.
func (a *Agent) usage() (agentapi.Usage, error) {
	r, err := a.look()
	if err != nil {
		return agentapi.Usage{}, err
	}
	u := agentapi.Usage{MemoryBytes: r.memory, Processes: r.threads, At: time.Now().UTC(), CPUNanos: int64(r.cpu)}
	if conf := a.conf.Load(); conf != nil {
		u.MemoryLimitBytes, u.DiskLimitBytes = conf.MemoryBytes, conf.DiskBytes
	}
	// What has ended is in the agent's own account, once it was waited for.
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err == nil && a.opts.Init {
			u.CPUNanos += ru.Utime.Nano() + ru.Stime.Nano()
		}
	}
	if a.opts.OwnDisk {
		u.DiskBytes = a.disk.read(a.roots, diskFresh)
		return u, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(a.real(agentapi.WorkspaceDir), &st); err == nil {
		u.DiskBytes = int64(st.Blocks-st.Bfree) * st.Bsize                                           //nolint:gosec // below 2^63 on any disk
		if total := int64(st.Blocks) * st.Bsize; u.DiskLimitBytes <= 0 || total < u.DiskLimitBytes { //nolint:gosec // see above
			u.DiskLimitBytes = total
		}
	}
	return u, nil
}

// diskFull reports whether an execution failed because the disk is full: by
// what Python says, or because there is no room now.
func (a *Agent) diskFull(reply *executeReply) bool {
	if strings.Contains(reply.Value, "[Errno 28]") || strings.Contains(reply.Value, "No space left on device") {
		return true
	}
	if a.diskLimit() > 0 { // see disk.go: EFBIG
		return a.disk.over.Load() || strings.Contains(reply.Value, "[Errno 27]")
	}
	const least = 1 << 20
	var st unix.Statfs_t
	return unix.Statfs(a.real(agentapi.WorkspaceDir), &st) == nil && st.Blocks > 0 && int64(st.Bavail)*st.Bsize < least //nolint:gosec // below 2^63
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return name
	}
	return sig.String()
}
