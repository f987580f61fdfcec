package agent_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

func codeOf(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestBeforeConfigureOnlyHealthAnswers(t *testing.T) {
	_, client, _ := serve(t, nil)
	health, err := client.Health(t.Context())
	if err != nil || health.Configured || health.Version != "test" {
		t.Errorf("health: %+v, %v", health, err)
	}
	if _, err := client.Kernels(t.Context()); codeOf(err) != "not-configured" {
		t.Errorf("kernels: %v, want not-configured", err)
	}
	if _, err := client.Configure(t.Context(), agentapi.Configure{}); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("configure without a token: %v", err)
	}
	for _, token := range []string{testToken, testToken} { // the second with the first's token
		if _, err := client.Configure(t.Context(), agentapi.Configure{Token: token}); err != nil {
			t.Errorf("configure: %v", err)
		}
	}
	if _, err := client.Kernels(t.Context()); err != nil {
		t.Errorf("kernels: %v", err)
	}
}

func TestAWrongTokenIsRefused(t *testing.T) {
	_, client, _ := serve(t, nil)
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: "another"}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Usage(t.Context()); codeOf(err) != "unauthenticated" {
		t.Errorf("usage: %v, want unauthenticated", err)
	}
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: "mine"}); codeOf(err) != "unauthenticated" {
		t.Errorf("configure: %v, want unauthenticated", err)
	}
}

func TestAnUploadThatIsCutLeavesNothing(t *testing.T) {
	client, root := configured(t, agentapi.Configure{}, nil)
	why := errors.New("cut")
	// unfinished counts what is there besides the file itself.
	unfinished := func() (n int) {
		entries, _ := os.ReadDir(filepath.Join(root, "workspace/dir"))
		for _, e := range entries {
			if e.Name() != "file" {
				n++
			}
		}
		return n
	}
	await := func(n int) {
		for t.Context().Err() == nil && unfinished() != n {
			time.Sleep(time.Millisecond)
		}
	}
	// cut uploads more than any buffer on the way holds and is cut when the agent
	// has some of it.
	cut := func(size int64) {
		t.Helper()
		body := io.MultiReader(strings.NewReader(strings.Repeat("new ", 64<<10)), readerFunc(func([]byte) (int, error) {
			await(1)
			return 0, why
		}))
		if _, err := client.Upload(t.Context(), "dir/file", body, size); err == nil {
			t.Errorf("upload of size %d that was cut succeeded", size)
		}
		await(0) // the agent hears of it a moment later
	}
	cut(1 << 20)
	cut(-1)
	if _, err := os.Stat(filepath.Join(root, "workspace/dir/file")); err == nil {
		t.Error("an upload that was cut left a file")
	}
	if _, err := client.Upload(t.Context(), "dir/file", strings.NewReader("old"), 3); err != nil {
		t.Fatal(err)
	}
	cut(-1)
	if got, err := os.ReadFile(filepath.Join(root, "workspace/dir/file")); err != nil || string(got) != "old" {
		t.Errorf("file holds %q, %v", got, err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestFileRequestsThatCannotBe(t *testing.T) {
	client, root := configured(t, agentapi.Configure{}, nil)
	work := filepath.Join(root, "workspace")
	if err := errors.Join(
		os.Symlink("/etc", filepath.Join(work, "etc")), os.Symlink("loop", filepath.Join(work, "loop")),
		os.WriteFile(filepath.Join(work, "file"), []byte("0123456789"), 0o600), os.Mkdir(filepath.Join(work, "full"), 0o700),
		os.WriteFile(filepath.Join(work, "full/x"), nil, 0o600),
	); err != nil {
		t.Fatal(err)
	}
	put := func(path string) error {
		_, err := client.Upload(t.Context(), path, strings.NewReader("x"), 1)
		return err
	}
	get := func(path, byteRange string) error {
		c, err := client.Download(t.Context(), path, byteRange)
		if err == nil {
			_ = c.Body.Close()
		}
		return err
	}
	move := func(from, to string, overwrite bool) error {
		_, err := client.Move(t.Context(), agentapi.MoveRequest{From: from, To: to, Overwrite: overwrite})
		return err
	}
	for name, c := range map[string]struct {
		err  error
		code string
	}{
		"write through a link that leads out": {put("etc/passwd"), "path-escapes"},
		"write outside":                       {put("/etc/passwd"), "path-escapes"},
		"write over a folder":                 {put("full"), "is-a-directory"},
		"write the workspace itself":          {put("/workspace"), "is-a-root"},
		"write below a file":                  {put("file/x"), "not-a-directory"},
		"read a folder":                       {get("full", ""), "is-a-directory"},
		"read through a link that leads out":  {get("etc/passwd", ""), "path-escapes"},
		"read a link to itself":               {get("loop", ""), "too-many-links"},
		"read past the end":                   {get("file", "bytes=100-"), "invalid-range"},
		"delete the workspace itself":         {client.Remove(t.Context(), "/workspace"), "is-a-root"},
		"delete what is not there":            {client.Remove(t.Context(), "none"), "file-not-found"},
		"delete outside":                      {client.Remove(t.Context(), "../../etc"), "path-escapes"},
		"move into itself":                    {move("full", "full/deeper", false), "invalid-move"},
		"move onto a full folder":             {move("file", "full", false), "file-exists"},
		"move out":                            {move("file", "etc/file", true), "path-escapes"},
		"move the workspace":                  {move("/workspace", "/tmp/x", false), "is-a-root"},
	} {
		if got := codeOf(c.err); got != c.code {
			t.Errorf("%s: %v, want %s", name, c.err, c.code)
		}
	}
	if err := client.Remove(t.Context(), "etc"); err != nil { // the link, not what it points to
		t.Errorf("delete a link: %v", err)
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Fatal(err)
	}
}

func TestNamesThatAreNoUTF8AreListedAndReachable(t *testing.T) {
	client, root := configured(t, agentapi.Configure{}, nil)
	if err := os.WriteFile(filepath.Join(root, "workspace", "a\xff"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := client.Stat(t.Context(), ".")
	if err != nil || len(dir.Entries) != 1 {
		t.Fatalf("list: %+v, %v", dir, err)
	}
	if e := dir.Entries[0]; e.Name != "a\uFFFD" || e.Escaped != "/workspace/a%FF" {
		t.Errorf("entry %+v", e)
	}
	if f, err := client.Stat(t.Context(), "a\xff"); err != nil || f.SizeBytes != 1 {
		t.Errorf("stat: %+v, %v", f, err)
	}
}

func FuzzPathsStayInside(f *testing.F) {
	for _, seed := range []string{"a", "../x", "/workspace/../etc/passwd", "/uploaded_files//a", "\x00", "a/./b/", strings.Repeat("x", 300), "~", "/tmp/\xff", "//workspace", "/workspacex"} {
		f.Add(seed)
	}
	client, root := configured(f, agentapi.Configure{}, nil)
	outside := filepath.Join(filepath.Dir(root), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := client.Upload(ctx, path, bytes.NewReader([]byte("x")), 1)
		if err != nil {
			if code := codeOf(err); code == "" || code == "agent-error" || strings.HasPrefix(code, "sandbox-") {
				t.Fatalf("upload %q: %v", path, err)
			}
		} else if got, err := client.Download(ctx, path, ""); err != nil || got.Status != http.StatusOK {
			t.Fatalf("download %q after its upload: %v", path, err)
		} else {
			_ = got.Body.Close()
		}
		if got, err := os.ReadFile(outside); err != nil || string(got) != "secret" {
			t.Fatalf("path %q reached outside: %q, %v", path, got, err)
		}
	})
}
