package image

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// maxEntries bounds the memory of a tree: some 500 bytes each. The largest
	// data science images have a quarter of it.
	maxEntries = 2_000_000

	whiteoutPrefix = ".wh."
	opaqueName     = ".wh..wh..opq"
)

// spool is a temporary file that holds the contents of all regular files.
type spool struct {
	file *os.File
	w    *bufio.Writer
	off  int64
	max  int64 // bytes; what goes beyond is a tar bomb
}

// newSpool makes a spool that has no name on disk any more, so that nothing of it
// outlives the process.
func newSpool(dir string, limit int64) (*spool, error) {
	f, err := os.CreateTemp(dir, "spool-")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &spool{file: f, w: bufio.NewWriterSize(f, 1<<20), max: limit}, nil
}

func (s *spool) Close() error { return s.file.Close() }

// add appends size bytes of r and gives their offset.
func (s *spool) add(r io.Reader, size int64) (int64, error) {
	if size > s.max-s.off {
		return 0, tooLarge(s.max)
	}
	off := s.off
	n, err := io.CopyN(s.w, r, size)
	s.off += n
	return off, err
}

// open reads one file back; flush must have been called.
func (s *spool) open(n *node) *io.SectionReader {
	return io.NewSectionReader(s.file, n.off, n.size)
}

func (s *spool) flush() error { return s.w.Flush() }

func tooLarge(limit int64) error {
	return errdefs.New(errdefs.ErrTooLarge, "image-too-large",
		"the image is larger than %d bytes when unpacked", limit).
		WithHint("raise the limit with --max-size")
}

// unpacker adds tar streams to a tree, one layer after the other, lowest first.
//
// It applies layers itself rather than by go-containerregistry's mutate.Extract:
// that gives a flat tar in which a hard link's target can be missing or be
// another layer's file (a layer that deletes or replaces one name of a file with
// two).
type unpacker struct {
	tree     *tree
	spool    *spool
	progress func(done int64)
	maxTime  time.Time // later modification times become this one; zero keeps all
	skipRoot []string  // first path components that are left out
}

// apply reads one layer. whiteouts says that names starting with .wh. delete, as
// in an OCI layer; in a plain root file system they are names like any other.
func (u *unpacker) apply(ctx context.Context, r io.Reader, layer int, whiteouts bool) error {
	// The bound on file contents does not cover headers; this one does.
	capped := &cappedReader{r: r, left: u.spool.max + u.spool.max/2 + 64<<20, max: u.spool.max}
	tr := tar.NewReader(capped)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return drain(capped)
		}
		if err != nil {
			return badTar(err)
		}
		if err := u.entry(tr, h, layer, whiteouts); err != nil {
			return err
		}
		if u.progress != nil {
			u.progress(u.spool.off)
		}
	}
}

// drain reads what follows the end mark, so that whoever checks the digest of the
// stream sees all of it.
func drain(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return badTar(err)
	}
	return nil
}

func badTar(err error) error {
	if e := (*errdefs.Error)(nil); errors.As(err, &e) {
		return err
	}
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return err // our own disk, not the tar
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errdefs.New(errdefs.ErrInvalid, "image-damaged", "the image can't be read: it is damaged or cut off").WithCause(err)
}

func (u *unpacker) entry(r io.Reader, h *tar.Header, layer int, whiteouts bool) error {
	if u.tree.count++; u.tree.count > maxEntries {
		return errdefs.New(errdefs.ErrTooLarge, "image-too-large", "the image has more than %d files", maxEntries)
	}
	parts, err := splitPath(h.Name)
	if err != nil {
		return err
	}
	if len(parts) > 0 {
		for _, skip := range u.skipRoot {
			if parts[0] == skip && len(parts) > 1 {
				return nil
			}
		}
	}
	if whiteouts && len(parts) > 0 {
		base := parts[len(parts)-1]
		if base == opaqueName {
			u.tree.opaque(parts[:len(parts)-1], layer)
			return nil
		}
		if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
			if hidden != "" {
				u.tree.whiteout(append(parts[:len(parts)-1:len(parts)-1], hidden), layer)
			}
			return nil
		}
	}

	n := &node{
		mode:  h.FileInfo().Mode(),
		uid:   h.Uid,
		gid:   h.Gid,
		mtime: h.ModTime,
		layer: layer,
	}
	if n.uid < 0 || n.gid < 0 || int64(n.uid) > 1<<32-2 || int64(n.gid) > 1<<32-2 {
		return unsafe("its entry %q has an owner that no system has", h.Name)
	}
	if !u.maxTime.IsZero() && n.mtime.After(u.maxTime) {
		n.mtime = u.maxTime
	}
	if n.mtime.Unix() < 0 {
		n.mtime = time.Unix(0, 0) // EROFS has no time before 1970
	}
	n.xattrs = keptXattrs(h.PAXRecords)

	switch h.Typeflag {
	case tar.TypeReg, tar.TypeGNUSparse:
		n.mode &^= fs.ModeType
		n.size = h.Size
		if n.off, err = u.spool.add(r, h.Size); err != nil {
			return badTar(err)
		}
	case tar.TypeDir:
		n.entries = map[string]*node{}
	case tar.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) > 4095 {
			return unsafe("its symbolic link %q has no usable target", h.Name)
		}
		n.mode = fs.ModeSymlink | 0o777
		n.link = h.Linkname
	case tar.TypeLink:
		target, err := splitPath(h.Linkname)
		if err != nil {
			return err
		}
		return u.tree.linkTo(parts, target, layer)
	case tar.TypeFifo:
	default:
		// Device nodes: the runtime mounts its own /dev, and a node that reaches
		// a host's disk has no place in an image. Others are unknown.
		return nil
	}
	return u.tree.put(parts, n)
}

// keptXattrs picks the extended attributes that mean something inside a sandbox.
// The trusted and system ones steer overlays and ACLs of whoever mounts the image.
func keptXattrs(records map[string]string) map[string]string {
	const prefix = "SCHILY.xattr."
	var kept map[string]string
	for k, v := range records {
		name, ok := strings.CutPrefix(k, prefix)
		if !ok || len(name) > maxName || len(v) > 1<<10 {
			continue
		}
		if name == "security.capability" || strings.HasPrefix(name, "user.") && len(name) > len("user.") {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[name] = v
		}
	}
	return kept
}

// cappedReader fails once more than left bytes were read.
type cappedReader struct {
	r    io.Reader
	left int64
	max  int64
}

func (c *cappedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, tooLarge(c.max)
	}
	return n, err
}

// readSmall gives the content of a file inside the image, or nil when it is not
// there, is no regular file or is larger than limit bytes.
func readSmall(t *tree, s *spool, name string, limit int64) []byte {
	n, _ := t.lookup(path.Clean("/" + name))
	if n == nil || !n.mode.IsRegular() || n.size > limit {
		return nil
	}
	b, err := io.ReadAll(s.open(n))
	if err != nil {
		return nil
	}
	return b
}
