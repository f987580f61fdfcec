package kernel_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/kernel"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

func TestMessagesOfAnExecutionComeInOrder(t *testing.T) {
	r := start(t)
	out := r.run("print('x'); 1+1")
	var got []string
	for _, m := range out.Messages {
		got = append(got, m.Channel+" "+m.Header.MsgType)
		if m.Header.Session == "" || m.Header.MsgID == "" || m.Header.Date == "" {
			t.Errorf("incomplete header: %+v", m.Header)
		}
	}
	want := "iopub status, iopub execute_input, iopub stream, iopub execute_result, shell execute_reply, iopub status"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestReadyTellsWhatWasPreloaded(t *testing.T) {
	p, err := kernel.Start(context.Background(), kernel.Options{Python: kerneltest.Python(t), Dir: t.TempDir(), Preload: []string{"decimal", "no_such_module"}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = p.Kill()
		_ = p.Conn().Close()
		_ = p.Stdout.Close()
		_ = p.Stderr.Close()
	}()
	var states []string
	for range 2 {
		m, err := p.Conn().Receive()
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, m.Header.MsgType+string(m.Content))
		if strings.Contains(string(m.Content), "idle") {
			want := `{"ready":true,"preload":{"decimal":null,"no_such_module":"ModuleNotFoundError: No module named 'no_such_module'"}}`
			if string(m.Metadata) != want {
				t.Errorf("metadata = %s, want %s", m.Metadata, want)
			}
		}
	}
	if want := `status{"execution_state":"starting"} status{"execution_state":"idle"}`; strings.Join(states, " ") != want {
		t.Errorf("got %v, want %s", states, want)
	}
}

func TestInterruptHitsTheExecutionThatRuns(t *testing.T) {
	for name, code := range map[string]string{
		"a loop":             "while True: pass",
		"a sleep":            "import time; time.sleep(60)",
		"an await":           "import asyncio; await asyncio.sleep(60)",
		"a busy await":       "import asyncio\nawait asyncio.sleep(0)\nwhile True: pass",
		"a task and a sleep": "import asyncio, time\nasync def f(): time.sleep(60)\nawait asyncio.gather(f())",
		"a flood of output":  "while True: print('x' * 1000)",
		"many small prints":  "while True: print(1)",
		"a child process":    "import subprocess; subprocess.run(['sleep', '60'])",
		"a thread pool":      "import threading; threading.Event().wait()",
		"asyncio.run":        "import asyncio; asyncio.run(asyncio.sleep(60))",
		"os.system":          "import os; os.system('sleep 60')",
		"a shell command":    "!sleep 60",
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			id := r.send(code)
			time.AfterFunc(400*time.Millisecond, func() { _ = r.Interrupt() })
			began := time.Now()
			out := r.until(id)
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the interrupt took %v", took)
			}
			if name != "a shell command" && !strings.HasPrefix(out.Error, "KeyboardInterrupt") {
				t.Errorf("error = %q, want KeyboardInterrupt", out.Error)
			}
			r.usable()
		})
	}
}

func TestInterruptBetweenCellsIsHarmless(t *testing.T) {
	r := start(t)
	for range 50 {
		if err := r.Interrupt(); err != nil {
			t.Fatal(err)
		}
	}
	r.usable()
	// It works for a part of each moment, so that some interrupts find it in the middle of its own code.
	r.run("import asyncio\nasync def f():\n    while True:\n        sum(range(20000))\n        await asyncio.sleep(0)\nt = asyncio.create_task(f())")
	for range 50 {
		if err := r.Interrupt(); err != nil {
			t.Fatal(err)
		}
	}
	r.usable()
	if out := r.run("t.done()"); out.Result != "False" {
		t.Errorf("the background task was hit: %+v", out)
	}
}

// TestInterruptIsNeitherLostNorLate interrupts at random moments around the ends of executions: one
// that was sent before the interrupt is hit or had already ended, one that is sent after it never.
func TestInterruptIsNeitherLostNorLate(t *testing.T) {
	r := start(t)
	hit := 0
	for i := range 300 {
		id := r.send("import time\ntime.sleep(0.001)")
		time.Sleep(time.Duration(i%30) * 100 * time.Microsecond)
		if err := r.Interrupt(); err != nil {
			t.Fatal(err)
		}
		next := r.send("for i in range(200): pass\n'untouched'")
		if out := r.until(id); out.Status == "error" {
			hit++
			if out.Error != "KeyboardInterrupt: " {
				t.Fatalf("round %d: %q", i, out.Error)
			}
			// The error aborts what was queued, unless it was sent after the reply.
			if out := r.until(next); out.Status != "aborted" && out.Result != "'untouched'" {
				t.Fatalf("round %d: the next execution was hit: %+v", i, out)
			}
			continue
		}
		if out := r.until(next); out.Result != "'untouched'" {
			t.Fatalf("round %d: the next execution was hit: %+v", i, out)
		}
	}
	t.Logf("%d of 300 interrupts hit, the others came after the end", hit)
	// One that comes with the request itself must not be lost.
	for i := range 100 {
		id := r.send("import time\ntime.sleep(30)")
		if err := r.Interrupt(); err != nil {
			t.Fatal(err)
		}
		if out := r.until(id); !strings.HasPrefix(out.Error, "KeyboardInterrupt") {
			t.Fatalf("round %d: %+v", i, out)
		}
	}
	r.usable()
}

func TestOutputOfChildrenAndOfCComesThroughThePipes(t *testing.T) {
	r := start(t)
	for name, code := range map[string]string{
		"os.system":   "import os; os.system('echo from os.system')",
		"subprocess":  "import subprocess; subprocess.run(['echo', 'from subprocess'])",
		"C":           "import ctypes; ctypes.CDLL(None).printf(b'from C\\n')",
		"posix_spawn": "import os; os.waitpid(os.posix_spawnp('echo', ['echo', 'from posix_spawn'], os.environ), 0)",
		"os.fork":     "import os\nif os.fork() == 0:\n    print('from os.fork')\n    os._exit(0)\nos.wait()",
		"fork falls":  "import os\nif os.fork() == 0:\n    print('from fork falls')\nelse: os.wait()",
		"fork raises": "import os\nif os.fork() == 0:\n    raise ValueError('from fork raises')\nos.wait()",
		"os.write":    "import os; os.write(1, b'from os.write\\n')",
	} {
		out := r.run(code)
		if out.Status != "ok" {
			t.Fatalf("%s: %+v", name, out)
		}
		pipe := "stdout"
		if name == "fork raises" {
			pipe = "stderr"
		}
		waitFor(t, func() bool { return strings.Contains(r.pipe(pipe), "from "+name) }, "%s: nothing in the pipe: %q", name, r.pipe(pipe))
		if strings.Contains(out.Stdout, "from") {
			t.Errorf("%s: a message carries the child's output", name)
		}
	}
	r.usable()
}

// TestOrderAroundChildren: what was printed before a child starts has been sent when it writes.
func TestOrderAroundChildren(t *testing.T) {
	r := start(t)
	for _, code := range []string{
		"import os\nprint('before', end='')\nos.system('sleep 0.05; echo child >&2; sleep 0.3')",
		"import subprocess\nprint('before', end='')\nsubprocess.run('sleep 0.05; echo child >&2; sleep 0.3', shell=True)",
		"import os\nprint('before', end='')\npid = os.fork()\nif pid == 0:\n    import time\n    time.sleep(0.05); os.write(2, b'child\\n'); time.sleep(0.3); os._exit(0)\nos.waitpid(pid, 0)",
	} {
		seen := strings.Count(r.pipe("stderr"), "child")
		id := r.send(code)
		for {
			if m := r.next(); m.ParentID == id && m.Header.MsgType == "stream" {
				break
			}
		}
		if strings.Count(r.pipe("stderr"), "child") != seen {
			t.Errorf("the child wrote before the kernel's own output came:\n%s", code)
		}
		r.until(id)
	}
}

func waitFor(t *testing.T, ok func() bool, format string, args ...any) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf(format, args...)
}

func TestTheKernelSurvives(t *testing.T) {
	for name, code := range map[string]string{
		"closed descriptors":       "import os; os.close(1); os.close(2)",
		"closed low descriptors":   "import os; os.closerange(0, 50)",
		"deep recursion":           "def f(): f()\nf()",
		"a huge traceback":         "raise ValueError('x' * 100_000_000)",
		"a huge repr":              "'x' * 80_000_000",
		"a huge display":           "display({'text/plain': 'x' * 80_000_000}, raw=True)",
		"a thread without end":     "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start()",
		"a thread that floods":     "import threading\ndef f():\n    for i in range(200000): print(i)\nthreading.Thread(target=f).start()",
		"replaced streams":         "import sys; sys.stdout = sys.stderr = object()",
		"deleted streams":          "import sys; del sys.stdout, sys.stderr",
		"a finaliser that prints":  "class A:\n    def __del__(self): print('gone')\nfor i in range(10000):\n    a = A(); a.me = a; print(i)",
		"a handler that prints":    "import signal, time\nsignal.signal(signal.SIGALRM, lambda *a: print('alarm'))\nsignal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)\nfor i in range(50000): print(i)\nsignal.setitimer(signal.ITIMER_REAL, 0)",
		"a stolen SIGINT":          "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)",
		"a signal to itself":       "import os, signal; os.kill(os.getpid(), signal.SIGINT)",
		"sys.exit in a thread":     "import threading, sys\nthreading.Thread(target=sys.exit).start()",
		"broken excepthook":        "import sys; sys.excepthook = None; 1/0",
		"a closed loop":            "import asyncio; asyncio.get_running_loop().close()",
		"no threads allowed":       "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))",
		"no files allowed":         "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))",
		"an emptied sys.modules":   "import sys\nfor m in ('json', 'asyncio', 'threading', 'io'): sys.modules.pop(m, None)",
		"a hostile user namespace": "get_ipython = str = len = Exception = isinstance = None",
		"an unprintable exception": "class E(Exception):\n    __str__ = __repr__ = None\nraise E",
		"a raised BaseException":   "raise BaseException('x')",
		"a generator exit":         "raise GeneratorExit",
		"a trace function":         "import sys\nsys.settrace(lambda *a: None)\n1",
		"a changed directory gone": "import os, tempfile\nd = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			r.run(code)
			if name == "a thread that floods" {
				time.Sleep(200 * time.Millisecond)
			}
			// What one cell breaks the next may have to live with, but it is answered.
			id := r.send("print('still', 'here'); 6*7")
			out := r.until(id)
			if out.Status != "ok" || !strings.Contains(out.Stdout, "still here\n") || out.Result != "42" {
				t.Errorf("not usable: status %q, error %q, stdout %.200q, result %q", out.Status, out.Error, out.Stdout, out.Result)
			}
		})
	}
}

func TestExitsAreTold(t *testing.T) {
	for name, test := range map[string]struct {
		code string
		want kernel.ExitState
	}{
		"exit":     {"exit()", kernel.ExitState{}},
		"quit":     {"quit", kernel.ExitState{}},
		"os._exit": {"import os; os._exit(7)", kernel.ExitState{Code: 7}},
		"segfault": {"import ctypes; ctypes.string_at(0)", kernel.ExitState{Code: -1, Signal: syscall.SIGSEGV}},
		"kill -9":  {"import os; os.kill(os.getpid(), 9)", kernel.ExitState{Code: -1, Signal: syscall.SIGKILL}},
		"exit with a thread that never ends": {
			"import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()\nexit()", kernel.ExitState{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t)
			r.send(test.code)
			for {
				m, err := r.Receive()
				if err != nil {
					if !eof(err) {
						t.Errorf("receive: %v, want EOF", err)
					}
					break
				}
				_ = m
			}
			if got := r.Wait(); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestGarbageOnTheSocketIsAProtocolError(t *testing.T) {
	r := start(t)
	r.send("import os\nfor fd in range(3, 200):\n    try: os.write(fd, b'garbage! garbage! garbage!')\n    except OSError: pass")
	var err error
	for err == nil {
		_, err = r.Receive()
	}
	if !isProtocol(err) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
}

func TestKillEndsEverythingThatTheKernelStarted(t *testing.T) {
	r := start(t)
	marker := strconv.Itoa(os.Getpid()) + "000123"
	out := r.run(fmt.Sprintf(`
import subprocess, os
subprocess.Popen(["sleep", "%[1]s"])
subprocess.Popen(["sleep", "%[1]s"], start_new_session=True)
subprocess.Popen("setsid sh -c 'sleep %[1]s & sleep %[1]s' &", shell=True)
subprocess.Popen(["env", "-i", "sleep", "%[1]s"])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execvp("sleep", ["sleep", "%[1]s"])
    os._exit(0)
import time; time.sleep(0.3)
`, marker))
	if out.Status != "ok" {
		t.Fatalf("%+v", out)
	}
	if n := count(t, marker); n < 5 {
		t.Fatalf("%d processes, want at least 5", n)
	}
	if err := r.Kill(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return count(t, marker) == 0 }, "processes are left")
	if err := r.Kill(); err != nil {
		t.Errorf("the second kill: %v", err)
	}
	if err := r.Interrupt(); err == nil {
		t.Error("an ended kernel was interrupted")
	}
}

// count counts processes with text in their command line.
func count(t *testing.T, text string) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(line), "sleep\x00") && strings.Contains(string(line), text) { //nolint:gosec // /proc
			n++
		}
	}
	return n
}

func TestTheKernelEndsWithItsParent(t *testing.T) {
	r := start(t)
	if err := r.Conn.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.Done():
	case <-time.After(patience):
		t.Error("the kernel lives on without its agent")
	}
}

func TestInputInThreads(t *testing.T) {
	r := start(t)
	answer := func(id string) {
		t.Helper()
		for {
			m := r.next()
			if m.Header.MsgType != "input_request" {
				continue
			}
			if m.ParentID != id {
				t.Errorf("the question belongs to %q, want %q", m.ParentID, id)
			}
			if err := r.Send(&kernel.Message{Channel: kernel.Stdin, Header: kernel.Header{MsgID: "a", MsgType: "input_reply", Session: "test"}, Content: []byte(`{"value":"yes"}`)}); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	stdin := map[string]any{"allow_stdin": true}
	// While the kernel executes …
	id := r.send("import threading\nt = threading.Thread(target=lambda: print('got', input()))\nt.start(); t.join()", stdin)
	answer(id)
	if out := r.until(id); out.Stdout != "got yes\n" {
		t.Errorf("%+v", out)
	}
	// … and while it is idle.
	id = r.send("got = []\ndef ask():\n    import time; time.sleep(0.2)\n    got.append(input())\nt = threading.Thread(target=ask)\nt.start()", stdin)
	r.until(id)
	answer(id)
	if out := r.run("t.join(); got"); out.Result != "['yes']" {
		t.Errorf("%+v", out)
	}
}
