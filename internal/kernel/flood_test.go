package kernel_test

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

// maxStreamMessage is 64 Ki characters, which JSON may make longer.
const maxStreamMessage = 400 << 10

// peak gives the most memory that the kernel ever held, in MiB. Not getrusage: that counts
// what the test itself held when it started the kernel.
func peak(r *running) int {
	r.t.Helper()
	out := r.run("int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])")
	n, err := strconv.Atoi(out.Result)
	if err != nil {
		r.t.Fatalf("%v: %+v", err, out)
	}
	return n >> 10
}

func TestFloodsOfOutputAreBounded(t *testing.T) {
	r := start(t)
	before := peak(r)
	for _, flood := range []struct {
		name, code string
		bytes      int
		growth     int // MiB that the kernel may grow by
	}{
		{"a million tiny prints", "for i in range(1_000_000): print(i)", 6_888_890, 16},
		{"100 MB of lines", "for i in range(1000): print('y' * 99_999)", 100_000_000, 16},
		// The text itself, print's copy of it and the message under way.
		{"one line of 50 MB", "print('x' * 50_000_000)", 50_000_001, 160},
	} {
		began := time.Now()
		id := r.send(flood.code)
		got := 0
		for done := false; !done; {
			m := r.next()
			switch {
			case m.ParentID != id:
			case m.Header.MsgType == "stream":
				if len(m.Content) > maxStreamMessage {
					t.Fatalf("%s: a message of %d bytes", flood.name, len(m.Content))
				}
				// Newlines are two characters in JSON.
				got += len(m.Content) - len(`{"name":"stdout","text":""}`) - strings.Count(string(m.Content), `\n`)
			case m.Header.MsgType == "status":
				done = strings.Contains(string(m.Content), "idle")
			}
		}
		took := time.Since(began)
		if got != flood.bytes {
			t.Errorf("%s: %d bytes, want %d", flood.name, got, flood.bytes)
		}
		now := peak(r)
		if now-before > flood.growth {
			t.Errorf("%s: the kernel grew from %d to %d MiB", flood.name, before, now)
		}
		t.Logf("%s: %v, %.0f MB/s, kernel %d MiB", flood.name, took.Round(time.Millisecond), float64(got)/took.Seconds()/1e6, now)
	}
}

// TestAKernelThatIsNotReadWaits: without a reader the writer stops, and memory does not grow.
func TestAKernelThatIsNotReadWaits(t *testing.T) {
	r := start(t)
	r.send("import time\nfor i in range(300_000): print('z' * 100)")
	time.Sleep(time.Second)
	status := r.run("1") // reads everything before it
	if status.Status != "ok" {
		t.Errorf("%+v", status)
	}
	if now := peak(r); now > 120 {
		t.Errorf("the kernel grew to %d MiB", now)
	}
}

func TestOutputIsSeenAtOnce(t *testing.T) {
	r := start(t)
	for name, code := range map[string]string{
		"a line":         "import time; print('now'); time.sleep(1)",
		"part of a line": "import time; print('now', end=''); time.sleep(1)",
		"stderr":         "import sys, time; sys.stderr.write('now'); time.sleep(1)",
		"a later line":   "import time; print('a'); print('b'); print('now'); time.sleep(1)",
	} {
		id := r.send(code)
		began := time.Now()
		for {
			m := r.next()
			if m.ParentID == id && m.Header.MsgType == "stream" && strings.Contains(string(m.Content), "now") {
				break
			}
		}
		// 5 ms and what a busy machine adds: the end of the cell is a second away.
		if took := time.Since(began); took > 500*time.Millisecond {
			t.Errorf("%s: seen after %v", name, took)
		}
		r.until(id)
	}
}
