package agentapi

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// lossy forwards between two connections as gVisor does: what the far end
// does not take at once is dropped. Its room is that of the buffers on the way.
func lossy(t *testing.T, room int) (near, far net.Conn) {
	t.Helper()
	near, a := net.Pipe()
	b, far := net.Pipe()
	pump := func(dst, src net.Conn) {
		queue := make(chan []byte, room/16384)
		go func() {
			for p := range queue {
				_, _ = dst.Write(p)
			}
			_ = dst.Close()
		}()
		buf := make([]byte, 16384)
		for {
			n, err := src.Read(buf)
			if n > 0 {
				select {
				case queue <- bytes.Clone(buf[:n]):
				default: // full: lost
				}
			}
			if err != nil {
				close(queue)
				return
			}
		}
	}
	go pump(b, a)
	go pump(a, b)
	t.Cleanup(func() { _ = near.Close(); _ = far.Close() })
	return near, far
}

func TestWindowLosesNothingWhereTheWireDropsWhatDoesNotFit(t *testing.T) {
	near, far := lossy(t, 4<<20)
	client := Window(near)
	server := &sniffConn{Conn: far, in: bufio.NewReaderSize(far, windowFrame)}

	data := make([]byte, 16<<20)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(data)
	want := sha256.Sum256(data)
	// Both ends write everything before they read the answer's rest, in
	// pieces of odd sizes, and the readers are slow.
	var wg sync.WaitGroup
	transfer := func(from, to net.Conn) {
		wg.Go(func() {
			for rest := data; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(200_000))
				if _, err := from.Write(rest[:n]); err != nil {
					t.Error(err)
					return
				}
				rest = rest[n:]
			}
		})
		wg.Go(func() {
			sum := sha256.New()
			buf := make([]byte, 30_000)
			for got := 0; got < len(data); {
				n, err := to.Read(buf[:1+rand.IntN(len(buf))])
				if err != nil {
					t.Errorf("after %d bytes: %v", got, err)
					return
				}
				sum.Write(buf[:n])
				got += n
			}
			if !bytes.Equal(sum.Sum(nil), want[:]) {
				t.Error("got other bytes than were sent")
			}
		})
	}
	if _, err := client.Write([]byte("x")); err != nil { // the preface decides what the server speaks
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	transfer(client, server)
	transfer(server, client)
	wg.Wait()
}

func TestWindowSurvivesADeadlineInTheMiddleOfAFrame(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	w := newWindow(b, bufio.NewReaderSize(b, windowFrame), false)
	go func() { _, _ = a.Write([]byte{frameData, 0}) }() // half a header
	for range 3 {
		_ = w.SetReadDeadline(time.Now().Add(time.Millisecond))
		if _, err := w.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("got %v, want a deadline", err)
		}
	}
	_ = w.SetReadDeadline(time.Time{})
	go func() { _, _ = a.Write([]byte{0, 3, 'a', 'b', 'c'}) }()
	got := make([]byte, 3)
	if _, err := io.ReadFull(w, got); err != nil || string(got) != "abc" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestWindowRefusesWhatIsNoFrame(t *testing.T) {
	for name, wire := range map[string][]byte{
		"unknown kind":         {7, 0, 0, 1, 'x'},
		"empty data":           {frameData, 0, 0, 0},
		"frame over the limit": {frameData, 0xff, 0xff, 0xff},
		"ack of nothing sent":  {frameAck, 0, 0, 9},
		"cut header":           {frameData, 0},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := net.Pipe()
			defer b.Close()
			w := newWindow(b, bufio.NewReaderSize(b, windowFrame), false)
			go func() { _, _ = a.Write(wire); _ = a.Close() }()
			if n, err := w.Read(make([]byte, 10)); err == nil {
				t.Errorf("got %d bytes, want an error", n)
			}
		})
	}
}

func TestListenerTakesPlainHTTPToo(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	c := &sniffConn{Conn: b, in: bufio.NewReaderSize(b, windowFrame)}
	go func() { _, _ = a.Write([]byte("GET / HTTP/1.1\r\n")) }()
	got := make([]byte, 16)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "GET / HTTP/1.1\r\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// sleepy forwards as gVisor does when it sleeps through data: what follows close
// upon something else lies there until more comes.
type sleepy struct {
	net.Conn
	mu   sync.Mutex
	last time.Time // guarded by mu
	held []byte    // guarded by mu
}

func (s *sleepy) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = append(s.held, p...)
	if since := time.Since(s.last); since < time.Millisecond {
		return len(p), nil
	}
	s.last = time.Now()
	_, err := s.Conn.Write(s.held)
	s.held = nil
	return len(p), err
}

func TestWhatTheWireSleepsThroughArrivesByANudge(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	wire := &sleepy{Conn: far}
	server := &sniffConn{Conn: wire, in: bufio.NewReaderSize(far, windowFrame)}
	client := Window(near)
	go func() {
		_, _ = client.Write([]byte("?"))
	}()
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 20 {
			_, _ = server.Write([]byte("x"))
		}
	}()
	_ = client.SetReadDeadline(time.Now().Add(30 * time.Second))
	if got, err := io.ReadAll(io.LimitReader(client, 20)); err != nil || len(got) != 20 {
		t.Errorf("%d of 20 bytes, %v", len(got), err)
	}
}
