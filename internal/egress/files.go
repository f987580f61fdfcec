package egress

import (
	"container/list"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	partial = ".part"
	// partialFor is after which a part of a server that died is taken away.
	partialFor = 24 * time.Hour
	downloads  = 16 // at once
	// heldBack of a file goes out only when its hash is proven, so that nobody
	// takes a wrong file for whole.
	heldBack = 16 << 10
)

// errNoRoom is why a file is passed on without being kept.
var errNoRoom = errors.New("egress: no room for a package file")

// files keeps package files on disk, those used last, up to a number of bytes.
// Only files whose hash the index tells are kept.
type files struct {
	m     *mirror
	dir   string // "" keeps none
	most  int64
	slots chan struct{}

	mu      sync.Mutex // guards what follows
	byKey   map[string]*list.Element
	order   *list.List // of *onDisk, the last used in front
	size    int64
	coming  int64 // bytes of downloads under way, which have their room too
	flights map[string]*flight
}

type onDisk struct {
	key  string
	size int64
	used time.Time
}

func newFiles(m *mirror, dir string, most int64) (*files, error) {
	if most <= 0 {
		most = defaultCacheBytes
	}
	f := &files{m: m, dir: dir, most: most, slots: make(chan struct{}, downloads), byKey: make(map[string]*list.Element), order: list.New(), flights: make(map[string]*flight)}
	if dir == "" {
		return f, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("egress: folder of package files: %w", err)
	}
	return f, f.scan()
}

// scan finds what an earlier server kept.
func (f *files) scan() error {
	var found []onDisk
	err := filepath.WalkDir(f.dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // it has just gone
		}
		switch name := e.Name(); {
		case strings.HasSuffix(name, partial):
			if time.Since(info.ModTime()) > partialFor {
				return os.Remove(p) //nolint:gosec // the folder is the server's own
			}
		case len(name) == 2*sha256.Size && info.Mode().IsRegular():
			found = append(found, onDisk{key: name, size: info.Size(), used: info.ModTime()})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("egress: package files: %w", err)
	}
	slices.SortFunc(found, func(a, b onDisk) int { return a.used.Compare(b.used) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range found {
		f.byKey[o.key] = f.order.PushFront(&o)
		f.size += o.size
	}
	f.makeRoomLocked(0)
	return nil
}

func (f *files) path(key string) string { return filepath.Join(f.dir, key[:2], key) }

func keyOf(r fileRef) string {
	h := sha256.New()
	h.Write(r.sha256)
	h.Write([]byte(r.url.String()))
	return hexOf(h.Sum(nil))
}

func (f *files) keeps(r fileRef) bool { return f.dir != "" && r.sha256 != nil }

// onDisk opens a file that is kept.
func (f *files) onDisk(r fileRef) (*os.File, bool) {
	if !f.keeps(r) {
		return nil, false
	}
	key := keyOf(r)
	f.mu.Lock()
	e := f.byKey[key]
	touch := false
	if e != nil {
		f.order.MoveToFront(e)
		o := e.Value.(*onDisk) //nolint:errcheck,revive // the list holds nothing else
		if touch = time.Since(o.used) > time.Hour; touch {
			o.used = time.Now()
		}
	}
	f.mu.Unlock()
	if e == nil {
		return nil, false
	}
	file, err := os.Open(f.path(key))
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.byKey[key] == e {
			f.forgetLocked(e)
		}
		return nil, false
	}
	if touch {
		_ = os.Chtimes(f.path(key), time.Time{}, time.Now()) //nolint:errcheck // only the order after a restart depends on it
	}
	return file, true
}

// keep takes a finished file in.
func (f *files) keep(key, part string, size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if e := f.byKey[key]; e != nil {
		f.forgetLocked(e)
	}
	if err := os.Rename(part, f.path(key)); err != nil {
		return err
	}
	f.byKey[key] = f.order.PushFront(&onDisk{key: key, size: size, used: time.Now()})
	f.size += size
	f.m.g.count.cached.Set(float64(f.size))
	return nil
}

// reserve makes room for a download, or says that there is none.
func (f *files) reserve(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if size < 0 || size > f.most-f.coming {
		return errNoRoom
	}
	f.coming += size
	f.makeRoomLocked(f.coming)
	return nil
}

func (f *files) release(size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.coming -= size
}

func (f *files) makeRoomLocked(size int64) {
	for f.size+size > f.most && f.order.Len() > 0 {
		e := f.order.Back()
		os.Remove(f.path(e.Value.(*onDisk).key)) //nolint:errcheck,gosec,revive // readers keep their open file
		f.forgetLocked(e)
	}
	f.m.g.count.cached.Set(float64(f.size))
}

func (f *files) forgetLocked(e *list.Element) {
	o := f.order.Remove(e).(*onDisk) //nolint:errcheck,revive // the list holds nothing else
	delete(f.byKey, o.key)
	f.size -= o.size
}

// flight is a download under way, for all who want the file.
type flight struct {
	ref    fileRef
	key    string
	file   *os.File
	cancel context.CancelFunc
	ask    int  // who follow; guarded by files.mu
	landed bool // nothing writes any more; guarded by files.mu

	mu      sync.Mutex // guards what follows
	status  int        // 0 until the index answers
	total   int64      // -1 if unknown
	written int64
	done    bool
	err     error
	changed chan struct{} // closed at each change
}

// flight joins the download of a file, or begins it; nil if the disk does not
// take it.
func (f *files) flight(r fileRef) (fl *flight, joined bool) {
	key := keyOf(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flights[key]; fl != nil {
		fl.ask++
		return fl, true
	}
	if err := os.MkdirAll(filepath.Dir(f.path(key)), 0o700); err != nil {
		return nil, false
	}
	file, err := os.CreateTemp(filepath.Dir(f.path(key)), "*"+partial)
	if err != nil {
		return nil, false
	}
	ctx, cancel := context.WithCancel(f.m.ctx)
	fl = &flight{ref: r, key: key, file: file, cancel: cancel, ask: 1, total: -1, changed: make(chan struct{})}
	f.flights[key] = fl
	f.m.wg.Go(func() {
		err := f.download(ctx, fl)
		cancel()
		if err != nil {
			os.Remove(file.Name())
			f.m.noted("file", "failed")
			if !errors.Is(err, context.Canceled) && !errors.Is(err, errNoRoom) {
				f.m.g.log.Warn("package file", "host", r.url.Host, "err", printable(err.Error(), 300))
			}
		}
		fl.change(func() { fl.done, fl.err = true, err })
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.flights[key] == fl {
			delete(f.flights, key)
		}
		if fl.landed = true; fl.ask == 0 {
			file.Close()
		}
	})
	return fl, false
}

// leave is the end of one who followed; the download ends with the last.
func (f *files) leave(fl *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fl.ask--
	if fl.ask > 0 {
		return
	}
	if f.flights[fl.key] == fl {
		delete(f.flights, fl.key) // who comes now begins anew
		fl.cancel()
	}
	if fl.landed {
		fl.file.Close()
	}
}

func (fl *flight) change(how func()) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	how()
	close(fl.changed)
	fl.changed = make(chan struct{})
}

// download writes the file, proves its hash and puts it in its place.
func (f *files) download(ctx context.Context, fl *flight) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := newIdleTimer(indexIdle, func() { cancel(errors.New("the index has stopped sending")) })
	defer idle.stop()
	resp, err := f.m.get(ctx, http.MethodGet, fl.ref.url, http.Header{"Accept-Encoding": {"identity"}})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	fl.change(func() { fl.status, fl.total = resp.StatusCode, resp.ContentLength })
	if resp.StatusCode != http.StatusOK {
		return errors.New("status " + resp.Status)
	}
	if err := f.reserve(resp.ContentLength); err != nil {
		return err
	}
	defer f.release(resp.ContentLength)
	sum := sha256.New()
	if err := f.fill(fl, resp.Body, sum, idle); err != nil {
		return err
	}
	if !equal(sum.Sum(nil), fl.ref.sha256) {
		return errors.New("the file is not what the index says: its sha256 is " + hexOf(sum.Sum(nil)))
	}
	if err := fl.file.Sync(); err != nil {
		return err
	}
	return f.keep(fl.key, fl.file.Name(), fl.written)
}

func (f *files) fill(fl *flight, src io.Reader, sum hash.Hash, idle *idleTimer) error {
	buf := make([]byte, largeBuffer)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			idle.touch()
			sum.Write(buf[:n])
			if _, err := fl.file.Write(buf[:n]); err != nil {
				return errors.Join(errNoRoom, err)
			}
			fl.change(func() { fl.written += int64(n) })
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// follow gives a download to one who asked, as it comes. It is false if there
// is no room for the file and nothing has been said yet.
func (m *mirror) follow(w http.ResponseWriter, r *http.Request, s *stream, fl *flight) bool {
	started := false
	var off int64
	buf := make([]byte, 32<<10)
	for {
		fl.mu.Lock()
		status, total, written, done, err, changed := fl.status, fl.total, fl.written, fl.done, fl.err, fl.changed
		fl.mu.Unlock()
		switch {
		case done && err != nil && started:
			panic(http.ErrAbortHandler) // what was sent is not the file
		case done && errors.Is(err, errNoRoom):
			return false
		case done && err != nil && (status == http.StatusNotFound || status == http.StatusGone):
			plainError(w, "the package index has no such file", http.StatusNotFound)
			return true
		case done && err != nil:
			m.failed(w, s, "file", err)
			return true
		}
		ready := written
		if !done {
			ready = max(0, written-heldBack)
		}
		if status == http.StatusOK && !started && (ready > 0 || done) {
			if total >= 0 {
				w.Header().Set("Content-Length", strconv.FormatInt(total, 10))
			}
			w.Header().Set("Accept-Ranges", "bytes")
			w.WriteHeader(http.StatusOK)
			started = true
		}
		for off < ready {
			n, err := fl.file.ReadAt(buf[:min(int64(len(buf)), ready-off)], off)
			if n == 0 && err != nil {
				panic(http.ErrAbortHandler)
			}
			off += int64(n)
			if _, err := w.Write(buf[:n]); err != nil {
				return true
			}
		}
		if done {
			return true
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return true
		}
	}
}
