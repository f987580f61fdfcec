package agent

import (
	"fmt"
	"maps"
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
	// watchCheap is the same where a look takes four system calls: a fork bomb
	// fills the memory in a few hundred milliseconds.
	watchCheap = 40 * time.Millisecond
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
	if w.looking || w.closed || conf == nil || conf.MemoryBytes <= 0 && conf.Processes <= 0 && w.agent.diskLimit() <= 0 {
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
		w.mu.Lock()
		busy := w.active > 0
		w.mu.Unlock()
		w.agent.watchDisk()
		now, cheap := w.agent.count()
		if !cheap || !busy && now.threads <= crowd {
			var err error
			if now, err = w.agent.look(); err != nil {
				w.agent.log.Warn("processes cannot be read", "err", err)
				if w.pause() {
					return
				}
				timer.Reset(watchSlow)
				continue
			}
			cheap = false
		}
		if w.agent.enforce(last, now, &acted) {
			interval = watchFast
			timer.Reset(interval)
			last = now
			continue
		}
		resting := !cheap && now.cpu-last.cpu <= clockTick
		if !busy && now.extra == 0 && resting && w.pause() {
			return
		}
		longest := watchSlow
		switch {
		case w.agent.moves(last, now):
			longest, interval = watchFast, watchFast
		case cheap && busy:
			longest = watchCheap
		case !busy && resting:
			longest = watchIdle
		}
		interval = min(interval*2, longest)
		last = now
		timer.Reset(interval)
	}
}

// pause ends the watch, if nothing has begun meanwhile.
func (w *watch) pause() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active > 0 {
		return false
	}
	w.looking = false
	return true
}

// moves reports whether the next look should come soon.
func (a *Agent) moves(last, now reading) bool {
	conf := a.conf.Load()
	moved := now.memory - last.memory
	return moved > memoryMoves || -moved > memoryMoves || now.threads > last.threads+threadsMove ||
		conf.MemoryBytes > 0 && now.memory > conf.MemoryBytes*3/4 ||
		conf.Processes > 0 && now.threads > conf.Processes/2
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
	if c, ok := a.count(); ok {
		r.memory = c.memory
	} else if a.opts.Init {
		if memory, ok := containerMemory(cgroupRoot); ok {
			r.memory = memory
		}
	}
	return r, nil
}

// lastAction is what the watch did last.
type lastAction struct {
	at     time.Time
	memory int64 // that was in use then
}

// over says which limit a reading is over, if any. A crowd of small processes
// that uses all memory is one of processes: the many are the mistake. A crowd
// that still grows while half the memory is gone is taken for a bomb at once:
// at the next look the host might have ended the sandbox.
func (a *Agent) over(last, now reading) event.Reason {
	conf := a.conf.Load()
	full := conf.MemoryBytes > 0 && now.memory > conf.MemoryBytes
	if conf.Processes > 0 {
		many := now.threads > conf.Processes/2
		grows := now.threads > last.threads+threadsMove && conf.MemoryBytes > 0 && now.memory > conf.MemoryBytes/2
		if now.threads >= conf.Processes || many && (full || grows) {
			return event.ReasonProcessLimit
		}
	}
	if full {
		return event.ReasonOutOfMemory
	}
	return ""
}

// enforce ends what is over a limit, and reports whether it did.
func (a *Agent) enforce(last, now reading, acted *lastAction) bool {
	reason := a.over(last, now)
	if reason == "" || reason == event.ReasonOutOfMemory && time.Since(acted.at) < settle && now.memory <= acted.memory+memoryMoves {
		return false
	}
	*acted = lastAction{at: time.Now(), memory: now.memory}
	if reason == event.ReasonProcessLimit {
		a.endCrowd(now)
		return true
	}
	if a.opts.Init && now.procs == nil {
		var err error
		if now, err = a.look(); err != nil {
			return false
		}
	}
	// Pages of files can be had again, variables cannot.
	a.mu.Lock()
	reader := a.previewer
	a.mu.Unlock()
	if reader != nil {
		a.endPreview(reader)
		*acted = lastAction{} // if that was not enough, act at the next look
		return true
	}
	conf := a.conf.Load()
	a.endLargest(now, func(p procInfo) int64 { return p.rss }, ending{
		status: event.StatusKilled, reason: reason,
		message: fmt.Sprintf("The code used %d MiB of memory, more than the sandbox's limit of %d MiB. Its kernel was killed and a fresh one started; variables are lost. Work on less data at a time.",
			now.memory>>20, conf.MemoryBytes>>20),
	}, true)
	return true
}

// endCrowd ends the kernel or command that has the most processes. If there is
// only one kernel, there is nothing to find out, and one call ends it all.
func (a *Agent) endCrowd(now reading) {
	conf := a.conf.Load()
	end := ending{
		status: event.StatusKilled, reason: event.ReasonProcessLimit,
		message: fmt.Sprintf("The code had %d processes and threads, with %d MiB of memory; the sandbox's limits are %d and %d MiB. All of them were killed and a fresh kernel was started; variables are lost.",
			now.threads, now.memory>>20, conf.Processes, conf.MemoryBytes>>20),
	}
	a.mu.Lock()
	keepers, commands := slices.Collect(maps.Values(a.kernels)), len(a.processes)
	a.mu.Unlock()
	if len(keepers) == 1 && commands == 0 {
		k := keepers[0]
		k.mu.Lock()
		inc := k.inc
		k.mu.Unlock()
		if inc != nil {
			inc.end(end)
		}
		return
	}
	if a.opts.Init {
		// A bomb would starve the look. Stopping is not done lightly: whoever
		// waits for a child hears of it.
		_ = syscall.Kill(-1, syscall.SIGSTOP)
		defer func() { _ = syscall.Kill(-1, syscall.SIGCONT) }()
	}
	r, err := a.look()
	if err != nil {
		return
	}
	a.endLargest(r, func(p procInfo) int64 { return int64(p.threads) }, end, false)
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
