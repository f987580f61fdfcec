package egress

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// Box is one sandbox, and a test of it.
type Box struct {
	*servertest.Server
	T  testing.TB
	ID string
}

// Create makes a sandbox that is deleted after the test.
func Create(t testing.TB, s *servertest.Server, in v1.CreateSandbox) Box {
	t.Helper()
	sb, err := s.CreateSandbox(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_ = s.DeleteSandbox(ctx, sb.ID) // some are gone by then
	})
	return Box{s, t, sb.ID}
}

// Run runs code and gives what it showed, errors included.
func (s Box) Run(code string) string {
	s.T.Helper()
	ctx, cancel := context.WithTimeout(s.T.Context(), 2*time.Minute)
	defer cancel()
	r, err := s.Server.Run(ctx, s.ID, code)
	if err != nil {
		s.T.Fatalf("%s: %v", code, err)
	}
	var text strings.Builder
	text.WriteString(strings.ReplaceAll(r.Text, "\r\n", "\n")) // commands have a terminal
	for _, e := range r.Errors {
		text.WriteString(e.Name + ": " + e.Value + "\n")
	}
	return text.String()
}

// Want runs code that must show a text.
func (s Box) Want(what, code, want string) {
	s.T.Helper()
	if got := s.Run(code); !strings.Contains(got, want) {
		s.T.Errorf("%s: got %q, want %q in it", what, got, want)
	}
}

// Fetch is a cell that gets a page.
func Fetch(url string) string {
	return fmt.Sprintf("import urllib.request\nprint(urllib.request.urlopen(%q, timeout=20).read())", url)
}

// NoNetwork is what a sandbox without one is told.
const NoNetwork = "403: This sandbox has no network"

// Nothing tries every way out but the proxy; its verb is the address of a host
// to try, as Python has it.
const Nothing = `
import socket, subprocess
def attempt(name, f):
    try: f()
    except OSError as e: print(name, "fails:", type(e).__name__)
    else: print(name, "GETS OUT")
def tcp(family, addr):
    s = socket.socket(family, socket.SOCK_STREAM); s.settimeout(3); s.connect(addr)
def udp(family, addr):
    s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(3); s.sendto(b"\0"*32, addr); s.recv(10)
def raw(family, kind, proto):
    s = socket.socket(family, kind, proto); s.settimeout(3); s.sendto(b"\x08\0\xf7\xff\0\0\0\0", ("1.1.1.1", 0)); s.recv(100)
attempt("TCP", lambda: tcp(socket.AF_INET, ("1.1.1.1", 80)))
attempt("TCP to the host", lambda: tcp(socket.AF_INET, %[1]s))
attempt("IPv6", lambda: tcp(socket.AF_INET6, ("2606:4700:4700::1111", 80)))
attempt("metadata", lambda: tcp(socket.AF_INET, ("169.254.169.254", 80)))
attempt("UDP", lambda: udp(socket.AF_INET, ("1.1.1.1", 53)))
attempt("UDP over IPv6", lambda: udp(socket.AF_INET6, ("2606:4700:4700::1111", 53)))
attempt("multicast", lambda: udp(socket.AF_INET, ("224.0.0.251", 5353)))
attempt("a name", lambda: socket.getaddrinfo("example.com", 80))
attempt("ICMP", lambda: raw(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP))
attempt("raw ICMP", lambda: raw(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
attempt("raw IP", lambda: raw(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
attempt("packets", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x300).bind(("eth0", 0)))
print("tried")
`
