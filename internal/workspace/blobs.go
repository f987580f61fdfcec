package workspace

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Blobs keeps the bytes of files by their SHA-256 (32 bytes, as a string).
//
// All methods may be called concurrently. Bytes are named in the store only
// after Sync, and deleted only when nobody names them; what is on its way
// between the two is the business of who calls, as long as all callers are in
// one process, and of the implementation where they are in several.
type Blobs interface {
	// Put keeps the bytes of a file, which is in the folder of staged files and
	// may be moved away. Bytes that are there already are a success.
	Put(ctx context.Context, hash string, size int64, from *os.File) error
	// Sync returns once what was put can't be lost.
	Sync(hashes []string) error
	// Open opens bytes; a code says if they are not there. What is open stays
	// readable while ctx lasts and nobody deletes it.
	Open(ctx context.Context, hash string) (Blob, error)
	Has(ctx context.Context, hash string) (bool, error)
	// Delete removes bytes that nobody names, which used tells of each. An
	// implementation for several processes leaves what another may be about to
	// name. What is not there is a success.
	Delete(ctx context.Context, hashes []string, used func(hash string) (bool, error)) error
	// List calls fn for the bytes that may be garbage: at least for all that
	// are, and at most for all there are.
	List(ctx context.Context, fn func(hash string) error) error
}

// Blob is bytes that are open for reading.
type Blob interface {
	io.ReadSeekCloser
	io.ReaderAt
	Size() int64
}

// tmpPrefix begins the names of files that are not blobs yet.
const tmpPrefix = "tmp-"

// stage is where bytes arrive, and knows which of them somebody is about to
// name.
type stage struct {
	Blobs
	dir string // of files that are not blobs yet

	mu   sync.Mutex
	pins map[string]int // hashes that are about to be named in the store, or are being read
}

func newStage(dir string, b Blobs) (*stage, error) {
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
	return &stage{Blobs: b, dir: dir, pins: map[string]int{}}, nil
}

// staged is bytes in a temporary file, on their way to become a blob.
type staged struct {
	file *os.File
	hash string
	size int64
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// take reads bytes into a temporary file. Not more than size may come; what
// is less is an error.
func (b *stage) take(r io.Reader, size int64) (_ *staged, err error) {
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

// keep makes staged bytes a blob, pinned until unpin. Sync makes them safe.
func (b *stage) keep(ctx context.Context, s *staged) error {
	b.pin(s.hash)
	err := b.Put(ctx, s.hash, s.size, s.file)
	s.drop() // unless it was moved
	if err != nil {
		b.unpin(s.hash)
		return diskError(err)
	}
	return nil
}

func (b *stage) pin(hash string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pins[hash]++
}

func (b *stage) unpin(hashes ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range hashes {
		if b.pins[h]--; b.pins[h] <= 0 {
			delete(b.pins, h)
		}
	}
}

// deleted is how many blobs are deleted together, while nobody else can pin any.
const deleted = 100

// remove removes blobs that are neither pinned nor used. The lock is held over
// both, so that nobody pins one in between and takes it for being there.
func (b *stage) remove(ctx context.Context, hashes []string, used func(hash string) (bool, error)) error {
	for some := range slices.Chunk(hashes, deleted) {
		if err := b.removeSome(ctx, some, used); err != nil {
			return err
		}
	}
	return nil
}

func (b *stage) removeSome(ctx context.Context, hashes []string, used func(hash string) (bool, error)) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := make([]string, 0, len(hashes))
	for _, hash := range hashes {
		if b.pins[hash] == 0 {
			free = append(free, hash)
		}
	}
	if len(free) == 0 {
		return nil
	}
	return b.Delete(ctx, free, used)
}

// sweep removes the blobs that are not used.
func (b *stage) sweep(ctx context.Context, used func(hash string) (bool, error)) error {
	var some []string
	flush := func() error {
		err := b.removeSome(ctx, some, used)
		some = some[:0]
		return err
	}
	if err := b.List(ctx, func(hash string) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if some = append(some, hash); len(some) < deleted {
			return nil
		}
		return flush()
	}); err != nil {
		return err
	}
	return flush()
}

// open opens bytes and pins them until they are closed.
func (b *stage) open(ctx context.Context, hash string) (Blob, error) {
	b.pin(hash)
	blob, err := b.Open(ctx, hash)
	if err != nil {
		b.unpin(hash)
		return nil, err
	}
	return &pinned{Blob: blob, unpin: sync.OnceFunc(func() { b.unpin(hash) })}, nil
}

type pinned struct {
	Blob
	unpin func()
}

func (p *pinned) Close() error {
	defer p.unpin()
	return p.Blob.Close()
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

func errBlobLost(err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "file-damaged", "the server has lost the bytes of this file").
		WithHint("the server's log has the reason").WithCause(err)
}
