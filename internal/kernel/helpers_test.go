package kernel_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/kernel"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

func TestMain(m *testing.M) { kerneltest.Main(m) }

// running is a kernel under test. Its pipes are drained into Output.
type running struct {
	*kernel.Process
	kernel.Conn
	t      testing.TB
	output sync.WaitGroup

	mu       sync.Mutex
	stdout   strings.Builder // guarded by mu; what came through the pipe of fd 1
	stderr   strings.Builder // guarded by mu
	requests int
}

func (r *running) Close() error { return r.Conn.Close() }

// start starts a kernel and waits until it is ready.
func start(t testing.TB, change ...func(*kernel.Options)) *running {
	t.Helper()
	program, dir := kerneltest.Program(t), t.TempDir()
	opts := kernel.Options{
		Python: kerneltest.Python(t), Dir: dir, ProgramDir: program,
		Env: append(os.Environ(), "HOME="+dir, "IPYTHONDIR="+filepath.Join(dir, "ipython"), "LC_ALL=C.UTF-8",
			// matplotlib's list of fonts takes seconds to make: once is enough.
			"MPLCONFIGDIR="+filepath.Join(filepath.Dir(program), "matplotlib")),
	}
	for _, f := range change {
		f(&opts)
	}
	p, err := kernel.Start(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Process: p, Conn: p.Conn(), t: t}
	for _, pipe := range []struct {
		from *os.File
		to   *strings.Builder
	}{{p.Stdout, &r.stdout}, {p.Stderr, &r.stderr}} {
		r.output.Go(func() {
			buf := make([]byte, 4096)
			for {
				n, err := pipe.from.Read(buf)
				r.mu.Lock()
				pipe.to.Write(buf[:n])
				r.mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Errorf("kill: %v", err)
		}
		_ = p.Conn().Close()
		_ = p.Stdout.SetReadDeadline(time.Now().Add(time.Second))
		_ = p.Stderr.SetReadDeadline(time.Now().Add(time.Second))
		r.output.Wait()
		_ = p.Stdout.Close()
		_ = p.Stderr.Close()
	})
	for {
		m := r.next()
		if m.Header.MsgType == "status" && strings.Contains(string(m.Content), "idle") {
			return r
		}
	}
}

const patience = 30 * time.Second

// next gives the next message, or fails the test.
func (r *running) next() *kernel.Message {
	r.t.Helper()
	timer := time.AfterFunc(patience, func() {
		_ = r.Process.Kill() // the Receive below ends
	})
	defer timer.Stop()
	m, err := r.Conn.Receive()
	if err != nil {
		r.t.Fatalf("receive: %v; process: %v; stderr: %s", err, r.exited(), r.pipe("stderr"))
	}
	return m
}

func (r *running) exited() string {
	select {
	case <-r.Done():
		return r.Wait().String()
	case <-time.After(time.Second):
		return "runs"
	}
}

func (r *running) pipe(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if name == "stdout" {
		return r.stdout.String()
	}
	return r.stderr.String()
}

// send sends an execute_request and gives its id.
func (r *running) send(code string, extra ...map[string]any) string {
	r.t.Helper()
	content := map[string]any{"code": code, "silent": false, "store_history": true, "allow_stdin": false, "stop_on_error": true}
	for _, more := range extra {
		maps.Copy(content, more)
	}
	return r.request("execute_request", content)
}

func (r *running) request(msgType string, content map[string]any) string {
	r.t.Helper()
	body, err := json.Marshal(content)
	if err != nil {
		r.t.Fatal(err)
	}
	r.requests++
	id := fmt.Sprintf("request-%d", r.requests)
	err = r.Send(&kernel.Message{
		Channel: kernel.Shell, Content: body,
		Header: kernel.Header{MsgID: id, MsgType: msgType, Session: "test", Version: kernel.ProtocolVersion},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

// outcome is what an execution led to.
type outcome struct {
	Stdout, Stderr string
	Result         string // text/plain of execute_result
	Status         string
	Error          string // "Name: value"
	Messages       []*kernel.Message
}

// until collects what belongs to a request until its idle status.
func (r *running) until(id string) outcome {
	r.t.Helper()
	var out outcome
	var stdout, stderr strings.Builder
	for {
		m := r.next()
		if m.ParentID != id {
			continue
		}
		out.Messages = append(out.Messages, m)
		var c struct {
			Name, Text, Status, Ename, Evalue string
			State                             string         `json:"execution_state"`
			Data                              map[string]any `json:"data"`
		}
		if err := json.Unmarshal(m.Content, &c); err != nil {
			r.t.Fatal(err)
		}
		switch m.Header.MsgType {
		case "stream":
			if c.Name == "stdout" {
				stdout.WriteString(c.Text)
			} else {
				stderr.WriteString(c.Text)
			}
		case "execute_result":
			out.Result, _ = c.Data["text/plain"].(string)
		case "error":
			out.Error = c.Ename + ": " + c.Evalue
		case "execute_reply":
			out.Status = c.Status
		case "status":
			if c.State == "idle" {
				out.Stdout, out.Stderr = stdout.String(), stderr.String()
				return out
			}
		}
	}
}

// run executes code and waits for its end.
func (r *running) run(code string, extra ...map[string]any) outcome {
	r.t.Helper()
	return r.until(r.send(code, extra...))
}

// usable checks that the kernel still works, streams included.
func (r *running) usable() {
	r.t.Helper()
	out := r.run("print('still', 'here'); 6*7")
	if out.Status != "ok" || out.Stdout != "still here\n" || out.Result != "42" {
		r.t.Errorf("kernel is not usable any more: %+v", out)
	}
}

func eof(err error) bool { return errors.Is(err, io.EOF) }
