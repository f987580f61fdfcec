package workspace

import (
	"archive/zip"
	"compress/flate"
	"context"
	"encoding/hex"
	"io"
	"io/fs"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/store"
)

// view describes what is kept at a path, without what is in it.
func (st *state) view(p string) v1.File {
	f, known := st.files[p]
	if !known {
		f = store.File{Path: p, Type: string(agentapi.TypeDir), Mode: dirMode} // a root
	}
	return describe(f)
}

func describe(f store.File) v1.File {
	out := v1.File{
		Name: printable(path.Base(f.Path)), Path: printable(f.Path), Type: f.Type, SizeBytes: f.Size,
		ModifiedAt: time.Unix(0, f.Mtime).UTC(), Target: printable(f.Target),
	}
	if !utf8.ValidString(f.Path) {
		out.Escaped = (&url.URL{Path: f.Path}).EscapedPath()
	}
	mode := fs.FileMode(f.Mode)
	switch f.Type {
	case string(agentapi.TypeDir):
		mode |= fs.ModeDir
	case string(agentapi.TypeSymlink):
		mode |= fs.ModeSymlink
	}
	out.Mode = mode.String()
	if f.Lost != "" {
		out.Kept = new(bool)
	}
	return out
}

// Stat describes a file as it is kept, or a folder with its entries.
func (w *Workspace) Stat(ctx context.Context, session, name string) (v1.File, error) {
	p, err := cleanPath(name)
	if err != nil {
		return v1.File{}, err
	}
	st, done, err := w.look(ctx, session)
	if err != nil {
		return v1.File{}, err
	}
	defer done()
	f, known := st.files[p]
	if !known && !isRoot(p) {
		return v1.File{}, noFile(p)
	}
	out := st.view(p)
	if known && f.Type != string(agentapi.TypeDir) {
		return out, nil
	}
	out.Entries = []v1.File{}
	for _, f := range st.files {
		if parent(f.Path) == p {
			out.Entries = append(out.Entries, describe(f))
		}
	}
	slices.SortFunc(out.Entries, func(a, b v1.File) int { return strings.Compare(a.Name, b.Name) })
	if isRoot(p) {
		out.Notice = w.notice(st)
	}
	return out, nil
}

// Mark says in a sandbox's listing which files are not kept, as of the last
// sync.
func (w *Workspace) Mark(ctx context.Context, session string, listing *v1.File) error {
	st, done, err := w.look(ctx, session)
	if err != nil {
		return err
	}
	defer done()
	mark := func(f *v1.File) {
		if known, ok := st.files[f.Path]; ok && known.Lost != "" {
			f.Kept = new(bool)
		}
	}
	mark(listing)
	for i := range listing.Entries {
		mark(&listing.Entries[i])
	}
	if isRoot(listing.Path) {
		listing.Notice = w.notice(st)
	}
	return nil
}

// Kept is the bytes of a file as they are kept.
type Kept struct {
	Blob
	Name       string
	ModifiedAt time.Time
	ETag       string
}

// Open opens a file as it is kept, for as long as ctx lasts.
func (w *Workspace) Open(ctx context.Context, session, name string) (*Kept, error) {
	p, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	st, done, err := w.look(ctx, session)
	if err != nil {
		return nil, err
	}
	defer done() // an open file stays readable, whatever becomes of its name
	f, known := st.files[p]
	for range 8 { // as a sandbox would, links are followed inside
		if !known || f.Type != string(agentapi.TypeSymlink) {
			break
		}
		target := f.Target
		if !path.IsAbs(target) {
			target = path.Join(parent(p), target)
		}
		if p, err = cleanPath(target); err != nil {
			return nil, err
		}
		f, known = st.files[p]
	}
	switch {
	case isRoot(p), known && f.Type == string(agentapi.TypeDir):
		return nil, errdefs.New(errdefs.ErrInvalid, "is-a-directory", "%.300q is a folder", printable(p)).WithHint("download it as an archive")
	case !known || f.Type != string(agentapi.TypeFile):
		return nil, noFile(p)
	case f.Lost != "":
		return nil, errdefs.New(errdefs.ErrNotFound, "file-not-kept", "%.300q was not kept: it is only in a sandbox that has ended", printable(p)).
			WithHint("make it again by running the code that made it")
	}
	// What frees bytes waits for mu first, so they are there.
	blob, err := w.blobs.open(ctx, f.Hash)
	if err != nil {
		w.log.Error("the bytes of a session's file are lost", "session_id", session, "err", err)
		return nil, err
	}
	return &Kept{Blob: blob, Name: path.Base(p), ModifiedAt: time.Unix(0, f.Mtime), ETag: `"` + hex.EncodeToString([]byte(f.Hash))[:32] + `"`}, nil
}

// Archive gives a function that writes a folder as it is kept as zip. Links
// are kept as links; files that are not kept are left out.
func (w *Workspace) Archive(ctx context.Context, session, name string) (func(io.Writer) error, error) {
	p, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	st, done, err := w.look(ctx, session)
	if err != nil {
		return nil, err
	}
	defer done()
	if f, known := st.files[p]; !known && !isRoot(p) {
		return nil, noFile(p)
	} else if known && f.Type != string(agentapi.TypeDir) {
		return nil, errdefs.New(errdefs.ErrInvalid, "not-a-directory", "%.300q is not a folder", printable(p)).WithHint("ask for the file itself")
	}
	files := st.below(p)
	var hashes []string
	for _, f := range files {
		if f.Hash != "" {
			hashes = append(hashes, f.Hash)
			w.blobs.pin(f.Hash)
		}
	}
	return func(to io.Writer) error {
		defer w.blobs.unpin(hashes...)
		z := zip.NewWriter(to)
		z.RegisterCompressor(zip.Deflate, func(to io.Writer) (io.WriteCloser, error) { return flate.NewWriter(to, flate.BestSpeed) })
		for _, f := range files {
			if f.Path == p || f.Lost != "" {
				continue
			}
			if err := w.archiveOne(ctx, z, f, f.Path[len(p)+1:]); err != nil {
				return err
			}
		}
		return z.Close()
	}, nil
}

func (w *Workspace) archiveOne(ctx context.Context, z *zip.Writer, f store.File, inside string) error {
	head := &zip.FileHeader{Name: inside, Modified: time.Unix(0, f.Mtime).UTC(), Method: zip.Store}
	switch f.Type {
	case string(agentapi.TypeDir):
		head.Name += "/"
		head.SetMode(fs.ModeDir | fs.FileMode(f.Mode))
		_, err := z.CreateHeader(head)
		return err
	case string(agentapi.TypeSymlink):
		head.SetMode(fs.ModeSymlink | 0o777)
		out, err := z.CreateHeader(head)
		if err == nil {
			_, err = io.WriteString(out, f.Target)
		}
		return err
	}
	head.Method = zip.Deflate
	head.SetMode(fs.FileMode(f.Mode))
	blob, err := w.blobs.open(ctx, f.Hash)
	if err != nil {
		return err
	}
	defer blob.Close()
	out, err := z.CreateHeader(head)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, blob)
	return err
}
