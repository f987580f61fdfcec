package agent

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// maxEntries bounds a folder's listing; more are cut off, and said to be.
const maxEntries = 10_000

// describe makes the File of one entry.
func describe(p string, info fs.FileInfo, target string) agentapi.File {
	f := agentapi.File{
		Name: printable(path.Base(p)), Path: printable(p), Escaped: escaped(p), Type: agentapi.TypeOther,
		SizeBytes: info.Size(), Mode: info.Mode().String(), ModifiedAt: info.ModTime().UTC(), Target: printable(target),
	}
	switch {
	case info.Mode().IsRegular():
		f.Type = agentapi.TypeFile
	case info.IsDir():
		f.Type, f.SizeBytes = agentapi.TypeDir, 0
	case info.Mode()&fs.ModeSymlink != 0:
		f.Type = agentapi.TypeSymlink
	}
	return f
}

// stat describes what is at p, without following a link in the last part.
func (p *place) stat() (agentapi.File, error) {
	info, err := p.root.Lstat(p.name)
	if err != nil {
		return agentapi.File{}, fileError(err, p.path)
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		target, _ = p.root.Readlink(p.name)
	}
	return describe(p.path, info, target), nil
}

// list adds the entries of a folder to f.
func (p *place) list(f *agentapi.File) error {
	if err := p.beneath(p.name); err != nil {
		return err
	}
	dir, err := p.root.OpenFile(p.name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return fileError(err, p.path)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fileError(err, p.path)
	}
	if len(names) > maxEntries {
		names, f.Truncated = names[:maxEntries], true
	}
	slices.Sort(names)
	f.Entries = make([]agentapi.File, 0, len(names))
	for _, name := range names {
		child := place{root: p.root, name: path.Join(p.name, name), path: path.Join(p.path, name)}
		entry, err := child.stat()
		if err != nil {
			continue // it has just been deleted
		}
		f.Entries = append(f.Entries, entry)
	}
	return nil
}

func getFile(a *Agent, w http.ResponseWriter, r *http.Request) error {
	p, err := a.place(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer p.close()
	f, err := p.stat()
	if err != nil {
		return err
	}
	if f.Type == agentapi.TypeDir {
		if err := p.list(&f); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusOK, f)
	return nil
}

// open opens a regular file for reading. Pipes and devices are refused before
// anybody waits on one: O_NONBLOCK makes opening a pipe return at once.
func (p *place) open() (*os.File, fs.FileInfo, error) {
	f, err := p.openBeneath(unix.O_RDONLY | unix.O_NONBLOCK | unix.O_NOCTTY)
	if err != nil {
		if errors.Is(err, syscall.ENXIO) {
			return nil, nil, errNotAFile(p.path)
		}
		return nil, nil, fileError(err, p.path)
	}
	info, err := f.Stat()
	if err == nil {
		switch {
		case info.IsDir():
			err = errdefs.New(errdefs.ErrInvalid, "is-a-directory", "%.300q is a folder", printable(p.path)).WithHint("download it as an archive")
		case !info.Mode().IsRegular():
			err = errNotAFile(p.path)
		}
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, fileError(err, p.path)
	}
	return f, info, nil
}

func errNotAFile(name string) error {
	return errdefs.New(errdefs.ErrInvalid, "not-a-file", "%.300q is a pipe, a socket or a device", printable(name))
}

func getContent(a *Agent, w http.ResponseWriter, r *http.Request) error {
	p, err := a.place(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer p.close()
	f, info, err := p.open()
	if err != nil {
		return err
	}
	defer f.Close()
	// Nothing here decides what the bytes are: the server's own rules do.
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(&rangeProblem{ResponseWriter: w}, r, "", info.ModTime(), f)
	return nil
}

// rangeProblem turns ServeContent's plain 416 into a problem.
type rangeProblem struct {
	http.ResponseWriter
	refused bool
}

func (w *rangeProblem) WriteHeader(status int) {
	if status != http.StatusRequestedRangeNotSatisfiable {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.refused = true
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Del("Content-Length")
	writeJSON(w.ResponseWriter, status, agentapi.Problem{
		Status: status, Code: "invalid-range", Detail: "the file does not have the bytes that were asked for",
	})
}

func (w *rangeProblem) Write(p []byte) (int, error) {
	if w.refused {
		return len(p), nil
	}
	return w.ResponseWriter.Write(p)
}

// ReadFrom keeps net/http's way of copying a file without the detour through Write.
func (w *rangeProblem) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(w.ResponseWriter, r)
}

func (w *rangeProblem) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func postMkdir(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.PathRequest](w, r)
	if err != nil {
		return err
	}
	p, err := a.place(req.Path)
	if err != nil {
		return err
	}
	defer p.close()
	if p.name != "." {
		if err := p.mkdir(p.name); err != nil {
			return err
		}
	}
	f, err := p.stat()
	if err != nil {
		return err
	}
	if f.Type != agentapi.TypeDir {
		return fileError(fs.ErrExist, p.path)
	}
	writeJSON(w, http.StatusOK, f)
	return nil
}

func deleteFile(a *Agent, w http.ResponseWriter, r *http.Request) error {
	p, err := a.place(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer p.close()
	if p.name == "." {
		return errRoot(p.path)
	}
	if _, err := p.root.Lstat(p.name); err != nil {
		return fileError(err, p.path)
	}
	if err := p.root.RemoveAll(p.name); err != nil {
		return fileError(err, p.path)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func errRoot(name string) error {
	return errdefs.New(errdefs.ErrInvalid, "is-a-root", "%s itself cannot be deleted, moved or replaced", name).WithHint("name what is in it")
}

func postMove(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.MoveRequest](w, r)
	if err != nil {
		return err
	}
	from, err := a.place(req.From)
	if err != nil {
		return err
	}
	defer from.close()
	to, err := a.place(req.To)
	if err != nil {
		return err
	}
	defer to.close()
	switch {
	case from.name == ".":
		return errRoot(from.path)
	case to.name == ".":
		return errRoot(to.path)
	case to.path == from.path || strings.HasPrefix(to.path, from.path+"/"):
		return errdefs.New(errdefs.ErrInvalid, "invalid-move", "a folder cannot be moved into itself")
	}
	if err := move(from, to, req.Overwrite); err != nil {
		return err
	}
	f, err := to.stat()
	if err == nil {
		writeJSON(w, http.StatusOK, f)
	}
	return err
}

func move(from, to *place, overwrite bool) error {
	if _, err := from.root.Lstat(from.name); err != nil {
		return fileError(err, from.path)
	}
	if _, err := to.root.Lstat(to.name); err == nil && !overwrite {
		return errdefs.New(errdefs.ErrConflict, "file-exists", "%.300q exists already", printable(to.path)).WithHint("set overwrite to replace it")
	}
	if dir := path.Dir(to.name); dir != "." {
		if err := to.mkdir(dir); err != nil {
			return err
		}
	}
	// Between two roots only an absolute rename is possible, so both ends are
	// held open and named through their descriptors.
	if err := renameBetween(from, to); err != nil {
		if errors.Is(err, syscall.EXDEV) {
			return moveAcross(from, to)
		}
		return fileError(err, to.path)
	}
	return nil
}
