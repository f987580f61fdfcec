package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// call runs the command line in this process.
func call(t *testing.T, stdin string, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errOut bytes.Buffer
	status = run(context.Background(), args, stdio{strings.NewReader(stdin), &out, &errOut})
	return status, out.String(), errOut.String()
}

func TestEveryCommandHasHelpWithExamples(t *testing.T) {
	parser, err := newParser(&cli{}, stdio{strings.NewReader(""), io.Discard, io.Discard}, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	var walk func(node *kong.Node, path ...string)
	walk = func(node *kong.Node, path ...string) {
		for _, child := range node.Children {
			walk(child, append(slices.Clip(path), child.Name)...)
		}
		if node.Help == "" {
			t.Errorf("%s has no help", node.FullPath())
		}
		for _, flag := range node.Flags {
			if flag.Help == "" {
				t.Errorf("%s --%s has no help", node.FullPath(), flag.Name)
			}
		}
		if node.Leaf() && !strings.Contains(node.Detail, "Examples:\n") {
			t.Errorf("%s has no examples", node.FullPath())
		}
		if node.Leaf() {
			status, out, _ := call(t, "", append(path, "--help")...)
			if status != 0 || !strings.Contains(out, "Usage: ") {
				t.Errorf("caesarion %s --help: status %d, %q", strings.Join(path, " "), status, out)
			}
		}
	}
	walk(parser.Model.Node)
}

func TestExitStatuses(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, 0},
		{"the code's own", &exitError{7}, 7},
		{"anything", errors.New("x"), 1},
		{"invalid", errdefs.New(errdefs.ErrInvalid, "a", "b"), 2},
		{"invalid, wrapped", fmt.Errorf("a: %w", errdefs.New(errdefs.ErrInvalid, "a", "b")), 2},
		{"a problem of the server", &v1.Problem{Status: http.StatusUnprocessableEntity}, 2},
		{"not found", &v1.Problem{Status: http.StatusNotFound}, 3},
		{"unauthenticated", &v1.Problem{Status: http.StatusUnauthorized}, 4},
		{"unreachable", errdefs.New(errdefs.ErrUnavailable, "a", "b"), 5},
		{"too many sandboxes", &v1.Problem{Status: http.StatusTooManyRequests}, 5},
		{"a full disk", &v1.Problem{Status: http.StatusInsufficientStorage}, 5},
		{"unsupported host", errdefs.New(errdefs.ErrUnsupported, "a", "b"), 5},
		{"a limit", &errdefs.LimitError{Resource: "sandboxes"}, 5},
		{"Ctrl-C", errInterrupted, 130},
		{"a context that was cancelled", fmt.Errorf("x: %w", context.Canceled), 130},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitStatus(tt.err); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
}

func TestErrorsAreOneLineWithTheCauseAndOneWithWhatToDo(t *testing.T) {
	err := errdefs.New(errdefs.ErrNotFound, "thing-not-found", "no thing \x1b[31m%s", "a\nb").WithHint("make one\r\n")
	var out, errOut bytes.Buffer
	report(err, false, &out, &errOut)
	if want := "caesarion: no thing  [31ma b\n  what to do: make one\n"; errOut.String() != want || out.Len() > 0 {
		t.Errorf("got %q and %q, want %q", out.String(), errOut.String(), want)
	}
	report(err, true, &out, io.Discard)
	var p v1.Problem
	if err := json.Unmarshal(out.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	if p.Status != 404 || p.Code != "thing-not-found" || p.Hint != "make one\r\n" || p.Title != "Not Found" {
		t.Errorf("got %+v", p)
	}
}

func TestTokensAreMadeOnceAndForTheirOwnerAlone(t *testing.T) {
	g := &globals{}
	g.DataDir = t.TempDir()
	first, err := loadToken(g.Base)
	if err != nil {
		t.Fatal(err)
	}
	second, err := loadToken(g.Base)
	if err != nil || first != second || len(first.Reveal()) != 43 {
		t.Errorf("%d characters, the same again: %v, %v", len(first.Reveal()), first == second, err)
	}
	info, err := os.Stat(filepath.Join(g.DataDir, tokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tryLock(path); !errors.Is(err, errLocked) {
		t.Errorf("a second lock: %v, want errLocked", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := tryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}

func TestRenderer(t *testing.T) {
	display := func(typ event.Type, bundle string) event.Event {
		return event.Event{Type: typ, Data: json.RawMessage(`{"data":` + bundle + `,"metadata":{}}`)}
	}
	stream := func(name, text string) event.Event {
		data, _ := json.Marshal(event.Stream{Name: name, Text: text})
		return event.Event{Type: event.OutputStream, Data: data}
	}
	tests := []struct {
		name      string
		events    []event.Event
		color     bool
		save      bool
		out, err  string
		files     []string
		leftOpen  bool
		leftovers int
	}{
		{name: "streams go where they belong", events: []event.Event{stream("stdout", "a\n"), stream("stderr", "b\n")}, out: "a\n", err: "b\n"},
		{name: "a result starts on its own line", events: []event.Event{stream("stdout", "a"), display(event.OutputResult, `{"text/plain":"1"}`)}, out: "a\n1\n"},
		{name: "Markdown shows its text", events: []event.Event{display(event.OutputDisplay, `{"text/plain":"<IPython.core.display.Markdown object>","text/markdown":"# t"}`)}, out: "# t\n"},
		{name: "text may be a list of lines", events: []event.Event{display(event.OutputDisplay, `{"text/plain":["a\n","b"]}`)}, out: "a\nb\n"},
		{name: "a table is text, its HTML is not saved", save: true, events: []event.Event{display(event.OutputResult, `{"text/plain":"   a\n0  1","text/html":"<table>"}`)}, out: "   a\n0  1\n"},
		{name: "a picture is only named without a folder", events: []event.Event{display(event.OutputDisplay, `{"text/plain":"<Figure size 1x1>","image/png":"QUJD"}`)}, out: "<Figure size 1x1>\n", leftovers: 1},
		{name: "a picture is saved and named with one", save: true, events: []event.Event{display(event.OutputDisplay, `{"text/plain":"<Figure>","image/png":"QU\nJD\n"}`)}, out: "DIR/output-01.png\n", files: []string{"output-01.png=ABC"}},
		{name: "numbers go on", save: true, events: []event.Event{
			display(event.OutputDisplay, `{"image/svg+xml":["<svg","/>"]}`),
			display(event.OutputDisplay, `{"text/plain":"<IPython.core.display.HTML object>","text/html":"<p>"}`),
		}, out: "DIR/output-01.svg\nDIR/output-02.html\n", files: []string{"output-01.svg=<svg/>", "output-02.html=<p>"}},
		{name: "a traceback has no colours in a pipe", events: []event.Event{{Type: event.OutputError, Data: json.RawMessage(`{"ename":"E","evalue":"v","traceback":["\u001b[31mE\u001b[0m: v"]}`)}}, err: "E: v\n"},
		{name: "a traceback keeps its colours on a terminal", color: true, events: []event.Event{{Type: event.OutputError, Data: json.RawMessage(`{"traceback":["\u001b[31mE"]}`)}}, err: "\x1b[31mE\n"},
		{name: "an error without traceback", events: []event.Event{{Type: event.OutputError, Data: json.RawMessage(`{"ename":"E","evalue":"v"}`)}}, err: "E: v\n"},
		{name: "what is left out is said", events: []event.Event{{Type: event.OutputTruncated, Data: json.RawMessage(`{"limit_bytes":1000,"file":"/tmp/x"}`)}}, err: "[output beyond 1.0 kB is left out; all of it is in the sandbox's /tmp/x]\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errOut bytes.Buffer
			dir := filepath.Join(t.TempDir(), "plots")
			r := &renderer{out: &out, err: &errOut, color: tt.color}
			if tt.save {
				r.dir = dir
			}
			for _, ev := range tt.events {
				if err := r.Show(ev); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.ReplaceAll(out.String(), dir, "DIR"); got != tt.out || errOut.String() != tt.err {
				t.Errorf("got %q and %q, want %q and %q", got, errOut.String(), tt.out, tt.err)
			}
			if r.unsaved != tt.leftovers {
				t.Errorf("%d pictures left out, want %d", r.unsaved, tt.leftovers)
			}
			for _, want := range tt.files {
				name, content, _ := strings.Cut(want, "=")
				if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != content {
					t.Errorf("%s holds %q, %v", name, got, err)
				}
			}
		})
	}
}

func TestPathsOfTwoSides(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("a:b.csv", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string][2]string{
		"x.csv":          {"x.csv", ""},
		"x.csv:/tmp/y":   {"x.csv", "/tmp/y"},
		"a:b.csv":        {"a:b.csv", ""},
		"a:b.csv:c.csv":  {"a:b.csv", "c.csv"},
		"dir/x:sub/":     {"dir/x", "sub/"},
		":/tmp/nonsense": {":/tmp/nonsense", ""},
	} {
		if local, remote := splitUpload(spec); local != want[0] || remote != want[1] {
			t.Errorf("%q: got %q and %q, want %q", spec, local, remote, want)
		}
	}
	for arg, want := range map[string][2]string{
		"sbx_a:/x":  {"sbx_a", "/x"},
		"sbx_a:":    {"sbx_a", ""},
		"C:/x":      {"", "C:/x"},
		"./sbx_a:x": {"", "./sbx_a:x"},
	} {
		if id, p := splitRemote(arg); id != want[0] || p != want[1] {
			t.Errorf("%q: got %q and %q, want %q", arg, id, p, want)
		}
	}
}

func TestTextForPeople(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 1_500_000: "1.5 MB", 2e12: "2.0 TB"} {
		if got := sizeText(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-1: "0s", 0: "0s", 59 * time.Second: "59s", time.Hour: "1h", 47 * time.Hour: "47h", 72 * time.Hour: "3d"} {
		if got := ageText(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	if got := commonPrefix([]string{"größe", "größer", "grün"}); got != "gr" {
		t.Errorf("common prefix %q", got)
	}
	if got := byteOffset("aüb", 2); got != 3 {
		t.Errorf("byte offset %d", got)
	}
}
