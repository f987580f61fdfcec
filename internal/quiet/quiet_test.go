package quiet_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/quiet"
)

// pair gives the two ends of a connection, both quiet.
func pair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = new(net.Dialer).DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err = l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	return quiet.Conn(a), quiet.Conn(b)
}

// TestMuch sends more than any buffer holds while the reader is slow to begin.
func TestMuch(t *testing.T) {
	a, b := pair(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 2<<20)
	sent := make(chan error, 1)
	go func() {
		_, err := a.Write(data)
		sent <- errors.Join(err, a.Close())
	}()
	got, err := io.ReadAll(b)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, data) {
		t.Fatalf("got %d bytes, which are not the %d that were sent", len(got), len(data))
	}
}

// TestTurns sends to and fro, so that every call has to wait for the other end.
func TestTurns(t *testing.T) {
	a, b := pair(t)
	go func() { _, _ = io.Copy(struct{ io.Writer }{b}, struct{ io.Reader }{b}) }()
	buf := make([]byte, 16)
	for i := range 2000 {
		want := []byte{byte(i), byte(i >> 8), 3}
		if _, err := a.Write(want); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(a, buf[:3]); err != nil || !bytes.Equal(buf[:3], want) {
			t.Fatalf("turn %d: got %v, %v, want %v", i, buf[:3], err, want)
		}
	}
}

func TestDeadline(t *testing.T) {
	a, b := pair(t)
	if err := a.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %v, want a deadline", err)
	}
	if err := a.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Read(make([]byte, 4)); n != 1 || err != nil {
		t.Fatalf("after the deadline: %d, %v", n, err)
	}
}

func TestClosed(t *testing.T) {
	a, b := pair(t)
	done := make(chan error, 1)
	go func() {
		_, err := a.Read(make([]byte, 1))
		done <- err
	}()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, io.EOF) {
		t.Fatalf("the other end closed: %v", err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("read after close: %v", err)
	}
	if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("write after close: %v", err)
	}
}
