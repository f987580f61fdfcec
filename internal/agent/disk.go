package agent

import (
	"io/fs"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

const (
	// diskFresh is how long what was counted is good enough.
	diskFresh = 10 * time.Second
	// diskMost bounds how many files one count looks at: user code makes as many
	// as it likes. What is beyond is not counted.
	diskMost = 50_000
)

// diskUse counts the files of a sandbox whose folders lie on a disk that others
// use too.
type diskUse struct {
	mu    sync.Mutex
	at    time.Time
	bytes int64
}

// read gives the bytes that the files below the roots take on the disk.
func (u *diskUse) read(roots []fileRoot) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.at.IsZero() && time.Since(u.at) < diskFresh {
		return u.bytes
	}
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
	return sum
}
