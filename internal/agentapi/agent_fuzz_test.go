package agentapi

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// pretender gives a client of an agent that takes whatever it is asked, and
// answers with what say writes from the first byte on.
func pretender(say func(net.Conn)) *Client {
	return NewClient(func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			if _, err := far.Read(make([]byte, 1)); err == nil {
				go func() { _, _ = io.Copy(io.Discard, far) }()
				say(far)
			}
			_ = far.Close()
		}()
		return near, nil
	}, "token")
}

// script is an agent that says some bytes and ends.
func script(answer []byte) *Client {
	return pretender(func(c net.Conn) { _, _ = c.Write(answer) })
}

// calls is one of each kind of call: small, list, without a body, bytes,
// streams, the door.
var calls = []struct {
	name string
	call func(context.Context, *Client) error
}{
	{"health", func(ctx context.Context, c *Client) error { return second(c.Health(ctx)) }},
	{"usage", func(ctx context.Context, c *Client) error { return second(c.Usage(ctx)) }},
	{"kernels", func(ctx context.Context, c *Client) error { return second(c.Kernels(ctx)) }},
	{"executions", func(ctx context.Context, c *Client) error { return second(c.Executions(ctx)) }},
	{"files", func(ctx context.Context, c *Client) error { return second(c.Stat(ctx, "/workspace")) }},
	{"tree", func(ctx context.Context, c *Client) error {
		return second(c.Tree(ctx, TreeRequest{Paths: []string{"/"}}))
	}},
	{"request", func(ctx context.Context, c *Client) error {
		return second(c.Request(ctx, "krn_x", Request{Type: "complete_request"}))
	}},
	{"table", func(ctx context.Context, c *Client) error { return second(c.Table(ctx, TableRequest{Path: "/x"})) }},
	{"remove", func(ctx context.Context, c *Client) error { return c.Remove(ctx, "/x") }},
	{"upload", func(ctx context.Context, c *Client) error {
		return second(c.Upload(ctx, "/x", strings.NewReader("abc"), 3))
	}},
	{"unpack", func(ctx context.Context, c *Client) error { return second(c.Unpack(ctx, strings.NewReader("abc"))) }},
	{"download", func(ctx context.Context, c *Client) error {
		content, err := c.Download(ctx, "/x", "")
		if err != nil {
			return err
		}
		defer content.Body.Close()
		if content.Header.Get("Content-Type") != "" || content.Header.Get("Set-Cookie") != "" {
			return errors.New("a header passed that must not")
		}
		_, _ = io.Copy(io.Discard, content.Body) // an answer that breaks off is the reader's to see
		return nil
	}},
	{"execute", func(ctx context.Context, c *Client) error {
		return drained(c.Execute(ctx, "krn_x", Execute{ID: "exe_x", Code: "1"}))
	}},
	{"follow", func(ctx context.Context, c *Client) error { return drained(c.Follow(ctx, "exe_x", 3)) }},
	{"run", func(ctx context.Context, c *Client) error {
		return drained(c.Run(ctx, Run{ID: "prc_x", Command: "true"}))
	}},
	{"egress", func(ctx context.Context, c *Client) error {
		conn, err := c.Egress(ctx, Egress{})
		if err != nil {
			return err
		}
		_, _ = io.Copy(io.Discard, conn)
		return conn.Close()
	}},
}

// drained reads a stream's events to the end and checks what Next promises.
func drained(s *Stream, err error) error {
	if err != nil {
		return err
	}
	defer s.Close()
	last := s.last
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if rec.Seq != last+1 || len(rec.Line) > MaxLineBytes {
			return errors.New("a record that Next must not give")
		}
		last = rec.Seq
	}
}

// allocated is how many bytes were asked for so far.
func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

// oddAnswers are where fuzzing begins, and what runs in each ordinary test.
var oddAnswers = []string{
	"", "\x00", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
	"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n{", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nTrailer: x\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: caesarion-egress\r\nConnection: Upgrade\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "HTTP/0.9 200 OK\r\n\r\n", "HTTP/1.1 999 \r\n\r\n",
	"HTTP/1.1 500 No\r\nContent-Type: text/html\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\n<html", "HTTP/1.1 404 No\r\nContent-Length: 33\r\n\r\n{\"code\":\"file-not-found\",\"detail\":1}",
	"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000),
	"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + strings.Repeat(`{"a":`, 10_000),
	"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"kernel_id\":1e9", "HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{\"execution_count\":1e999999}",
	"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 10_000) + "\r\n", "HTTP/1.1 " + strings.Repeat("2", 100_000),
	"HTTP/1.1 200 OK\r\n\r\n" + started + "\n", "HTTP/1.1 200 OK\r\n\r\n" + started + "\n" + started + "\n", "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat("\n", 1000),
}

// FuzzAnswer lets an agent answer with any bytes to each kind of call: it ends,
// with an error that has a code if there is one, and costs memory by what came.
func FuzzAnswer(f *testing.F) {
	for i := range calls {
		for _, a := range oddAnswers {
			f.Add(uint8(i), []byte(a)) //nolint:gosec // there are few calls
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, answer []byte) {
		call := calls[int(which)%len(calls)]
		c := script(answer)
		defer c.CloseIdle()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		before := allocated()
		err := call.call(ctx, c)
		if ctx.Err() != nil {
			t.Fatalf("%s: it does not end", call.name)
		}
		if err != nil && codeOf(err) == "" {
			t.Errorf("%s: %v (%T) has no code", call.name, err, err)
		}
		if cost, most := allocated()-before, uint64(8<<20+200*len(answer)); cost > most { //nolint:gosec // inputs are small
			t.Errorf("%s: %d bytes of answer cost %d", call.name, len(answer), cost)
		}
	})
}

// FuzzEvents reads any bytes as a stream of events: what Next gives is what
// everybody may rely on.
func FuzzEvents(f *testing.F) {
	f.Add([]byte(started + "\n"))
	for _, line := range []string{
		`{"seq":2,"time":"2026-01-01T00:00:00Z","type":"output.stream","data":{"name":"stdout","text":"x"}}`,
		`{"seq":2,"time":"2026-01-01T00:00:00Z","type":"output.error","data":{"ename":"E","evalue":"v","traceback":["a","b"]}}`,
		`{"seq":2,"time":"2026-01-01T00:00:00Z","type":"output.display_data","data":{"data":{"text/plain":"x"},"metadata":{}}}`,
		`{"seq":2,"time":"2026-01-01T00:00:00Z","type":"execution.finished","data":{"status":"ok"}}`,
		`{"seq":2,"time":"2026-01-01T00:00:00Z","type":"comm.open","data":{"comm_id":"c","target_name":"t"}}`,
		`{"seq":2e0,"time":"2026-01-01T00:00:00Z","type":"output.clear","data":{"wait":true}}`,
		`{"seq":2,"seq":3,"time":"9999-12-31T23:59:59Z","type":"output.clear","data":{}}`,
		strings.Repeat(`{"data":`, 11_000),
	} {
		f.Add([]byte(started + "\n" + line + "\n"))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		s := stream(t, string(body))
		s.max = 64 << 10
		defer s.Close()
		for {
			rec, err := s.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errdefs.ErrUnavailable) {
					t.Errorf("%v has no kind", err)
				}
				return
			}
			again, err := parseRecord(rec.Line)
			if err != nil || again.Seq != rec.Seq || again.Type != rec.Type || strings.Contains(string(rec.Line), "\n") {
				t.Errorf("%q is not what it seems: %+v %v", rec.Line, again, err)
			}
		}
	})
}

// FuzzWindow gives a windowed connection any bytes for frames.
func FuzzWindow(f *testing.F) {
	for _, frames := range []string{
		"", "\x00\x00\x00\x01x", "\x01\xff\xff\xff", "\x01\x00\x00\x01", "\x02\x00\x00\x00\x00\x00\x00\x02hi", "\x00\xff\xff\xff", "\x02\x00\x00\x01", "\x03\x00\x00\x00", "\x00\x00\x00\x00",
		windowPreface + "\x00\x00\x00\x01x",
	} {
		f.Add([]byte(frames))
	}
	f.Fuzz(func(t *testing.T, frames []byte) {
		for _, other := range []bool{false, true} {
			near, far := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, far) }()
			go func() {
				defer far.Close()
				_, _ = far.Write(frames)
			}()
			w := Window(near)
			if other { // the end that writes reads acknowledgements
				_ = w.SetDeadline(time.Now().Add(20 * time.Second))
				if n, err := w.Write(make([]byte, windowBytes+1)); err == nil && len(frames) < windowHeader {
					t.Errorf("%d bytes were written with no room for them", n)
				}
			}
			n, _ := io.Copy(io.Discard, w)
			if int(n) > len(frames) {
				t.Errorf("%d bytes came of %d", n, len(frames))
			}
			_ = w.Close()
		}
	})
}

// FuzzDoor lets an agent answer the opening of a door with any bytes.
func FuzzDoor(f *testing.F) {
	for _, a := range oddAnswers {
		f.Add([]byte(a))
	}
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := script(answer)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		conn, err := c.Egress(ctx, Egress{CACerts: "x"})
		if err != nil {
			if codeOf(err) == "" || ctx.Err() != nil {
				t.Errorf("%v has no code", err)
			}
			return
		}
		defer conn.Close()
		if !strings.Contains(string(answer), "101") {
			t.Error("a door without 101")
		}
		rest, _ := io.ReadAll(conn)
		if !strings.HasSuffix(string(answer), string(rest)) {
			t.Errorf("%q came of %q", rest, answer)
		}
	})
}

// endless begins in some way and then never ends.
func endless(begin, again string) *Client {
	return pretender(func(c net.Conn) {
		_, err := c.Write([]byte(begin))
		for block := []byte(strings.Repeat(again, max(1, (64<<10)/len(again)))); err == nil; {
			_, err = c.Write(block)
		}
	})
}

// TestAnswersWithoutEnd: whatever never ends is given up at its bound.
func TestAnswersWithoutEnd(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
	for _, tt := range []struct {
		name, begin, again string
		most               int64 // bytes that may be read of it
		skip               string
	}{
		{"a header", "HTTP/1.1 200 OK\r\nX: ", "x", 256 << 10, ""},
		{"headers", "HTTP/1.1 200 OK\r\n", "X: y\r\n", 256 << 10, ""},
		{"answers before the answer", "", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", 1 << 20, ""},
		{"empty objects", head + "[", "{},", maxListBody + 1<<20, "download follow execute run remove egress"},
		{"depth", head, "[", maxListBody + 1<<20, "download follow execute run remove egress"},
		{"a text", head + `{"version":"`, "x", maxListBody + 1<<20, "download follow execute run remove egress"},
		{"ten gigabytes announced", "HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n{\"version\":\"", "x", maxListBody + 1<<20, "download follow execute run remove egress"},
		{"a line", head + `{"seq":1,"data":"`, "x", MaxLineBytes + 1<<20, "download remove egress health usage kernels executions files tree request table upload unpack"},
		{"a failure", "HTTP/1.1 500 No\r\n\r\n", "x", 1 << 20, ""},
	} {
		for _, call := range calls {
			if strings.Contains(" "+tt.skip+" ", " "+call.name+" ") {
				continue
			}
			t.Run(tt.name+", "+call.name, func(t *testing.T) {
				c := endless(tt.begin, tt.again)
				defer c.CloseIdle()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				runtime.GC()
				before := allocated()
				err := call.call(ctx, c)
				if err == nil || codeOf(err) == "" || ctx.Err() != nil {
					t.Errorf("%v, want an error with a code", err)
				}
				// Reading doubles its buffer as it grows; nothing is decoded.
				if cost := int64(allocated() - before); cost > 7*tt.most+8<<20 { //nolint:gosec // of one call
					t.Errorf("it cost %d MiB", cost>>20)
				}
			})
		}
	}
}

// TestManyValuesAreNotDecoded: what is small on the wire may be large in memory.
func TestManyValuesAreNotDecoded(t *testing.T) {
	list := "[" + strings.Repeat("{},", 8<<20) + "{}]"
	for name, body := range map[string]string{"executions": list, "files": `{"entries":` + list + `}`, "tree": `{"entries":` + list + `}`} {
		for _, call := range calls {
			if call.name != name {
				continue
			}
			c := script([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nConnection: close\r\n\r\n" + body))
			before := allocated()
			if err := call.call(t.Context(), c); codeOf(err) != "sandbox-bad-answer" && codeOf(err) != "sandbox-unreachable" {
				t.Errorf("%s: %v", name, err)
			}
			if cost := allocated() - before; cost > 7*uint64(len(body)) {
				t.Errorf("%s: %d MiB for %d", name, cost>>20, len(body)>>20)
			}
		}
	}
	for _, text := range []string{`["a,b","\"[{","` + strings.Repeat(`\\",",",`, 1) + `"]`} {
		if tooMany([]byte(text), nil) {
			t.Errorf("%s", text)
		}
	}
	text := `{"a":"` + strings.Repeat(`,[{\"`, 1<<20) + `"}`
	if tooMany([]byte(text), nil) {
		t.Error("what is in a text is counted")
	}
	if !tooMany([]byte(list), nil) {
		t.Error("many values are not counted")
	}
	traceback := `{"ename":"E","evalue":"","traceback":[` + strings.Repeat(`"",`, 1<<20) + `""]}`
	if CheckData(event.OutputError, []byte(traceback)) == nil {
		t.Error("a traceback of a million lines passes")
	}
}

// TestADripIsGivenUp: an agent that sends a byte a second is no agent. The
// clock is the test's, so that minutes take none.
func TestADripIsGivenUp(t *testing.T) {
	for _, call := range calls {
		t.Run(call.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				over := make(chan struct{})
				defer close(over)
				c := pretender(func(c net.Conn) {
					for _, b := range []byte("HTTP/1.1 200 OK\r\nX-Drip: " + strings.Repeat("drip", 10_000)) {
						if _, err := c.Write([]byte{b}); err != nil {
							return
						}
						select {
						case <-time.After(time.Second):
						case <-over:
							return
						}
					}
				})
				defer c.CloseIdle()
				begin := time.Now()
				ctx, cancel := context.WithTimeoutCause(t.Context(), fileTimeout, errTimeout) // of the caller, where a call has no own
				defer cancel()
				err := call.call(ctx, c)
				if codeOf(err) != "sandbox-timeout" {
					t.Errorf("after %v: %v, want sandbox-timeout", time.Since(begin), err)
				}
			})
		})
	}
}
