package agent

import (
	"bytes"
	"crypto/rand"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// procInfo is one entry of /proc.
type procInfo struct {
	pid, ppid, session int
	state              byte
	threads            int
	rss                int64 // bytes
	cpu                time.Duration
}

const (
	// clockTick is USER_HZ, which Linux and gVisor fix at 100.
	clockTick = 10 * time.Millisecond
)

var pageSize = int64(os.Getpagesize())

// readProcs lists the processes that are alive, zombies left out.
//
// Source: proc(5), /proc/[pid]/stat.
func readProcs() ([]procInfo, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	list := make([]procInfo, 0, len(names))
	buf := make([]byte, 1024)
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if p, ok := readProc(pid, buf); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

// readProc reads one process. It is not there if it ended meanwhile.
func readProc(pid int, buf []byte) (procInfo, bool) {
	fd, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return procInfo{}, false
	}
	n, err := unix.Read(fd, buf)
	_ = unix.Close(fd)
	if err != nil || n <= 0 {
		return procInfo{}, false
	}
	// pid (comm) state ppid …; comm may contain anything.
	f := bytes.Fields(buf[bytes.LastIndexByte(buf[:n], ')')+1 : n])
	if len(f) < 22 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return procInfo{}, false
	}
	return procInfo{
		pid: pid, state: f[0][0], ppid: number(f[1]), session: number(f[3]), threads: number(f[17]),
		rss: int64(number(f[21])) * pageSize,
		cpu: time.Duration(number(f[11])+number(f[12])) * clockTick,
	}, true
}

func number(b []byte) int {
	n, err := strconv.Atoi(string(b))
	if err != nil {
		return 0
	}
	return n
}

// ownerVariable marks in its environment whom a process belongs to, also when
// it has left its parent and its session.
const ownerVariable = "CAESARION_OWNER"

// owner is a kernel or a command with all the processes it started.
type owner struct {
	pid    int // the first process, leader of its own session
	marker string
}

func newOwner() owner { return owner{marker: rand.Text()} }

func (o owner) variable() string { return ownerVariable + "=" + o.marker }

// family finds the owner's processes: descendants, its session, and those
// with its mark.
func (o owner) family(procs []procInfo) map[int]bool {
	in := map[int]bool{o.pid: true}
	for grown := true; grown; {
		grown = false
		for _, p := range procs {
			if !in[p.pid] && (in[p.ppid] || p.session == o.pid) {
				in[p.pid], grown = true, true
			}
		}
	}
	// Only orphans can be ours without being descendants.
	mark := []byte(o.variable())
	for _, p := range procs {
		if !in[p.pid] && p.pid != os.Getpid() && p.ppid <= 1 && hasVariable(p.pid, mark) {
			for pid := range (owner{pid: p.pid}).family(procs) {
				in[pid] = true
			}
		}
	}
	return in
}

func hasVariable(pid int, variable []byte) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, variable) {
			return true
		}
	}
	return false
}

// killRounds bounds the hunt for processes that multiply while they are hunted.
const killRounds = 100

// hunt ends all processes that victims names. A process that forks while we
// look must not escape: first all are stopped, until a look finds nobody new
// and running, then all are killed, and so on until nobody is left.
func hunt(victims func([]procInfo) []procInfo) bool {
	for range killRounds {
		stopped := make(map[int]bool)
		for range killRounds {
			procs, err := readProcs()
			if err != nil {
				return false
			}
			fresh := 0
			for _, p := range victims(procs) {
				if !stopped[p.pid] {
					stopped[p.pid] = true
					fresh++
					_ = syscall.Kill(p.pid, syscall.SIGSTOP) // gone already: fine
				}
			}
			if fresh == 0 {
				break
			}
		}
		if len(stopped) == 0 {
			return true
		}
		for pid := range stopped {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		// They need a moment to end.
		for range 100 {
			alive := false
			for pid := range stopped {
				if _, ok := readProc(pid, make([]byte, 1024)); ok {
					alive = true
					break
				}
			}
			if !alive {
				break
			}
			time.Sleep(time.Millisecond)
		}
	}
	return false
}

// owners gives every kernel's and command's owner.
func (a *Agent) owners() []owner {
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.kernels))
	commands := slices.Collect(maps.Values(a.processes))
	list := make([]owner, 0, len(keepers)+len(commands)+1)
	if a.previewer != nil {
		list = append(list, a.previewer.owner)
	}
	a.mu.Unlock()
	for _, p := range commands {
		if o := p.family(); o.pid != 0 {
			list = append(list, o)
		}
	}
	for _, k := range keepers {
		k.mu.Lock()
		if k.inc != nil {
			list = append(list, k.inc.owner)
		}
		k.mu.Unlock()
	}
	return list
}

// killTree ends a kernel and all it started. As init of the sandbox the agent
// also ends what cannot be told to belong to anybody: processes that left
// their session and cleared their environment.
func (a *Agent) killTree(inc *incarnation) {
	a.killOwned(inc.owner)
	_ = inc.proc.Kill() // and waits for its end
}

func (a *Agent) killOwned(own owner) {
	if !a.opts.Init {
		_ = syscall.Kill(-own.pid, syscall.SIGSTOP) // most of what could fork while we look
		hunt(func(procs []procInfo) []procInfo { return pick(procs, own.family(procs), true) })
		return
	}
	if a.killAll(own, false) {
		return
	}
	_ = syscall.Kill(-own.pid, syscall.SIGSTOP) // most of what could fork while we look
	done := hunt(func(procs []procInfo) []procInfo {
		// Who belongs to others is asked anew each time: kernels and commands start meanwhile.
		a.spawning.Lock()
		defer a.spawning.Unlock()
		fresh, err := readProcs()
		if err != nil {
			return nil
		}
		healthy := make(map[int]bool)
		for _, o := range a.owners() {
			if o.marker != own.marker {
				for pid := range o.family(fresh) {
					healthy[pid] = true
				}
			}
		}
		return pick(procs, healthy, false)
	})
	if !done {
		a.killAll(own, true) // the healthy ones too: better than a sandbox that nobody can use
	}
}

// killAll ends every process with one call that nothing can fork away from, if
// nobody but own is here or force is set.
func (a *Agent) killAll(own owner, force bool) bool {
	a.spawning.Lock()
	defer a.spawning.Unlock()
	for _, o := range a.owners() {
		if o.marker != own.marker && !force {
			return false
		}
	}
	// What is just being born when the call is made needs another.
	for range killRounds {
		if err := syscall.Kill(-1, syscall.SIGKILL); err != nil {
			break // nobody is left
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// pick gives the processes whose membership of set is want, and never the agent.
func pick(procs []procInfo, set map[int]bool, want bool) []procInfo {
	var list []procInfo
	self := os.Getpid()
	for _, p := range procs {
		if p.pid != self && p.pid != 1 && set[p.pid] == want {
			list = append(list, p)
		}
	}
	return list
}

// limitProcess sets the resource limits of a new child, and its place behind the
// agent.
func (a *Agent) limitProcess(pid int) {
	conf := a.conf.Load()
	set := func(resource int, value int64) {
		lim := unix.Rlimit{Cur: uint64(value), Max: uint64(value)} //nolint:gosec // not negative
		_ = unix.Prlimit(pid, resource, &lim, nil)                 // gone already, or a kernel without it
	}
	set(unix.RLIMIT_CORE, 0)
	a.yield(pid)
	if conf == nil {
		return
	}
	if conf.DataBytes > 0 {
		set(unix.RLIMIT_DATA, conf.DataBytes)
		// gVisor counts only brk for RLIMIT_DATA, so there the address space is
		// bounded too; libraries reserve gigabytes of it that they never touch.
		set(unix.RLIMIT_AS, conf.DataBytes+reservedAddressSpace)
	}
	if limit := a.diskLimit(); limit > 0 {
		set(unix.RLIMIT_FSIZE, limit)
	}
	if conf.Processes > 0 && a.opts.Init && insideGVisor() {
		// gVisor counts tasks per user and sandbox, Linux per user and machine,
		// where other sandboxes have the same user. The watch acts at the limit
		// itself; this only slows a bomb until the watch looks.
		set(unix.RLIMIT_NPROC, int64(conf.Processes)+nprocSlack)
	}
}

const (
	// reservedAddressSpace is what allocators of numpy, Arrow and the like
	// reserve without using it.
	reservedAddressSpace = 8 << 30
	// nprocSlack is for the agent's own threads, which count for the same user.
	nprocSlack = 16
)
