package egress

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// helloFor is what Go's client begins with.
func helloFor(tb testing.TB, name string) []byte {
	tb.Helper()
	near, far := net.Pipe()
	defer near.Close()
	go tls.Client(far, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake()
	near.SetReadDeadline(time.Now().Add(soon))
	head := make([]byte, recordHeader)
	if _, err := io.ReadFull(near, head); err != nil {
		tb.Fatal(err)
	}
	body := make([]byte, int(head[3])<<8|int(head[4]))
	if _, err := io.ReadFull(near, body); err != nil {
		tb.Fatal(err)
	}
	return append(head, body...)
}

func TestTLSInATunnelAsksForWhatIsAllowed(t *testing.T) {
	p := Policy{Mode: List, Allow: rules(t, "allowed.test:*", "*.wild.test")}
	to := target{name: "allowed.test", port: 443}
	fragmented := helloFor(t, "evil.test")
	fragmented = append(append(append([]byte{22, 3, 1, 0, 50}, fragmented[5:55]...), 22, 3, 1, 0, 10), fragmented[55:65]...)
	for name, c := range map[string]struct {
		sent []byte
		ok   bool
	}{
		"its own name":              {helloFor(t, "allowed.test"), true},
		"in capitals":               {helloFor(t, "ALLOWED.test"), true},
		"another that is allowed":   {helloFor(t, "x.wild.test"), true},
		"another that is not":       {helloFor(t, "evil.test"), false},
		"no name":                   {helloFor(t, ""), true},
		"in two records":            {fragmented, false},
		"not TLS":                   {[]byte("SSH-2.0-OpenSSH_10.0\r\n"), true},
		"not TLS, with an evil one": {append([]byte("GET "), helloFor(t, "evil.test")...), true},
		"a short beginning":         {helloFor(t, "evil.test")[:40], true}, // and then nothing
		"a huge record":             {[]byte{22, 3, 1, 0xff, 0xff, 1}, false},
		"another handshake":         {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 0}, false},
		"nothing":                   {nil, true},
	} {
		for how, cut := range map[string]func(io.Reader) io.Reader{"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader} {
			var got *Refusal
			r := &helloReader{src: cut(bytes.NewReader(c.sent)), allowed: p.mayName(to, Client{}), refused: func(ref *Refusal) { got = ref }}
			b, err := io.ReadAll(r)
			switch {
			case c.ok && (err != nil || got != nil || !bytes.Equal(b, c.sent)):
				t.Errorf("%s, %s: %v %v, %d bytes of %d", name, how, err, got, len(b), len(c.sent))
			case !c.ok && (!errors.Is(err, errCut) || got == nil || got.Code != codeMisdirected || len(b) != 0):
				t.Errorf("%s, %s: %v %v, %d bytes went out", name, how, err, got, len(b))
			}
		}
	}
	if (Policy{Mode: Open}).mayName(to, Client{}) != nil {
		t.Error("open looks at names")
	}
}

func TestAnAllowedHostIsNoFrontForAnother(t *testing.T) {
	host := newAPI(t, true)
	o := secretOptions(host)
	lg, logger := newLog()
	o.Logger = logger
	a := open(t, newGateway(t, o), allowing(t, "example.com:*"))
	hostport := at("example.com", portOf(t, host.URL))
	if c := tls.Client(a.tunnel(hostport), &tls.Config{ServerName: "example.com", InsecureSkipVerify: true}); c.Handshake() != nil {
		t.Error("the host itself is refused")
	}
	if c := tls.Client(a.tunnel(hostport), &tls.Config{ServerName: "evil.test", InsecureSkipVerify: true}); c.Handshake() == nil {
		t.Error("another name was asked for")
	}
	until(t, "it is logged", func() bool { return strings.Contains(lg.String(), `"code":"host-mismatch"`) })
}

func FuzzHello(f *testing.F) {
	f.Add(helloFor(f, "example.com"))
	f.Add([]byte{22, 3, 1, 0, 4, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var asked []string
		run := func(src io.Reader) ([]byte, bool) {
			cut := false
			out, err := io.ReadAll(&helloReader{src: src, refused: func(*Refusal) { cut = true }, allowed: func(name string) *Refusal {
				asked = append(asked, name)
				if strings.Contains(name, "evil") {
					return denied(codeMisdirected, "evil")
				}
				return nil
			}})
			if cut != errors.Is(err, errCut) || !cut && !bytes.Equal(out, b) || cut && len(out) > 0 {
				t.Fatalf("%v, %d of %d bytes, cut %v", err, len(out), len(b), cut)
			}
			return out, cut
		}
		_, whole := run(bytes.NewReader(b))
		if _, pieces := run(iotest.OneByteReader(bytes.NewReader(b))); whole != pieces {
			t.Fatal("how it is cut decides")
		}
	})
}
