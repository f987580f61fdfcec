// Package badinput gives the real server what only a whole installation can
// get wrong: full disks, cut uploads, a second server, an image without Python,
// a host without what gVisor needs. docs/bad-input.md lists where the rest of
// bad input is tested.
package badinput

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// wantProblem checks that an error is a problem that says what to do.
func wantProblem(t *testing.T, err error, status int, code string) {
	t.Helper()
	p, ok := errors.AsType[*v1.Problem](err)
	if !ok || p.Status != status || p.Code != code || p.Detail == "" || p.Hint == "" {
		t.Errorf("got %+v, want %d %s with a detail and a hint", err, status, code)
	}
}

func create(t *testing.T, s *servertest.Server, in v1.CreateSandbox) string {
	t.Helper()
	sb, err := s.CreateSandbox(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	return sb.ID
}

// wantValue checks that code has this value in a sandbox.
func wantValue(t *testing.T, s *servertest.Server, id, code, want string) {
	t.Helper()
	r, err := s.Run(t.Context(), id, code)
	if err != nil || r.Status != event.StatusOK || r.Value != want {
		t.Errorf("%s is %q, want %q: %+v, %.300v, %v", code, r.Value, want, r.Finished, r.Errors, err)
	}
}

// names lists a folder of a sandbox.
func names(t *testing.T, s *servertest.Server, id, path string) string {
	t.Helper()
	f, err := s.Stat(t.Context(), id, path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range f.Entries {
		list = append(list, e.Name)
	}
	return strings.Join(list, " ")
}

// await waits until a condition holds.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(servertest.Patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestInputForAServer(t *testing.T) {
	data := servertest.DataDir(t)
	s := servertest.Start(t, data)
	for _, c := range []struct {
		name string
		run  func(t *testing.T, s *servertest.Server, data string)
	}{
		{"names of files are names, and lead nowhere", testNames},
		{"an upload to a full disk leaves nothing, and works once there is room", testFullSandbox},
		{"a connection cut in an upload leaves the file as it was", testCutUpload},
		{"a second server on the same port ends, and the first goes on", testSamePort},
		{"a second server on the same data directory ends, and the first goes on", testSameData},
		{"a wrong token opens nothing", testWrongToken},
		{"a deleted sandbox is gone, and says so", testDeleted},
		{"names of saved states are names, and lead nowhere", testSavedNames},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, s, data) })
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

func testNames(t *testing.T, s *servertest.Server, _ string) {
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "import os; os.makedirs('in'); os.symlink('/etc', 'in/out'); os.listdir('/workspace')", "['in']")
	for _, c := range []struct {
		name, path string
		status     int    // 200: a file with the path's last part as its name
		code       string //
	}{
		{"two dots", "..", http.StatusForbidden, "path-escapes"},
		{"a way up", "in/../../etc/x", http.StatusForbidden, "path-escapes"},
		{"an absolute path", "/etc/x", http.StatusForbidden, "path-escapes"},
		{"a link that leads out", "in/out/x", http.StatusForbidden, "path-escapes"},
		{"NUL", "in/a\x00b", http.StatusBadRequest, "invalid-path"},
		{"300 characters", "in/" + strings.Repeat("n", 300), http.StatusBadRequest, "name-too-long"},
		{"a command and a slash", "in/;rm -rf /", http.StatusOK, ""},
		{"a newline", "in/a\nb", http.StatusOK, ""},
		{"a leading dash", "in/-rf", http.StatusOK, ""},
		{"a command", "in/;rm -rf *", http.StatusOK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := s.Upload(t.Context(), id, c.path, strings.NewReader("x"), 1)
			p, isProblem := errors.AsType[*v1.Problem](err)
			switch {
			case c.status == http.StatusOK:
				if err != nil || f.Name != filepath.Base(c.path) {
					t.Fatalf("got %+v, %v", f, err)
				}
			case !isProblem || p.Status != c.status || p.Code != c.code || p.Detail == "":
				t.Errorf("got %+v, want %d %s", err, c.status, c.code)
			}
			if err == nil {
				if err := s.Remove(t.Context(), id, f.Path); err != nil {
					t.Error(err)
				}
			}
			if got := names(t, s, id, ".") + "/" + names(t, s, id, "in"); got != "in/out" {
				t.Errorf("left behind: %q", got)
			}
		})
	}
	wantValue(t, s, id, "1 + 1", "2")
}

func testFullSandbox(t *testing.T, s *servertest.Server, _ string) {
	id := create(t, s, v1.CreateSandbox{Limits: &v1.Limits{DiskBytes: 256 << 20}})
	if _, err := s.Upload(t.Context(), id, "kept.txt", strings.NewReader("before"), 6); err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(t.Context(), id, "kept = 1\nf = open('/workspace/big', 'wb', buffering=0)\nwhile True: f.write(b'x' * (1 << 20))")
	if err != nil || r.Status != event.StatusError || r.Reason != event.ReasonDiskFull {
		t.Errorf("filling the disk: %+v, %v", r.Finished, err)
	}
	const size = 32 << 20
	for name, announced := range map[string]int64{"of known size": size, "of unknown size": -1} {
		for _, file := range []string{"kept.txt", "new.txt"} {
			_, err := s.Upload(t.Context(), id, file, io.LimitReader(zeros{}, size), announced)
			t.Logf("upload %s to %s: %v", name, file, err)
			wantProblem(t, err, http.StatusInsufficientStorage, "disk-full")
		}
	}
	if got := names(t, s, id, "."); got != "big kept.txt" {
		t.Errorf("the folder has %q", got)
	}
	wantValue(t, s, id, "open('kept.txt').read()", "'before'")
	if err := s.Remove(t.Context(), id, "big"); err != nil {
		t.Error(err)
	}
	wantValue(t, s, id, "f.close(); kept", "1") // an open file keeps its room
	if f, err := s.Upload(t.Context(), id, "new.txt", io.LimitReader(zeros{}, size), size); err != nil || f.SizeBytes != size {
		t.Errorf("upload once there is room: %+v, %v", f, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// startUpload sends the head of an upload and half of what it announces, and
// waits until that has reached the sandbox.
func startUpload(t *testing.T, s *servertest.Server, id, folder string) net.Conn {
	t.Helper()
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	const half = 1 << 20
	_, err = fmt.Fprintf(conn, "PUT /v1/sandboxes/%s/files/content?path=%s/keep.txt HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		id, folder, u.Host, s.Token, 2*half, make([]byte, half))
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the upload reaches the sandbox", func() bool { return names(t, s, id, folder) != "keep.txt" })
	return conn
}

func testCutUpload(t *testing.T, s *servertest.Server, _ string) {
	id := create(t, s, v1.CreateSandbox{})
	if _, err := s.Upload(t.Context(), id, "cut/keep.txt", strings.NewReader("before"), 6); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(*net.TCPConn){
		"closed": func(c *net.TCPConn) { _ = c.Close() },
		"reset":  func(c *net.TCPConn) { _ = c.SetLinger(0); _ = c.Close() },
		"half closed": func(c *net.TCPConn) {
			_ = c.CloseWrite()
			answer, _ := io.ReadAll(io.LimitReader(c, 1<<20))
			if !bytes.Contains(answer, []byte(`"code":"upload-incomplete"`)) {
				t.Errorf("the sender that still listens got %q", answer)
			}
		},
	} {
		conn, ok := startUpload(t, s, id, "cut").(*net.TCPConn)
		if !ok {
			t.Fatal("no TCP")
		}
		end(conn)
		await(t, "nothing half-written stays when it is "+name, func() bool { return names(t, s, id, "cut") == "keep.txt" })
	}
	wantValue(t, s, id, "open('cut/keep.txt').read()", "'before'")
}

func testSamePort(t *testing.T, s *servertest.Server, _ string) {
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "kept = 1; kept", "1")
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	other := servertest.DataDir(t)
	status, p := servertest.Call(t, nil, "serve", "--data-dir", other, "--listen", u.Host)
	if status != 5 || p.Code != "port-in-use" || !strings.Contains(p.Detail, u.Host) || p.Hint == "" {
		t.Errorf("exit status %d, %+v; want 5 and port-in-use", status, p)
	}
	servertest.WantNothingLeft(t, other)
	wantValue(t, s, id, "kept", "1")
}

func testSameData(t *testing.T, s *servertest.Server, data string) {
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "kept = 1; kept", "1")
	status, p := servertest.Call(t, nil, "serve", "--data-dir", data, "--listen", "127.0.0.1:0")
	if status != 1 || p.Code != "data-dir-in-use" || !strings.Contains(p.Detail, data) || !strings.Contains(p.Detail, s.URL()) || p.Hint == "" {
		t.Errorf("exit status %d, %+v; want 1 and data-dir-in-use", status, p)
	}
	wantValue(t, s, id, "kept", "1")
	if _, err := os.Stat(filepath.Join(data, "server.json")); err != nil {
		t.Errorf("the first server's record: %v", err)
	}
}

func testWrongToken(t *testing.T, s *servertest.Server, _ string) {
	id := create(t, s, v1.CreateSandbox{})
	for _, token := range []string{"", "wrong", s.Token + "x", s.Token[:len(s.Token)-1]} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, s.URL()+"/v1/sandboxes/"+id, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusUnauthorized || !bytes.Contains(text, []byte(`"code":"unauthenticated"`)) {
			t.Errorf("with token %q: %d %s", token, resp.StatusCode, text)
		}
	}
	wantValue(t, s, id, "1 + 1", "2")
}

func testDeleted(t *testing.T, s *servertest.Server, data string) {
	id := create(t, s, v1.CreateSandbox{})
	if err := s.DeleteSandbox(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	_, err := s.Run(t.Context(), id, "1")
	wantProblem(t, err, http.StatusGone, "sandbox-gone")
	_, err = s.Upload(t.Context(), id, "x", strings.NewReader("x"), 1)
	wantProblem(t, err, http.StatusGone, "sandbox-gone")
	if left, _ := filepath.Glob(filepath.Join(data, "state", "sandboxes", id)); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestAServerKilledInAnUploadLeavesTheFileAsItWas(t *testing.T) {
	data := servertest.DataDir(t)
	s := servertest.Start(t, data)
	id := create(t, s, v1.CreateSandbox{})
	if _, err := s.Upload(t.Context(), id, "cut/keep.txt", strings.NewReader("before"), 6); err != nil {
		t.Fatal(err)
	}
	startUpload(t, s, id, "cut")
	s.Kill()
	s = servertest.Start(t, data)
	await(t, "nothing half-written stays", func() bool { return names(t, s, id, "cut") == "keep.txt" })
	wantValue(t, s, id, "open('cut/keep.txt').read()", "'before'")
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

func TestAHostWithoutWhatGVisorNeedsIsNamed(t *testing.T) {
	servertest.NeedReal(t)
	const nobody = 65534 // Debian's user without rights
	data := servertest.TempDir(t)
	if err := os.Chown(data, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	status, p := servertest.Call(t, &syscall.Credential{Uid: nobody, Gid: nobody}, "serve", "--data-dir", data, "--listen", "127.0.0.1:0")
	if status != 5 || p.Code != "host-unsupported" || p.Status != http.StatusNotImplemented || p.Hint == "" {
		t.Errorf("exit status %d, %+v; want 5 and host-unsupported", status, p)
	}
	servertest.WantNothingLeft(t, data)
}

// entry is a file of an image.
type entry struct{ name, text string }

func writeImage(t *testing.T, path string, entries ...entry) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o755, Size: int64(len(e.text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAnImageWithoutPython(t *testing.T) {
	servertest.NeedReal(t)
	data := servertest.TempDir(t)
	root := filepath.Join(data, "root.tar")
	config := filepath.Join(data, "config.yaml")
	if err := os.WriteFile(config, []byte("templates: {python: {image: bare}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	// It is refused before it can be a template.
	writeImage(t, root, entry{"bin/sh", "\x7fELF"})
	if status, p := servertest.Call(t, nil, "image", "import", root, "--name", "bare", "--data-dir", data); status != 2 || p.Code != "image-without-python" || p.Hint == "" {
		t.Errorf("import: exit status %d, %+v; want 2 and image-without-python", status, p)
	}
	if status, p := servertest.Call(t, nil, "serve", "--config", config, "--data-dir", data, "--listen", "127.0.0.1:0"); status != 5 || p.Code != "image-missing" || !strings.Contains(p.Detail, `"bare"`) || p.Hint == "" {
		t.Errorf("serve: exit status %d, %+v; want 5 and image-missing", status, p)
	}
	servertest.WantNothingLeft(t, data)

	// What only looks like Python passes, and the first execution says so.
	writeImage(t, root, entry{"usr/bin/python3.13", "\x7fELF and nothing else"},
		entry{"usr/lib/python3.13/site-packages/IPython/__init__.py", ""}, entry{"usr/lib/python3.13/site-packages/ipython-9.0.dist-info/METADATA", ""})
	if status, p := servertest.Call(t, nil, "image", "import", root, "--name", "bare", "--data-dir", data); status != 0 {
		t.Fatalf("import: exit status %d, %+v", status, p)
	}
	s := servertest.Start(t, data, "--config", config)
	id := create(t, s, v1.CreateSandbox{})
	_, err := s.Run(t.Context(), id, "1 + 1")
	t.Log(err)
	wantProblem(t, err, http.StatusNotImplemented, "python-not-found")
	if _, err := s.Upload(t.Context(), id, "x", strings.NewReader("x"), 1); err != nil {
		t.Errorf("files without Python: %v", err)
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

func TestAFullDiskOfTheServer(t *testing.T) {
	images := servertest.NeedReal(t)
	data := servertest.TempDir(t)
	if err := unix.Mount("tmpfs", data, "tmpfs", 0, "size=128m,mode=0711"); err != nil {
		servertest.Skip(t, fmt.Sprintf("no tmpfs: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(data, 0); err != nil {
			t.Error(err)
			_ = unix.Unmount(data, unix.MNT_DETACH)
		}
	})
	if err := os.Symlink(images, filepath.Join(data, "images")); err != nil {
		t.Fatal(err)
	}
	s := servertest.Start(t, data)
	id := create(t, s, v1.CreateSandbox{})
	wantValue(t, s, id, "kept = 1; kept", "1")
	ballast := filepath.Join(data, "ballast")
	fill(t, ballast)

	_, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{})
	t.Log(err)
	wantProblem(t, err, http.StatusInsufficientStorage, "host-disk-full")
	if left, _ := filepath.Glob(filepath.Join(data, "state", "sandboxes", "*")); len(left) != 1 {
		t.Errorf("sandboxes' folders: %v, want that of %s alone", left, id)
	}
	wantValue(t, s, id, "kept + 1", "2")

	// A sandbox that writes gets an error, or its end says why.
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	r, err := s.Run(ctx, id, "f = open('/workspace/big', 'wb', buffering=0)\nfor _ in range(64): f.write(b'x' * (1 << 20))")
	t.Logf("writing: %+v, %.500v, %v", r.Finished, r.Errors, err)
	if err != nil || r.Status == event.StatusOK || r.Status != event.StatusError && r.Reason == "" {
		t.Errorf("writing when the server's disk is full: %+v, %v", r.Finished, err)
	}

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	wantValue(t, s, create(t, s, v1.CreateSandbox{}), "1 + 1", "2")
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for page := make([]byte, 4096); err == nil; {
		_, err = f.Write(page)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}
