// Package hostile runs code that does its worst, over HTTP against a real
// server, and checks that afterwards the sandbox is usable or says why not, and
// that the server's memory has not grown.
package hostile

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const (
	// maxGrowth is how much more memory the server may have after a case than
	// before all of them, and at most during one.
	maxGrowth = 64 << 20
	// Small limits make bombs go off soon.
	memoryBytes, processes, diskBytes = 1 << 30, 128, 1 << 30
)

// end is a way in which an execution may end.
type end struct {
	status event.Status
	reason event.Reason
}

var (
	ok           = end{event.StatusOK, ""}
	raised       = end{event.StatusError, ""}
	interrupted  = end{event.StatusInterrupted, ""}
	died         = end{event.StatusKilled, event.ReasonKernelDied}
	outOfMemory  = end{event.StatusKilled, event.ReasonOutOfMemory}
	processLimit = end{event.StatusKilled, event.ReasonProcessLimit}
	lost         = end{event.StatusKilled, event.ReasonSandboxLost}
)

// box is a sandbox with the server that has it.
type box struct {
	*servertest.Server
	id string
}

// hostile is one attack. Its code runs until it ends by itself, or until it
// prints "go" and then is called.
type hostile struct {
	name string
	code string
	then func(ctx context.Context, b box, execution, kernel string) error
	ends []end                                          // any of them is right
	more func(t *testing.T, b box, r servertest.Result) // further checks; may be nil
	// times is how often it runs; default once.
	times int
	// fresh says that the sandbox may be lost, so that it gets one of its own.
	fresh bool
}

// delete frees the sandbox, unless it is gone.
func (b box) delete(t *testing.T) {
	t.Helper()
	if err := b.DeleteSandbox(t.Context(), b.id); err != nil && !isGone(err) {
		t.Error(err)
	}
}

// isGone tells a 410 that says why and what to do.
func isGone(err error) bool {
	p, is := errors.AsType[*v1.Problem](err)
	return is && p.Status == http.StatusGone && p.Code == "sandbox-gone" && p.Reason != "" && p.Hint != ""
}

func interrupt(ctx context.Context, b box, execution, _ string) error {
	return b.Interrupt(ctx, b.id, execution)
}

// ownSocket finds the kernel's connection among its file descriptors.
const ownSocket = "[int(n) for n in os.listdir('/proc/self/fd') if os.path.islink('/proc/self/fd/' + n) and 'socket' in os.readlink('/proc/self/fd/' + n)][0]"

var attacks = []hostile{
	{name: "a loop without end is interrupted", code: "print('go', flush=True)\nwhile True: pass", then: interrupt, ends: []end{interrupted}, more: stepsAre("sigint")},
	{name: "a sleep is interrupted", code: "import time\nprint('go', flush=True)\ntime.sleep(1000)", then: interrupt, ends: []end{interrupted}, more: stepsAre("sigint")},
	{
		name: "C code that waits is interrupted",
		code: "import ctypes\nprint('go', flush=True)\nctypes.CDLL(None).sleep(1000)\nwhile True: pass",
		then: interrupt, ends: []end{interrupted}, more: stepsAre("sigint"),
	},
	{
		name: "C code that waits for a lock for ever takes the whole ladder",
		code: "import ctypes\nc = ctypes.CDLL(None)\nm = ctypes.create_string_buffer(256)\nc.pthread_mutex_lock(m)\nprint('go', flush=True)\nc.pthread_mutex_lock(m)",
		then: interrupt, ends: []end{interrupted}, more: stepsAre("sigint", "sigint_again", "kill"),
	},
	{
		name: "a kernel is restarted while it runs",
		code: "print('go', flush=True)\nwhile True: pass",
		then: func(ctx context.Context, b box, _, kernel string) error {
			_, err := b.RestartKernel(ctx, b.id, kernel)
			return err
		},
		ends: []end{{event.StatusKilled, event.ReasonRestarted}},
	},
	{name: "os._exit", code: "import os; os._exit(3)", ends: []end{died}, more: says("exit code 3")},
	{name: "a read of address 0", code: "import ctypes; ctypes.string_at(0)", ends: []end{died}, more: says("SIGSEGV")},
	{name: "deep recursion", code: "def f(n): return f(n + 1)\nf(0)", ends: []end{raised}, more: raises("RecursionError")},
	{
		name: "recursion without a limit",
		code: "import sys\nold = sys.getrecursionlimit(); sys.setrecursionlimit(10**9)\nclass A:\n def __repr__(self): return repr(self)\ntry: repr(A())\nfinally: sys.setrecursionlimit(old)",
		ends: []end{raised, died},
	},
	{
		name: "threads that never end",
		code: "import threading, time\nfor _ in range(16): threading.Thread(target=lambda: [time.sleep(1) for _ in iter(int, 1)]).start()",
		ends: []end{ok},
	},
	{name: "threads that never end, without number", code: "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()", ends: []end{raised, processLimit}, more: restart},
	{name: "sys.stdout is closed", code: "import sys; sys.stdout.close()", ends: []end{ok, raised}},
	{name: "descriptors 1 and 2 are closed", code: "import os; os.close(1); os.close(2)", ends: []end{ok, raised}},
	{name: "stdout is replaced", code: "import sys, io; sys.stdout = io.StringIO(); print('lost'); sys.stdout = sys.stderr = None", ends: []end{ok}, more: restart},
	{name: "garbage to the kernel's own socket", code: "import os, time\nos.write(" + ownSocket + ", b'\\xff' * 4096)\ntime.sleep(60)", ends: []end{{event.StatusKilled, event.ReasonKernelBroken}}},
	{name: "a gigabyte announced on the kernel's own socket", code: "import os, struct, time\nos.write(" + ownSocket + ", struct.pack('>Q', 1 << 30) * 512)\ntime.sleep(60)", ends: []end{{event.StatusKilled, event.ReasonKernelBroken}}},
	{name: "the kernel's own socket is closed", code: "import os, time\nos.close(" + ownSocket + ")\ntime.sleep(60)", ends: []end{died, {event.StatusKilled, event.ReasonKernelBroken}}},
	{name: "a hundred megabytes of stdout", code: "b = 'x' * 1023 + '\\n'\nfor _ in range(100 * 1024): print(b, end='')", ends: []end{ok}, more: wrote(100 << 20)},
	{name: "a million tiny prints", code: "for i in range(1000000): print(i)", ends: []end{ok}, more: wrote(6_888_890)},
	{name: "a line of fifty megabytes", code: "print('y' * (50 << 20))", ends: []end{ok}, more: wrote(50<<20 + 1)},
	{name: "a picture of fifty megabytes", code: "from IPython.display import display\ndisplay({'image/png': 'A' * (50 << 20)}, raw=True)", ends: []end{ok}},
	{name: "twelve megabytes of stdout, ten times", code: "b = 'x' * 1023 + '\\n'\nfor _ in range(12 * 1024): print(b, end='')", times: 10, ends: []end{ok}, more: wrote(12 << 20)},
	{name: "a hundred thousand displays", code: "from IPython.display import display\nfor i in range(100000): display({'text/plain': 'x' * 200}, raw=True)", ends: []end{ok}},
	{name: "an exception of fifty megabytes", code: "raise ValueError('z' * (50 << 20))", ends: []end{raised}},
	{name: "a disk that is filled", code: "f = open('/workspace/big', 'wb')\nwhile True: f.write(b'x' * (8 << 20))", ends: []end{{event.StatusError, event.ReasonDiskFull}}, more: emptyDisk},
	{name: "a fork bomb", code: "import os\nwhile True:\n try: os.fork()\n except OSError: pass", ends: []end{processLimit}, fresh: true},
	{name: "a memory bomb", code: "l = []\nwhile True: l.append(bytearray(16 << 20))", ends: []end{raised, outOfMemory}, more: restart, fresh: true},
	{name: "a memory bomb of shared pages", code: "import mmap\nl = []\nwhile True:\n m = mmap.mmap(-1, 16 << 20); m.write(b'x' * (16 << 20)); l.append(m)", ends: []end{raised, outOfMemory}, more: restart, fresh: true},
	{
		name: "the agent is killed",
		code: "import os, time\nprint('go', flush=True)\nwhile not os.path.exists('/workspace/now'): time.sleep(0.01)\nos.kill(1, 9)\ntime.sleep(60)",
		then: func(ctx context.Context, b box, _, _ string) error { // by now the answer has begun
			_, _ = b.Upload(ctx, b.id, "/workspace/now", strings.NewReader("x"), 1) // whose answer may end with the agent
			return nil
		},
		ends:  []end{lost},
		fresh: true,
	},
}

func TestHostileCode(t *testing.T) {
	data := servertest.DataDir(t)
	s := servertest.Start(t, data)
	create := func(t *testing.T) box {
		t.Helper()
		sb, err := s.CreateSandbox(t.Context(), v1.CreateSandbox{Limits: &v1.Limits{MemoryBytes: memoryBytes, Processes: processes, DiskBytes: diskBytes}})
		if err != nil {
			t.Fatal(err)
		}
		return box{s, sb.ID}
	}
	// One sandbox with some output warms the server up: its program is paged
	// in and its pools have what they keep.
	shared := create(t)
	if r, err := s.Run(t.Context(), shared.id, "print('x' * (4 << 20))"); err != nil || r.Status != event.StatusOK {
		t.Fatalf("warm-up: %+v, %v", r.Finished, err)
	}
	before := s.Memory(t)
	t.Logf("after warm-up: %d MiB", before.RSS>>20)
	for _, h := range attacks {
		t.Run(h.name, func(t *testing.T) {
			b := shared
			if h.fresh {
				b = create(t)
				defer b.delete(t)
			}
			resettable := s.ResetPeak()
			r := h.run(t, b)
			for range h.times - 1 {
				r = h.run(t, b)
			}
			if h.more != nil {
				h.more(t, b, r)
			}
			if why := usable(t, b); why != "" {
				t.Logf("the sandbox is gone: %s", why)
				if !h.fresh {
					shared = create(t)
				}
			}
			after := s.Memory(t)
			t.Logf("%s %s: %s; server: %+d MiB, most %+d MiB", r.Status, r.Reason, r.Message, (after.RSS-before.RSS)>>20, (after.Peak-before.RSS)>>20)
			if grown := after.RSS - before.RSS; grown > maxGrowth {
				t.Errorf("the server has %d MiB more than before", grown>>20)
			}
			if grown := after.Peak - before.RSS; resettable && grown > maxGrowth {
				t.Errorf("the server had %d MiB more than before", grown>>20)
			}
		})
	}
	s.DeleteAll(t)
	s.Stop(t)
	servertest.WantNothingLeft(t, data)
}

// run lets an attack happen and checks how it ended.
func (h hostile) run(t *testing.T, b box) servertest.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	called := false
	var callErr error
	r, err := b.Follow(ctx, b.id, v1.Execute{Code: h.code}, func(execution string, _ event.Event, r *servertest.Result) {
		if h.then != nil && !called && strings.Contains(r.Text, "go\n") {
			called = true
			callErr = h.then(ctx, b, execution, r.KernelID)
		}
	})
	if err != nil {
		t.Fatalf("the execution did not end: %v; so far %+v", err, r)
	}
	if callErr != nil {
		t.Errorf("while it ran: %v", callErr)
	}
	if !slices.Contains(h.ends, end{r.Status, r.Reason}) {
		t.Errorf("ended with %+v, want one of %v; errors %.300v", r.Finished, h.ends, r.Errors)
	}
	if r.Reason != "" && r.Message == "" {
		t.Errorf("reason %q without a sentence", r.Reason)
	}
	return r
}

// usable checks that code runs, or that the server says why it can't: then it
// gives that reason.
func usable(t *testing.T, b box) (gone string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), servertest.Patience)
	defer cancel()
	r, err := b.Run(ctx, b.id, "1 + 1")
	if isGone(err) {
		p, _ := errors.AsType[*v1.Problem](err)
		return p.Reason
	}
	if err != nil || r.Status != event.StatusOK || r.Value != "2" {
		t.Errorf("afterwards 1 + 1 is %q, %+v, %.300v, %v", r.Value, r.Finished, r.Errors, err)
	}
	return ""
}

// restart gives the kernel a fresh process, where what an attack leaves in it
// is the user's own doing.
func restart(t *testing.T, b box, r servertest.Result) {
	t.Helper()
	_, err := b.RestartKernel(t.Context(), b.id, r.KernelID)
	if err != nil && !isGone(err) {
		t.Errorf("restart: %v", err)
	}
}

func stepsAre(want ...string) func(*testing.T, box, servertest.Result) {
	return func(t *testing.T, _ box, r servertest.Result) {
		t.Helper()
		if !slices.Equal(r.Steps, want) {
			t.Errorf("steps %q, want %q", r.Steps, want)
		}
		if killed := slices.Contains(want, "kill"); killed != (len(r.Restarts) == 1) {
			t.Errorf("kernel.restarted %v after steps %q", r.Restarts, want)
		}
	}
}

func says(want string) func(*testing.T, box, servertest.Result) {
	return func(t *testing.T, _ box, r servertest.Result) {
		t.Helper()
		if !strings.Contains(r.Message, want) {
			t.Errorf("message %q does not say %q", r.Message, want)
		}
	}
}

func raises(want string) func(*testing.T, box, servertest.Result) {
	return func(t *testing.T, _ box, r servertest.Result) {
		t.Helper()
		if len(r.Errors) != 1 || r.Errors[0].Name != want {
			t.Errorf("errors %.300v, want %s", r.Errors, want)
		}
	}
}

// wrote checks that all output was counted, and that what was left out of the
// events is in a file.
func wrote(total int64) func(*testing.T, box, servertest.Result) {
	return func(t *testing.T, b box, r servertest.Result) {
		t.Helper()
		if r.OutputBytes != total || r.Shown+r.DroppedBytes != total {
			t.Errorf("%d bytes written, %d shown, %d left out; want %d in all", r.OutputBytes, r.Shown, r.DroppedBytes, total)
		}
		if r.DroppedBytes == 0 {
			return
		}
		if !slices.Contains(r.Types, event.OutputTruncated) {
			t.Error("no output.truncated")
		}
		f, err := b.Stat(t.Context(), b.id, r.OutputFile)
		if err != nil || f.SizeBytes != total {
			t.Errorf("the whole output: %+v, %v; want %d bytes", f, err, total)
		}
		if err := b.Remove(t.Context(), b.id, r.OutputFile); err != nil {
			t.Error(err)
		}
	}
}

// emptyDisk checks that a full disk is said to uploads too, and frees it.
func emptyDisk(t *testing.T, b box, _ servertest.Result) {
	t.Helper()
	_, err := b.Upload(t.Context(), b.id, "more", strings.NewReader(strings.Repeat("x", 16<<20)), 16<<20)
	if p, is := errors.AsType[*v1.Problem](err); !is || p.Code != "disk-full" || p.Status != http.StatusInsufficientStorage {
		t.Errorf("upload to a full disk: %v, want 507 disk-full", err)
	}
	if err := b.Remove(t.Context(), b.id, "big"); err != nil {
		t.Error(err)
	}
	if r, err := b.Run(t.Context(), b.id, "f.close()"); err != nil || r.Status == "" {
		t.Errorf("close the file: %+v, %v", r.Finished, err)
	}
	if _, err := b.Upload(t.Context(), b.id, "more", strings.NewReader("x"), 1); err != nil {
		t.Errorf("upload to a disk that was freed: %v", err)
	}
}

// String names an end in messages.
func (e end) String() string { return strings.TrimSpace(fmt.Sprint(e.status, " ", e.reason)) }
