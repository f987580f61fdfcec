package agent

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"strings"
	"syscall"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// fileRoot is a folder whose contents may be reached over HTTP.
type fileRoot struct {
	dir  string // in the sandbox
	real string // on this machine
}

// place is a path that was checked: a root, opened, and a name below it. All
// use of it goes through os.Root, which follows no link out of the root.
type place struct {
	root *os.Root
	name string // relative to root, "." for the root itself
	path string // absolute, in the sandbox
}

func (p *place) close() { _ = p.root.Close() }

var errInvalidPath = errdefs.New(errdefs.ErrInvalid, "invalid-path", "a path must not be empty or contain NUL").WithHint("give the path of a file or folder, such as /workspace/data.csv")

const (
	// Linux's own bounds; checked here for a clearer answer.
	maxName = 255
	maxPath = 4095
)

// place checks a path. Relative paths begin at the workspace.
func (a *Agent) place(name string) (*place, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return nil, errInvalidPath
	}
	if len(name) > maxPath {
		return nil, errdefs.New(errdefs.ErrInvalid, "path-too-long", "a path has at most %d bytes", maxPath).WithHint("use shorter names or fewer folders")
	}
	abs := name
	if !path.IsAbs(name) {
		abs = agentapi.WorkspaceDir + "/" + name
	}
	abs = path.Clean(abs)
	for part := range strings.SplitSeq(abs, "/") {
		if len(part) > maxName {
			return nil, errdefs.New(errdefs.ErrInvalid, "name-too-long", "a file name has at most %d bytes", maxName)
		}
	}
	root, ok := a.rootOf(abs)
	if !ok {
		return nil, errdefs.New(errdefs.ErrForbidden, "path-escapes", "%.200q is outside the folders that can be reached", printable(name)).
			WithHint("use a path below %s or %s", agentapi.WorkspaceDir, agentapi.UploadsDir)
	}
	opened, err := os.OpenRoot(root.real)
	if err != nil {
		return nil, fileError(err, abs)
	}
	rel := strings.TrimPrefix(strings.TrimPrefix(abs, root.dir), "/")
	if rel == "" {
		rel = "."
	}
	p := &place{root: opened, name: rel, path: abs}
	if err := p.beneath(path.Dir(rel)); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

// beneath refuses a name below the root that a link leads out of it. os.Root
// alone does not see that in gVisor, where opening a link with O_NOFOLLOW and
// O_DIRECTORY follows it; openat2 is right there. What does not exist yet
// passes, as far as it exists.
//
// This is a check before the use. Code in the sandbox may change a link in
// between, and gains nothing where the agent may do no more than it. Reading is
// not of that kind, see openBeneath.
func (p *place) beneath(name string) error {
	dir, err := p.root.Open(".")
	if err != nil {
		return fileError(err, p.path)
	}
	defer dir.Close()
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{ //nolint:gosec // a descriptor fits
		Flags:   unix.O_PATH | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
	})
	switch {
	case err == nil:
		_ = unix.Close(fd)
		return nil
	case errors.Is(err, unix.EXDEV):
		return p.escapes()
	}
	return nil // missing, or an old kernel without openat2: os.Root says what there is to say
}

func (p *place) escapes() error {
	return errdefs.New(errdefs.ErrForbidden, "path-escapes", "%.300q leads out of its folder, by .. or by a link", printable(p.path))
}

// openBeneath opens p in one step that follows no link out of the root,
// whatever code changes meanwhile. What the agent may read and the code may not
// is its own folder in /proc.
func (p *place) openBeneath(flags uint64) (*os.File, error) {
	dir, err := p.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	for {
		fd, err := unix.Openat2(int(dir.Fd()), p.name, &unix.OpenHow{ //nolint:gosec // a descriptor fits
			Flags:   flags | unix.O_CLOEXEC,
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS,
		})
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), p.path), nil //nolint:gosec // a descriptor fits
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN): // a name changed in the middle of the look-up
			continue
		case errors.Is(err, unix.EXDEV):
			if p.beneath(p.name) == nil { // gVisor says it of pipes, too, which it won't open this way
				return nil, errNotAFile(p.path)
			}
			return nil, p.escapes()
		case errors.Is(err, unix.ENOSYS): // an old kernel; there os.Root follows no link
			return p.root.OpenFile(p.name, int(flags), 0) //nolint:gosec // flags of open fit
		}
		return nil, &fs.PathError{Op: "open", Path: p.path, Err: err}
	}
}

// rootOf gives the innermost root that holds abs.
func (a *Agent) rootOf(abs string) (fileRoot, bool) {
	var best fileRoot
	for _, r := range a.roots {
		if (abs == r.dir || strings.HasPrefix(abs, r.dir+"/")) && len(r.dir) > len(best.dir) {
			best = r
		}
	}
	return best, best.dir != ""
}

// printable gives a name as valid UTF-8.
func printable(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// escaped gives a path percent-encoded if it cannot be put in JSON as it is.
func escaped(name string) string {
	if utf8.ValidString(name) {
		return ""
	}
	return (&url.URL{Path: name}).EscapedPath()
}

// fileError gives an operating system's error a kind, a code and a sentence.
func fileError(err error, name string) error {
	name = printable(name)
	e := func(kind error, code, format string) *errdefs.Error {
		return errdefs.New(kind, code, format, name).WithCause(err)
	}
	if known, ok := errors.AsType[*errdefs.Error](err); ok {
		return known
	}
	switch {
	case isEscape(err):
		return e(errdefs.ErrForbidden, "path-escapes", "%.300q leads out of its folder, by .. or by a link")
	case errors.Is(err, fs.ErrNotExist):
		return e(errdefs.ErrNotFound, "file-not-found", "there is no %.300q in the sandbox").WithHint("list the folder to see what is there")
	case errors.Is(err, fs.ErrPermission):
		return e(errdefs.ErrForbidden, "permission-denied", "%.300q must not be read or changed")
	case errors.Is(err, syscall.ENOTEMPTY), errors.Is(err, fs.ErrExist):
		return e(errdefs.ErrConflict, "file-exists", "%.300q exists already")
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return e(errdefs.ErrExhausted, "disk-full", "the sandbox's disk is full: %.300q was not written").
			WithHint("delete files that are not needed")
	case errors.Is(err, syscall.ENAMETOOLONG):
		return e(errdefs.ErrInvalid, "name-too-long", "%.300q is too long")
	case errors.Is(err, syscall.ENOTDIR):
		return e(errdefs.ErrInvalid, "not-a-directory", "a part of %.300q is not a folder")
	case errors.Is(err, syscall.EISDIR):
		return e(errdefs.ErrInvalid, "is-a-directory", "%.300q is a folder")
	case errors.Is(err, syscall.ELOOP):
		return e(errdefs.ErrInvalid, "too-many-links", "%.300q is a link that leads to itself, or to too many others")
	case errors.Is(err, syscall.EROFS):
		return e(errdefs.ErrForbidden, "read-only", "%.300q is on a file system that cannot be written")
	case errors.Is(err, syscall.EINVAL):
		return e(errdefs.ErrInvalid, "invalid-path", "%.300q is no path that this can be done with")
	}
	return errdefs.New(errdefs.ErrUnavailable, "file-error", "%.300q: %v", name, errors.Unwrap(err)).WithCause(err)
}

// isEscape reports os.Root's refusal. The package has no exported error for
// it, but the text is part of its tests.
func isEscape(err error) bool {
	pe, ok := errors.AsType[*fs.PathError](err)
	if ok {
		return strings.Contains(pe.Err.Error(), "path escapes")
	}
	le, ok := errors.AsType[*os.LinkError](err)
	return ok && strings.Contains(le.Err.Error(), "path escapes")
}
