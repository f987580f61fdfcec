package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// tmpPrefix begins the names of files that are not blobs yet.
const tmpPrefix = "tmp-"

// blobs is a folder of bytes that are named by their SHA-256.
type blobs struct {
	dir string

	mu   sync.Mutex
	pins map[string]int // hashes that are about to be named in the store
}

func openBlobs(dir string) (*blobs, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("workspace: %w", err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), tmpPrefix) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil { // of a process that was killed
			return nil, fmt.Errorf("workspace: %w", err)
		}
	}
	return &blobs{dir: dir, pins: map[string]int{}}, nil
}

func (b *blobs) path(hash string) string {
	name := hex.EncodeToString([]byte(hash))
	return filepath.Join(b.dir, name[:2], name)
}

// open opens the bytes with a hash.
func (b *blobs) open(hash string) (*os.File, error) {
	f, err := os.Open(b.path(hash))
	if err != nil {
		return nil, errdefs.New(errdefs.ErrUnavailable, "file-damaged", "the server has lost the bytes of this file").
			WithHint("the server's log has the reason").WithCause(err)
	}
	return f, nil
}

// staged is bytes in a temporary file, on their way to become a blob.
type staged struct {
	file *os.File
	hash string
	size int64
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// stage reads bytes into a temporary file. Not more than size may come; what
// is less is an error.
func (b *blobs) stage(r io.Reader, size int64) (_ *staged, err error) {
	f, err := os.CreateTemp(b.dir, tmpPrefix)
	if err != nil {
		return nil, diskError(err)
	}
	s := &staged{file: f}
	defer func() {
		if err != nil {
			s.drop()
		}
	}()
	sum := sha256.New()
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	src := &readError{r: r}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.MultiWriter(f, sum)}, io.LimitReader(src, size), *buf)
	switch {
	case src.err != nil:
		return nil, src.err
	case err != nil:
		return nil, diskError(err)
	case n != size:
		return nil, io.ErrUnexpectedEOF
	}
	s.hash, s.size = string(sum.Sum(nil)), n
	return s, nil
}

func (s *staged) drop() {
	_ = s.file.Close()
	_ = os.Remove(s.file.Name()) // else the next start does
}

// keep makes staged bytes a blob, safe on disk and pinned until unpin.
func (b *blobs) keep(s *staged) error {
	b.pin(s.hash)
	err := b.settle(s)
	if err != nil {
		s.drop()
		b.unpin(s.hash)
		return diskError(err)
	}
	return nil
}

func (b *blobs) settle(s *staged) error {
	target := b.path(s.hash)
	if info, err := os.Stat(target); err == nil && info.Size() == s.size {
		s.drop() // it is there already, by pin it stays
		return nil
	}
	if err := s.file.Sync(); err != nil {
		return err
	}
	if err := s.file.Close(); err != nil {
		return err
	}
	err := os.Rename(s.file.Name(), target)
	if errors.Is(err, fs.ErrNotExist) {
		if err = os.Mkdir(filepath.Dir(target), 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = os.Rename(s.file.Name(), target)
		}
	}
	return err
}

// syncDirs makes the names of new blobs safe.
func (b *blobs) syncDirs(hashes []string) error {
	dirs := map[string]bool{b.dir: true}
	for _, h := range hashes {
		dirs[filepath.Dir(b.path(h))] = true
	}
	for dir := range dirs {
		f, err := os.Open(dir) //nolint:gosec // one of ours
		if err != nil {
			return diskError(err)
		}
		err = f.Sync()
		_ = f.Close() // read only
		if err != nil {
			return diskError(err)
		}
	}
	return nil
}

func (b *blobs) pin(hash string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pins[hash]++
}

func (b *blobs) unpin(hashes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range hashes {
		if b.pins[h]--; b.pins[h] <= 0 {
			delete(b.pins, h)
		}
	}
}

// remove removes a blob unless it is pinned or used. The lock is held over
// both, so that nobody pins it in between and takes it for being there.
func (b *blobs) remove(hash string, used func() (bool, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pins[hash] > 0 {
		return nil
	}
	if in, err := used(); err != nil || in {
		return err
	}
	return os.Remove(b.path(hash))
}

// sweep removes the blobs that are not used.
func (b *blobs) sweep(used func(hash string) (bool, error)) error {
	return filepath.WalkDir(b.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), tmpPrefix) {
			return nil
		}
		hash, err := hex.DecodeString(d.Name())
		if err != nil || len(hash) != sha256.Size {
			return nil //nolint:nilerr // not ours
		}
		err = b.remove(string(hash), func() (bool, error) { return used(string(hash)) })
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// readError remembers that reading failed, so that it is not taken for a failed write.
type readError struct {
	r   io.Reader
	err error
}

func (r *readError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}

// diskError says that this machine, and not the sandbox, has no room.
func diskError(err error) error {
	if _, ok := errors.AsType[*errdefs.Error](err); ok || err == nil {
		return err
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return errdefs.New(errdefs.ErrExhausted, "host-disk-full", "the server's disk is full, so the file can't be kept").
			WithHint("free space on the disk of the data directory").WithCause(err)
	}
	return fmt.Errorf("workspace: %w", err)
}
