package httpapi_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// empty is a driver that has no sandboxes and makes none.
type empty struct{ sandbox.Driver }

var errEmpty = errdefs.New(errdefs.ErrUnavailable, "sandbox-unreachable", "There are none.")

func (empty) Create(context.Context, sandbox.Spec) (sandbox.Info, error) {
	return sandbox.Info{}, errEmpty
}
func (empty) List(context.Context) ([]sandbox.Info, error) { return nil, nil }
func (empty) Capabilities() sandbox.Capabilities           { return sandbox.Capabilities{Driver: "empty"} }

func (empty) Get(context.Context, sandbox.ID) (sandbox.Info, error) {
	return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "There is none.")
}

// lines keeps a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const fuzzToken = "token-of-a-fuzzer-0123456789"

// alone serves an API without sandboxes on a listener, with the bounds it has.
func alone(tb testing.TB, l net.Listener) *lines {
	tb.Helper()
	fl, err := fleet.New(tb.Context(), empty{}, nil, fleet.Options{MaxSandboxes: 4})
	if err != nil {
		tb.Fatal(err)
	}
	log := &lines{}
	api := httpapi.New(fl, httpapi.Options{Token: fuzzToken, Version: "test", Logger: slog.New(slog.NewTextHandler(log, nil))})
	srv := api.Server()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l)
	}()
	tb.Cleanup(func() {
		_ = srv.Close()
		<-done
		_ = fl.Close()
		api.CloseIdle()
	})
	return log
}

// FuzzRequest sends the server any bytes. Each answer is HTTP; what the API
// says no to has a code; nothing is the server's own mistake.
func FuzzRequest(f *testing.F) {
	const auth = "Host: 127.0.0.1\r\nAuthorization: Bearer " + fuzzToken + "\r\n"
	post := func(path, body string) string {
		return "POST " + path + " HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
	}
	for _, seed := range []string{
		"", "\r\n\r\n", "GET", "GET / HTTP/1.1\r\n" + auth + "\r\n", "GET /v1/info HTTP/1.1\r\n" + auth + "\r\n", "GET /v1/sandboxes HTTP/1.1\r\n" + auth + "\r\nGET /v1/sandboxes HTTP/1.1\r\n" + auth + "\r\n",
		post("/v1/sandboxes", "{}"), post("/v1/sandboxes", strings.Repeat("[", 20_000)), post("/v1/sandboxes", `{"env":{"A":"`+strings.Repeat(`\u0000`, 100)+`"}}`), post("/v1/sandboxes", `{"labels":null,"limits":{"memory_bytes":1e999}}`),
		post("/v1/sandboxes", strings.Repeat(`{"a":`, 11_000)), post("/v1/sandboxes/sbx_x/executions", `{"code":"\ud800"}`), post("/v1/sandboxes/"+strings.Repeat("a", 8000)+"/executions", `{"code":"1"}`),
		post("/v1/sandboxes/%00/executions", "{}"), post("/v1/sandboxes/..%2f..%2fetc/files/move", `{"from":"a","to":"b"}`), "PUT /v1/sandboxes/sbx_x/files/content?path=%ff%00 HTTP/1.1\r\n" + auth + "Content-Length: 10\r\n\r\nx",
		"POST /execute HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}", "POST /v1/sandboxes HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"POST /v1/sandboxes HTTP/1.1\r\n" + auth + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n", "GET http://169.254.169.254/ HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", "GET /v1/info HTTP/1.1\r\n" + auth + strings.Repeat("X: y\r\n", 5000) + "\r\n", "GET /v1/info HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "GET /" + strings.Repeat("a/", 20_000) + " HTTP/1.1\r\n" + auth + "\r\n",
		"OPTIONS * HTTP/1.1\r\n" + auth + "\r\n", "GET /v1/sandboxes?token=" + fuzzToken + " HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "GET /v1/info HTTP/1.1\r\nHost: evil.example\r\n\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"DELETE /v1/sandboxes/sbx_aaaaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1\r\n" + auth + "X-Request-Id: a\x7fb\r\n\r\n", "GET /v1/sandboxes/sbx_x/files?path=" + strings.Repeat("%2e%2e%2f", 500) + " HTTP/1.1\r\n" + auth + "Range: bytes=0-,-1,5-2\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	log := alone(f, l)
	f.Fuzz(func(t *testing.T, request []byte) {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		// The server may answer and close before it has read all.
		go func() {
			_, _ = conn.Write(request)
			_ = conn.(*net.TCPConn).CloseWrite()
		}()
		in := bufio.NewReader(conn)
		for {
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				if nerr, ok := errors.AsType[net.Error](err); ok && nerr.Timeout() {
					t.Fatal("it does not end")
				}
				break
			}
			body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<20))
			if err != nil {
				break // an answer to HEAD, or cut with the request
			}
			ours := resp.Header.Get("X-Request-Id") != ""
			if resp.StatusCode == http.StatusInternalServerError {
				t.Errorf("%s: %.500s", resp.Status, body)
			}
			if ours && resp.StatusCode >= 400 && len(body) > 0 {
				var p struct {
					Code   string
					Detail any
				}
				if json.Unmarshal(body, &p) != nil || p.Code == "" && p.Detail == nil {
					t.Errorf("%s without a code: %.500s", resp.Status, body)
				}
			}
			if ours {
				for _, name := range []string{"X-Content-Type-Options", "Content-Security-Policy", "Referrer-Policy", "Cross-Origin-Resource-Policy"} {
					if resp.Header.Get(name) == "" {
						t.Errorf("%s has no %s", resp.Status, name)
					}
				}
			}
		}
		if strings.Contains(log.String(), "msg=panic") {
			t.Fatalf("a panic: %s", log.String())
		}
	})
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// pipes is a listener of connections in memory, whose time is a test's.
type pipes struct{ conns chan net.Conn }

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (p pipes) Close() error   { defer func() { _ = recover() }(); close(p.conns); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

func (p pipes) dial() net.Conn {
	near, far := net.Pipe()
	p.conns <- tcpLike{far}
	return near
}

// tcpLike has an address that a host can be compared with.
type tcpLike struct{ net.Conn }

func (tcpLike) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (tcpLike) LocalAddr() net.Addr  { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// TestSlowClients: whoever sends or takes nothing is given up after some time.
// The clock is the test's, so that minutes take none.
func TestSlowClients(t *testing.T) {
	const auth = "Host: 127.0.0.1\r\nAuthorization: Bearer " + fuzzToken + "\r\n"
	var dripping *sync.WaitGroup // of one bubble
	drip := func(c net.Conn, text string, every time.Duration) {
		for _, b := range []byte(text) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(every)
		}
	}
	for _, tt := range []struct {
		name   string
		client func(t *testing.T, c net.Conn)
		least  time.Duration
		most   time.Duration
	}{
		{"a header, byte by byte", func(_ *testing.T, c net.Conn) {
			dripping.Go(func() { drip(c, "GET /v1/info HTTP/1.1\r\n"+auth+"X: "+strings.Repeat("x", 1000), time.Second) })
			_, _ = io.Copy(io.Discard, c)
		}, 5 * time.Second, 15 * time.Second},
		{"nothing at all", func(_ *testing.T, c net.Conn) { _, _ = io.Copy(io.Discard, c) }, 5 * time.Second, 15 * time.Second},
		{"a connection that is kept and not used", func(_ *testing.T, c net.Conn) {
			go func() { _, _ = c.Write([]byte("GET /v1/info HTTP/1.1\r\n" + auth + "\r\n")) }()
			_, _ = io.Copy(io.Discard, c)
		}, time.Minute, 3 * time.Minute},
		{"JSON, byte by byte", func(t *testing.T, c net.Conn) {
			dripping.Go(func() {
				_, _ = c.Write([]byte("POST /v1/sandboxes HTTP/1.1\r\n" + auth + "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"))
				drip(c, strings.Repeat(" ", 900), time.Second)
			})
			text, _ := io.ReadAll(c)
			if !strings.Contains(string(text), "body-timeout") {
				t.Errorf("got %s, want body-timeout", text)
			}
		}, 30 * time.Second, 3 * time.Minute},
		{"an answer that nobody takes", func(t *testing.T, c net.Conn) {
			_, _ = c.Write([]byte("GET /openapi.json HTTP/1.1\r\n" + auth + "\r\n"))
			_, _ = c.Read(make([]byte, 1)) // the answer begins
			time.Sleep(2 * time.Minute)
			if n, _ := io.Copy(io.Discard, c); n > 64<<10 {
				t.Errorf("%d bytes were still there", n)
			}
		}, 2 * time.Minute, 2*time.Minute + 10*time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := pipes{make(chan net.Conn)}
				dripping = &sync.WaitGroup{}
				alone(t, l)
				c := l.dial()
				defer c.Close()
				begin := time.Now()
				tt.client(t, c)
				took := time.Since(begin)
				_ = c.Close()
				dripping.Wait()
				if took < tt.least || took > tt.most {
					t.Errorf("given up after %v, want between %v and %v", took, tt.least, tt.most)
				}
			})
		})
	}
}
