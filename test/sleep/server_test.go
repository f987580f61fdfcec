package sleep

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

// server is a real server and the calls that these tests make of it.
type server struct{ *servertest.Server }

func start(t *testing.T, data string, flags ...string) server {
	t.Helper()
	return server{servertest.Start(t, data, flags...)}
}

func hasCode(err error, code string) bool {
	p, ok := errors.AsType[*v1.Problem](err)
	return ok && p.Code == code
}

func (s server) create(t *testing.T) v1.Sandbox {
	t.Helper()
	sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{})
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

func (s server) pause(t *testing.T, id string) v1.Sandbox {
	t.Helper()
	var sb v1.Sandbox
	if err := s.JSON(t.Context(), http.MethodPost, "/v1/sandboxes/"+id+"/pause", nil, &sb); err != nil {
		t.Fatalf("pause: %v", err)
	}
	if sb.State != "paused" || sb.PausedAt == nil || sb.SavedBytes == 0 {
		t.Fatalf("after a pause: state %q, paused at %v, %d bytes", sb.State, sb.PausedAt, sb.SavedBytes)
	}
	return sb
}

func (s server) get(t *testing.T, id string) v1.Sandbox {
	t.Helper()
	sb, err := s.Sandbox(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// want runs code and compares what it printed.
func (s server) want(t *testing.T, id, code, text string) {
	t.Helper()
	r, err := s.Run(t.Context(), id, code)
	if err != nil {
		t.Fatalf("%s: %v", code, err)
	}
	if r.Status != event.StatusOK || r.Text != text {
		t.Fatalf("%s: got %s %q %+v, want %q", code, r.Status, r.Text, r.Errors, text)
	}
}

// processes counts the host processes of a sandbox.
func processes(t *testing.T, id string) int {
	t.Helper()
	n := 0
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if text, _ := os.ReadFile(file); bytes.Contains(text, []byte(id)) {
			n++
		}
	}
	return n
}

func (s server) use(t *testing.T) use {
	t.Helper()
	u := use{rss: s.Memory(t).RSS}
	for dir, n := range map[string]*int{"fd": &u.files, "task": &u.threads} {
		entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", s.PID, dir))
		if err != nil {
			t.Fatal(err)
		}
		*n = len(entries)
	}
	return u
}
