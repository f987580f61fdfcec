package image_test

import (
	"archive/tar"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEROFSKeepsAttributes(t *testing.T) {
	s := newStore(t)
	big := strings.Repeat("0123456789abcdef", 1<<16) + "tail" // 1 MiB and 4 bytes
	img := importTar(t, s, "test", withPython(
		entry{tar.Header{Name: "usr/bin/sudo", Mode: 0o4755, Uid: 0, Gid: 50}, "#!"},
		entry{tar.Header{Name: "usr/bin/wall", Mode: 0o2755, Uid: 7, Gid: 5}, "#!"},
		entry{Header: tar.Header{Name: "tmp", Mode: 0o1777, Typeflag: tar.TypeDir}},
		entry{tar.Header{Name: "home/user/big", Mode: 0o600, Uid: 1000, Gid: 1000}, big},
		entry{tar.Header{Name: "home/far", Mode: 0o640, Uid: 3_000_000_000, Gid: 70_000}, "x"},
		file("block", strings.Repeat("b", 4096)),
		file("over", strings.Repeat("c", 4097)),
		file("empty", ""),
		symlink("absolute", "/usr/bin/python3"),
		entry{tar.Header{
			Name: "capable", Mode: 0o755,
			PAXRecords: map[string]string{
				"SCHILY.xattr.security.capability":    "\x01\x00\x00\x02",
				"SCHILY.xattr.user.note":              "kept",
				"SCHILY.xattr.trusted.overlay.opaque": "y",
			},
		}, "x"},
		entry{Header: tar.Header{Name: "pipe", Mode: 0o600, Typeflag: tar.TypeFifo}},
	))
	fsys := openEROFS(t, img.EROFSPath)

	for _, want := range []struct {
		name     string
		mode     fs.FileMode
		uid, gid uint32
		size     int64
	}{
		{"usr/bin/sudo", fs.ModeSetuid | 0o755, 0, 50, 2},
		{"usr/bin/wall", fs.ModeSetgid | 0o755, 7, 5, 2},
		{"tmp", fs.ModeDir | fs.ModeSticky | 0o777, 0, 0, -1},
		{"home/user/big", 0o600, 1000, 1000, int64(len(big))},
		{"home/far", 0o640, 3_000_000_000, 70_000, 1},
		{"block", 0o644, 0, 0, 4096},
		{"over", 0o644, 0, 0, 4097},
		{"empty", 0o644, 0, 0, 0},
		{"pipe", fs.ModeNamedPipe | 0o600, 0, 0, 0},
	} {
		st := erofsStat(t, fsys, want.name)
		if st.Mode != want.mode || st.UID != want.uid || st.GID != want.gid || want.size >= 0 && st.Size != want.size {
			t.Errorf("%s: got mode %v, owner %d:%d, size %d, want %v, %d:%d, %d",
				want.name, st.Mode, st.UID, st.GID, st.Size, want.mode, want.uid, want.gid, want.size)
		}
		if st.Mtime != uint64(longAgo.Unix()) {
			t.Errorf("%s: got time %d, want %d", want.name, st.Mtime, longAgo.Unix())
		}
	}
	for name, want := range map[string]string{
		"home/user/big": big, "block": strings.Repeat("b", 4096), "over": strings.Repeat("c", 4097), "usr/bin/sudo": "#!", "empty": "",
	} {
		if got := readFile(t, fsys, name); got != want {
			t.Errorf("%s: got %d bytes, want %d, or other ones", name, len(got), len(want))
		}
	}
	st := erofsStat(t, fsys, "capable")
	if len(st.Xattrs) != 2 || st.Xattrs["security.capability"] != "\x01\x00\x00\x02" || st.Xattrs["user.note"] != "kept" {
		t.Errorf("capable: got attributes %q, want the capability and the user's", st.Xattrs)
	}
	if target, err := fs.ReadLink(fsys, "absolute"); err != nil || target != "/usr/bin/python3" {
		t.Errorf("absolute: got %q, %v", target, err)
	}
	if got := erofsStat(t, fsys, "usr").Nlink; got != 5 { // ., the name, bin, lib, local
		t.Errorf("usr: got %d links, want 5", got)
	}
}

// gVisor can't map a file whose content is inline: running it, or numpy.memmap, is
// a bus error there.
func TestEROFSHasNoInlineFiles(t *testing.T) {
	s := newStore(t)
	var more []entry
	for size := 0; size < 9000; size += 31 {
		more = append(more, file(fmt.Sprintf("f/%05d", size), strings.Repeat("x", size)))
	}
	img := importTar(t, s, "test", withPython(more...))
	fsys := openEROFS(t, img.EROFSPath)
	raw, err := os.ReadFile(img.EROFSPath)
	if err != nil {
		t.Fatal(err)
	}
	meta := int64(binary.LittleEndian.Uint32(raw[1024+40:])) * 4096
	files := 0
	err = fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		st := erofsStat(t, fsys, name)
		format := binary.LittleEndian.Uint16(raw[meta+st.Ino*32:])
		if layout := format >> 1 & 7; layout != 0 {
			t.Errorf("%s: got layout %d, want 0 (plain blocks)", name, layout)
		}
		if got := int64(len(readFile(t, fsys, name))); got != st.Size {
			t.Errorf("%s: read %d bytes of %d", name, got, st.Size)
		}
		return nil
	})
	if err != nil || files < len(more) {
		t.Errorf("walked %d files: %v", files, err)
	}
	if got, want := int64(binary.LittleEndian.Uint32(raw[1024+36:]))*4096, int64(len(raw)); got != want {
		t.Errorf("the super block says %d bytes, the file has %d", got, want)
	}
}

func TestEROFSKeepsHardLinks(t *testing.T) {
	s := newStore(t)
	var more []entry
	more = append(more, file("a/one", "shared"), hardlink("a/two", "a/one"), hardlink("zz/three", "/a/one"))
	big := strings.Repeat("y", 100_000)
	more = append(more, file("big", big), hardlink("wide/link", "big"))
	for i := range 500 { // the folder of the link has several blocks of entries
		more = append(more, file(fmt.Sprintf("wide/%040d", i), ""))
	}
	img := importTar(t, s, "test", withPython(more...))
	fsys := openEROFS(t, img.EROFSPath)
	one := erofsStat(t, fsys, "a/one")
	for _, name := range []string{"a/two", "zz/three"} {
		if st := erofsStat(t, fsys, name); st.Ino != one.Ino || st.Nlink != 3 {
			t.Errorf("%s: got inode %d with %d links, want %d with 3", name, st.Ino, st.Nlink, one.Ino)
		}
		if got := readFile(t, fsys, name); got != "shared" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	if a, b := erofsStat(t, fsys, "big"), erofsStat(t, fsys, "wide/link"); a.Ino != b.Ino || readFile(t, fsys, "wide/link") != big {
		t.Errorf("wide/link: got inode %d, want %d and the same content", b.Ino, a.Ino)
	}
}

// The writer must not hold a descriptor for each file: common limits are 1024.
func TestManyFilesFewDescriptors(t *testing.T) {
	if os.Getenv("CAESARION_TEST_FEW_DESCRIPTORS") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestManyFilesFewDescriptors$", "-test.v")
		cmd.Env = append(os.Environ(), "CAESARION_TEST_FEW_DESCRIPTORS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	limit := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	const count = 25_000
	more := make([]entry, 0, count)
	for i := range count {
		more = append(more, file(fmt.Sprintf("data/%03d/%05d.txt", i%250, i), strings.Repeat("z", i%6000)))
	}
	s := newStore(t)
	img := importTar(t, s, "test", withPython(more...))
	if img.Files < count {
		t.Errorf("got %d files, want %d or more", img.Files, count)
	}
	fsys := openEROFS(t, img.EROFSPath)
	for _, i := range []int{1, 4096, 24_999} {
		name := fmt.Sprintf("data/%03d/%05d.txt", i%250, i)
		if got := len(readFile(t, fsys, name)); got != i%6000 {
			t.Errorf("%s: got %d bytes, want %d", name, got, i%6000)
		}
	}
}

func TestSameTreeSameBytes(t *testing.T) {
	entries := withPython(
		file("z", "1"), file("a", "2"), hardlink("b", "a"),
		entry{tar.Header{Name: "x", Mode: 0o644, PAXRecords: map[string]string{
			"SCHILY.xattr.user.b": "1", "SCHILY.xattr.user.a": "2",
		}}, strings.Repeat("pattern", 300_000)},
	)
	// The same files in another order are the same image.
	shuffled := append(append([]entry{}, entries[8:]...), entries[:8]...)
	var digests []string
	var images [][]byte
	for _, list := range [][]entry{entries, shuffled} {
		path := writeTemp(t, "root.tar", makeTar(t, list))
		if err := os.Chtimes(path, longAgo, longAgo); err != nil {
			t.Fatal(err)
		}
		s := newStore(t)
		img := importFile(t, s, path)
		raw, err := os.ReadFile(img.EROFSPath)
		if err != nil {
			t.Fatal(err)
		}
		digests, images = append(digests, img.Digest), append(images, raw)
		if filepath.Base(img.EROFSPath) != strings.TrimPrefix(img.Digest, "sha256:")+".erofs" {
			t.Errorf("the file %s is not named by the digest %s", img.EROFSPath, img.Digest)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("got the digests %v, want one", digests)
	}
	if string(images[0]) != string(images[1]) {
		t.Error("the EROFS files differ")
	}
}
