package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/image"
)

func TestImportFromEachSource(t *testing.T) {
	cfg := v1.Config{User: "user:staff", WorkingDir: "/srv", Env: []string{"PATH=/usr/bin:/bin", "GREETING=hello"}}
	img := makeImage(t, cfg, withPython(file("lower", "1"), file("both", "1")), []entry{file("both", "2"), file("upper", "2")})
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	foreign := mutate.IndexMediaType(mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}}},
		mutate.IndexAddendum{Add: makeImage(t, v1.Config{}), Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "s390x"}}},
	), "application/vnd.oci.image.index.v1+json")

	layoutDir := filepath.Join(t.TempDir(), "layout")
	if _, err := layout.Write(layoutDir, foreign); err != nil {
		t.Fatal(err)
	}
	var layoutTar bytes.Buffer
	w := tar.NewWriter(&layoutTar)
	if err := w.AddFS(os.DirFS(layoutDir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag("team/tool:v1")
	if err != nil {
		t.Fatal(err)
	}
	docker := filepath.Join(t.TempDir(), "docker.tar")
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	dockerRaw, err := os.ReadFile(docker)
	if err != nil {
		t.Fatal(err)
	}
	reg := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer reg.Close()
	ref, err := name.ParseReference(strings.TrimPrefix(reg.URL, "http://") + "/team/tool:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(ref, foreign); err != nil {
		t.Fatal(err)
	}

	for _, test := range []struct {
		form, source string
		digest       string // empty: any
	}{
		{"a folder with an OCI layout", layoutDir, digest.String()},
		{"a tar of an OCI layout", writeTemp(t, "layout.tar", layoutTar.Bytes()), digest.String()},
		{"a tar of an OCI layout, zstd", writeTemp(t, "layout.tar.zst", zstdOf(t, layoutTar.Bytes())), digest.String()},
		{"a docker archive", docker, digest.String()},
		{"a docker archive, gzip", writeTemp(t, "docker.tar.gz", gzipOf(t, dockerRaw)), digest.String()},
		{"a registry", ref.String(), digest.String()},
		{"a registry, by digest", ref.Context().Digest(digest.String()).String(), digest.String()},
	} {
		t.Run(test.form, func(t *testing.T) {
			s := newStore(t)
			got, err := s.Import(t.Context(), test.source, image.ImportOptions{Name: "test"}, nil)
			if err != nil {
				t.Fatalf("import: %v", err)
			}
			if got.Digest != test.digest {
				t.Errorf("got digest %s, want %s", got.Digest, test.digest)
			}
			want := image.Config{
				User: "user:staff", UID: 1000, GID: 50, Home: "/home/user", WorkingDir: "/srv",
				Env: []string{"PATH=/usr/bin:/bin", "GREETING=hello"},
			}
			if diff := cmp.Diff(want, got.Config); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
			wantPython := image.Python{Path: "/usr/bin/python3", Version: "3.13", IPython: "9.18.1"}
			if diff := cmp.Diff(wantPython, got.Python); diff != "" {
				t.Errorf("Python (-want +got):\n%s", diff)
			}
			fsys := openEROFS(t, got.EROFSPath)
			for file, want := range map[string]string{"lower": "1", "both": "2", "upper": "2"} {
				if got := readFile(t, fsys, file); got != want {
					t.Errorf("%s: got %q, want %q", file, got, want)
				}
			}
			checkLayout(t, s, got.Digest)
		})
	}
}

// checkLayout reads the store as any OCI tool would, and checks every digest.
func checkLayout(t *testing.T, s *image.Store, digest string) {
	t.Helper()
	index, err := layout.ImageIndexFromPath(s.OCILayout())
	if err != nil {
		t.Fatal(err)
	}
	h, err := v1.NewHash(digest)
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(h)
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := v1.SHA256(r)
		if err != nil {
			t.Fatal(err)
		}
		if want, _ := l.Digest(); got != want {
			t.Errorf("a layer in the store is %s, want %s", got, want)
		}
		_ = r.Close()
	}
}

func TestImportRootFS(t *testing.T) {
	raw := makeTar(t, withPython(file("./hello", "world"), file("/.wh.kept", "in a root file system this is a name like any other")))
	for form, content := range map[string][]byte{"plain": raw, "gzip": gzipOf(t, raw), "zstd": zstdOf(t, raw)} {
		t.Run(form, func(t *testing.T) {
			s := newStore(t)
			img := importFile(t, s, writeTemp(t, "root", content))
			if img.Config.User != "" || img.Config.UID != 0 || img.Config.WorkingDir != "/" || img.Config.Home != "/home/user" {
				t.Errorf("got configuration %+v, want root in / and the home of uid 1000", img.Config)
			}
			fsys := openEROFS(t, img.EROFSPath)
			if got := readFile(t, fsys, "hello"); got != "world" {
				t.Errorf("got %q", got)
			}
			readFile(t, fsys, ".wh.kept")
			checkLayout(t, s, img.Digest)
		})
	}
}

// Layers are applied as a container runtime does it.
func TestLayers(t *testing.T) {
	img := makeImage(t, v1.Config{},
		withPython(
			file("gone", "1"), file("dir/gone", "1"), file("dir/stays", "1"), file("replaced/inside", "1"),
			file("opaque/old", "1"), file("first", "shared"), hardlink("second", "first"),
			file("target", "old"), hardlink("keeps", "target"), dir("usr/lib64"), symlink("lib64", "usr/lib64"),
		),
		[]entry{
			file(".wh.gone", ""), file("dir/.wh.gone", ""), file("replaced", "now a file"),
			file("opaque/new", "2"), file("opaque/.wh..wh..opq", ""),
			file(".wh.first", ""), file("target", "new"), file("lib64/through", "2"),
		},
	)
	dir := filepath.Join(t.TempDir(), "layout")
	if _, err := layout.Write(dir, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	s := newStore(t)
	fsys := openEROFS(t, importFile(t, s, dir).EROFSPath)
	for name, want := range map[string]string{
		"dir/stays": "1", "replaced": "now a file", "opaque/new": "2",
		"second": "shared", // its first name was deleted, its content was not
		"keeps":  "old",    // its first name is another file now
		"target": "new", "usr/lib64/through": "2",
	} {
		if got := readFile(t, fsys, name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"gone", "dir/gone", "opaque/old", "first", ".wh.gone", "opaque/.wh..wh..opq"} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want that it is gone", name, err)
		}
	}
	if st := erofsStat(t, fsys, "second"); st.Nlink != 1 {
		t.Errorf("second: got %d links, want 1", st.Nlink)
	}
}

func TestImportRefuses(t *testing.T) {
	long := strings.Repeat("n", 256)
	deep := strings.Repeat("d/", 200) + "file"
	good := makeTar(t, withPython())
	img := makeImage(t, v1.Config{}, withPython())
	twice := filepath.Join(t.TempDir(), "two")
	if _, err := layout.Write(twice, mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: img}, mutate.IndexAddendum{Add: makeImage(t, v1.Config{User: "x"}, withPython())})); err != nil {
		t.Fatal(err)
	}
	corrupt := filepath.Join(t.TempDir(), "corrupt")
	if _, err := layout.Write(corrupt, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img})); err != nil {
		t.Fatal(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := layers[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(corrupt, "blobs", "sha256", h.Hex)
	raw, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 0xff
	if err := os.WriteFile(blob, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	empties := httptest.NewServer(http.NotFoundHandler())
	defer empties.Close()

	asTar := func(entries ...entry) string { return writeTemp(t, "root.tar", makeTar(t, entries)) }
	for _, test := range []struct {
		what, source, code string
		kind               error
	}{
		{"an entry that leads out", asTar(withPython(file("../../etc/cron.d/x", "x"))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"an entry that leads out in the middle", asTar(withPython(file("usr/../../x", "x"))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a hard link that leads out", asTar(withPython(hardlink("x", "../etc/shadow"))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a hard link to nothing", asTar(withPython(hardlink("x", "etc/shadow"))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a hard link to a folder", asTar(withPython(hardlink("x", "usr"))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a link that leads to itself", asTar(withPython(symlink("loop", "loop"), file("loop/x", ""))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a file with entries", asTar(withPython(file("etc/passwd/x", ""))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a long name", asTar(withPython(file(long, ""))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"a deep path", asTar(withPython(file(deep, ""))...), "image-unsafe-entry", errdefs.ErrInvalid},
		{"more bytes than allowed", asTar(withPython(file("bomb", strings.Repeat("\x00", 11<<20)))...), "image-too-large", errdefs.ErrTooLarge},
		{"a gzip bomb", writeTemp(t, "bomb.gz", gzipOf(t, makeTar(t, []entry{file("zeros", strings.Repeat("\x00", 200<<20))}))), "image-too-large", errdefs.ErrTooLarge},
		{"a tar that is cut off", writeTemp(t, "root.tar", good[:1800]), "image-damaged", errdefs.ErrInvalid},
		{"a gzip that is cut off", writeTemp(t, "root.tgz", gzipOf(t, good)[:200]), "image-damaged", errdefs.ErrInvalid},
		{"no tar", writeTemp(t, "text.tar", []byte(strings.Repeat("no tar at all ", 100))), "image-damaged", errdefs.ErrInvalid},
		{"an empty file", writeTemp(t, "empty.tar", nil), "image-not-an-image", errdefs.ErrInvalid},
		{"a folder that is no layout", t.TempDir(), "image-not-an-image", errdefs.ErrInvalid},
		{"a layout with two images", twice, "image-ambiguous", errdefs.ErrInvalid},
		{"a layout with a damaged layer", corrupt, "image-damaged", errdefs.ErrInvalid},
		{"a file that is not there", "./missing.tar", "image-source-not-found", errdefs.ErrNotFound},
		{"no reference", "NOT A REFERENCE", "image-source-invalid", errdefs.ErrInvalid},
		{"an image that the registry lacks", strings.TrimPrefix(empties.URL, "http://") + "/a/b", "image-pull-failed", errdefs.ErrUnavailable},
		{"an image without Python", asTar(file("bin/sh", "")), "image-without-python", errdefs.ErrInvalid},
		{"an image with an old Python", asTar(entry{tar.Header{Name: "usr/bin/python3.8", Mode: 0o755}, "x"}), "image-without-python", errdefs.ErrInvalid},
		{"an image without IPython", asTar(entry{tar.Header{Name: "usr/bin/python3.12", Mode: 0o755}, "x"}), "image-without-ipython", errdefs.ErrInvalid},
	} {
		t.Run(test.what, func(t *testing.T) {
			data := t.TempDir()
			s, err := image.Open(data)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Import(t.Context(), test.source, image.ImportOptions{Name: "test", MaxBytes: 10 << 20}, nil)
			e, ok := errors.AsType[*errdefs.Error](err)
			if !ok || e.Code != test.code || !errors.Is(err, test.kind) {
				t.Errorf("got error %v, want %s", err, test.code)
			}
			wantEmpty(t, data)
		})
	}
}

// wantEmpty checks that a store holds nothing at all.
func wantEmpty(t *testing.T, data string) {
	t.Helper()
	s, err := image.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 0 {
		t.Errorf("got the images %v, %v, want none", list, err)
	}
	for _, dir := range []string{"tmp", "erofs", "blobs/sha256"} {
		entries, err := os.ReadDir(filepath.Join(data, "images", dir))
		if err != nil || len(entries) != 0 {
			t.Errorf("got %v, %v in %s, want nothing left", entries, err, dir)
		}
	}
}

// Nothing of a hostile image can harm before it runs: devices are dropped, and a
// link out of the image stays within.
func TestImportDefangs(t *testing.T) {
	s := newStore(t)
	img := importTar(t, s, "test", withPython(
		entry{Header: tar.Header{Name: "disk", Mode: 0o666, Typeflag: tar.TypeBlock, Devmajor: 8}},
		entry{Header: tar.Header{Name: "dev/mem", Mode: 0o666, Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1}},
		symlink("out", "../../../../etc"), file("out/written", "inside"),
		symlink("host", "/"), file("host/also", "inside"),
		entry{Header: tar.Header{Name: "proc", Mode: 0o755, Typeflag: tar.TypeDir}}, file("proc/version", "x"),
	))
	fsys := openEROFS(t, img.EROFSPath)
	for _, name := range []string{"disk", "dev/mem", "proc/version"} {
		if _, err := fs.Stat(fsys, name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: got %v, want that it is gone", name, err)
		}
	}
	for _, name := range []string{"etc/written", "also"} {
		if got := readFile(t, fsys, name); got != "inside" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

func TestImportNames(t *testing.T) {
	for source, want := range map[string]string{
		"registry.example/jupyter/scipy-notebook:latest":           "scipy-notebook",
		"example.org/a/My_Image@sha256:" + strings.Repeat("0", 64): "my-image",
		"/tmp/Data Tools.tar.gz":                                   "data-tools",
		"./layout/":                                                "layout",
	} {
		s := newStore(t)
		_, err := s.Import(canceled(t), source, image.ImportOptions{}, nil)
		if err == nil {
			t.Fatal("imported something that is not there")
		}
		if got := image.NameFor(source); got != want {
			t.Errorf("%s: got %q, want %q", source, got, want)
		}
	}
	s := newStore(t)
	for _, bad := range []string{"-rf", "a/b", "UPPER", "sha256:00", "a..b", "..", strings.Repeat("a", 64), "a b"} {
		_, err := s.Import(t.Context(), "./x.tar", image.ImportOptions{Name: bad}, nil)
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "image-name-invalid" {
			t.Errorf("%q: got %v, want image-name-invalid", bad, err)
		}
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("not wanted"))
	return ctx
}

func TestImportReportsProgress(t *testing.T) {
	s := newStore(t)
	path := writeTemp(t, "root.tar", makeTar(t, withPython(file("big", strings.Repeat("x", 1<<20)))))
	last := map[image.Stage]image.Update{}
	_, err := s.Import(t.Context(), path, image.ImportOptions{Name: "test"}, func(u image.Update) {
		if before := last[u.Stage]; u.Done < before.Done {
			t.Errorf("%s went back from %d to %d", u.Stage, before.Done, u.Done)
		}
		last[u.Stage] = u
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range []image.Stage{image.StageUnpack, image.StageLayer, image.StageEROFS} {
		if u := last[stage]; u.Done < 1<<20 || u.Total != 0 && u.Done != u.Total {
			t.Errorf("%s ended with %d of %d", stage, u.Done, u.Total)
		}
	}
}

func TestImportStopsWithItsContext(t *testing.T) {
	data := t.TempDir()
	s, err := image.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	reason := errors.New("no longer wanted")
	for _, stage := range []image.Stage{image.StageUnpack, image.StageLayer, image.StageEROFS} {
		ctx, cancel := context.WithCancelCause(t.Context())
		path := writeTemp(t, "root.tar", makeTar(t, withPython(file("a", strings.Repeat("x", 1<<20)), file("b", strings.Repeat("x", 1<<20)))))
		_, err := s.Import(ctx, path, image.ImportOptions{Name: "test"}, func(u image.Update) {
			if u.Stage == stage {
				cancel(reason)
			}
		})
		if !errors.Is(err, reason) {
			t.Errorf("%s: got %v, want the context's cause", stage, err)
		}
		wantEmpty(t, data)
	}
}

func FuzzImport(f *testing.F) {
	f.Add(makeTar(f, withPython(symlink("a", "b"), symlink("b", "a"), hardlink("c", "etc/passwd"))))
	f.Add(makeTar(f, []entry{file("index.json", "{}"), file("oci-layout", "{}")}))
	f.Add(makeTar(f, []entry{file("manifest.json", `[{"Config":"c","Layers":["l"]}]`), file("c", "{}"), file("l", "")}))
	f.Fuzz(func(t *testing.T, content []byte) {
		s := newStore(t)
		img, err := s.Import(t.Context(), writeTemp(t, "x.tar", content), image.ImportOptions{Name: "fuzz", MaxBytes: 1 << 20}, nil)
		if err != nil {
			return
		}
		openEROFS(t, img.EROFSPath)
	})
}

func gzipOf(tb testing.TB, content []byte) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(content); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func zstdOf(tb testing.TB, content []byte) []byte {
	tb.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return w.EncodeAll(content, nil)
}
