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
	"time"

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
		if h.Typeflag == tar.TypeDir {
			dirs[h.Name] = h
		}
		body := &readError{r: in}
		if err := a.unpackOne(h, body); err != nil {
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

func (a *Agent) unpackOne(h *tar.Header, body io.Reader) error {
	if !path.IsAbs(h.Name) {
		return errInvalidPath
	}
	p, err := a.place(h.Name)
	if err != nil {
		return err
	}
	defer p.close()
	switch h.Typeflag {
	case tar.TypeDir:
		if p.name == "." {
			return nil
		}
		return p.mkdir(p.name)
	case tar.TypeSymlink:
		if dir := path.Dir(p.name); dir != "." {
			if err := p.mkdir(dir); err != nil {
				return err
			}
		}
		_ = p.root.Remove(p.name) // what stands there is replaced
		if err := p.root.Symlink(h.Linkname, p.name); err != nil {
			return fileError(err, p.path)
		}
		return nil
	case tar.TypeReg:
	default:
		return errNotAFile(p.path)
	}
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
