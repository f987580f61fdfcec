package agentapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
)

// oneEvent is the events of an execution that is over.
const oneEvent = `{"seq":1,"time":"2026-01-01T00:00:00Z","type":"execution.finished","data":{"status":"ok"}}` + "\n"

// answerOf is a whole answer whose connection may be used again.
func answerOf(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// wire is an agent that does with each connection what a test says.
type wire struct {
	client *Client
	dials  atomic.Int32
	ends   chan error // gets why each connection ended
}

// newWire serves each connection with serve, which gets its number from 1 on.
// The connection is closed when serve returns.
func newWire(t *testing.T, serve func(n int, c net.Conn, requests *bufio.Reader) error) *wire {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ends: make(chan error, 100)}
	w.client = NewClient(func(ctx context.Context) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err == nil {
			w.dials.Add(1)
		}
		return c, err
	}, "token")
	t.Cleanup(func() { w.client.CloseIdle(); _ = l.Close() })
	go func() {
		for n := 1; ; n++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				err := serve(n, c, bufio.NewReader(c))
				_ = c.Close()
				w.ends <- err
			}()
		}
	}()
	return w
}

// request takes one request.
func request(r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, req.Body)
	return err
}

// answers answers each request with text.
func answers(c net.Conn, r *bufio.Reader, text string) error {
	for {
		if err := request(r); err != nil {
			return err
		}
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
	}
}

// events reads a whole stream.
func (w *wire) events(ctx context.Context) error {
	s, err := w.client.Events(ctx, "exe_a", 0)
	if err != nil {
		return err
	}
	defer s.Close()
	for {
		if _, err := s.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func (w *wire) wantDials(t *testing.T, want int32) {
	t.Helper()
	if got := w.dials.Load(); got != want {
		t.Errorf("%d connections were opened, want %d", got, want)
	}
}

func TestDirectConnectionIsKept(t *testing.T) {
	w := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) error { return answers(c, r, answerOf(oneEvent)) })
	for range 3 {
		if err := w.events(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.wantDials(t, 1)
	w.client.CloseIdle()
	if err := <-w.ends; !errors.Is(err, io.EOF) {
		t.Errorf("after CloseIdle the connection ended with %v, want EOF", err)
	}
}

// TestDirectStale uses kept connections that the agent closes: before the next
// request, or after it without a word.
func TestDirectStale(t *testing.T) {
	for name, more := range map[string]bool{"before the request": false, "after the request": true} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, func(n int, c net.Conn, r *bufio.Reader) error {
				if n > 1 {
					return answers(c, r, answerOf(oneEvent))
				}
				if err := request(r); err != nil {
					return err
				}
				if _, err := io.WriteString(c, answerOf(oneEvent)); err != nil || !more {
					return err
				}
				return request(r)
			})
			if err := w.events(t.Context()); err != nil {
				t.Fatal(err)
			}
			if !more {
				if err := <-w.ends; err != nil { // it is closed now
					t.Fatal(err)
				}
			}
			if err := w.events(t.Context()); err != nil {
				t.Errorf("the next stream: %v", err)
			}
			w.wantDials(t, 2)
		})
	}
}

// TestDirectBadHeaders sees that what is no answer is said to be none, is not
// asked for again, and that its connection is closed.
func TestDirectBadHeaders(t *testing.T) {
	for name, answer := range map[string]string{
		"larger than allowed": "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 2*maxHeaderBytes) + "\r\n\r\n",
		"without end":         "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Many: x\r\n", maxHeaderBytes/8),
		"no HTTP":             "220 mail.example.com ESMTP\r\n\r\n",
		"an early hint":       "HTTP/1.1 103 Early Hints\r\n\r\n" + answerOf(oneEvent),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) error {
				_ = answers(c, r, answer)
				return nil
			})
			if err := w.events(t.Context()); codeOf(err) != "sandbox-bad-answer" {
				t.Errorf("got %v, want sandbox-bad-answer", err)
			}
			<-w.ends
			w.wantDials(t, 1)
		})
	}
}

// TestDirectHalfAnAnswer ends in the header: something was answered, so the
// request is not made again.
func TestDirectHalfAnAnswer(t *testing.T) {
	w := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) error {
		if err := request(r); err != nil {
			return err
		}
		_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nConte")
		return err
	})
	if err := w.events(t.Context()); codeOf(err) != "sandbox-bad-answer" {
		t.Errorf("got %v, want sandbox-bad-answer", err)
	}
	w.wantDials(t, 1)
}

// TestDirectUnsolicited sends more than was asked for: it must not be taken
// for the next answer.
func TestDirectUnsolicited(t *testing.T) {
	late := strings.Replace(oneEvent, "ok", "killed", 1)
	w := newWire(t, func(n int, c net.Conn, r *bufio.Reader) error {
		text := answerOf(oneEvent)
		if n == 1 {
			text += answerOf(late)
		}
		return answers(c, r, text)
	})
	for range 2 {
		s, err := w.client.Events(t.Context(), "exe_a", 0)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := s.Next()
		if err != nil || string(rec.Line)+"\n" != oneEvent {
			t.Errorf("got %s, %v, want what was asked for", rec.Line, err)
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("got %v, want the end", err)
		}
		_ = s.Close()
	}
	w.wantDials(t, 2)
}

// TestDirectLeft leaves a stream before its end, and a call before its answer:
// both close the connection.
func TestDirectLeft(t *testing.T) {
	asked := make(chan struct{}, 2)
	w := newWire(t, func(n int, c net.Conn, r *bufio.Reader) error {
		if err := request(r); err != nil {
			return err
		}
		if n == 1 {
			if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"+oneEvent); err != nil {
				return err
			}
		}
		asked <- struct{}{}
		_, err := r.ReadByte()
		return err
	})
	s, err := w.client.Events(t.Context(), "exe_a", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Next(); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if err := <-w.ends; err == nil {
		t.Error("the agent got another byte, want a closed connection")
	}
	<-asked

	ctx, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	go func() { <-asked; cancel(left) }()
	if err := w.events(ctx); !errors.Is(err, left) {
		t.Errorf("got %v, want the cause", err)
	}
	if err := <-w.ends; err == nil {
		t.Error("the agent got another byte, want a closed connection")
	}
	w.wantDials(t, 2)
}

// TestDirectHold closes what is kept; a stream whose answer is awaited is a
// call under way, for which Hold waits.
func TestDirectHold(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	w := newWire(t, func(n int, c net.Conn, r *bufio.Reader) error {
		if n == 2 {
			if err := request(r); err != nil {
				return err
			}
			close(asked)
			<-answer
			if _, err := io.WriteString(c, answerOf(oneEvent)); err != nil {
				return err
			}
		}
		return answers(c, r, answerOf(oneEvent))
	})
	if err := w.events(t.Context()); err != nil {
		t.Fatal(err)
	}
	release, err := w.client.Hold(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := <-w.ends; err == nil {
		t.Error("the kept connection ended without an error, want it closed by the client")
	}
	release()

	got := make(chan error, 1)
	go func() { got <- w.events(t.Context()) }()
	<-asked
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.client.Hold(gone); codeOf(err) != "sandbox-busy" {
		t.Errorf("Hold while an answer is awaited: got %v, want sandbox-busy", err)
	}
	close(answer)
	if err := <-got; err != nil {
		t.Errorf("the stream under way: %v", err)
	}
	if err := w.events(t.Context()); err != nil {
		t.Errorf("after the Hold that failed: %v", err)
	}
	w.wantDials(t, 2)
}
