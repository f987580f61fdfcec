package agenttest

import (
	"context"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
)

// bombs go off in sandboxes of their own, one after the other.
var bombs = []testCase{
	{"a fork bomb", func(s *Sandbox, _ Options) {
		s.limited(s.Run("import os\nwhile True:\n try: os.fork()\n except OSError: pass"))
	}},
	{"a fork bomb that hides", func(s *Sandbox, _ Options) {
		// Each child leaves its session and clears its environment.
		s.limited(s.Run("import os, time\ndef bomb():\n while True:\n  try:\n   if os.fork() == 0:\n    os.setsid()\n    os.environ.clear()\n  except OSError: time.sleep(0.001)\nbomb()"))
	}},
	{"endless threads", func(s *Sandbox, _ Options) {
		r := s.Run("import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()")
		if r.Finished.Status != event.StatusError {
			s.limited(r)
			return
		}
		s.usableOrReplaced()
	}},
	{"a memory bomb", func(s *Sandbox, _ Options) {
		r := s.Run("l = []\nwhile True: l.append(bytearray(16 << 20))")
		if r.Finished.Status != event.StatusError || !strings.Contains(strings.Join(r.All(event.OutputError), ""), "MemoryError") {
			r.Expect(s.T, event.StatusKilled, event.ReasonOutOfMemory)
		}
		s.usableOrReplaced()
	}},
	{"one allocation that is too large", func(s *Sandbox, _ Options) {
		r := s.Run("x = bytearray(1 << 40)").Expect(s.T, event.StatusError, "")
		if !strings.Contains(strings.Join(r.All(event.OutputError), ""), "MemoryError") {
			s.T.Errorf("errors %v", r.All(event.OutputError))
		}
		s.Usable()
	}},
	{"a memory bomb in a child", func(s *Sandbox, _ Options) {
		s.Run("kept = 1")
		r := s.Run("import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'l = []\\nwhile True: l.append(bytearray(16 << 20))'], check=True)")
		if r.Finished.Status == event.StatusOK {
			s.T.Errorf("finished %+v", r.Finished)
		}
		s.Usable()
	}},
	{"a disk that is filled", func(s *Sandbox, _ Options) {
		r := s.Run("f = open('/workspace/big', 'wb')\nwhile True: f.write(b'x' * (8 << 20))").Expect(s.T, event.StatusError, event.ReasonDiskFull)
		if r.Finished.Message == "" {
			s.T.Error("no sentence")
		}
		// Also output that is too large for events has nowhere to go now, and must not break anything.
		s.Start("print('z' * (4 << 20))", func(e *agentapi.Execute) { e.OutputLimitBytes = 1 << 20 }).Wait().Expect(s.T, event.StatusOK, "")
		ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
		defer cancel()
		_, err := s.Upload(ctx, "more", strings.NewReader(strings.Repeat("x", 16<<20)), 16<<20)
		if code(err) != "disk-full" {
			s.T.Errorf("upload to a full disk: %v, want disk-full", err)
		}
		if f, err := s.Stat(ctx, "."); err != nil || strings.Contains(names(f), "upload") || strings.Contains(names(f), "more") {
			s.T.Errorf("left behind: %q, %v", names(f), err)
		}
		if err := s.Remove(ctx, "/workspace/big"); err != nil {
			s.T.Errorf("remove: %v", err)
		}
		s.Run("f.close() if not f.closed else None")
		s.Usable()
	}},
	{"kill -9 -1", func(s *Sandbox, _ Options) {
		// A process may not signal itself with -1, so its children do it.
		r := s.Run("import os, time\nif os.fork() == 0: os.kill(-1, 9)\ntime.sleep(60)").Expect(s.T, event.StatusKilled, event.ReasonKernelDied)
		if !strings.Contains(r.Finished.Message, "SIGKILL") {
			s.T.Errorf("message %q", r.Finished.Message)
		}
		s.Usable()
	}},
	{"every signal to the agent", func(s *Sandbox, _ Options) {
		s.Run("import os, signal\nfor n in signal.valid_signals():\n if n not in (signal.SIGKILL, signal.SIGSTOP):\n  try: os.kill(1, n)\n  except OSError: pass")
		s.Usable()
	}},
	{"the agent cannot be read or traced", func(s *Sandbox, _ Options) {
		r := s.Run("for f in ('mem', 'environ', 'maps', 'fd/0'):\n try:\n  open('/proc/1/' + f, 'rb').read(1); print('read', f)\n except OSError: pass\nimport ctypes; print(ctypes.CDLL(None).ptrace(16, 1, 0, 0))")
		if got := r.Text("stdout"); strings.Contains(got, "read mem") || strings.Contains(got, "read environ") || !strings.Contains(got, "-1") {
			s.T.Errorf("stdout %q", got)
		}
		s.Usable()
	}},
	{"a crowd at the agent's port", func(s *Sandbox, _ Options) {
		s.Run("import socket\nheld = []\nfor _ in range(500):\n try:\n  c = socket.create_connection(('127.0.0.1', 44772), 1); held.append(c)\n except OSError: pass").Expect(s.T, event.StatusOK, "")
		s.CloseIdle() // so that a new connection has to be made
		s.Usable()
	}},
}

// limited checks the end of an execution that made too many processes.
func (s *Sandbox) limited(r *Result) {
	s.T.Helper()
	r.Expect(s.T, event.StatusKilled, event.ReasonProcessLimit)
	s.Usable()
	ctx, cancel := context.WithTimeout(s.T.Context(), Patience)
	defer cancel()
	if u, err := s.Usage(ctx); err != nil || u.Processes > 64 {
		s.T.Errorf("afterwards: %+v, %v", u, err)
	}
}
