package workspace

import (
	"archive/tar"
	"cmp"
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/store"
)

// Why a file is not kept.
const (
	lostTooLarge    = "file-too-large"
	lostSessionFull = "session-full"
	lostUnreadable  = "unreadable"
)

// savers is how many files are made safe on disk at one time while the next
// ones arrive.
const savers = 4

// maxChanges bounds the changes that are told of one sync. Nobody reads more.
const maxChanges = 1000

// quiet is a folder of the agent's own, whose changes are kept and not told.
const quiet = agentapi.WorkspaceDir + "/.caesarion"

// Sync keeps what changed in a sandbox since the last time, and says what did.
// A sandbox that has not got the session's files yet gets them first.
//
// If it ends in the middle, what has arrived by then is kept.
func (w *Workspace) Sync(ctx context.Context, session string, sb *fleet.Sandbox) ([]v1.FileChange, error) {
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return w.sync(ctx, st, sb)
}

// sync is Sync with the lock held.
func (w *Workspace) sync(ctx context.Context, st *state, sb *fleet.Sandbox) ([]v1.FileChange, error) {
	defer sb.Use()()
	tree, err := w.list(ctx, sb)
	if err != nil {
		return nil, err
	}
	if st.sandbox != string(sb.ID()) {
		if err := w.restore(ctx, st, sb, tree); err != nil {
			return nil, err
		}
		if tree, err = w.list(ctx, sb); err != nil {
			return nil, err
		}
	}
	return w.take(ctx, st, sb, tree)
}

func (w *Workspace) list(ctx context.Context, sb *fleet.Sandbox) (agentapi.Tree, error) {
	tree, err := sb.Agent().Tree(ctx, agentapi.TreeRequest{Paths: roots, Skip: skipped})
	if err != nil {
		return tree, sb.Explain(err)
	}
	if len(tree.Entries) > agentapi.MaxTree {
		tree.Entries, tree.Truncated = tree.Entries[:agentapi.MaxTree], true
	}
	tree.Entries = slices.DeleteFunc(tree.Entries, func(e agentapi.TreeEntry) bool {
		// What an agent says is foreign: only what could have been asked for counts.
		clean, err := cleanPath(e.RawPath())
		return err != nil || clean != e.RawPath() || slices.Contains(roots, clean)
	})
	return tree, nil
}

// plan is what a listing means for what is kept.
type plan struct {
	change store.FileChanges
	fetch  []store.File // what has to be read
}

// take compares a listing with what is kept, reads what changed and keeps it.
func (w *Workspace) take(ctx context.Context, st *state, sb *fleet.Sandbox, tree agentapi.Tree) ([]v1.FileChange, error) {
	p := w.plan(ctx, st, tree)
	st.set(func() { st.cut = tree.Truncated })
	var pinned []string
	var failure error
	if len(p.fetch) > 0 {
		var got []store.File
		got, pinned, failure = w.fetch(ctx, sb, p.fetch)
		p.change.Put = append(p.change.Put, got...)
	}
	defer w.blobs.unpin(pinned...)
	if len(pinned) > 0 {
		if err := w.blobs.Sync(pinned); err != nil {
			return nil, err
		}
	}
	told := w.tell(st, p.change)
	// Also when ctx has ended: what has arrived is not thrown away.
	if err := w.change(context.WithoutCancel(ctx), st, p.change); err != nil {
		return nil, errors.Join(err, failure)
	}
	return told, failure
}

func (w *Workspace) plan(ctx context.Context, st *state, tree agentapi.Tree) *plan {
	p := &plan{}
	seen := make(map[string]bool, len(tree.Entries))
	used, _ := w.store.BinnedBytes(ctx, st.session) // if it can't be read, the write below can't be made either
	var again []store.File
	for _, e := range tree.Entries {
		f := store.File{Path: e.RawPath(), Type: string(e.Type), Mode: e.Mode & 0o777, Mtime: e.ModifiedNanos, Target: e.Target}
		if e.Type == agentapi.TypeOther || len(f.Path) > maxPath {
			continue
		}
		seen[f.Path] = true
		old, known := st.files[f.Path]
		if known && old.Type != f.Type {
			known = false
		}
		if e.Type != agentapi.TypeFile {
			if f.Type == string(agentapi.TypeDir) {
				f.Mtime = 0 // it says nothing, and changes with each entry
			}
			if !known || old.Mode != f.Mode || old.Target != f.Target {
				p.change.Put = append(p.change.Put, f)
			}
			continue
		}
		f.Size = max(e.SizeBytes, 0)
		if known && old.Size == f.Size && old.Mtime == f.Mtime {
			switch {
			case old.Hash != "":
				used += f.Size
				if old.Mode != f.Mode {
					old.Mode = f.Mode
					p.change.Put = append(p.change.Put, old)
				}
				continue
			case old.Lost == lostUnreadable, old.Lost == lostTooLarge && f.Size > w.opts.FileBytes:
				continue
			}
		}
		again = append(again, f)
	}
	if !tree.Truncated {
		for path := range st.files {
			if !seen[path] {
				p.change.Delete = append(p.change.Delete, path)
			}
		}
	}
	// The small ones first: of a session that is full, most files are kept.
	slices.SortFunc(again, func(a, b store.File) int { return cmp.Or(cmp.Compare(a.Size, b.Size), strings.Compare(a.Path, b.Path)) })
	for _, f := range again {
		switch {
		case f.Size > w.opts.FileBytes:
			f.Lost = lostTooLarge
		case used+f.Size > w.opts.SessionBytes:
			f.Lost = lostSessionFull
		default:
			used += f.Size
			p.fetch = append(p.fetch, f)
			continue
		}
		if st.files[f.Path] != f {
			p.change.Put = append(p.change.Put, f)
		}
	}
	return p
}

// fetch reads files out of a sandbox. It gives the ones that arrived, also
// when it fails half-way; their blobs are pinned.
func (w *Workspace) fetch(ctx context.Context, sb *fleet.Sandbox, files []store.File) (got []store.File, pinned []string, err error) {
	req := agentapi.PackRequest{Paths: make([]string, len(files))}
	for i, f := range files {
		req.Paths[i] = url.PathEscape(f.Path)
	}
	body, err := sb.Agent().Pack(ctx, req)
	if err != nil {
		return nil, nil, sb.Explain(err)
	}
	defer body.Close()
	type arrived struct {
		file   store.File
		staged *staged
	}
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		saveErr error
		queue   = make(chan arrived, savers)
	)
	for range savers {
		wg.Go(func() {
			for a := range queue {
				err := w.blobs.keep(ctx, a.staged)
				mu.Lock()
				if err != nil {
					saveErr = errors.Join(saveErr, err)
				} else {
					got, pinned = append(got, a.file), append(pinned, a.file.Hash)
				}
				mu.Unlock()
			}
		})
	}
	in := tar.NewReader(body)
	next, room := 0, w.opts.SessionBytes
	readErr := func() error {
		for {
			h, err := in.Next()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			i, err := strconv.Atoi(h.Name)
			if err != nil || i < next || i >= len(files) || h.Typeflag != tar.TypeReg {
				return errdefs.New(errdefs.ErrUnavailable, "sandbox-bad-answer", "the sandbox answered what cannot be right: files that were not asked for").WithHint("start a new sandbox")
			}
			f := files[i]
			for ; next < i; next++ {
				w.unreadable(&got, &mu, files[next])
			}
			next++
			f.Size, f.Mode, f.Mtime = h.Size, uint32(h.Mode)&0o777, h.ModTime.UnixNano() //nolint:gosec // masked
			if f.Size > w.opts.FileBytes || f.Size > room {                              // it has grown since it was listed
				f.Lost = lostTooLarge
				mu.Lock()
				got = append(got, f)
				mu.Unlock()
				continue
			}
			room -= f.Size
			s, err := w.blobs.take(in, f.Size)
			if err != nil {
				return err
			}
			f.Hash = s.hash
			queue <- arrived{f, s}
		}
	}()
	close(queue)
	wg.Wait()
	if readErr == nil {
		for ; next < len(files); next++ {
			w.unreadable(&got, &mu, files[next])
		}
	} else if ctx.Err() != nil {
		readErr = context.Cause(ctx)
	} else if _, ok := errors.AsType[*errdefs.Error](readErr); !ok {
		readErr = sb.Explain(errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "the sandbox ended while its files were read").WithHint("what had arrived is kept; the next run starts a new sandbox").WithCause(readErr))
	}
	return got, pinned, errors.Join(readErr, saveErr)
}

// unreadable notes a file that was listed and then not sent. One that has
// been deleted meanwhile disappears with the next sync.
func (w *Workspace) unreadable(got *[]store.File, mu *sync.Mutex, f store.File) {
	f.Lost = lostUnreadable
	mu.Lock()
	defer mu.Unlock()
	*got = append(*got, f)
}

// tell says what a change does to files, for people: folders only when nothing
// in them tells of them.
func (w *Workspace) tell(st *state, c store.FileChanges) []v1.FileChange {
	var told []v1.FileChange
	busy := map[string]bool{} // folders with a change below them
	add := func(f store.File, change string) {
		if f.Type == string(agentapi.TypeDir) && busy[f.Path] || f.Path == quiet || strings.HasPrefix(f.Path, quiet+"/") {
			return
		}
		for dir := parent(f.Path); !busy[dir] && dir != "/"; dir = parent(dir) {
			busy[dir] = true
		}
		told = append(told, v1.FileChange{Path: printable(f.Path), Change: change, SizeBytes: f.Size})
	}
	put := slices.SortedFunc(slices.Values(c.Put), func(a, b store.File) int { return strings.Compare(b.Path, a.Path) })
	for _, f := range put { // what is in a folder before the folder
		old, known := st.files[f.Path]
		switch {
		case !known || old.Type != f.Type:
			add(f, "created")
		case f.Type == string(agentapi.TypeFile) && (old.Size != f.Size || old.Hash != f.Hash):
			add(f, "modified")
		case old.Target != f.Target:
			add(f, "modified")
		}
	}
	gone := slices.SortedFunc(slices.Values(c.Delete), func(a, b string) int { return strings.Compare(b, a) })
	for _, path := range gone {
		f := st.files[path]
		f.Size = 0
		add(f, "deleted")
	}
	slices.SortFunc(told, func(a, b v1.FileChange) int { return strings.Compare(a.Path, b.Path) })
	if len(told) > maxChanges {
		told = told[:maxChanges]
	}
	return told
}
