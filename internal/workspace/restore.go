package workspace

import (
	"archive/tar"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/store"
)

// Restore puts a session's files into a sandbox. What is there already, by
// name, is left as it is.
func (w *Workspace) Restore(ctx context.Context, session string, sb *fleet.Sandbox) error {
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return err
	}
	defer unlock()
	if st.sandbox == string(sb.ID()) {
		return nil
	}
	defer sb.Use()()
	tree := agentapi.Tree{}
	if len(st.files) > 0 {
		if tree, err = w.list(ctx, sb); err != nil {
			return err
		}
	}
	return w.restore(ctx, st, sb, tree)
}

// restore puts the files that are not in tree into the sandbox and makes it
// the one that has them. The lock is held.
func (w *Workspace) restore(ctx context.Context, st *state, sb *fleet.Sandbox, tree agentapi.Tree) error {
	there := make(map[string]bool, len(tree.Entries))
	for _, e := range tree.Entries {
		there[e.RawPath()] = true
	}
	change := store.FileChanges{Sandbox: string(sb.ID())}
	var put []store.File
	for _, f := range st.files {
		switch {
		case there[f.Path]:
		case f.Lost != "":
			change.Delete = append(change.Delete, f.Path) // it went with the sandbox that had it
		default:
			put = append(put, f)
		}
	}
	if len(put) > 0 {
		damaged, err := w.put(ctx, st.session, sb, put)
		if err != nil {
			return err
		}
		change.Delete = append(change.Delete, damaged...)
	}
	return w.change(context.WithoutCancel(ctx), st, change)
}

// impossible are the failures of files that no sandbox can hold: one below
// another file, for instance. An honest listing has none; what a broken one has
// must not keep a session from its other files.
var impossible = map[string]bool{
	"invalid-path": true, "name-too-long": true, "path-too-long": true, "path-escapes": true, "not-a-directory": true,
	"is-a-directory": true, "file-exists": true, "too-many-links": true, "not-a-file": true, "file-not-found": true,
}

// absent gives the paths of files that are not in a sandbox.
func (w *Workspace) absent(ctx context.Context, sb *fleet.Sandbox, files []store.File) []string {
	tree, err := w.list(ctx, sb)
	if err != nil || tree.Truncated {
		return nil // the next sync finds them gone
	}
	there := make(map[string]bool, len(tree.Entries))
	for _, e := range tree.Entries {
		there[e.RawPath()] = true
	}
	var paths []string
	for _, f := range files {
		if !there[f.Path] {
			paths = append(paths, f.Path)
		}
	}
	return paths
}

// put writes files into a sandbox. It gives the paths whose bytes are lost.
func (w *Workspace) put(ctx context.Context, session string, sb *fleet.Sandbox, files []store.File) (damaged []string, err error) {
	slices.SortFunc(files, func(a, b store.File) int { return strings.Compare(a.Path, b.Path) }) // folders before what is in them
	total := int64(0)
	for _, f := range files {
		total += f.Size
	}
	r, pipe := io.Pipe()
	defer r.Close() // ends the writer if the sandbox stops reading
	written := make(chan []string, 1)
	go func() {
		damaged, err := w.pack(ctx, pipe, files, func(done int64) {
			if w.opts.Progress != nil {
				w.opts.Progress(session, done, total)
			}
		})
		_ = pipe.CloseWithError(err) // nil: the end
		written <- damaged
	}()
	done, err := sb.Agent().Unpack(ctx, r)
	_ = r.Close()
	damaged = <-written
	if err != nil {
		return nil, sb.Explain(err)
	}
	for _, f := range done.Failures {
		if !impossible[f.Code] {
			kind := errdefs.ErrUnavailable
			if f.Code == "disk-full" {
				kind = errdefs.ErrExhausted
			}
			return nil, errdefs.New(kind, "restore-incomplete", "%d files could not be put into the sandbox: %s", done.Failed, f.Detail).
				WithHint("delete what is not needed, or give the sandbox more disk")
		}
	}
	if done.Failed > 0 {
		damaged = append(damaged, w.absent(ctx, sb, files)...)
		w.log.Warn("files of a session cannot be where they are said to be", "session_id", session, "sandbox_id", string(sb.ID()), "files", done.Failed)
	}
	return damaged, nil
}

func (w *Workspace) pack(ctx context.Context, to io.Writer, files []store.File, progress func(int64)) (damaged []string, err error) {
	out := tar.NewWriter(to)
	var done int64
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	for _, f := range files {
		h := &tar.Header{Format: tar.FormatPAX, Name: f.Path, Mode: int64(f.Mode), ModTime: time.Unix(0, f.Mtime)}
		switch f.Type {
		case string(agentapi.TypeDir):
			h.Typeflag = tar.TypeDir
		case string(agentapi.TypeSymlink):
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Target
		default:
			h.Typeflag, h.Size = tar.TypeReg, f.Size
		}
		if h.Typeflag != tar.TypeReg {
			if err := out.WriteHeader(h); err != nil {
				return damaged, err
			}
			continue
		}
		blob, err := w.blobs.open(ctx, f.Hash)
		if err == nil && blob.Size() != f.Size {
			_ = blob.Close()
			err = errdefs.New(errdefs.ErrUnavailable, "file-damaged", "the kept bytes have another size")
		}
		if err != nil && errdefs.CodeOf(err) != "file-damaged" {
			return damaged, err // the database is away: nothing is known of them
		}
		if err != nil {
			w.log.Error("the bytes of a session's file are lost", "err", err)
			damaged = append(damaged, f.Path)
			continue
		}
		err = out.WriteHeader(h)
		if err == nil {
			_, err = io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{blob}, *buf)
		}
		_ = blob.Close() // read only
		if err != nil {
			return damaged, err
		}
		done += f.Size
		progress(done)
	}
	return damaged, out.Close()
}
