package egress

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// raw speaks frames, as no proper client does.
type raw struct {
	*http2.Framer
	conn net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

// openRaw opens a door to a client that does what it likes. What the door
// answers is read and dropped, unless deaf.
func openRaw(tb testing.TB, g *Gateway, c Client, deaf bool) (*raw, chan error) {
	tb.Helper()
	near, far := sockets(tb)
	done := serve(tb, g, c, far)
	r := &raw{Framer: http2.NewFramer(near, near), conn: near, next: 1}
	r.enc = hpack.NewEncoder(&r.buf)
	if _, err := io.WriteString(near, http2.ClientPreface); err != nil {
		tb.Fatal(err)
	}
	if err := r.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1}); err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	if !deaf {
		wg.Go(func() { io.Copy(io.Discard, near) })
	}
	tb.Cleanup(func() {
		near.Close()
		wg.Wait()
	})
	return r, done
}

func (r *raw) headers(end bool, fields ...string) (uint32, error) {
	r.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		r.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	id := r.next
	r.next += 2
	return id, r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: r.buf.Bytes(), EndHeaders: true, EndStream: end})
}

func (r *raw) connect(to string) (uint32, error) {
	return r.headers(false, ":method", "CONNECT", ":authority", to)
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// grows runs an attack and tells how much more memory there is at its worst.
func grows(tb testing.TB, attack func(worst func())) int64 {
	tb.Helper()
	before, most := heap(), int64(0)
	attack(func() { most = max(most, heap()-before) })
	return most
}

func TestAHostileAgentCostsLittleMemory(t *testing.T) {
	// The sink takes connections and nothing else, until the test ends.
	ended := make(chan struct{})
	sink := listenWith(t, func(net.Conn) { <-ended })
	t.Cleanup(func() { close(ended) })
	_, o := hosts(sink)
	g := newGateway(t, o)
	client := allowing(t, "allowed.test:*")
	name := at("allowed.test", sink)

	t.Run("endless headers", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, done := openRaw(t, g, client, false)
			r.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: false})
			r.buf.Reset()
			r.enc.WriteField(hpack.HeaderField{Name: "x-filler", Value: strings.Repeat("a", 8000), Sensitive: true})
			for range 20000 {
				if r.WriteContinuation(1, false, r.buf.Bytes()) != nil {
					break
				}
			}
			worst()
			wantEnd(t, done)
		})
		bounded(t, n, 4<<20)
	})
	t.Run("a header bomb", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, _ := openRaw(t, g, client, false)
			// One table entry, named a million times.
			r.buf.Reset()
			r.enc.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("a", 3900)})
			first := bytes.Clone(r.buf.Bytes())
			bomb := append(first, bytes.Repeat([]byte{0xbe}, 10000)...)
			for i := range 50 {
				if r.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: append([]byte{0x82, 0x84, 0x86}, bomb...), EndHeaders: true, EndStream: true}) != nil {
					break
				}
			}
			worst()
		})
		bounded(t, n, 8<<20)
	})
	t.Run("thousands of streams", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, _ := openRaw(t, g, client, false)
			for range 5000 {
				if _, err := r.connect(name); err != nil {
					break
				}
			}
			worst()
			u := joined(g, "sbx_test")
			defer g.part(u)
			if open := u.conns.Load(); open > maxStreams {
				t.Errorf("%d are open", open)
			}
		})
		bounded(t, n, 32<<20)
	})
	t.Run("rapid resets", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, _ := openRaw(t, g, client, false)
			for range 3000 {
				id, err := r.connect(name)
				if err == nil {
					err = r.WriteRSTStream(id, http2.ErrCodeCancel)
				}
				if err != nil {
					break
				}
			}
			worst()
		})
		bounded(t, n, 32<<20)
		until(t, "all connections are closed", func() bool { u := joined(g, "sbx_test"); defer g.part(u); return u.conns.Load() == 0 })
	})
	t.Run("data that nobody takes", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, _ := openRaw(t, g, client, false)
			block := make([]byte, 16<<10)
			// It breaks the window on purpose: the door ends, or the stream does.
			for range 100 {
				id, err := r.connect(name)
				if err != nil {
					break
				}
				for range 64 {
					if r.WriteData(id, false, block) != nil {
						break
					}
				}
			}
			worst()
		})
		bounded(t, n, 32<<20)
	})
	t.Run("pings and settings without end, never read", func(t *testing.T) {
		n := grows(t, func(worst func()) {
			r, done := openRaw(t, g, client, true)
			r.conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
			for range 200000 {
				if r.WritePing(false, [8]byte{}) != nil || r.WriteSettings() != nil {
					break
				}
			}
			worst()
			r.conn.Close()
			wantEnd(t, done)
		})
		bounded(t, n, 16<<20)
	})
	t.Run("answers that are never read", func(t *testing.T) {
		endless := listenWith(t, func(c net.Conn) { _, _ = io.Copy(c, zeros{}) })
		n := grows(t, func(worst func()) {
			r, _ := openRaw(t, g, client, true)
			r.conn.SetWriteDeadline(time.Now().Add(soon))
			for range 100 {
				id, err := r.connect(at("allowed.test", endless))
				if err != nil {
					break
				}
				r.WriteWindowUpdate(0, 1<<24)
				_ = id
			}
			until(t, "something waits", func() bool { u := joined(g, "sbx_test"); defer g.part(u); return u.conns.Load() > 0 })
			worst()
		})
		bounded(t, n, 32<<20)
	})
	t.Run("a slow drip of the first bytes", func(t *testing.T) {
		near, far := sockets(t)
		defer near.Close()
		done := serve(t, g, client, far)
		near.Write([]byte(http2.ClientPreface[:10]))
		select {
		case err := <-done:
			t.Errorf("ended at once: %v", err)
		default:
		}
	})
	for name, what := range map[string][]byte{
		"HTTP/1":       []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"random bytes": bytes.Repeat([]byte{0xde, 0xad, 0xbe, 0xef}, 1000),
		"a huge frame": append([]byte(http2.ClientPreface), 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1),
		"zeros":        make([]byte, 1000),
	} {
		t.Run(name, func(t *testing.T) {
			near, far := sockets(t)
			defer near.Close()
			done := serve(t, g, client, far)
			go io.Copy(io.Discard, near)
			near.Write(what)
			near.(*net.UnixConn).CloseWrite()
			wantEnd(t, done)
		})
	}
}

func wantEnd(tb testing.TB, done chan error) {
	tb.Helper()
	select {
	case <-done:
	case <-time.After(soon):
		tb.Error("the door does not end")
	}
}

func bounded(tb testing.TB, n, most int64) {
	tb.Helper()
	tb.Logf("%.1f MB more at the worst", float64(n)/1e6)
	if n > most {
		tb.Errorf("%d bytes, over %d", n, most)
	}
}

func TestRequestsThatAreNone(t *testing.T) {
	port := listenHTTP(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	_, o := hosts(port)
	g := newGateway(t, o)
	near, far := sockets(t)
	serve(t, g, allowing(t, "allowed.test:*"), far)
	defer near.Close()
	r := &raw{Framer: http2.NewFramer(near, near), conn: near, next: 1}
	r.enc = hpack.NewEncoder(&r.buf)
	r.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	io.WriteString(near, http2.ClientPreface)
	r.WriteSettings()
	host := at("allowed.test", port)
	for _, c := range []struct {
		name   string
		status string // "" for a reset
		fields []string
	}{
		{"no authority", "403", []string{":method", "GET", ":scheme", "http", ":path", "/"}},
		{"a user in it", "", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "me@" + host}},
		{"two hosts", "403", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", host + ",other.test"}},
		{"a space", "403", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", host + " x"}},
		{"CONNECT with a path", "", []string{":method", "CONNECT", ":scheme", "http", ":path", "/", ":authority", host}},
		{"an extended CONNECT", "", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":path", "/", ":authority", host}},
		{"a line break in a header", "", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", host, "x", "a\r\nb: c"}},
		{"a connection header", "", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", host, "connection", "keep-alive"}},
		{"another Host beside the authority", "200", []string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", host, "host", "other.test"}},
	} {
		id, err := r.headers(true, c.fields...)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got, body := "", ""
		for end := false; !end; {
			near.SetReadDeadline(time.Now().Add(soon))
			f, err := r.ReadFrame()
			if err != nil {
				if _, ok := errors.AsType[http2.StreamError](err); ok {
					break
				}
				t.Fatalf("%s: %v", c.name, err)
			}
			if f.Header().StreamID != id {
				continue
			}
			switch f := f.(type) {
			case *http2.MetaHeadersFrame:
				got = f.PseudoValue("status")
				end = f.StreamEnded()
			case *http2.DataFrame:
				body += string(f.Data())
				end = f.StreamEnded()
			case *http2.RSTStreamFrame:
				end = true
			}
		}
		if got != c.status && (c.status != "" || got != "400") {
			t.Errorf("%s: status %q, %s", c.name, got, body)
		}
		if c.status == "200" && body != host {
			t.Errorf("%s: the host got %q", c.name, body)
		}
	}
}
