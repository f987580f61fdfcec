package replicas_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/store"
)

// stub is a replica that owns what it is told to and answers as a test wants.
type stub struct {
	replicas *replica.Registry
	mu       sync.Mutex
	requests []*http.Request
	handler  http.HandlerFunc
}

func newStub(t *testing.T, w *world, handler http.HandlerFunc) *stub {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.OpenPostgres(ctx, w.url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &stub{handler: handler}
	s.replicas, err = replica.Open(ctx, st.DB(), replica.Options{ID: replica.NewID("stub"), Address: ln.Addr().String(), TTL: w.ttl})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Clone(context.WithoutCancel(r.Context())))
		h := s.handler
		s.mu.Unlock()
		h(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(ln) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
		if err := errors.Join(s.replicas.Close(), st.Close()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *stub) asked() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.requests...)
}

// give makes the stub the owner of a session that a server made.
func (s *stub) give(t *testing.T, from *server, key string) {
	t.Helper()
	if err := from.replicas.Release(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := s.replicas.Take(t.Context(), key); err != nil {
		t.Fatal(err)
	}
}

func notOwner(w http.ResponseWriter) {
	w.Header().Set("Caesarion-Not-Owner", "x")
	w.WriteHeader(http.StatusMisdirectedRequest)
}

func cut(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

func TestWhatIsForwardedAndHow(t *testing.T) {
	w := newWorld(t)
	b := w.start(t, "b")
	s := newStub(t, w, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "private")
		_, _ = io.WriteString(w, "from the owner")
	})
	id, _ := b.newSession(t, "1")
	s.give(t, b, id)

	req, err := b.request(t.Context(), "GET", "/v1/sessions/"+id+"/events?after=3&token=t&x=%20y", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Request-Id", "req_of_the_client")
	req.Header.Set("Cookie", "caesarion_1=secret")
	req.Header.Set("Last-Event-ID", "7")
	got, err := do(req)
	if err != nil || got.status != 200 || string(got.body) != "from the owner" {
		t.Fatalf("got %d %q %v", got.status, got.body, err)
	}
	for name, want := range map[string]string{"Cache-Control": "private", "X-Request-Id": "req_of_the_client"} {
		if v := got.header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q", name, v)
		}
	}
	r := s.asked()[0]
	for _, name := range []string{"Authorization", "Cookie", "X-Api-Key"} {
		if v := r.Header.Get(name); v != "" {
			t.Errorf("the owner is sent %s: %s", name, v)
		}
	}
	if r.Header.Get("X-Request-Id") != "req_of_the_client" || r.Header.Get("Last-Event-ID") != "7" || r.URL.RawQuery != "after=3&x=+y" {
		t.Errorf("the owner is sent %v %s", r.Header, r.URL)
	}

	// What it was sent is good for that request to that process, and no other.
	replay := func(path string, change func(http.Header)) answer {
		req, err := http.NewRequestWithContext(t.Context(), "GET", b.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Caesarion-Owner", "Caesarion-Key", "Caesarion-Principal", "Caesarion-Hop"} {
			req.Header.Set(name, r.Header.Get(name))
		}
		change(req.Header)
		a, err := do(req)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := replay(r.RequestURI, func(http.Header) {}); a.status != http.StatusMisdirectedRequest || a.header.Get("Caesarion-Not-Owner") == "" {
		t.Errorf("a forwarded request is answered with %d %s by one that does not own it", a.status, a.body)
	}
	for what, a := range map[string]answer{
		"another path":  replay("/v1/sessions/"+id, func(http.Header) {}),
		"another key":   replay(r.RequestURI, func(h http.Header) { h.Set("Caesarion-Key", "ses_x") }),
		"another owner": replay(r.RequestURI, func(h http.Header) { h.Set("Caesarion-Owner", b.replicas.ID()) }),
		"another user": replay(r.RequestURI, func(h http.Header) {
			h.Set("Caesarion-Principal", base64.RawURLEncoding.EncodeToString([]byte(`{"User":"usr_x"}`)))
		}),
		"nobody":   replay(r.RequestURI, func(h http.Header) { h.Del("Caesarion-Principal") }),
		"no proof": replay(r.RequestURI, func(h http.Header) { h.Set("Caesarion-Hop", "00") }),
	} {
		if a.status != http.StatusForbidden || !bytes.Contains(a.body, []byte("hop-invalid")) {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	if n := len(s.asked()); n != 1 {
		t.Errorf("the owner was asked %d times", n)
	}
	// Without the token nothing is forwarded.
	req, _ = http.NewRequestWithContext(t.Context(), "GET", b.url+"/v1/sessions/"+id, nil)
	if a, err := do(req); err != nil || a.status != http.StatusUnauthorized {
		t.Errorf("without the token: %d %v", a.status, err)
	}
}

func TestAStreamPassesAtOnceAndEndsWithItsReader(t *testing.T) {
	w := newWorld(t)
	b := w.start(t, "b")
	next, left := make(chan string), make(chan struct{})
	s := newStub(t, w, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", v1.MediaSSE)
		rc := http.NewResponseController(w)
		for {
			select {
			case text := <-next:
				_, _ = io.WriteString(w, text)
				_ = rc.Flush()
			case <-r.Context().Done():
				close(left)
				return
			}
		}
	})
	id, _ := b.newSession(t, "1")
	s.give(t, b, id)
	ctx, leave := context.WithCancel(t.Context())
	req, err := b.request(ctx, "GET", "/v1/sessions/"+id+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	begun := make(chan *http.Response)
	go func() {
		resp, err := client.Do(req) //nolint:bodyclose // below
		if err != nil {
			t.Error(err)
		}
		begun <- resp
	}()
	next <- "id: 1\n\n"
	resp := <-begun
	defer resp.Body.Close()
	buf := make([]byte, 100)
	for i := range 5 {
		want := fmt.Sprintf("id: %d\n\n", i+1)
		if n, err := io.ReadFull(resp.Body, buf[:len(want)]); err != nil || string(buf[:n]) != want {
			t.Fatalf("got %q %v", buf[:n], err)
		}
		if i < 4 {
			next <- fmt.Sprintf("id: %d\n\n", i+2) // only now: nothing waits for more
		}
	}
	leave()
	wait(t, "the owner to learn that the reader left", left)
}

func TestAnOwnerThatSaysNoIsNotSentTheBody(t *testing.T) {
	w := newWorld(t)
	b := w.start(t, "b")
	var times atomic.Int64
	var s *stub
	id, _ := b.newSession(t, "1")
	s = newStub(t, w, func(w http.ResponseWriter, r *http.Request) {
		if times.Add(1) == 3 {
			if err := s.replicas.Release(r.Context(), id); err != nil {
				t.Error(err)
			}
		}
		notOwner(w)
	})
	s.give(t, b, id)
	code := strings.Repeat("# a long program\n", 10_000)
	var item v1.Item
	b.call(t, "POST", "/v1/sessions/"+id+"/items", v1.CreateItem{Kind: "cell", Code: code}, 201).into(t, &item)
	if n := times.Load(); n != 3 || item.Code != code {
		t.Errorf("asked %d times, %d bytes of %d arrived", n, len(item.Code), len(code))
	}
}

func TestAnOwnerThatBreaksOffIsAskedAgainOnlyWhereThatDoesNoHarm(t *testing.T) {
	w := newWorld(t)
	b := w.start(t, "b")
	var s *stub
	id, _ := b.newSession(t, "1")
	var times atomic.Int64
	release := func() {
		if times.Add(1) == 2 {
			if err := s.replicas.Release(context.Background(), id); err != nil {
				t.Error(err)
			}
		}
	}
	handlers := map[string]http.HandlerFunc{
		"before the body": func(w http.ResponseWriter, _ *http.Request) { release(); cut(w) },
		"after the body":  func(w http.ResponseWriter, r *http.Request) { times.Add(1); _, _ = io.Copy(io.Discard, r.Body); cut(w) },
		"in an answer": func(w http.ResponseWriter, _ *http.Request) {
			times.Add(1)
			_, _ = io.WriteString(w, strings.Repeat("x", 1<<16))
			cut(w)
		},
		"without an answer": func(w http.ResponseWriter, _ *http.Request) { release(); cut(w) },
	}
	s = newStub(t, w, nil)
	for _, test := range []struct {
		when, method, path string
		body               any
		status, times      int64
	}{
		{"before the body", "POST", "/items", v1.CreateItem{Kind: "note", Text: "n"}, 201, 2},
		{"after the body", "POST", "/items", v1.CreateItem{Kind: "note", Text: "n"}, 503, 1},
		{"without an answer", "GET", "", nil, 200, 2},
		{"without an answer", "POST", "/clear", nil, 503, 1},
	} {
		times.Store(0)
		s.give(t, b, id)
		s.mu.Lock()
		s.handler = handlers[test.when]
		s.mu.Unlock()
		got := b.call(t, test.method, "/v1/sessions/"+id+test.path, test.body, int(test.status))
		if test.status == 503 && (!bytes.Contains(got.body, []byte("owner-unavailable")) || got.header.Get("Retry-After") == "" || got.header.Get("X-Request-Id") == "") {
			t.Errorf("%s %s: %v %s", test.when, test.method, got.header, got.body)
		}
		if n := times.Load(); n != test.times {
			t.Errorf("%s %s: asked %d times, want %d", test.when, test.method, n, test.times)
		}
		if test.status == 503 {
			if err := s.replicas.Release(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}
		b.replicas.Forget(id)
		b.detail(t, id) // b has it again
	}
	// Half an answer does not look whole.
	s.give(t, b, id)
	s.mu.Lock()
	s.handler = handlers["in an answer"]
	s.mu.Unlock()
	if a, err := b.try(t.Context(), "GET", "/v1/sessions/"+id, nil); err == nil {
		t.Errorf("half an answer looks whole: %d, %d bytes", a.status, len(a.body))
	}
}

func TestLargeFilesPassWithoutBeingHeld(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	var sb v1.Sandbox
	a.call(t, "POST", "/v1/sandboxes", map[string]any{}, 201).into(t, &sb)
	const size = 192 << 20
	path := "/v1/sandboxes/" + sb.ID + "/files/content?path=/workspace/large"
	source := func() io.Reader {
		return io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, source()); err != nil {
		t.Fatal(err)
	}
	most, stop := watchHeap()
	for _, length := range []int64{size, -1} {
		req, err := b.request(t.Context(), "PUT", path, source())
		if err != nil {
			t.Fatal(err)
		}
		req.ContentLength = length
		req.Header.Set("Content-Type", "application/octet-stream")
		if got, err := do(req); err != nil || got.status/100 != 2 {
			t.Fatalf("%d %.300s %v", got.status, got.body, err)
		}
		req, err = b.request(t.Context(), "GET", path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		back := sha256.New()
		n, err := io.Copy(back, resp.Body)
		_ = resp.Body.Close()
		if err != nil || n != size || hex.EncodeToString(back.Sum(nil)) != hex.EncodeToString(sum.Sum(nil)) {
			t.Errorf("%d bytes came back, and not the same: %v", n, err)
		}
	}
	stop()
	if *most > 64<<20 {
		t.Errorf("the heap grew by %d MiB", *most>>20)
	}
}

// watchHeap gives by how much the heap grew at most, until stop.
func watchHeap() (most *int64, stop func()) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := int64(m.HeapAlloc)
	most = new(int64)
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-end:
				return
			case <-time.After(20 * time.Millisecond):
			}
			runtime.ReadMemStats(&m)
			*most = max(*most, int64(m.HeapAlloc)-before)
		}
	}()
	return most, func() { close(end); <-done }
}

// A chat is found by what its client calls it, which stands in the body.
func TestChatsOfTheSameNameMeet(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	body := `{"id":"my-chat","messages":[{"id":"1","role":"user","parts":[{"type":"text","text":"hello"}]}]}`
	var wg sync.WaitGroup
	for _, s := range []*server{a, b, a, b} {
		wg.Go(func() {
			// There is no model: what counts is which session says so.
			got, err := s.try(t.Context(), "POST", "/api/chat", strings.NewReader(body))
			if err != nil || got.status != http.StatusServiceUnavailable || !bytes.Contains(got.body, []byte("model")) {
				t.Errorf("%s: %d %.300s %v", s.name, got.status, got.body, err)
			}
		})
	}
	wg.Wait()
	var list v1.SessionList
	b.call(t, "GET", "/v1/sessions", nil, 200).into(t, &list)
	if len(list.Sessions) != 1 {
		t.Errorf("there are %d sessions", len(list.Sessions))
	}
	if a.call(t, "GET", "/api/chat/my-chat/stream", nil, 204); t.Failed() {
		t.Log(list)
	}
	b.call(t, "POST", "/api/chat/another/stop", nil, 204)
}

// A body that the owner does not read to its end has the owner's answer.
func TestABodyThatIsTooLargeIsRefusedByTheOwner(t *testing.T) {
	w := newWorld(t)
	a, b := w.start(t, "a"), w.start(t, "b")
	id, _ := a.newSession(t, "1")
	for range 5 {
		req, err := b.request(t.Context(), "POST", "/v1/sessions/"+id+"/items", io.LimitReader(rand.NewChaCha8([32]byte{1}), 70<<20))
		if err != nil {
			t.Fatal(err)
		}
		got, err := do(req)
		if err != nil || got.status != http.StatusRequestEntityTooLarge {
			t.Errorf("%d %.300s %v", got.status, got.body, err)
		}
	}
}
