package image

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/erofs/go-erofs"
)

// The parts of the EROFS format that writeEROFS touches itself; see the kernel's
// fs/erofs/erofs_fs.h.
const (
	erofsBlock = 4096 // bytes; gVisor maps files by page, so it equals the page size

	superBlockOff  = 1024
	superInosOff   = superBlockOff + 16 // u64
	superBlocksOff = superBlockOff + 36 // u32
	superMetaOff   = superBlockOff + 40 // u32, in blocks

	nidBytes          = 32
	compactInodeBytes = 32
	extendedBytes     = 64
	inodeSizeOff      = 8  // u32, u64 in an extended inode
	inodeDataOff      = 16 // u32: address of the first block
	direntBytes       = 12
)

// writeEROFS writes the tree as an EROFS file: uncompressed, one block size, and
// no regular file's data inline, because gVisor can't map such a file into memory
// (an exec of it ends in "bad address").
//
// go-erofs v0.3.1 writes every file below a block inline and each hard link as a
// file of its own. So it gets small files and further names as empty files, and
// fixEROFS mends both afterwards: small contents go behind the image, and further
// names get the number of the first name's inode.
func writeEROFS(ctx context.Context, f *os.File, t *tree, s *spool, created time.Time, progress func(done int64)) error {
	w := erofs.Create(f, erofs.WithBlockSize(erofsBlock), erofs.WithBuildTime(uint64(created.Unix()), 0))
	src := &treeFS{ctx: ctx, tree: t, spool: s, progress: progress, first: map[string]string{}}
	if err := t.walk(func(name string, _ *node, first string) error {
		if name != first {
			src.first[name] = first
		}
		return nil
	}); err != nil {
		return err
	}
	if err := w.CopyFrom(src); err != nil {
		return fmt.Errorf("image: write erofs: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("image: write erofs: %w", err)
	}
	return fixEROFS(ctx, f, src)
}

// separate reports whether go-erofs would put the content inline.
func separate(n *node) bool { return n.mode.IsRegular() && n.size <= erofsBlock }

// treeFS shows a tree to go-erofs. Its files are sections of the spool, so tens of
// thousands may be open without a file descriptor each.
type treeFS struct {
	ctx      context.Context // fs.FS has no place for it; lives for one call
	tree     *tree
	spool    *spool
	first    map[string]string // further name → first name, of hard-linked files
	progress func(done int64)
	done     int64
}

var (
	_ fs.ReadDirFS = (*treeFS)(nil)
	_ fs.StatFS    = (*treeFS)(nil)
)

func (t *treeFS) node(name string) (*node, error) {
	n := t.tree.root
	if name == "." {
		return n, nil
	}
	for p := range strings.SplitSeq(name, "/") {
		if n = n.entries[p]; n == nil {
			return nil, fs.ErrNotExist
		}
	}
	return n, nil
}

func (t *treeFS) Stat(name string) (fs.FileInfo, error) {
	n, err := t.node(name)
	if err != nil {
		return nil, &fs.PathError{Op: "stat", Path: name, Err: err}
	}
	return &nodeInfo{name: path.Base(name), node: n, empty: t.first[name] != "" || separate(n)}, nil
}

func (t *treeFS) ReadDir(name string) ([]fs.DirEntry, error) {
	if t.ctx.Err() != nil {
		return nil, context.Cause(t.ctx)
	}
	n, err := t.node(name)
	if err != nil {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: err}
	}
	list := make([]fs.DirEntry, 0, len(n.entries))
	for _, base := range n.names() {
		child := n.entries[base]
		list = append(list, fs.FileInfoToDirEntry(&nodeInfo{
			name:  base,
			node:  child,
			empty: t.first[path.Join(name, base)] != "" || separate(child),
		}))
	}
	return list, nil
}

// ReadLink gives a symbolic link's target; go-erofs looks for this method.
func (t *treeFS) ReadLink(name string) (string, error) {
	n, err := t.node(name)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return n.link, nil
}

func (t *treeFS) Open(name string) (fs.File, error) {
	n, err := t.node(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return &treeFile{fs: t, info: &nodeInfo{name: path.Base(name), node: n}, r: t.spool.open(n)}, nil
}

type treeFile struct {
	fs   *treeFS
	info *nodeInfo
	r    *io.SectionReader
}

func (f *treeFile) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *treeFile) Close() error               { return nil }

func (f *treeFile) Read(p []byte) (int, error) {
	if f.fs.ctx.Err() != nil {
		return 0, context.Cause(f.fs.ctx)
	}
	n, err := f.r.Read(p)
	f.fs.advance(int64(n))
	return n, err
}

func (t *treeFS) advance(n int64) {
	t.done += n
	if t.progress != nil {
		t.progress(t.done)
	}
}

// nodeInfo describes a node to go-erofs, which takes what fs.FileInfo lacks from
// Sys.
type nodeInfo struct {
	name  string
	node  *node
	empty bool // its content comes later, by fixEROFS
}

func (i *nodeInfo) Name() string       { return i.name }
func (i *nodeInfo) Mode() fs.FileMode  { return i.node.mode }
func (i *nodeInfo) ModTime() time.Time { return i.node.mtime }
func (i *nodeInfo) IsDir() bool        { return i.node.mode.IsDir() }

func (i *nodeInfo) Size() int64 {
	if i.empty || !i.node.mode.IsRegular() {
		return 0
	}
	return i.node.size
}

func (i *nodeInfo) Sys() any {
	links := i.node.nlink
	if i.node.mode.IsDir() {
		// find(1) trusts that a directory has two links and one per subdirectory.
		links = 2
		for _, child := range i.node.entries {
			if child.mode.IsDir() {
				links++
			}
		}
	}
	return &erofs.Stat{
		Mode:    i.node.mode,
		Size:    i.Size(),
		UID:     uint32(i.node.uid),
		GID:     uint32(i.node.gid),
		Mtime:   uint64(i.node.mtime.Unix()),
		MtimeNs: uint32(i.node.mtime.Nanosecond()),
		Nlink:   links,
		Xattrs:  i.node.xattrs,
	}
}

// fixEROFS gives small files their contents and hard links their shared inode.
func fixEROFS(ctx context.Context, f *os.File, src *treeFS) error {
	img, err := erofs.Open(f)
	if err != nil {
		return fmt.Errorf("image: read erofs back: %w", err)
	}
	var super [superBlockOff + 128]byte
	if _, err := f.ReadAt(super[:], 0); err != nil {
		return fmt.Errorf("image: read erofs back: %w", err)
	}
	e := &erofsFixer{
		f:      f,
		src:    src,
		meta:   int64(binary.LittleEndian.Uint32(super[superMetaOff:])) * erofsBlock,
		blocks: int64(binary.LittleEndian.Uint32(super[superBlocksOff:])),
		inos:   binary.LittleEndian.Uint64(super[superInosOff:]),
		nids:   map[string]int64{},
	}
	if err := e.collect(ctx, img); err != nil {
		return err
	}
	if err := e.addContents(ctx); err != nil {
		return err
	}
	if err := e.joinLinks(); err != nil {
		return err
	}
	var b [8]byte
	binary.LittleEndian.PutUint32(b[:4], uint32(e.blocks))
	if _, err := f.WriteAt(b[:4], superBlocksOff); err != nil {
		return err
	}
	binary.LittleEndian.PutUint64(b[:], e.inos)
	_, err = f.WriteAt(b[:], superInosOff)
	return err
}

type erofsFixer struct {
	f      *os.File
	src    *treeFS
	meta   int64 // offset of the inodes, bytes
	blocks int64 // of the whole image so far
	inos   uint64
	nids   map[string]int64 // inode numbers of hard-linked files and their folders
	small  []smallFile
}

type smallFile struct {
	nid  int64
	node *node
}

// collect finds the inodes that need work.
func (e *erofsFixer) collect(ctx context.Context, img fs.FS) error {
	wanted := map[string]bool{}
	for further, first := range e.src.first {
		wanted[first], wanted[further], wanted[path.Dir(further)] = true, true, true
	}
	return fs.WalkDir(img, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("image: read erofs back: %w", err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, err := e.src.node(name)
		if err != nil {
			return fmt.Errorf("image: read erofs back: %s: %w", name, err)
		}
		small := separate(n) && n.size > 0 && e.src.first[name] == ""
		if !small && !wanted[name] {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("image: read erofs back: %w", err)
		}
		st, ok := info.Sys().(*erofs.Stat)
		if !ok {
			return fmt.Errorf("image: read erofs back: %s has no inode", name)
		}
		if wanted[name] {
			e.nids[name] = st.Ino
		}
		if small {
			e.small = append(e.small, smallFile{nid: st.Ino, node: n})
		}
		return nil
	})
}

// addContents writes each small file into a block of its own behind the image.
func (e *erofsFixer) addContents(ctx context.Context) error {
	const batch = 256 // blocks a write: 1 MiB
	buf := make([]byte, 0, batch*erofsBlock)
	start := e.blocks
	flush := func() error {
		_, err := e.f.WriteAt(buf, start*erofsBlock)
		start += int64(len(buf) / erofsBlock)
		buf = buf[:0]
		return err
	}
	for _, file := range e.small {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		block := buf[len(buf) : len(buf)+erofsBlock]
		clear(block)
		if _, err := io.ReadFull(e.src.spool.open(file.node), block[:file.node.size]); err != nil {
			return fmt.Errorf("image: read spool: %w", err)
		}
		buf = buf[:len(buf)+erofsBlock]
		if e.blocks >= 1<<32-1 {
			return tooLarge(e.blocks * erofsBlock)
		}
		if err := e.setContent(file.nid, file.node.size, e.blocks); err != nil {
			return err
		}
		e.blocks++
		e.src.advance(file.node.size)
		if len(buf) == cap(buf) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

// setContent makes an empty file's inode point to one block.
func (e *erofsFixer) setContent(nid, size, block int64) error {
	var inode [compactInodeBytes]byte // both sorts of inode begin alike
	off := e.meta + nid*nidBytes
	if _, err := e.f.ReadAt(inode[:], off); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(inode[inodeSizeOff:], uint32(size))
	binary.LittleEndian.PutUint32(inode[inodeDataOff:], uint32(block))
	_, err := e.f.WriteAt(inode[:], off)
	return err
}

// joinLinks points the further names of each file to the first one's inode. Their
// own inodes stay behind, unused.
func (e *erofsFixer) joinLinks() error {
	for further, first := range e.src.first {
		own, ok1 := e.nids[further]
		shared, ok2 := e.nids[first]
		dir, ok3 := e.nids[path.Dir(further)]
		if !ok1 || !ok2 || !ok3 {
			return fmt.Errorf("image: %s has no inode", further)
		}
		if err := e.repoint(dir, own, shared); err != nil {
			return fmt.Errorf("image: hard link %s: %w", further, err)
		}
		e.inos--
	}
	return nil
}

// repoint replaces one inode number in a directory.
func (e *erofsFixer) repoint(dir, from, to int64) error {
	off, size, err := e.dirData(dir)
	if err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := e.f.ReadAt(data, off); err != nil {
		return err
	}
	for start := 0; start < len(data); start += erofsBlock {
		block := data[start:min(start+erofsBlock, len(data))]
		// Entries come first, then their names: the first name's offset says how
		// many entries there are.
		count := int(binary.LittleEndian.Uint16(block[8:])) / direntBytes
		for i := range count {
			entry := block[i*direntBytes:]
			if int64(binary.LittleEndian.Uint64(entry)) == from {
				binary.LittleEndian.PutUint64(entry, uint64(to))
				_, err := e.f.WriteAt(entry[:8], off+int64(start+i*direntBytes))
				return err
			}
		}
	}
	return fmt.Errorf("directory %d has no entry %d", dir, from)
}

// dirData locates the entries of a directory: in blocks, or behind its inode.
func (e *erofsFixer) dirData(nid int64) (off, size int64, err error) {
	var inode [extendedBytes]byte
	at := e.meta + nid*nidBytes
	if _, err := e.f.ReadAt(inode[:], at); err != nil {
		return 0, 0, err
	}
	format := binary.LittleEndian.Uint16(inode[:])
	size = int64(binary.LittleEndian.Uint32(inode[inodeSizeOff:]))
	if layout := format >> 1 & 7; layout == 0 {
		return int64(binary.LittleEndian.Uint32(inode[inodeDataOff:])) * erofsBlock, size, nil
	}
	header := int64(compactInodeBytes)
	if format&1 == 1 {
		header = extendedBytes
	}
	if xattrs := int64(binary.LittleEndian.Uint16(inode[2:])); xattrs > 0 {
		header += 12 + (xattrs-1)*4
	}
	return at + header, size, nil
}
