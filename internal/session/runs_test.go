package session_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/session"
)

func codeOf(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestCells(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)

	t.Run("after one that raises the rest does not run", func(t *testing.T) {
		a, b, c := addCell(t, s, "x = 1"), addCell(t, s, "1/0"), addCell(t, s, "print('never')")
		run(t, s, a, b, c)
		d := await(t, s, "the end", status(c, "aborted"))
		if item(d, a).Status != "ok" || item(d, b).Status != "error" || item(d, c).Message == "" || item(d, c).ExecutionCount != 0 {
			t.Errorf("items = %+v", d.Items)
		}
	})
	t.Run("what runs is what the person sees", func(t *testing.T) {
		a := addCell(t, s, "print('old')")
		if _, err := s.Run(v1.RunItems{Items: []string{a}, Code: map[string]string{a: "print('new')"}}); err != nil {
			t.Fatal(err)
		}
		it := item(await(t, s, "the end", status(a, "ok")), a)
		if it.Code != "print('new')" || text(it) != "new\n" || it.Edited {
			t.Errorf("item = %+v", it)
		}
		if _, err := s.UpdateItem(a, v1.UpdateItem{Code: new("print('newer')")}); err != nil {
			t.Fatal(err)
		}
		if it := item(s.Detail(), a); !it.Edited || text(it) != "new\n" {
			t.Errorf("edited = %+v", it)
		}
	})
	t.Run("an interrupt stops the running cell and takes back the others", func(t *testing.T) {
		a, b := addCell(t, s, "import time\nprint('on')\nwhile True: time.sleep(.01)"), addCell(t, s, "2")
		run(t, s, a, b)
		await(t, s, "output", func(d v1.SessionDetail) bool { return text(item(d, a)) != "" && d.Sandbox.State == "busy" })
		if _, err := s.Run(v1.RunItems{Items: []string{a}}); codeOf(err) != "item-running" {
			t.Errorf("run again: %v", err)
		}
		s.Interrupt()
		d := await(t, s, "the end", status(a, "interrupted"))
		if item(d, b).Status != "aborted" {
			t.Errorf("b = %+v", item(d, b))
		}
		await(t, s, "rest", func(d v1.SessionDetail) bool { return d.Sandbox.State == "ready" })
	})
	t.Run("input is asked in place, and question and answer are part of the output", func(t *testing.T) {
		a := addCell(t, s, "n = input('Name: ')\nimport getpass\np = getpass.getpass('Word: ')\nprint(n, len(p))")
		run(t, s, a)
		await(t, s, "the question", func(d v1.SessionDetail) bool { return item(d, a).Input != nil })
		if err := s.Input(t.Context(), a, "Ada"); err != nil {
			t.Fatal(err)
		}
		await(t, s, "the second question", func(d v1.SessionDetail) bool { in := item(d, a).Input; return in != nil && in.Password })
		if err := s.Input(t.Context(), a, "secret"); err != nil {
			t.Fatal(err)
		}
		it := item(await(t, s, "the end", status(a, "ok")), a)
		if got := text(it); got != "Name: Ada\nWord: ········\nAda 6\n" {
			t.Errorf("output = %q", got)
		}
		if err := s.Input(t.Context(), a, "x"); codeOf(err) != "no-input-requested" {
			t.Errorf("input of a finished cell: %v", err)
		}
	})
	t.Run("an answer stands before what the code does with it, however fast that is", func(t *testing.T) {
		a := addCell(t, s, "for i in range(30):\n    print(input(f'{i}? '))")
		run(t, s, a)
		want := ""
		for i := range 30 {
			prompt := fmt.Sprintf("%d? ", i)
			await(t, s, prompt, func(d v1.SessionDetail) bool { in := item(d, a).Input; return in != nil && in.Prompt == prompt })
			if err := s.Input(t.Context(), a, "yes"); err != nil {
				t.Fatal(err)
			}
			want += prompt + "yes\nyes\n"
		}
		it := item(await(t, s, "the end", status(a, "ok")), a)
		if got := text(it); got != want {
			t.Errorf("output = %q", got)
		}
	})
	t.Run("a display is updated from another cell", func(t *testing.T) {
		a := addCell(t, s, "from IPython.display import display\nh = display('one', display_id=True)")
		b := addCell(t, s, "h.update('two')")
		run(t, s, a, b)
		d := await(t, s, "the end", status(b, "ok"))
		if got := string(item(d, a).Outputs[0].Data["text/plain"]); got != `"'two'"` {
			t.Errorf("shown = %s", got)
		}
	})
	t.Run("a flood arrives whole, in few events", func(t *testing.T) {
		a := addCell(t, s, "for i in range(20000): print(i)")
		before := s.Detail().LastSeq
		run(t, s, a)
		d := await(t, s, "the end", status(a, "ok"))
		whole, err := s.Item(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(text(whole)), "\n")
		if len(lines) != 20000 || lines[19999] != "19999" {
			t.Errorf("%d lines", len(lines))
		}
		if ref := item(d, a).Outputs[0].Refs[session.RefText]; ref.Bytes != int64(len(text(whole))) {
			t.Errorf("the detail has %d bytes, refs %+v", len(text(item(d, a))), item(d, a).Outputs[0].Refs)
		}
		if n := d.LastSeq - before; n > 2000 {
			t.Errorf("%d events", n)
		}
	})
	t.Run("output of a thread that stays behind arrives too", func(t *testing.T) {
		a := addCell(t, s, "import threading, time\ndef later():\n    time.sleep(.3); print('late')\nthreading.Thread(target=later).start()")
		run(t, s, a)
		await(t, s, "late words", func(d v1.SessionDetail) bool {
			it := item(d, a)
			return it.Status == "ok" && text(it) == "late\n"
		})
	})
	t.Run("a restart of the kernel forgets variables", func(t *testing.T) {
		if err := s.RestartKernel(t.Context()); err != nil {
			t.Fatal(err)
		}
		a := addCell(t, s, "x")
		run(t, s, a)
		if it := item(await(t, s, "the end", status(a, "error")), a); it.Outputs[0].ErrorName != "NameError" {
			t.Errorf("outputs = %+v", it.Outputs)
		}
	})
	t.Run("a lost sandbox is told of, and the next run has a new one", func(t *testing.T) {
		sb, ok := s.LiveSandbox()
		if !ok {
			t.Fatal("no sandbox")
		}
		a := addCell(t, s, "import time\nprint('x')\ntime.sleep(100)")
		run(t, s, a)
		await(t, s, "output", func(d v1.SessionDetail) bool { return text(item(d, a)) != "" })
		if err := w.host.Kill(sb.ID(), "out_of_memory"); err != nil {
			t.Fatal(err)
		}
		d := await(t, s, "the loss", func(d v1.SessionDetail) bool {
			return item(d, a).Status == "killed" && d.Sandbox.State == "lost"
		})
		if d.Sandbox.Reason != "out_of_memory" || item(d, a).Reason != "out_of_memory" || d.Sandbox.Message == "" {
			t.Errorf("sandbox = %+v, item = %+v", d.Sandbox, item(d, a))
		}
		b := addCell(t, s, "print('again')")
		run(t, s, b)
		d = await(t, s, "the end", status(b, "ok"))
		if d.Sandbox.ID == string(sb.ID()) || !strings.Contains(d.Sandbox.Message, "variables are gone") {
			t.Errorf("sandbox = %+v", d.Sandbox)
		}
	})
	t.Run("many who need a sandbox get the same", func(t *testing.T) {
		s := create(t, svc)
		ids := make(chan sandbox.ID, 8)
		for range 8 {
			go func() {
				sb, err := s.Sandbox(t.Context())
				if err != nil {
					t.Error(err)
					ids <- ""
					return
				}
				ids <- sb.ID()
			}()
		}
		first := <-ids
		for range 7 {
			if id := <-ids; id != first {
				t.Errorf("got %s and %s", first, id)
			}
		}
	})
	same(t, s)
}

func TestARestartOfTheServerLosesNothing(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	done := addCell(t, s, "x = 41\nprint('before')")
	run(t, s, done)
	await(t, s, "the first cell", status(done, "ok"))
	slow := addCell(t, s, "import time, os\nfor i in range(40):\n    print(i); time.sleep(.05)\nx + 1")
	next := addCell(t, s, "print('behind it')")
	run(t, s, slow, next)
	before := await(t, s, "some output", func(d v1.SessionDetail) bool { return strings.Count(text(item(d, slow)), "\n") > 3 })
	seen := everything(t, s, before.LastSeq)
	svc.stop()

	svc = w.start(t)
	s, err := svc.Get(t.Context(), before.ID)
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Detail(); d.LastSeq < before.LastSeq || d.Sandbox.State == "lost" || d.Sandbox.ID != before.Sandbox.ID {
		t.Errorf("after the restart: seq %d, was %d; sandbox %+v", d.LastSeq, before.LastSeq, d.Sandbox)
	}
	d := await(t, s, "the end of all", status(next, "ok"))
	it := item(d, slow)
	var want strings.Builder
	for i := range 40 {
		want.WriteString(strconv.Itoa(i) + "\n")
	}
	if text(it) != want.String() || it.Status != "ok" || string(it.Outputs[len(it.Outputs)-1].Data["text/plain"]) != `"42"` {
		t.Errorf("the cell that went on = %+v", it)
	}
	again := everything(t, s, before.LastSeq)
	for i := range seen {
		if string(seen[i]) != string(again[i]) {
			t.Fatalf("event %d was %s and is %s", i+1, seen[i], again[i])
		}
	}
	same(t, s)
}

func TestARunWhoseSandboxIsGoneAfterARestartSaysSo(t *testing.T) {
	w := newWorld(t, true)
	svc := w.start(t)
	s := create(t, svc)
	a, b := addCell(t, s, "import time\nprint('on')\ntime.sleep(100)"), addCell(t, s, "2")
	run(t, s, a, b)
	d := await(t, s, "output", func(d v1.SessionDetail) bool { return text(item(d, a)) != "" })
	svc.stop()
	if err := w.host.Kill(sandbox.ID(d.Sandbox.ID), ""); err != nil {
		t.Fatal(err)
	}
	svc = w.start(t)
	s, err := svc.Get(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	d = s.Detail()
	if it := item(d, a); it.Status != "cut" || it.Message == "" || text(it) != "on\n" || it.FinishedAt == nil {
		t.Errorf("the cell that ran = %+v", it)
	}
	if it := item(d, b); it.Status != "cut" {
		t.Errorf("the cell that waited = %+v", it)
	}
	if d.Sandbox.State == "ready" || d.Sandbox.State == "busy" || d.Sandbox.Message == "" {
		t.Errorf("sandbox = %+v", d.Sandbox)
	}
	same(t, s)
}

func TestALargeOutputThatIsUpdatedLaterStaysWhole(t *testing.T) {
	svc := newWorld(t, true).start(t)
	s := create(t, svc)
	a := addCell(t, s, "from IPython.display import display\nprint('x' * 200_000)\nh = display('one', display_id=True)")
	b := addCell(t, s, "h.update('two')")
	run(t, s, a, b)
	await(t, s, "the end", status(b, "ok"))
	c := addCell(t, s, "h.update('three')")
	run(t, s, c)
	d := await(t, s, "the end", status(c, "ok"))
	check := func(s *session.Session) {
		t.Helper()
		whole, err := s.Item(t.Context(), a)
		if err != nil || len(text(whole)) != 200_001 || string(whole.Outputs[1].Data["text/plain"]) != `"'three'"` {
			t.Errorf("%d bytes, %v, %+v", len(text(whole)), err, whole.Outputs[len(whole.Outputs)-1])
		}
		if brief := item(s.Detail(), a); len(text(brief)) > 70_000 || string(brief.Outputs[1].Data["text/plain"]) != `"'three'"` {
			t.Errorf("brief: %d bytes, %+v", len(text(brief)), brief.Outputs[1])
		}
	}
	check(s)
	same(t, s)
	session.Forget(s)
	s, err := svc.Get(t.Context(), d.ID)
	if err != nil {
		t.Fatal(err)
	}
	check(s)
}
