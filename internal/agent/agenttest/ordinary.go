package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

var ordinary = []testCase{
	{"state stays between executions", func(s *Sandbox, _ Options) {
		s.Run("x = 20").Expect(s.T, event.StatusOK, "")
		r := s.Run("print(x+1)\nx+22").Expect(s.T, event.StatusOK, "")
		if got := r.Text("stdout"); got != "21\n" {
			s.T.Errorf("stdout %q", got)
		}
		if got := r.All(event.OutputResult); len(got) != 1 || !strings.Contains(got[0], `"42"`) {
			s.T.Errorf("results %q", got)
		}
	}},
	{"output of Python, C code and children keeps its order", testOrder},
	{"bytes that are no UTF-8 arrive as replacement characters", func(s *Sandbox, _ Options) {
		r := s.Run("import os\nfor b in 'a€\\U0001F600'.encode(): os.write(1, bytes([b]))\nos.write(2, b'\\xff\\xfe')")
		if got := r.Text("stdout"); got != "a€😀" {
			s.T.Errorf("stdout %q", got)
		}
		if got := r.Text("stderr"); got != "\uFFFD\uFFFD" {
			s.T.Errorf("stderr %q", got)
		}
	}},
	{"an exception is an error with its traceback", func(s *Sandbox, _ Options) {
		r := s.Run("def f(): 1/0\nf()").Expect(s.T, event.StatusError, "")
		if got := r.All(event.OutputError); len(got) != 1 || !strings.Contains(got[0], "ZeroDivisionError") {
			s.T.Errorf("errors %q", got)
		}
	}},
	{"displays, updates and clearing", func(s *Sandbox, _ Options) {
		r := s.Run("from IPython.display import display, HTML, clear_output\nh = display(HTML('<b>1</b>'), display_id='d')\nh.update(HTML('<b>2</b>'))\nclear_output(wait=True)")
		r.Expect(s.T, event.StatusOK, "")
		if len(r.All(event.OutputDisplay)) != 1 || len(r.All(event.OutputUpdate)) != 1 || len(r.All(event.OutputClear)) != 1 {
			s.T.Errorf("events %v", r.Events)
		}
	}},
	{"completion, inspection and refusals", testRequests},
	{"input and getpass", testInput},
	{"an interrupt while input waits", func(s *Sandbox, _ Options) {
		r := s.Start("input('name? ')", func(e *agentapi.Execute) { e.AllowStdin = true })
		r.Until(event.InputRequested, "name?")
		s.interrupt(r)
		r.Wait().Expect(s.T, event.StatusInterrupted, "")
		s.Usable()
	}},
	{"input where none is allowed raises", func(s *Sandbox, _ Options) {
		s.Run("input()").Expect(s.T, event.StatusError, "")
	}},
	{"an interrupt of a busy loop", func(s *Sandbox, _ Options) { s.interrupted("print('go', flush=True)\nwhile True: pass") }},
	{"an interrupt of a sleep", func(s *Sandbox, _ Options) {
		s.interrupted("import time\nprint('go', flush=True)\ntime.sleep(1000)")
	}},
	{"an interrupt of a child process", func(s *Sandbox, _ Options) {
		s.interrupted("import os, time\nprint('go', flush=True)\nos.system('sleep 1000')\ntime.sleep(1000)")
	}},
	{"the interrupt ladder up to a fresh kernel", testLadder},
	{"a time limit", func(s *Sandbox, _ Options) {
		s.Run("kept = 1")
		r := s.Start("while True: pass", func(e *agentapi.Execute) { e.TimeoutMS = 300 }).Wait().Expect(s.T, event.StatusTimeout, "")
		if r.Finished.Message == "" || len(r.All(event.KernelInterrupted)) == 0 {
			s.T.Errorf("finished %+v, events %v", r.Finished, r.Events)
		}
		s.Run("kept").Expect(s.T, event.StatusOK, "")
	}},
	{"two executions at once are queued", testQueue},
	{"a restart aborts what waits", testRestart},
	{"os._exit", func(s *Sandbox, _ Options) { s.dies("import os; os._exit(3)", "exit code 3") }},
	{"a segmentation fault", func(s *Sandbox, _ Options) { s.dies("import ctypes; ctypes.string_at(0)", "SIGSEGV") }},
	{"a kernel that kills itself", func(s *Sandbox, _ Options) { s.dies("import os; os.kill(os.getpid(), 9)", "SIGKILL") }},
	{"sys.exit only ends the cell", func(s *Sandbox, _ Options) {
		s.Run("kept = 1")
		s.Run("import sys; sys.exit(1)")
		s.Run("kept").Expect(s.T, event.StatusOK, "")
	}},
	{"deep recursion", func(s *Sandbox, _ Options) {
		s.Run("def f(n): return f(n+1)\nf(0)").Expect(s.T, event.StatusError, "")
		s.Usable()
	}},
	{"recursion without a limit", func(s *Sandbox, _ Options) {
		// Python may raise or overflow its stack; either is fine if it is said.
		r := s.Run("import sys; sys.setrecursionlimit(10**9)\nclass A:\n def __repr__(self): return repr(self)\nrepr(A())")
		if r.Finished.Status == event.StatusKilled && r.Finished.Reason != event.ReasonKernelDied || r.Finished.Status == event.StatusOK {
			s.T.Errorf("finished %+v", r.Finished)
		}
		s.Usable()
	}},
	{"threads that never end", func(s *Sandbox, _ Options) {
		s.Run("import threading, time\nfor _ in range(8): threading.Thread(target=lambda: [time.sleep(1) for _ in iter(int, 1)]).start()").Expect(s.T, event.StatusOK, "")
		s.Usable()
	}},
	{"output of a thread after the end", testLate},
	{"stdout closed", func(s *Sandbox, _ Options) {
		s.Run("import sys, os; sys.stdout.close()")
		s.Run("import os; os.close(1); os.close(2)")
		s.usableOrReplaced()
	}},
	{"stdout replaced", func(s *Sandbox, _ Options) {
		s.Run("import sys, io; old = sys.stdout; sys.stdout = io.StringIO(); print('lost'); sys.stdout = None").Expect(s.T, event.StatusOK, "")
		s.Run("sys.stdout = old").Expect(s.T, event.StatusOK, "")
		s.Usable()
	}},
	{"garbage on the kernel's own socket", func(s *Sandbox, _ Options) {
		r := s.Run("import os, time\nos.write(" + ownSocket + ", b'\\xff' * 4096)\ntime.sleep(60)")
		r.Expect(s.T, event.StatusKilled, event.ReasonKernelBroken)
		s.Usable()
	}},
	{"the kernel's own socket closed", func(s *Sandbox, _ Options) {
		r := s.Run("import os, time\nos.close(" + ownSocket + ")\ntime.sleep(60)")
		if r.Finished.Status != event.StatusKilled {
			s.T.Errorf("finished %+v", r.Finished)
		}
		s.Usable()
	}},
	{"a hundred megabytes of stdout", func(s *Sandbox, _ Options) {
		s.flood("b = 'x'*1023 + '\\n'\nfor _ in range(100*1024): print(b, end='')", 100<<20)
	}},
	{"a million tiny prints", func(s *Sandbox, _ Options) {
		s.flood("for i in range(1000000): print(i)", 6_888_890)
	}},
	{"a line of fifty megabytes", func(s *Sandbox, _ Options) { s.flood("print('y'*(50<<20))", 50<<20+1) }},
	{"a flood from a child process", func(s *Sandbox, _ Options) {
		s.flood("import os; _ = os.system('yes 2>/dev/null | head -c 52428800')", 50<<20)
	}},
	{"several kernels at once", testSeveralKernels},
	{"code that is empty", func(s *Sandbox, _ Options) { s.Run("").Expect(s.T, event.StatusOK, "") }},
	{"ten megabytes of code", func(s *Sandbox, _ Options) {
		s.Run("x = '"+strings.Repeat("a", 10<<20)+"'\nassert len(x) == 10<<20").Expect(s.T, event.StatusOK, "")
	}},
	{"processes", testProcesses},
	{"files", testFiles},
	{"recursive listings, packing and unpacking", testTree},
}

func (s *Sandbox) interrupt(r *Running) {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	if err := s.InterruptExecution(ctx, r.ID); err != nil {
		s.T.Fatalf("interrupt: %v", err)
	}
}

// interrupted runs code that prints "go" and then must be interrupted; its
// kernel keeps its variables.
func (s *Sandbox) interrupted(code string) {
	s.T.Helper()
	s.Run("kept = 1")
	r := s.Start(code, nil)
	r.Until(event.OutputStream, "go")
	s.interrupt(r)
	res := r.Wait().Expect(s.T, event.StatusInterrupted, "")
	if got := res.All(event.KernelInterrupted); len(got) == 0 || !strings.Contains(got[0], `"sigint"`) {
		s.T.Errorf("interrupts %q", got)
	}
	s.Run("kept").Expect(s.T, event.StatusOK, "")
}

// dies runs code that ends its kernel; the reason must say how.
func (s *Sandbox) dies(code, how string) {
	s.T.Helper()
	r := s.Run(code).Expect(s.T, event.StatusKilled, event.ReasonKernelDied)
	if !strings.Contains(r.Finished.Message, how) {
		s.T.Errorf("message %q does not say %q", r.Finished.Message, how)
	}
	if len(r.All(event.KernelRestarted)) != 1 {
		s.T.Errorf("no kernel.restarted: %v", r.Events)
	}
	s.Usable()
}

// usableOrReplaced checks that code runs, if need be after a restart.
func (s *Sandbox) usableOrReplaced() {
	s.T.Helper()
	if r := s.Run("6*7"); r.Finished.Status == event.StatusOK {
		return
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	if _, err := s.RestartKernel(ctx, s.KernelID); err != nil {
		s.T.Errorf("restart: %v", err)
	}
	s.Usable()
}

// flood runs code that writes total bytes, more or less than the limit.
func (s *Sandbox) flood(code string, total int64) {
	s.T.Helper()
	r := s.Start(code, func(e *agentapi.Execute) { e.OutputLimitBytes = 1 << 20 }).Wait().Expect(s.T, event.StatusOK, "")
	if r.Finished.OutputBytes != total {
		s.T.Errorf("output_bytes %d, want %d", r.Finished.OutputBytes, total)
	}
	shown := int64(len(r.Text("")))
	if shown > 1<<20 || r.Finished.DroppedBytes != total-shown {
		s.T.Errorf("%d bytes shown, %d dropped, of %d", shown, r.Finished.DroppedBytes, total)
	}
	if got := r.All(event.OutputTruncated); len(got) != 1 {
		s.T.Errorf("output.truncated %q", got)
	}
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	f, err := s.Stat(ctx, r.Finished.OutputFile)
	if err != nil || f.SizeBytes != total {
		s.T.Errorf("whole output: %+v, %v; want %d bytes", f, err, total)
	}
	_ = s.Remove(ctx, r.Finished.OutputFile) // a hundred megabytes that the next case may want
	s.Usable()
}

// ownSocket finds the kernel's connection among its file descriptors.
const ownSocket = "[int(n) for n in os.listdir('/proc/self/fd') if os.path.islink('/proc/self/fd/' + n) and 'socket' in os.readlink('/proc/self/fd/' + n)][0]"

// testOrder waits between the sources of output: what comes over two ways at
// the very same moment has no order that anybody could see.
func testOrder(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	r := s.Start(`import os, subprocess
for i in range(5):
    print('python', i)
    input('a%d.' % i)
    os.write(1, b'C %d\n' % i)
    print('python again')
    input('b%d.' % i)
    os.system(f'echo child {i}')
    print('and again')
    input('c%d.' % i)
`, func(e *agentapi.Execute) { e.AllowStdin = true })
	var want strings.Builder
	for i := range 5 {
		for _, step := range "abc" {
			r.Until(event.InputRequested, fmt.Sprintf("%c%d.", step, i))
			if err := s.Input(ctx, r.ID, agentapi.Input{}); err != nil {
				s.T.Fatal(err)
			}
		}
		fmt.Fprintf(&want, "python %d\nC %d\npython again\nchild %d\nand again\n", i, i, i)
	}
	if got := r.Wait().Expect(s.T, event.StatusOK, "").Text("stdout"); got != want.String() {
		s.T.Errorf("stdout %q", got)
	}
}

func testRequests(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	s.Run("longvariable = 1")
	reply, err := s.Request(ctx, s.KernelID, agentapi.Request{Type: "complete_request", Content: json.RawMessage(`{"code":"longvar","cursor_pos":7}`)})
	if err != nil || !strings.Contains(string(reply.Content), "longvariable") {
		s.T.Errorf("completion: %s, %v", reply.Content, err)
	}
	reply, err = s.Request(ctx, s.KernelID, agentapi.Request{Type: "inspect_request", Content: json.RawMessage(`{"code":"len","cursor_pos":3,"detail_level":0}`)})
	if err != nil || !strings.Contains(string(reply.Content), `"found"`) {
		s.T.Errorf("inspection: %s, %v", reply.Content, err)
	}
	if _, err := s.Request(ctx, s.KernelID, agentapi.Request{Type: "shutdown_request"}); !errors.Is(err, errdefs.ErrInvalid) {
		s.T.Errorf("shutdown_request: %v, want ErrInvalid", err)
	}
}

func testInput(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	r := s.Start("import getpass\nprint(input('name? ')[::-1])\nprint(len(getpass.getpass('secret? ')))", func(e *agentapi.Execute) { e.AllowStdin = true })
	r.Until(event.InputRequested, "name?")
	if err := s.Input(ctx, r.ID, agentapi.Input{Value: "ÄB"}); err != nil {
		s.T.Fatal(err)
	}
	if e := r.Until(event.InputRequested, "secret?"); !strings.Contains(string(e.Data), `"password":true`) {
		s.T.Errorf("getpass asks %s", e.Data)
	}
	if err := s.Input(ctx, r.ID, agentapi.Input{Value: "1234"}); err != nil {
		s.T.Fatal(err)
	}
	if got := r.Wait().Expect(s.T, event.StatusOK, "").Text("stdout"); got != "BÄ\n4\n" {
		s.T.Errorf("stdout %q", got)
	}
	if err := s.Input(ctx, r.ID, agentapi.Input{Value: "x"}); !errors.Is(err, errdefs.ErrConflict) {
		s.T.Errorf("input that nobody asked for: %v, want ErrConflict", err)
	}
}

func testLadder(s *Sandbox, _ Options) {
	r := s.Start("import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])\nprint('go', flush=True)\nwhile True: pass", nil)
	r.Until(event.OutputStream, "go")
	s.interrupt(r)
	res := r.Wait().Expect(s.T, event.StatusInterrupted, "")
	steps := strings.Join(res.All(event.KernelInterrupted), " ")
	for _, step := range []string{`"sigint"`, `"sigint_again"`, `"kill"`} {
		if !strings.Contains(steps, step) {
			s.T.Errorf("steps %s lack %s", steps, step)
		}
	}
	if len(res.All(event.KernelRestarted)) != 1 || res.Finished.Message == "" {
		s.T.Errorf("events %v", res.Events)
	}
	s.Usable()
}

func testQueue(s *Sandbox, _ Options) {
	first := s.Start("print('go', flush=True); input()", func(e *agentapi.Execute) { e.AllowStdin = true })
	first.Until(event.InputRequested, "")
	second := s.Start("print('second')", nil)
	if e := second.Until(event.ExecutionQueued, ""); !strings.Contains(string(e.Data), `"ahead":1`) {
		s.T.Errorf("queued %s", e.Data)
	}
	third := s.Start("print('third')", nil)
	third.Until(event.ExecutionQueued, `"ahead":2`)
	s.interrupt(third)
	third.Wait().Expect(s.T, event.StatusAborted, "")
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	if err := s.Input(ctx, first.ID, agentapi.Input{}); err != nil {
		s.T.Fatal(err)
	}
	first.Wait().Expect(s.T, event.StatusOK, "")
	if got := second.Wait().Expect(s.T, event.StatusOK, "").Text(""); got != "second\n" {
		s.T.Errorf("second printed %q", got)
	}
}

func testRestart(s *Sandbox, _ Options) {
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	s.Run("gone = 1")
	first := s.Start("print('go', flush=True)\nwhile True: pass", nil)
	first.Until(event.OutputStream, "go")
	second := s.Start("1", nil)
	second.Until(event.ExecutionQueued, "")
	k, err := s.RestartKernel(ctx, s.KernelID)
	if err != nil || k.State != agentapi.KernelIdle || k.Restarts != 1 {
		s.T.Errorf("restart: %+v, %v", k, err)
	}
	first.Wait().Expect(s.T, event.StatusKilled, event.ReasonRestarted)
	second.Wait().Expect(s.T, event.StatusAborted, event.ReasonRestarted)
	s.Run("gone").Expect(s.T, event.StatusError, "")
}

func testLate(s *Sandbox, _ Options) {
	r := s.Run("import threading\ngo = threading.Event()\nthreading.Thread(target=lambda: (go.wait(), print('late', flush=True))).start()").Expect(s.T, event.StatusOK, "")
	last := r.Events[len(r.Events)-1].Seq
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	stream, err := s.Follow(ctx, r.ID, last)
	if err != nil {
		s.T.Fatal(err)
	}
	defer stream.Close()
	s.Run("go.set()")
	rec, err := stream.Next()
	if err != nil || rec.Type != event.OutputStream || !strings.Contains(string(rec.Line), "late") {
		s.T.Errorf("late event %s, %v", rec.Line, err)
	}
}

func testSeveralKernels(s *Sandbox, _ Options) {
	other := New(s.T, s.Client)
	defer other.remove()
	s.Run("x = 1")
	other.Run("x = 2")
	for _, c := range []struct {
		s    *Sandbox
		want string
	}{{s, "1\n"}, {other, "2\n"}} {
		if got := c.s.Run("print(x)").Text("stdout"); got != c.want {
			s.T.Errorf("x is %q, want %q", got, c.want)
		}
	}
	other.Run("import os; os._exit(1)")
	if got := s.Run("print(x)").Text("stdout"); got != "1\n" {
		s.T.Errorf("after another kernel died x is %q", got)
	}
}
