package agent

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/event"
)

const (
	// A memory bomb fills some gigabytes per second, so while memory moves or
	// is short the watch looks this often.
	watchFast = 20 * time.Millisecond
	// watchSlow is for code that runs and changes little.
	watchSlow = 250 * time.Millisecond
	// watchIdle is for background processes that do nothing.
	watchIdle = 2 * time.Second
	// memoryMoves is the change between two looks that counts as moving.
	memoryMoves = 8 << 20
	// threadsMove is the same for processes and threads.
	threadsMove = 4
	// settle is how long memory may take to become free after something was
	// killed; until then nothing else is, unless memory still grows.
	settle = 2 * time.Second
)

// watch looks at memory and process counts while something runs, and at
// nothing when only idle kernels are there: a thousand idle sandboxes must
// cost no time.
type watch struct {
	agent *Agent

	mu      sync.Mutex
	active  int // executions and commands that run
	looking bool
	stop    chan struct{}
	wg      sync.WaitGroup
	closed  bool
}

func newWatch(a *Agent) *watch { return &watch{agent: a, stop: make(chan struct{})} }

// begin says that an execution or a command has started.
func (w *watch) begin() {
	conf := w.agent.conf.Load()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active++
	if w.looking || w.closed || conf == nil || conf.MemoryBytes <= 0 && conf.Processes <= 0 {
		return
	}
	w.looking = true
	w.wg.Go(w.run)
}

// finish says that one of them is over.
func (w *watch) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active--
}

func (w *watch) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.stop)
	}
	w.mu.Unlock()
	w.wg.Wait()
}

// reading is what one look finds.
type reading struct {
	procs   []procInfo // all that is not the agent
	memory  int64
	threads int
	extra   int           // processes beside the kernels themselves
	cpu     time.Duration // of all processes that are alive
}

func (w *watch) run() {
	timer := time.NewTimer(watchFast)
	defer timer.Stop()
	interval := watchFast
	var last reading
	var acted lastAction
	for {
		select {
		case <-timer.C:
		case <-w.stop:
			return
		}
		if c, ok := w.agent.lookAtCrowd(); ok && c.tasks > crowdTasks {
			// Too many to look at each of them, unless they stand still.
			if reason := w.agent.over(reading{threads: c.tasks, memory: c.memory}); reason != "" {
				w.agent.act(reason, &acted)
			}
			interval = watchFast
			timer.Reset(interval)
			continue
		}
		now, err := w.agent.look()
		if err == nil && w.agent.enforce(now, &acted) {
			interval = watchFast
			timer.Reset(interval)
			last = now
			continue
		}
		w.mu.Lock()
		busy := w.active > 0
		resting := now.cpu-last.cpu <= clockTick
		if !busy && now.extra == 0 && (resting || err != nil) {
			w.looking = false
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		conf := w.agent.conf.Load()
		moved := now.memory - last.memory
		switch {
		case moved > memoryMoves || -moved > memoryMoves || conf.MemoryBytes > 0 && now.memory > conf.MemoryBytes*3/4,
			now.threads > last.threads+threadsMove || conf.Processes > 0 && now.threads > conf.Processes/2:
			interval = watchFast
		case busy || !resting:
			interval = min(interval*2, watchSlow)
		default:
			interval = min(interval*2, watchIdle)
		}
		last = now
		timer.Reset(interval)
	}
}

// look reads the counters once.
func (a *Agent) look() (reading, error) {
	procs, err := readProcs()
	if err != nil {
		return reading{}, err
	}
	owners := a.owners()
	var mine []procInfo
	if a.opts.Init {
		mine = pick(procs, nil, false)
	} else {
		set := make(map[int]bool)
		for _, o := range owners {
			for pid := range o.family(procs) {
				set[pid] = true
			}
		}
		mine = pick(procs, set, true)
	}
	r := reading{procs: mine, extra: len(mine)}
	for _, p := range mine {
		r.memory += p.rss
		r.threads += p.threads
		r.cpu += p.cpu
		if slices.ContainsFunc(owners, func(o owner) bool { return o.pid == p.pid }) {
			r.extra--
		}
	}
	if a.opts.Init && insideGVisor() {
		if used, ok := anonymousMemory(); ok {
			r.memory = used
		}
	}
	return r, nil
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

// lastAction is what the watch did last.
type lastAction struct {
	at     time.Time
	memory int64 // that was in use then
}

// over says which limit a reading is over, if any. A crowd of small processes
// that uses all memory is one of processes: the many are the mistake.
func (a *Agent) over(r reading) event.Reason {
	conf := a.conf.Load()
	crowd := conf.Processes > 0 && r.threads >= conf.Processes
	full := conf.MemoryBytes > 0 && r.memory > conf.MemoryBytes
	switch {
	case crowd, full && conf.Processes > 0 && r.threads > conf.Processes/2:
		return event.ReasonProcessLimit
	case full:
		return event.ReasonOutOfMemory
	}
	return ""
}

// enforce ends what is over a limit, and reports whether it did.
func (a *Agent) enforce(r reading, acted *lastAction) bool {
	reason := a.over(r)
	if reason == "" || reason == event.ReasonOutOfMemory && time.Since(acted.at) < settle && r.memory <= acted.memory+memoryMoves {
		return false
	}
	a.act(reason, acted)
	return true
}

// act ends what is to blame for reason. Meanwhile everything else stands
// still: a bomb would starve us, and what we decide on must still be true when
// it is done.
func (a *Agent) act(reason event.Reason, acted *lastAction) {
	if a.opts.Init {
		_ = syscall.Kill(-1, syscall.SIGSTOP)
		defer func() { _ = syscall.Kill(-1, syscall.SIGCONT) }()
	}
	r, err := a.look()
	if err != nil {
		return
	}
	conf := a.conf.Load()
	*acted = lastAction{at: time.Now(), memory: r.memory}
	if reason == event.ReasonProcessLimit {
		a.endLargest(r, func(p procInfo) int64 { return int64(p.threads) }, ending{
			status: event.StatusKilled, reason: reason,
			message: fmt.Sprintf("The code had %d processes and threads; the sandbox's limit is %d. All of them were killed and a fresh kernel was started; variables are lost.",
				r.threads, conf.Processes),
		}, false)
		return
	}
	a.endLargest(r, func(p procInfo) int64 { return p.rss }, ending{
		status: event.StatusKilled, reason: reason,
		message: fmt.Sprintf("The code used %d MiB of memory, more than the sandbox's limit of %d MiB. Its kernel was killed and a fresh one started; variables are lost. Work on less data at a time.",
			r.memory>>20, conf.MemoryBytes>>20),
	}, true)
}

// endLargest ends whoever has the most of what size measures. If single, only
// the largest process ends when it is not the kernel itself but something the
// kernel started: variables are worth keeping.
func (a *Agent) endLargest(r reading, size func(procInfo) int64, end ending, single bool) {
	a.mu.Lock()
	keepers, commands := slices.Collect(maps.Values(a.kernels)), slices.Collect(maps.Values(a.processes))
	a.mu.Unlock()

	type group struct {
		inc     *incarnation
		command *process
		total   int64
		largest procInfo
	}
	var groups []*group
	owned := make(map[int]*group)
	claim := func(g *group, o owner) {
		groups = append(groups, g)
		for pid := range o.family(r.procs) {
			owned[pid] = g
		}
	}
	for _, k := range keepers {
		k.mu.Lock()
		inc := k.inc
		k.mu.Unlock()
		if inc != nil {
			claim(&group{inc: inc}, inc.owner)
		}
	}
	for _, p := range commands {
		if o := p.family(); o.pid != 0 {
			claim(&group{command: p}, o)
		}
	}
	if len(groups) == 0 {
		return
	}
	for _, p := range r.procs {
		g := owned[p.pid]
		if g == nil {
			// Nobody's: it left its session and cleared its environment. The first
			// kernel is as good a guess as any, and mostly there is only one.
			g = groups[0]
		}
		g.total += size(p)
		if size(p) > size(g.largest) {
			g.largest = p
		}
	}
	worst := slices.MaxFunc(groups, func(a, b *group) int { return int(a.total - b.total) })
	switch {
	case worst.command != nil:
		worst.command.end(end)
	case single && worst.largest.pid != worst.inc.owner.pid && size(worst.largest) > worst.total/2:
		worst.inc.killChild(worst.largest.pid, end)
	default:
		worst.inc.end(end)
	}
}

// killChild ends one process that the kernel started, and says so in the
// running execution.
func (inc *incarnation) killChild(pid int, end ending) {
	_ = unix.Kill(pid, unix.SIGKILL)
	k := inc.keeper
	k.mu.Lock()
	e := k.current
	if e != nil {
		e.note = end.reason
		e.noteText = "A process that the code had started used too much memory and was killed. The kernel and its variables are kept."
	}
	k.mu.Unlock()
	if e != nil {
		e.out.text("stderr", fmt.Appendf(nil, "[caesarion] process %d was killed: the sandbox's memory was used up\n", pid))
	}
}
