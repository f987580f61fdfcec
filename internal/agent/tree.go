package agent

import (
	"errors"
	"net/http"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// maxTreeDepth bounds the folders that are held open at one time.
	maxTreeDepth = 128
	// maxTreeBytes bounds the names of one recursive listing.
	maxTreeBytes = 12 << 20
)

func getTree(a *Agent, w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	limit := agentapi.MaxTree
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > agentapi.MaxTree {
			return errdefs.New(errdefs.ErrInvalid, "invalid-limit", "limit must be a number from 1 to %d", agentapi.MaxTree)
		}
		limit = n
	}
	walk := &treeWalk{skip: q["skip"], limit: limit, tree: agentapi.Tree{Entries: []agentapi.TreeEntry{}}}
	for _, name := range q["path"] {
		if err := walk.root(a, name); err != nil {
			return err
		}
	}
	writeJSON(w, http.StatusOK, walk.tree)
	return nil
}

// treeWalk makes a recursive listing. It works on descriptors, one stat a
// file: inside gVisor system calls are what it costs.
type treeWalk struct {
	skip  []string
	limit int
	bytes int
	tree  agentapi.Tree
}

func (t *treeWalk) root(a *Agent, name string) error {
	p, err := a.place(name)
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	}
	defer p.close()
	if err := p.beneath(p.name); err != nil {
		return err
	}
	dir, err := p.root.OpenFile(p.name, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NONBLOCK, 0)
	if err != nil {
		err = fileError(err, p.path)
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil
		}
		return err
	}
	t.walk(dir, p.path, 0)
	return nil
}

// walk lists a folder and closes it. What can't be read is left out.
func (t *treeWalk) walk(dir *os.File, at string, depth int) {
	defer dir.Close()
	names, _ := dir.Readdirnames(t.limit + len(t.skip) + 1) // what came before an error is of use
	slices.Sort(names)
	for _, name := range names {
		if slices.Contains(t.skip, name) || isUnfinished(name) {
			continue
		}
		full := path.Join(at, name)
		if len(t.tree.Entries) >= t.limit || t.bytes > maxTreeBytes || len(full) > maxPath {
			t.tree.Truncated = true
			return
		}
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			continue // it has just been deleted
		}
		e := agentapi.TreeEntry{
			Path: printable(full), Escaped: escaped(full), Type: agentapi.TypeOther,
			Mode: st.Mode & 0o777, ModifiedNanos: st.Mtim.Nano(),
		}
		t.bytes += len(full) + len(e.Escaped)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			e.Type, e.SizeBytes = agentapi.TypeFile, st.Size
		case unix.S_IFDIR:
			e.Type = agentapi.TypeDir
		case unix.S_IFLNK:
			e.Type = agentapi.TypeSymlink
			target := make([]byte, maxPath+1)
			if n, err := unix.Readlinkat(int(dir.Fd()), name, target); err == nil {
				e.Target = printable(string(target[:n]))
				t.bytes += n
			}
		}
		t.tree.Entries = append(t.tree.Entries, e)
		if e.Type != agentapi.TypeDir {
			continue
		}
		if depth == maxTreeDepth {
			t.tree.Truncated = true
			continue
		}
		if child, err := openBeneath(dir, name); err == nil {
			t.walk(child, full, depth+1)
		}
	}
}

// isUnfinished tells the agent's own unfinished files from the user's.
func isUnfinished(name string) bool {
	return strings.HasPrefix(name, uploadPrefix) || strings.HasPrefix(name, movePrefix)
}

// openBeneath opens a folder of dir and follows no link. See place.beneath for
// why that is openat2's job.
func openBeneath(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat2(int(dir.Fd()), name, &unix.OpenHow{ //nolint:gosec // a descriptor fits
		Flags:   unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // an old kernel, or a filter that knows no openat2
		fd, err = unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil //nolint:gosec // a descriptor fits
}
