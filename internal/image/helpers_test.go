package image_test

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/erofs/go-erofs"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/caesarion/caesarion/internal/image"
)

// entry is one entry of a synthetic tar; a zero Typeflag is a file with Body.
type entry struct {
	tar.Header
	Body string
}

var longAgo = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

func file(name, body string) entry { return entry{tar.Header{Name: name, Mode: 0o644}, body} }

func dir(name string) entry {
	return entry{Header: tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir}}
}

func symlink(name, target string) entry {
	return entry{Header: tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeSymlink}}
}

func hardlink(name, target string) entry {
	return entry{Header: tar.Header{Name: name, Linkname: target, Typeflag: tar.TypeLink}}
}

// withPython are the entries that the probe looks for, as Debian lays them out.
func withPython(more ...entry) []entry {
	return append([]entry{
		{tar.Header{Name: "usr/bin/python3.13", Mode: 0o755}, "ELF"},
		symlink("usr/bin/python3", "python3.13"),
		symlink("bin", "usr/bin"),
		file("usr/lib/python3.13/os.py", ""),
		file("usr/local/lib/python3.13/dist-packages/IPython/__init__.py", ""),
		file("usr/local/lib/python3.13/dist-packages/ipython-9.18.1.dist-info/METADATA", ""),
		file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1001::/home/user:/bin/sh\n"),
		file("etc/group", "staff:x:50:\n"),
	}, more...)
}

func makeTar(tb testing.TB, entries []entry) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(e.Body))
		}
		if h.ModTime.IsZero() {
			h.ModTime = longAgo
		}
		if err := w.WriteHeader(&h); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.WriteString(w, e.Body); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

// writeTemp puts content into a file of a temporary folder.
func writeTemp(tb testing.TB, name string, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// makeImage makes a container image of one layer for each list of entries.
func makeImage(tb testing.TB, cfg v1.Config, layers ...[]entry) v1.Image {
	tb.Helper()
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Created: v1.Time{Time: longAgo},
	})
	if err != nil {
		tb.Fatal(err)
	}
	for _, entries := range layers {
		raw := makeTar(tb, entries)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(raw)), nil
		})
		if err != nil {
			tb.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			tb.Fatal(err)
		}
	}
	if img, err = mutate.Config(img, cfg); err != nil {
		tb.Fatal(err)
	}
	return img
}

func newStore(tb testing.TB) *image.Store {
	tb.Helper()
	s, err := image.Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// importTar imports entries as a bare root file system.
func importTar(tb testing.TB, s *image.Store, name string, entries []entry) image.Image {
	tb.Helper()
	img, err := s.Import(tb.Context(), writeTemp(tb, "root.tar", makeTar(tb, entries)), image.ImportOptions{Name: name}, nil)
	if err != nil {
		tb.Fatalf("import: %v", err)
	}
	return img
}

// openEROFS checks an image with fsck.erofs, where the machine has it, and opens it.
func openEROFS(tb testing.TB, path string) fs.FS {
	tb.Helper()
	if fsck, err := exec.LookPath("fsck.erofs"); err == nil {
		if out, err := exec.CommandContext(tb.Context(), fsck, path).CombinedOutput(); err != nil {
			tb.Errorf("fsck.erofs: %v\n%s", err, out)
		}
	} else if os.Getenv("CI") == "true" {
		tb.Error("fsck.erofs is missing: apt-get install -y erofs-utils")
	}
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.Close() })
	fsys, err := erofs.Open(f)
	if err != nil {
		tb.Fatalf("open erofs: %v", err)
	}
	return fsys
}

// erofsStat gives what EROFS holds on a file, without following it.
func erofsStat(tb testing.TB, fsys fs.FS, name string) *erofs.Stat {
	tb.Helper()
	entries, err := fs.ReadDir(fsys, filepath.Dir(name))
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(name) {
			continue
		}
		info, err := e.Info()
		if err != nil {
			tb.Fatal(err)
		}
		st, ok := info.Sys().(*erofs.Stat)
		if !ok {
			tb.Fatalf("%s: Sys is %T", name, info.Sys())
		}
		return st
	}
	tb.Fatalf("%s is not in the image", name)
	return nil
}

func readFile(tb testing.TB, fsys fs.FS, name string) string {
	tb.Helper()
	b, err := fs.ReadFile(fsys, name)
	if err != nil {
		tb.Fatalf("%s: %v", name, err)
	}
	return string(b)
}

func importFile(tb testing.TB, s *image.Store, path string) image.Image {
	tb.Helper()
	img, err := s.Import(tb.Context(), path, image.ImportOptions{Name: "test"}, nil)
	if err != nil {
		tb.Fatalf("import: %v", err)
	}
	return img
}
