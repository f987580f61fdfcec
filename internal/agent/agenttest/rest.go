package agenttest

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// command runs a command and gives its output and end.
func (s *Sandbox) command(run agentapi.Run) (string, event.ProcessExit) {
	s.T.Helper()
	run.ID = NewID("prc")
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	stream, err := s.Client.Run(ctx, run)
	if err != nil {
		s.T.Fatalf("run %q: %v", run.Command, err)
	}
	defer stream.Close()
	var out strings.Builder
	var exit event.ProcessExit
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return out.String(), exit
		}
		if err != nil {
			s.T.Fatalf("run %q: %v", run.Command, err)
		}
		var e event.Event
		var text event.Stream
		err = json.Unmarshal(rec.Line, &e)
		switch e.Type {
		case event.OutputStream:
			err = json.Unmarshal(e.Data, &text)
			out.WriteString(text.Text)
		case event.ProcessFinished:
			err = json.Unmarshal(e.Data, &exit)
		}
		if err != nil {
			s.T.Fatal(err)
		}
	}
}

func testProcesses(s *Sandbox, _ Options) {
	out, exit := s.command(agentapi.Run{Command: "cat; echo $X; exit 3", Stdin: "in\n", Env: map[string]string{"X": "env"}})
	if out != "in\nenv\n" || exit.ExitCode != 3 || exit.Status != event.StatusError {
		s.T.Errorf("got %q, %+v", out, exit)
	}
	out, exit = s.command(agentapi.Run{Args: []string{"echo", "-n", "; rm -rf /"}})
	if out != "; rm -rf /" || exit.Status != event.StatusOK {
		s.T.Errorf("got %q, %+v", out, exit)
	}
	// The whole family ends, also what has a session of its own.
	_, exit = s.command(agentapi.Run{Command: "setsid sleep 1001 & sleep 1002", TimeoutMS: 200})
	if exit.Status != event.StatusTimeout || exit.Signal != "SIGKILL" {
		s.T.Errorf("after its time limit: %+v", exit)
	}
	if out, _ := s.command(agentapi.Run{Command: "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done 2>/dev/null | grep '^sleep 100[12]'"}); out != "" {
		s.T.Errorf("still there: %q", out)
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	if err := s.KillProcess(ctx, "prc_none"); !errors.Is(err, errdefs.ErrNotFound) {
		s.T.Errorf("unknown process: %v", err)
	}
	if _, err := s.Client.Run(ctx, agentapi.Run{ID: NewID("prc"), Args: []string{"/no/such/program"}}); !errors.Is(err, errdefs.ErrInvalid) {
		s.T.Errorf("missing program: %v", err)
	}
}

func testFiles(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	dir := "files-" + rand.Text()
	defer func() { _ = s.Remove(ctx, dir) }()
	content := []byte(strings.Repeat("0123456789", 100_000))
	for _, name := range []string{"plain.txt", "-rf", "; rm -rf ~", "new\nline", "grüße 😀.csv", " ", strings.Repeat("n", 255)} {
		path := dir + "/" + name
		f, err := s.Upload(ctx, path, bytes.NewReader(content), int64(len(content)))
		if err != nil || f.SizeBytes != int64(len(content)) || f.Name != name {
			s.T.Errorf("upload %q: %+v, %v", name, f, err)
			continue
		}
		got, err := s.Download(ctx, path, "bytes=5-14")
		if err != nil {
			s.T.Errorf("download %q: %v", name, err)
			continue
		}
		part, err := io.ReadAll(got.Body)
		_ = got.Body.Close()
		if err != nil || string(part) != "5678901234" || got.Status != 206 {
			s.T.Errorf("range of %q: %d %q, %v", name, got.Status, part, err)
		}
	}
	f, err := s.Stat(ctx, dir)
	if err != nil || len(f.Entries) != 7 {
		s.T.Errorf("list: %d entries, %v", len(f.Entries), err)
	}
	for path, want := range map[string]string{
		"":                         "invalid-path",
		"a\x00b":                   "invalid-path",
		strings.Repeat("n", 300):   "name-too-long",
		"../../etc/passwd":         "path-escapes",
		"/etc/passwd":              "path-escapes",
		"/proc/1/environ":          "path-escapes",
		dir + "/no such":           "file-not-found",
		dir + "/plain.txt/further": "not-a-directory",
	} {
		_, err := s.Stat(ctx, path)
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != want {
			s.T.Errorf("stat %.40q: %v, want code %s", path, err, want)
		}
	}
	s.command(agentapi.Run{Dir: dir, Command: "ln -s /etc/passwd out; ln -s plain.txt in; mkfifo pipe"})
	for name, want := range map[string]string{"out": "path-escapes", "pipe": "not-a-file"} {
		_, err := s.Download(ctx, dir+"/"+name, "")
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != want {
			s.T.Errorf("download %s: %v, want code %s", name, err, want)
		}
	}
	if got, err := s.Download(ctx, dir+"/in", ""); err != nil {
		s.T.Errorf("download a link that stays inside: %v", err)
	} else {
		_ = got.Body.Close()
	}
	zipped, err := s.Archive(ctx, dir)
	if err != nil {
		s.T.Fatal(err)
	}
	data, err := io.ReadAll(zipped.Body)
	_ = zipped.Body.Close()
	if err != nil {
		s.T.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil || len(z.File) != 9 { // seven files and two links; the pipe is left out
		s.T.Errorf("archive: %v, %v", z, err)
	}
	if _, err := s.Move(ctx, agentapi.MoveRequest{From: dir + "/plain.txt", To: dir + "/-rf"}); !errors.Is(err, errdefs.ErrConflict) {
		s.T.Errorf("move onto a file: %v, want ErrConflict", err)
	}
	if f, err := s.Move(ctx, agentapi.MoveRequest{From: dir + "/plain.txt", To: "/tmp/" + dir + "/moved"}); err != nil || f.Name != "moved" {
		s.T.Errorf("move to another root: %+v, %v", f, err)
	}
	_ = s.Remove(ctx, "/tmp/"+dir)
}
