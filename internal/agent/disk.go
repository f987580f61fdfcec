package agent

import (
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// In a pod the folders that can be written to lie on the node's disk, and
// nothing keeps them small but the node itself: it counts once in a while, and
// then ends the whole sandbox. Until then code could fill the disk that others
// need. So the agent keeps the limit (Options.OwnDisk):
//
//   - no file may become larger than all of it (RLIMIT_FSIZE);
//   - while something runs and the disk gets fuller, files are counted; over the
//     limit nothing may write to files any more, until enough was deleted.
//
// Code that raises its own soft limit gets around the second; the node's count
// remains.
const (
	// diskFresh is how long what was counted is good enough for a question.
	diskFresh = 10 * time.Second
	// diskMost bounds how many files one count looks at: user code makes as many
	// as it likes. What is beyond is not counted.
	diskMost = 50_000
	// diskPause is the least time between two counts by the watch, and diskShare
	// the part of its time that counting may take.
	diskPause = 500 * time.Millisecond
	diskShare = 20
	// diskStep is by how much the disk gets fuller, whoever it is, before files
	// are counted again; or a part of the limit, if that is more.
	diskStep = 16 << 20
	diskPart = 16
)

// diskUse counts the files of a sandbox whose folders lie on a disk that others
// use too.
type diskUse struct {
	over atomic.Bool // more than the limit: nobody writes

	mu    sync.Mutex
	at    time.Time     // when they were counted
	took  time.Duration // to count them
	bytes int64
	next  time.Time // the earliest time of the next count by the watch
	free  int64     // of the disk, before the last count
}

// read gives the bytes that the files below the roots take on the disk.
func (u *diskUse) read(roots []fileRoot, fresh time.Duration) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.at.IsZero() || time.Since(u.at) > fresh {
		u.countLocked(roots)
	}
	return u.bytes
}

// doubtful reports whether the last count is too old to say that there is room
// for more, or that there is none. How much fuller the disk got since then says
// little, as others free at the same moment what this sandbox takes; so it only
// helps for as long as the count took, or many small uploads would mostly count.
func (u *diskUse) doubtful(roots []fileRoot, more, limit int64) bool {
	free, ok := freeOf(roots)
	u.mu.Lock()
	defer u.mu.Unlock()
	if time.Since(u.at) > u.took {
		return true
	}
	return u.bytes+more <= limit && (!ok || u.bytes+max(u.free-free, 0)+more > limit)
}

// fullerLocked reports whether the disk got fuller by enough since the last
// count for the watch to count again, or may have, if others freed as much.
func (u *diskUse) fullerLocked(free, limit int64) bool {
	return time.Since(u.at) > diskFresh || u.free-free >= max(diskStep, limit/diskPart)
}

// freeOf gives the bytes that the disk of the folders has left.
func freeOf(roots []fileRoot) (free int64, ok bool) {
	var st unix.Statfs_t
	if len(roots) == 0 || unix.Statfs(roots[0].real, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true //nolint:gosec // below 2^63 on any disk
}

func (u *diskUse) countLocked(roots []fileRoot) {
	begin := time.Now()
	u.free, _ = freeOf(roots)
	var sum int64
	left := diskMost
	seen := make(map[[2]uint64]bool) // files with several names
	for _, root := range roots {
		_ = filepath.WalkDir(root.real, func(_ string, e fs.DirEntry, err error) error {
			if left--; left < 0 {
				return fs.SkipAll
			}
			if err != nil {
				return nil //nolint:nilerr // gone meanwhile, or nothing that may be read: it is not counted
			}
			info, err := e.Info()
			if err != nil {
				return nil //nolint:nilerr // see above
			}
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return nil
			}
			if st.Nlink > 1 && !info.IsDir() {
				id := [2]uint64{uint64(st.Dev), st.Ino} //nolint:unconvert // Dev's type differs between architectures
				if seen[id] {
					return nil
				}
				seen[id] = true
			}
			sum += st.Blocks * 512 // stat(2): units of 512 bytes
			return nil
		})
	}
	u.at, u.bytes = time.Now(), sum
	u.took = u.at.Sub(begin)
	u.next = u.at.Add(max(diskPause, diskShare*u.took))
}

// diskLimit gives the limit that the agent itself keeps; 0: none.
func (a *Agent) diskLimit() int64 {
	if conf := a.conf.Load(); conf != nil && a.opts.OwnDisk {
		return conf.DiskBytes
	}
	return 0
}

// watchDisk counts if the disk got fuller, and has nobody write any more when
// the limit is reached, or again when it no longer is.
func (a *Agent) watchDisk() {
	limit := a.diskLimit()
	if limit <= 0 {
		return
	}
	free, ok := freeOf(a.roots)
	if !ok {
		return
	}
	u := &a.disk
	u.mu.Lock()
	was := u.over.Load()
	if !was && !u.fullerLocked(free, limit) || time.Now().Before(u.next) {
		u.mu.Unlock()
		return
	}
	u.countLocked(a.roots)
	over := u.bytes > limit
	u.over.Store(over)
	u.mu.Unlock()
	if over || was {
		a.holdWrites(over)
	}
}

// holdWrites has every process of user code fail to write to files (EFBIG), or
// lets them write again.
func (a *Agent) holdWrites(hold bool) {
	r, err := a.look()
	if err != nil {
		return
	}
	for _, p := range r.procs {
		var lim unix.Rlimit
		if unix.Prlimit(p.pid, unix.RLIMIT_FSIZE, nil, &lim) != nil {
			continue // gone already
		}
		lim.Cur = lim.Max
		if hold {
			lim.Cur = 0
		}
		_ = unix.Prlimit(p.pid, unix.RLIMIT_FSIZE, &lim, nil)
	}
}

// ownRoom refuses an upload that does not fit into the limit that the agent keeps.
func (a *Agent) ownRoom(size int64) error {
	limit := a.diskLimit()
	if limit <= 0 {
		return nil
	}
	size = max(size, 0)
	used := a.disk.read(a.roots, diskFresh)
	if a.disk.doubtful(a.roots, size, limit) {
		used = a.disk.read(a.roots, 0)
	}
	if used+size > limit {
		return errdefs.New(errdefs.ErrExhausted, "disk-full", "the upload has %d bytes, and the sandbox's disk has %d left", size, max(limit-used, 0)).
			WithHint("delete files that are not needed")
	}
	return nil
}
