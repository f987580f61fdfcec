package agenttest

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// testTree lists, packs and unpacks whole folders.
func testTree(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	dir := "/workspace/tree-" + rand.Text()
	defer func() { _ = s.Remove(ctx, dir) }()
	if _, err := s.Mkdir(ctx, dir); err != nil {
		s.T.Fatal(err)
	}
	s.command(agentapi.Run{Dir: dir, Command: `mkdir -p a/b empty __pycache__/deep && printf one > a/one && printf two > 'a/b/t
wo' && touch __pycache__/x && ln -s /etc out && ln -s a in && mkfifo pipe && printf bad > "$(printf 'n\377me')" && chmod 640 a/one && touch -d '2001-02-03T04:05:06.123456789Z' a/one`})
	tree, err := s.Tree(ctx, agentapi.TreeRequest{Paths: []string{dir, "/workspace/no such"}, Skip: []string{"__pycache__"}})
	if err != nil {
		s.T.Fatal(err)
	}
	want := []string{"a directory", "a/b directory", "a/b/t\nwo file", "a/one file", "empty directory", "in symlink", "n\xffme file", "out symlink", "pipe other"}
	var got []string
	byName := map[string]agentapi.TreeEntry{}
	for _, e := range tree.Entries {
		name := strings.TrimPrefix(e.RawPath(), dir+"/")
		got = append(got, name+" "+string(e.Type))
		byName[name] = e
	}
	if strings.Join(got, "|") != strings.Join(want, "|") || tree.Truncated {
		s.T.Errorf("got  %q\nwant %q", got, want)
	}
	when := time.Date(2001, 2, 3, 4, 5, 6, 123456789, time.UTC)
	if e := byName["a/one"]; e.SizeBytes != 3 || e.Mode != 0o640 || e.ModifiedNanos != when.UnixNano() {
		s.T.Errorf("a/one: %+v", e)
	}
	if byName["out"].Target != "/etc" {
		s.T.Errorf("out: %+v", byName["out"])
	}
	if short, err := s.Tree(ctx, agentapi.TreeRequest{Paths: []string{dir}, Limit: 3}); err != nil || len(short.Entries) != 3 || !short.Truncated {
		s.T.Errorf("with a limit: %+v, %v", short, err)
	}
	if _, err := s.Tree(ctx, agentapi.TreeRequest{Paths: []string{dir + "/out"}}); !errors.Is(err, errdefs.ErrForbidden) {
		s.T.Errorf("a link that leads out: %v", err)
	}
	testPack(ctx, s, dir, when)
	testUnpack(ctx, s, dir, when)
}

func testPack(ctx context.Context, s *Sandbox, dir string, when time.Time) {
	s.T.Helper()
	var req agentapi.PackRequest
	for _, name := range []string{"a/one", "gone", "out", "pipe", "n\xffme", "a/b/t\nwo"} {
		req.Paths = append(req.Paths, url.PathEscape(dir+"/"+name))
	}
	body, err := s.Pack(ctx, req)
	if err != nil {
		s.T.Fatal(err)
	}
	defer body.Close()
	in := tar.NewReader(body)
	got := map[string]string{}
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			s.T.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			s.T.Fatal(err)
		}
		got[h.Name] = string(text)
		if h.Name == "0" && (!h.ModTime.Equal(when) || h.Mode != 0o640) {
			s.T.Errorf("header: %+v", h)
		}
	}
	if len(got) != 3 || got["0"] != "one" || got["4"] != "bad" || got["5"] != "two" {
		s.T.Errorf("packed: %q", got)
	}
}

func testUnpack(ctx context.Context, s *Sandbox, dir string, when time.Time) {
	s.T.Helper()
	var archive bytes.Buffer
	out := tar.NewWriter(&archive)
	add := func(h tar.Header, text string) {
		h.Format, h.Size, h.ModTime = tar.FormatPAX, int64(len(text)), when
		if err := errors.Join(out.WriteHeader(&h), func() error { _, err := io.WriteString(out, text); return err }()); err != nil {
			s.T.Fatal(err)
		}
	}
	add(tar.Header{Name: dir + "/new", Typeflag: tar.TypeDir, Mode: 0o500}, "")
	add(tar.Header{Name: dir + "/new/file \xff", Typeflag: tar.TypeReg, Mode: 0o751}, "text")
	add(tar.Header{Name: dir + "/deep/er/file", Typeflag: tar.TypeReg, Mode: 0o644}, "")
	add(tar.Header{Name: dir + "/link", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, "")
	for _, hostile := range []string{"relative", "/etc/hostile", dir + "/../../etc/hostile", dir + "/out/hostile"} {
		add(tar.Header{Name: hostile, Typeflag: tar.TypeReg, Mode: 0o644}, "bad")
	}
	if err := out.Close(); err != nil {
		s.T.Fatal(err)
	}
	whole := archive.Bytes()
	done, err := s.Unpack(ctx, bytes.NewReader(whole))
	if err != nil || done.Entries != 4 || done.Failed != 4 || len(done.Failures) != 4 {
		s.T.Errorf("unpacked: %+v, %v", done, err)
	}
	tree, err := s.Tree(ctx, agentapi.TreeRequest{Paths: []string{dir + "/new", dir + "/deep"}})
	if err != nil || len(tree.Entries) != 3 {
		s.T.Fatalf("after unpacking: %+v, %v", tree, err)
	}
	if f := tree.Entries[0]; f.RawPath() != dir+"/new/file \xff" || f.SizeBytes != 4 || f.Mode != 0o751 || f.ModifiedNanos != when.UnixNano() {
		s.T.Errorf("file: %+v", f)
	}
	if f, err := s.Stat(ctx, dir+"/new"); err != nil || f.Mode != "dr-x------" {
		s.T.Errorf("folder: %+v, %v", f, err)
	}
	_, err = s.Unpack(ctx, bytes.NewReader(whole[:len(whole)/2+100]))
	if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "upload-incomplete" {
		s.T.Errorf("half an archive: %v", err)
	}
	s.command(agentapi.Run{Dir: dir, Command: "chmod 700 new"})
}
