package agent

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// How the names of files begin that are not whole yet.
const (
	uploadPrefix = ".caesarion-upload-"
	movePrefix   = ".caesarion-move-"
)

// copyBuffers are large: inside gVisor every system call costs microseconds.
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

func putContent(a *Agent, w http.ResponseWriter, r *http.Request) error {
	p, err := a.place(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer p.close()
	if err := a.ownRoom(r.ContentLength); err != nil {
		return err
	}
	if err := p.write(r.Body, r.ContentLength); err != nil {
		return err
	}
	f, err := p.stat()
	if err == nil {
		writeJSON(w, http.StatusOK, f)
	}
	return err
}

// write replaces the file at p by body, or leaves everything as it was. Size
// is -1 if it is not known.
//
// The bytes go to a new file in the same folder, which is then renamed. There
// is no fsync: it would protect against a crash of the host only, which ends
// the sandbox with all its files, and costs a large part of the throughput.
func (p *place) write(body io.Reader, size int64) (err error) {
	if p.name == "." {
		return errRoot(p.path)
	}
	mode := fs.FileMode(0o644)
	if info, err := p.root.Lstat(p.name); err == nil {
		if info.IsDir() {
			return fileError(syscall.EISDIR, p.path)
		}
		if info.Mode().IsRegular() {
			mode = info.Mode().Perm()
		}
	}
	dir := path.Dir(p.name)
	if dir != "." {
		if err := p.mkdir(dir); err != nil {
			return err
		}
	}
	if err := p.room(size); err != nil {
		return err
	}
	tmp := path.Join(dir, uploadPrefix+rand.Text())
	f, err := p.root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return fileError(err, p.path)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = p.root.Remove(tmp)
		}
	}()
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	src := &readError{r: body}
	// Neither side's own copying: it would use small buffers.
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{src}, *buf)
	switch {
	case src.err != nil, err == nil && size >= 0 && n != size:
		return errdefs.New(errdefs.ErrInvalid, "upload-incomplete", "the upload ended after %d bytes; nothing was kept", n).WithCause(src.err)
	case err != nil:
		return fileError(err, p.path)
	}
	if err := f.Close(); err != nil {
		return fileError(err, p.path)
	}
	if err := p.root.Rename(tmp, p.name); err != nil {
		return fileError(err, p.path)
	}
	return nil
}

// mkdir makes a folder of p's root and those above it.
func (p *place) mkdir(dir string) error {
	err := p.root.MkdirAll(dir, 0o755)
	if errors.Is(err, fs.ErrExist) { // something else has the name
		err = syscall.ENOTDIR
	}
	if err != nil {
		return fileError(err, p.path)
	}
	return nil
}

// room refuses an upload that cannot fit, before its bytes are read.
func (p *place) room(size int64) error {
	if size <= 0 {
		return nil
	}
	dir, err := p.root.Open(".")
	if err != nil {
		return fileError(err, p.path)
	}
	defer dir.Close()
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(dir.Fd()), &st); err != nil || st.Blocks == 0 {
		return nil //nolint:nilerr // a file system that does not say is asked by writing
	}
	if free := int64(st.Bavail) * st.Bsize; size > free { //nolint:gosec // below 2^63 on any disk
		return errdefs.New(errdefs.ErrExhausted, "disk-full", "the file has %d bytes, and the sandbox's disk has %d left", size, free).
			WithHint("delete files that are not needed")
	}
	return nil
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

// renameBetween renames, also from one root to another: both folders are held
// open, so that nobody can put a link in their place meanwhile.
func renameBetween(from, to *place) error {
	fromDir, err := from.root.Open(path.Dir(from.name))
	if err != nil {
		return err
	}
	defer fromDir.Close()
	toDir, err := to.root.Open(path.Dir(to.name))
	if err != nil {
		return err
	}
	defer toDir.Close()
	err = unix.Renameat(int(fromDir.Fd()), path.Base(from.name), int(toDir.Fd()), path.Base(to.name))
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from.path, New: to.path, Err: err}
	}
	return nil
}

// moveAcross copies and then deletes, for folders on two file systems and for
// overlays that cannot rename a folder of their lower layer.
func moveAcross(from, to *place) error {
	tmp := &place{root: to.root, name: path.Join(path.Dir(to.name), movePrefix+rand.Text()), path: to.path}
	if err := copyTree(from, tmp); err != nil {
		_ = tmp.root.RemoveAll(tmp.name)
		return fileError(err, to.path)
	}
	if err := to.root.Rename(tmp.name, to.name); err != nil {
		_ = tmp.root.RemoveAll(tmp.name)
		return fileError(err, to.path)
	}
	if err := from.root.RemoveAll(from.name); err != nil {
		return fileError(err, from.path)
	}
	return nil
}

func copyTree(from, to *place) error {
	return fs.WalkDir(from.root.FS(), from.name, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := path.Join(to.name, name[len(from.name):])
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case d.IsDir():
			return to.root.Mkdir(target, info.Mode().Perm()|0o700)
		case info.Mode()&fs.ModeSymlink != 0:
			link, err := from.root.Readlink(name)
			if err != nil {
				return err
			}
			return to.root.Symlink(link, target)
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s: %w", name, errNotAFile(name))
		}
		src, _, err := (&place{root: from.root, name: name, path: name}).open()
		if err != nil {
			return err
		}
		defer src.Close()
		dst, err := to.root.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, info.Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(dst, src)
		return errors.Join(err, dst.Close(), to.root.Chtimes(target, info.ModTime(), info.ModTime()))
	})
}
