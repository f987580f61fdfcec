package workspace

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/store"
)

// dirMode and fileMode are those of what people make.
const (
	dirMode  = 0o755
	fileMode = 0o644
)

// below gives the files at a path and below it, sorted.
func (st *state) below(path string) []store.File {
	return slices.SortedFunc(func(yield func(store.File) bool) {
		for f := range maps.Values(st.files) {
			if within(f.Path, path) && !yield(f) {
				return
			}
		}
	}, func(a, b store.File) int { return strings.Compare(a.Path, b.Path) })
}

// parents gives the folders that must be made for a path to be there, or an
// error if a file is in the way.
func (st *state) parents(path string) ([]store.File, error) {
	var dirs []store.File
	for dir := parent(path); !isRoot(dir) && dir != "/"; dir = parent(dir) {
		f, known := st.files[dir]
		if !known {
			dirs = append(dirs, store.File{Path: dir, Type: string(agentapi.TypeDir), Mode: dirMode})
		} else if f.Type != string(agentapi.TypeDir) {
			return nil, errdefs.New(errdefs.ErrInvalid, "not-a-directory", "a part of %.300q is not a folder", printable(path)).WithHint("choose another path, or rename the file that is in the way")
		}
	}
	return dirs, nil
}

// Delete moves a file, or a folder with all it holds, to the session's bin,
// and out of its sandbox if it has one (else nil). Files that were not kept
// are gone.
func (w *Workspace) Delete(ctx context.Context, session, name string, sb *fleet.Sandbox) ([]v1.FileChange, error) {
	path, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	if isRoot(path) {
		return nil, errIsRoot(path)
	}
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return nil, err
	}
	defer unlock()
	var told []v1.FileChange
	if sb != nil { // so that the bin has it as it is now
		if told, err = w.sync(ctx, st, sb); err != nil {
			return nil, err
		}
	}
	files := st.below(path)
	if len(files) == 0 {
		if sb == nil {
			return nil, noFile(path)
		}
		return told, sb.Explain(sb.Agent().Remove(ctx, path)) // a cache, or not there
	}
	change := store.FileChanges{BinTime: time.Now()}
	for _, f := range files {
		change.Delete = append(change.Delete, f.Path)
		if f.Lost == "" {
			change.Bin = append(change.Bin, f)
		}
	}
	told = append(told, w.tell(st, change)...)
	// First the bin: if this ends in between, the file is there twice and not
	// never.
	if err := w.change(context.WithoutCancel(ctx), st, change); err != nil {
		return nil, err
	}
	if sb != nil {
		if err := sb.Agent().Remove(ctx, path); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			back := store.FileChanges{Put: files, UnbinAt: change.BinTime}
			for _, f := range change.Bin {
				back.Unbin = append(back.Unbin, f.Path)
			}
			return nil, errors.Join(sb.Explain(err), w.change(context.WithoutCancel(ctx), st, back))
		}
	}
	return told, nil
}

// Undelete brings back what was deleted last of a path.
func (w *Workspace) Undelete(ctx context.Context, session, name string, sb *fleet.Sandbox) ([]v1.FileChange, error) {
	path, err := cleanPath(name)
	if err != nil {
		return nil, err
	}
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return nil, err
	}
	defer unlock()
	files, at, err := w.store.BinnedFiles(ctx, session, path)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 || at.Before(time.Now().Add(-w.opts.BinFor)) {
		return nil, errdefs.New(errdefs.ErrNotFound, "not-in-bin", "the session has no deleted %.300q any more", printable(path)).
			WithHint("deleted files can be had back for %v; files that were too large to be kept can't", w.opts.BinFor)
	}
	var told []v1.FileChange
	if sb != nil {
		if told, err = w.sync(ctx, st, sb); err != nil {
			return nil, err
		}
	}
	if there := st.below(path); len(there) > 0 {
		return nil, errExists(path).WithHint("rename or delete what stands there first")
	}
	dirs, err := st.parents(path)
	if err != nil {
		return nil, err
	}
	change := store.FileChanges{Put: append(dirs, files...), UnbinAt: at}
	for _, f := range files {
		change.Unbin = append(change.Unbin, f.Path)
	}
	if sb != nil {
		if _, err := w.put(ctx, session, sb, slices.Clone(files)); err != nil {
			return nil, err
		}
	}
	told = append(told, w.tell(st, change)...)
	return told, w.change(context.WithoutCancel(ctx), st, change)
}

// Mkdir makes a folder and those above it. One that exists is a success.
func (w *Workspace) Mkdir(ctx context.Context, session, name string, sb *fleet.Sandbox) (v1.File, []v1.FileChange, error) {
	path, err := cleanPath(name)
	if err != nil {
		return v1.File{}, nil, err
	}
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return v1.File{}, nil, err
	}
	defer unlock()
	if sb != nil {
		if _, err := sb.Agent().Mkdir(ctx, path); err != nil {
			return v1.File{}, nil, sb.Explain(err)
		}
		told, err := w.sync(ctx, st, sb)
		return st.view(path), told, err
	}
	dirs, err := st.parents(path)
	if err != nil {
		return v1.File{}, nil, err
	}
	if f, known := st.files[path]; known && f.Type != string(agentapi.TypeDir) {
		return v1.File{}, nil, errExists(path).WithHint("choose another name, or delete what stands there first")
	} else if !known && !isRoot(path) {
		dirs = append(dirs, store.File{Path: path, Type: string(agentapi.TypeDir), Mode: dirMode})
	}
	change := store.FileChanges{Put: dirs}
	told := w.tell(st, change)
	err = w.change(ctx, st, change)
	return st.view(path), told, err
}

// Move renames a file or folder, also across folders.
func (w *Workspace) Move(ctx context.Context, session string, move v1.MoveFile, sb *fleet.Sandbox) (v1.File, []v1.FileChange, error) {
	from, err := cleanPath(move.From)
	if err != nil {
		return v1.File{}, nil, err
	}
	to, err := cleanPath(move.To)
	if err != nil {
		return v1.File{}, nil, err
	}
	switch {
	case isRoot(from):
		return v1.File{}, nil, errIsRoot(from)
	case isRoot(to):
		return v1.File{}, nil, errIsRoot(to)
	case within(to, from):
		return v1.File{}, nil, errdefs.New(errdefs.ErrInvalid, "invalid-move", "a folder cannot be moved into itself").WithHint("choose another folder")
	}
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return v1.File{}, nil, err
	}
	defer unlock()
	if sb != nil {
		if _, err := sb.Agent().Move(ctx, agentapi.MoveRequest{From: from, To: to, Overwrite: move.Overwrite}); err != nil {
			return v1.File{}, nil, sb.Explain(err)
		}
		told, err := w.sync(ctx, st, sb)
		return st.view(to), told, err
	}
	files, there := st.below(from), st.below(to)
	if len(files) == 0 {
		return v1.File{}, nil, noFile(from)
	}
	if len(there) > 0 && (!move.Overwrite || len(there) > 1) {
		return v1.File{}, nil, errExists(to).WithHint("set overwrite to replace a file")
	}
	dirs, err := st.parents(to)
	if err != nil {
		return v1.File{}, nil, err
	}
	change := store.FileChanges{Put: dirs}
	for _, f := range files {
		change.Delete = append(change.Delete, f.Path)
		f.Path = to + f.Path[len(from):]
		change.Put = append(change.Put, f)
	}
	told := w.tell(st, change)
	err = w.change(context.WithoutCancel(ctx), st, change)
	return st.view(to), told, err
}
