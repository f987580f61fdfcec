package agent

import (
	"archive/zip"
	"compress/flate"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

func getArchive(a *Agent, w http.ResponseWriter, r *http.Request) error {
	p, err := a.place(r.URL.Query().Get("path"))
	if err != nil {
		return err
	}
	defer p.close()
	f, err := p.stat()
	if err != nil {
		return err
	}
	if f.Type != agentapi.TypeDir {
		return errdefs.New(errdefs.ErrInvalid, "not-a-directory", "%.300q is not a folder", printable(p.path))
	}
	w.Header().Set("Content-Type", "application/zip")
	if err := p.archive(w); err != nil {
		// The answer has begun, so all that can be said is that it is not whole.
		panic(http.ErrAbortHandler)
	}
	return nil
}

// archive writes the folder as zip. Links are kept as links and never
// followed; pipes, sockets and devices are left out, and so is what ends or
// cannot be read while the archive is made.
func (p *place) archive(w io.Writer) error {
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	err := fs.WalkDir(p.root.FS(), p.name, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				return nil
			}
			return err
		}
		inside := strings.TrimPrefix(strings.TrimPrefix(name, p.name), "/")
		if p.name == "." {
			inside = name
		}
		if inside == "" || inside == "." {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil //nolint:nilerr // it has just been deleted
		}
		return p.archiveEntry(z, name, inside, info)
	})
	return errors.Join(err, z.Close())
}

func (p *place) archiveEntry(z *zip.Writer, name, inside string, info fs.FileInfo) error {
	// A backslash parts folders where some unpack: "..\\..\\x" would lead out
	// there. The format has only the slash.
	inside = strings.ReplaceAll(inside, `\`, "_")
	head := &zip.FileHeader{Name: inside, Modified: info.ModTime().UTC(), Method: zip.Deflate}
	head.SetMode(info.Mode())
	switch {
	case info.IsDir():
		head.Name += "/"
		head.Method = zip.Store
		_, err := z.CreateHeader(head)
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := p.root.Readlink(name)
		if err != nil {
			return nil //nolint:nilerr // it has just been deleted
		}
		head.Method = zip.Store
		out, err := z.CreateHeader(head)
		if err != nil {
			return err
		}
		_, err = io.WriteString(out, target)
		return err
	case !info.Mode().IsRegular():
		return nil
	}
	src, _, err := (&place{root: p.root, name: name, path: name}).open()
	if err != nil {
		return nil //nolint:nilerr // it has just been deleted or replaced
	}
	defer src.Close()
	out, err := z.CreateHeader(head)
	if err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	_, err = io.CopyBuffer(out, struct{ io.Reader }{src}, *buf)
	return err
}
