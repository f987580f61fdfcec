package agent

import (
	"archive/tar"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// maxUnpackFailures bounds the failures that are told one by one.
const maxUnpackFailures = 100

// postPack sends many files as one tar archive: a call for each would cost
// more than the bytes of most.
func postPack(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.PackRequest](w, r)
	if err != nil {
		return err
	}
	if len(req.Paths) > agentapi.MaxTree {
		return errdefs.New(errdefs.ErrTooLarge, "too-many-files", "at most %d files can be asked for at once", agentapi.MaxTree)
	}
	w.Header().Set("Content-Type", "application/x-tar")
	out := tar.NewWriter(w)
	for i, p := range req.Paths {
		if err := a.packOne(out, strconv.Itoa(i), p); err != nil {
			// The answer has begun, so all that can be said is that it is not whole.
			panic(http.ErrAbortHandler)
		}
	}
	if err := out.Close(); err != nil {
		panic(http.ErrAbortHandler)
	}
	return nil
}

// packOne writes a file. Its error is one of writing: a file that can't be read is left out.
func (a *Agent) packOne(out *tar.Writer, name, encoded string) error {
	raw, err := url.PathUnescape(encoded)
	if err != nil {
		return nil //nolint:nilerr // no such file
	}
	p, err := a.place(raw)
	if err != nil {
		return nil //nolint:nilerr // it has just been deleted or replaced
	}
	defer p.close()
	f, info, err := p.open()
	if err != nil {
		return nil //nolint:nilerr // it has just been deleted or replaced
	}
	defer f.Close()
	err = out.WriteHeader(&tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Size: info.Size(),
		Mode: int64(info.Mode().Perm()), ModTime: info.ModTime(),
	})
	if err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	// Exactly as many bytes as the header says. A file that shrinks meanwhile is
	// filled up; its date has changed then, and the next listing shows that.
	body := io.LimitReader(io.MultiReader(&endOnError{f}, zeros{}), info.Size())
	_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{body}, *buf)
	return err
}

// endOnError turns a file that can no longer be read into one that has ended.
type endOnError struct{ f *os.File }

func (r *endOnError) Read(p []byte) (int, error) {
	n, err := r.f.Read(p)
	if err != nil {
		err = io.EOF
	}
	return n, err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// putUnpack writes what a tar archive holds.
func putUnpack(a *Agent, w http.ResponseWriter, r *http.Request) error {
	in := tar.NewReader(r.Body)
	u := &unpacker{agent: a}
	defer u.close()
	var done agentapi.Unpacked
	dirs := map[string]*tar.Header{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errdefs.New(errdefs.ErrInvalid, "upload-incomplete", "the archive ended in the middle; what was whole was kept").WithCause(err)
		}
		if err := a.ownRoom(h.Size); err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			dirs[h.Name] = h
		}
		body := &readError{r: in}
		if err := u.one(h, body); err != nil {
			if body.err != nil {
				return errdefs.New(errdefs.ErrInvalid, "upload-incomplete", "the archive ended in the middle; what was whole was kept").WithCause(body.err)
			}
			fail(&done, h.Name, err)
			continue
		}
		done.Entries++
	}
	for name, h := range dirs { // last, as a folder that must not be written takes no files
		if err := a.chmod(name, h); err != nil {
			fail(&done, name, err)
		}
	}
	writeJSON(w, http.StatusOK, done)
	return nil
}

// fail notes a file that could not be written.
func fail(done *agentapi.Unpacked, name string, err error) {
	done.Failed++
	if len(done.Failures) >= maxUnpackFailures {
		return
	}
	f := agentapi.UnpackFailure{Path: printable(name), Code: "file-error", Detail: err.Error()}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		f.Code, f.Detail = e.Code, e.Msg
	}
	done.Failures = append(done.Failures, f)
}

// unpacker keeps the folder open that it wrote to last: the files of one come
// together, and inside gVisor each step of a path costs.
type unpacker struct {
	agent *Agent
	path  string
	dir   *os.File
}

func (u *unpacker) close() {
	if u.dir != nil {
		_ = u.dir.Close()
		u.dir = nil
	}
}

// folder opens a folder, which is made if need be.
func (u *unpacker) folder(name string) (*os.File, error) {
	if u.dir != nil && u.path == name {
		return u.dir, nil
	}
	u.close()
	p, err := u.agent.place(name)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if p.name != "." {
		if err := p.beneath(p.name); err != nil {
			return nil, err
		}
		if err := p.mkdir(p.name); err != nil {
			return nil, err
		}
	}
	dir, err := p.root.OpenFile(p.name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fileError(err, p.path)
	}
	u.path, u.dir = name, dir
	return dir, nil
}

func (u *unpacker) one(h *tar.Header, body io.Reader) error {
	name := path.Clean(h.Name)
	if !path.IsAbs(name) || strings.ContainsRune(name, 0) || len(name) > maxPath {
		return errInvalidPath
	}
	switch h.Typeflag {
	case tar.TypeDir:
		_, err := u.folder(name)
		return err
	case tar.TypeSymlink, tar.TypeReg:
	default:
		return errNotAFile(name)
	}
	dir, err := u.folder(path.Dir(name))
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeSymlink {
		return u.link(dir, name, h.Linkname)
	}
	base := path.Base(name)
	fd, err := unix.Openat(int(dir.Fd()), base, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EEXIST) {
		return u.replace(name, h, body)
	}
	if err != nil {
		return fileError(err, name)
	}
	if err := fill(os.NewFile(uintptr(fd), base), h, body); err != nil { //nolint:gosec // a descriptor fits
		_ = unix.Unlinkat(int(dir.Fd()), base, 0)
		return fileError(err, name)
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, unix.NsecToTimespec(h.ModTime.UnixNano())}
	if err := unix.UtimesNanoAt(int(dir.Fd()), base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fileError(err, name)
	}
	return nil
}

// fill writes a new file and closes it.
func fill(f *os.File, h *tar.Header, body io.Reader) error {
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{body}, *buf)
	return errors.Join(err, f.Chmod(h.FileInfo().Mode().Perm()), f.Close())
}

// link makes a link in place of what has its name, unless that is a folder.
func (u *unpacker) link(dir *os.File, name, target string) error {
	base := path.Base(name)
	_ = unix.Unlinkat(int(dir.Fd()), base, 0)
	if err := unix.Symlinkat(target, int(dir.Fd()), base); err != nil {
		return fileError(err, name)
	}
	return nil
}

// replace writes a file in place of another, at once.
func (u *unpacker) replace(name string, h *tar.Header, body io.Reader) error {
	p, err := u.agent.place(name)
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.write(body, h.Size); err != nil {
		return err
	}
	if err := p.root.Chmod(p.name, h.FileInfo().Mode().Perm()); err != nil {
		return fileError(err, p.path)
	}
	if err := p.root.Chtimes(p.name, time.Time{}, h.ModTime); err != nil {
		return fileError(err, p.path)
	}
	return nil
}

// chmod gives a folder its mode.
func (a *Agent) chmod(name string, h *tar.Header) error {
	p, err := a.place(name)
	if err != nil {
		return err
	}
	defer p.close()
	if p.name == "." {
		return nil
	}
	if err := p.root.Chmod(p.name, h.FileInfo().Mode().Perm()); err != nil {
		return fileError(err, p.path)
	}
	return nil
}
