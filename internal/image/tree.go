package image

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// maxLinks is Linux's own limit of symbolic links in one path walk.
	maxLinks = 40
	// maxName and maxDepth keep what we write within what Linux can open, and
	// recursion over a tree shallow.
	maxName  = 255
	maxDepth = 128
)

// node is one file of an image. A hard link is a second name for the same node.
type node struct {
	mode    fs.FileMode
	uid     int
	gid     int
	mtime   time.Time
	size    int64  // regular files: bytes in the spool
	off     int64  // regular files: where they start there
	link    string // symbolic links: the target
	nlink   int    // regular files: number of names, set by finish
	xattrs  map[string]string
	entries map[string]*node // directories only
	layer   int              // layer that gave this node; whiteouts look at it
}

func newDir(layer int) *node {
	return &node{mode: fs.ModeDir | 0o755, entries: map[string]*node{}, layer: layer, mtime: time.Unix(0, 0)}
}

// names are the entries in byte order: the order of everything we write, so that
// the same tree always gives the same bytes.
func (n *node) names() []string {
	return slices.Sorted(maps.Keys(n.entries))
}

// tree is the file system of an image, without the contents of its files.
type tree struct {
	root  *node
	count int // entries ever added, for the limit
}

func newTree() *tree { return &tree{root: newDir(0)} }

var errNoEntry = errors.New("no such entry")

// splitPath cleans a name from a tar and splits it. The root gives nothing.
func splitPath(name string) ([]string, error) {
	var parts []string
	for p := range strings.SplitSeq(name, "/") {
		switch {
		case p == "" || p == ".":
		case p == "..":
			return nil, unsafe("its entry %q leads out of the image", name)
		case len(p) > maxName:
			return nil, unsafe("its entry %.60q… has a name of more than %d bytes", name, maxName)
		default:
			parts = append(parts, p)
		}
	}
	if len(parts) > maxDepth {
		return nil, unsafe("its entry %.60q… is more than %d folders deep", name, maxDepth)
	}
	return parts, nil
}

func unsafe(format string, args ...any) error {
	return errdefs.New(errdefs.ErrInvalid, "image-unsafe-entry", "the image can't be used: "+format, args...)
}

// dir walks to a directory, through symbolic links, and makes what is missing.
// Nothing outside the tree can be reached: a link's ".." stops at the root.
func (t *tree) dir(parts []string, layer int) (*node, error) {
	return t.walkDir(parts, layer, true)
}

func (t *tree) walkDir(parts []string, layer int, create bool) (*node, error) {
	stack := []*node{t.root}
	links := 0
	for len(parts) > 0 {
		p := parts[0]
		parts = parts[1:]
		cur := stack[len(stack)-1]
		switch p {
		case "", ".":
			continue
		case "..":
			if len(stack) > 1 {
				stack = stack[:len(stack)-1]
			}
			continue
		}
		next := cur.entries[p]
		switch {
		case next == nil && !create:
			return nil, errNoEntry
		case next == nil:
			next = newDir(layer)
			cur.entries[p] = next
			stack = append(stack, next)
		case next.mode.IsDir():
			stack = append(stack, next)
		case next.mode&fs.ModeSymlink != 0:
			if links++; links > maxLinks {
				return nil, unsafe("its symbolic link %q never ends", p)
			}
			if strings.HasPrefix(next.link, "/") {
				stack = stack[:1]
			}
			parts = append(strings.Split(next.link, "/"), parts...)
		default:
			return nil, unsafe("its entry %q is a file, and a folder too", p)
		}
		if len(stack) > maxDepth {
			return nil, unsafe("its entry %q is more than %d folders deep", p, maxDepth)
		}
	}
	return stack[len(stack)-1], nil
}

// lookup finds a path inside the image, through symbolic links, and gives the
// name without them. It gives nil when there is nothing.
func (t *tree) lookup(name string) (*node, string) {
	for range maxLinks {
		base := path.Base(name)
		dir, err := t.walkDir(strings.Split(path.Dir(name), "/"), 0, false)
		if err != nil {
			return nil, ""
		}
		if base == "/" || base == "." {
			return dir, name
		}
		n := dir.entries[base]
		if n == nil || n.mode&fs.ModeSymlink == 0 {
			return n, name
		}
		if strings.HasPrefix(n.link, "/") {
			name = path.Clean(n.link)
		} else {
			name = path.Join(path.Dir(name), n.link)
		}
	}
	return nil, ""
}

// put adds a node under a path, as a layer over what is there: a directory joins
// one that exists, everything else replaces it.
func (t *tree) put(parts []string, n *node) error {
	if len(parts) == 0 {
		if n.mode.IsDir() {
			t.root.adopt(n)
		}
		return nil
	}
	parent, err := t.dir(parts[:len(parts)-1], n.layer)
	if err != nil {
		return err
	}
	name := parts[len(parts)-1]
	if old := parent.entries[name]; old != nil && old.mode.IsDir() && n.mode.IsDir() {
		old.adopt(n)
		return nil
	}
	parent.entries[name] = n
	return nil
}

// adopt takes the attributes of another directory and keeps the own entries.
func (n *node) adopt(from *node) {
	entries := n.entries
	*n = *from
	n.entries = entries
}

// linkTo adds a hard link to what target names.
func (t *tree) linkTo(parts, target []string, layer int) error {
	if len(target) == 0 || len(parts) == 0 {
		return unsafe("a hard link of it is a folder")
	}
	dir, err := t.walkDir(target[:len(target)-1], layer, false)
	var n *node
	if err == nil {
		n = dir.entries[target[len(target)-1]]
	}
	if n == nil {
		return unsafe("its hard link %q leads to %q, which is not there", path.Join(parts...), path.Join(target...))
	}
	if n.mode.IsDir() {
		return unsafe("its hard link %q leads to a folder", path.Join(parts...))
	}
	parent, err := t.dir(parts[:len(parts)-1], layer)
	if err != nil {
		return err
	}
	parent.entries[parts[len(parts)-1]] = n
	return nil
}

// whiteout removes what lower layers put under a name.
func (t *tree) whiteout(parts []string, layer int) {
	parent, err := t.walkDir(parts[:len(parts)-1], layer, false)
	if err != nil {
		return // nothing there to hide
	}
	name := parts[len(parts)-1]
	if n := parent.entries[name]; n != nil && prune(n, layer) {
		delete(parent.entries, name)
	}
}

// opaque removes what lower layers put into a directory.
func (t *tree) opaque(parts []string, layer int) {
	dir, err := t.walkDir(parts, layer, false)
	if err != nil {
		return
	}
	for name, n := range dir.entries {
		if prune(n, layer) {
			delete(dir.entries, name)
		}
	}
}

// prune removes from n what came before layer, and reports whether n itself did
// and can go: an older directory stays while it holds something newer.
func prune(n *node, layer int) bool {
	if !n.mode.IsDir() {
		return n.layer < layer
	}
	for name, child := range n.entries {
		if prune(child, layer) {
			delete(n.entries, name)
		}
	}
	return n.layer < layer && len(n.entries) == 0
}

// provide adds the folders that every sandbox has and that its unprivileged
// user could not make. Call it before finish, when all layers are in.
func (t *tree) provide() {
	for _, name := range []string{"workspace", "uploaded_files"} {
		if t.root.entries[name] == nil {
			dir := newDir(0)
			dir.uid, dir.gid = sandboxUID, sandboxUID
			t.root.entries[name] = dir
		}
	}
	tmp := t.root.entries["tmp"]
	if tmp == nil {
		tmp = newDir(0)
		tmp.mode = fs.ModeDir | fs.ModeSticky | 0o777
		t.root.entries["tmp"] = tmp
	}
	// On an empty /tmp gVisor mounts a file system in memory: a large temporary
	// file would then count as memory, and the disk limit would not hold.
	if tmp.mode.IsDir() && len(tmp.entries) == 0 {
		tmp.entries[".image"] = newDir(0)
	}
}

// finish counts the names of each file. It is called when all layers are in.
func (t *tree) finish() {
	var rec func(n *node, visit func(*node))
	rec = func(n *node, visit func(*node)) {
		for _, child := range n.entries {
			visit(child)
			if child.mode.IsDir() {
				rec(child, visit)
			}
		}
	}
	rec(t.root, func(n *node) { n.nlink = 0 })
	rec(t.root, func(n *node) { n.nlink++ })
}

// walk visits every entry below the root, directories before their entries, in
// byte order of names. first is the name under which the node was visited first:
// it differs from name for the further names of a hard-linked file.
func (t *tree) walk(visit func(name string, n *node, first string) error) error {
	seen := map[*node]string{}
	var rec func(dir string, n *node) error
	rec = func(dir string, n *node) error {
		for _, base := range n.names() {
			child := n.entries[base]
			name := path.Join(dir, base)
			first := name
			if !child.mode.IsDir() && child.nlink > 1 {
				if s, ok := seen[child]; ok {
					first = s
				} else {
					seen[child] = name
				}
			}
			if err := visit(name, child, first); err != nil {
				return err
			}
			if child.mode.IsDir() {
				if err := rec(name, child); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return rec("", t.root)
}

// totals are the number of entries and the bytes of all regular files, each
// counted once.
func (t *tree) totals() (files int, size int64) {
	_ = t.walk(func(name string, n *node, first string) error {
		files++
		if n.mode.IsRegular() && first == name {
			size += n.size
		}
		return nil
	})
	return files, size
}
