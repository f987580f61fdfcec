package agent_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agentapi"
)

// outside answers what comes through a door.
type outside struct {
	t      testing.TB
	client *agentapi.Client
	proxy  string
	root   string
	mu     sync.Mutex
	asked  []string
	served sync.WaitGroup
}

// newOutside runs an agent with a proxy and no door.
func newOutside(t testing.TB, env map[string]string) *outside {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join("etc", "ssl", "certs", "ca-certificates.crt")
	a, client, root := serve(t, func(o *agent.Options) {
		if err := os.MkdirAll(filepath.Join(o.Root, filepath.Dir(bundle)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(o.Root, bundle), []byte("the image's\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		o.Proxy = l.Addr().String()
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.ServeProxy(ctx, l) }()
	o := &outside{t: t, client: client, proxy: l.Addr().String(), root: root}
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		o.served.Wait()
	})
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: testToken, Env: env}); err != nil {
		t.Fatal(err)
	}
	return o
}

// open opens a door; close cuts it.
func (o *outside) open(certs string) (closeDoor func()) {
	o.t.Helper()
	conn, err := o.client.Egress(o.t.Context(), agentapi.Egress{CACerts: certs})
	if err != nil {
		o.t.Fatal(err)
	}
	srv := &http.Server{
		Handler: o, Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute,
		HTTP2: &http.HTTP2Config{MaxReadFrameSize: 64 << 10, MaxConcurrentStreams: 250},
	}
	srv.Protocols.SetUnencryptedHTTP2(true)
	l := &single{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- conn
	o.served.Go(func() { _ = srv.Serve(l) })
	cut := sync.OnceFunc(func() { _ = srv.Close() })
	o.t.Cleanup(cut)
	return cut
}

// single is a listener with one connection.
type single struct {
	conn chan net.Conn
	done chan struct{}
	once sync.Once
}

func (l *single) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *single) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *single) Addr() net.Addr { return &net.TCPAddr{} }

func (o *outside) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	o.asked = append(o.asked, r.Method+" "+r.Host)
	o.mu.Unlock()
	host, _, _ := strings.Cut(r.Host, ":")
	switch {
	case host == "denied.test" || host == agentapi.PackageHost:
		w.Header().Set(agentapi.EgressHeader, agentapi.EgressDenied)
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "%s is not among the hosts\r\nthis sandbox may reach", host)
	case r.Method == http.MethodConnect: // an echo
		w.WriteHeader(http.StatusOK)
		flush := http.NewResponseController(w).Flush
		_ = flush()
		buf := make([]byte, 64<<10)
		for {
			n, err := r.Body.Read(buf)
			if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
				if werr == nil && !errors.Is(err, io.EOF) {
					panic(http.ErrAbortHandler)
				}
				return
			}
			_ = flush()
		}
	case r.URL.Path == "/endless":
		w.Header().Set("Content-Length", "1000000000")
		for {
			if _, err := w.Write([]byte("x")); err != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
	default:
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-Seen", r.Header.Get("Proxy-Authorization")+"|"+r.Header.Get("Cookie"))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), body)
	}
}

// program gives a client as programs of the sandbox have one.
func (o *outside) program() *http.Client {
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: o.proxy})}
	o.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (o *outside) get(target string) (status, body string, err error) {
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		return "", "", err
	}
	resp, err := o.program().Do(req)
	if err != nil {
		return "", "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.Status, string(text), err
}

// connect asks for a tunnel and gives the status line.
func (o *outside) connect(host string) (conn net.Conn, in *bufio.Reader, status string) {
	o.t.Helper()
	conn, err := new(net.Dialer).DialContext(o.t.Context(), "tcp", o.proxy)
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { _ = conn.Close() })
	fmt.Fprintf(conn, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", host, host)
	in = bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		o.t.Fatal(err)
	}
	for l := line; l != "\r\n"; {
		if l, err = in.ReadString('\n'); err != nil {
			o.t.Fatal(err)
		}
	}
	return conn, in, strings.TrimSpace(line)
}

func TestWithoutADoorNothingGetsOut(t *testing.T) {
	o := newOutside(t, nil)
	status, body, err := o.get("http://example.test/")
	if err != nil || !strings.Contains(status, "403 This sandbox has no network") || !strings.Contains(body, "no network") {
		t.Errorf("http: %q %q %v", status, body, err)
	}
	if _, _, err := o.get("https://example.test/"); err == nil || !strings.Contains(err.Error(), "This sandbox has no network") {
		t.Errorf("https: %v", err)
	}
	if _, _, line := o.connect("example.test:443"); !strings.HasPrefix(line, "HTTP/1.1 403 This sandbox has no network") {
		t.Errorf("CONNECT: %q", line)
	}
	if code := o.socks("\x05\x01\x00\x03\x0cexample.test\x01\xbb"); code != 2 {
		t.Errorf("SOCKS: code %d", code)
	}
}

func TestThroughTheDoor(t *testing.T) {
	o := newOutside(t, nil)
	o.open("")
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://web.test:8080/a?b=c", strings.NewReader("hello"))
	req.Header.Set("Proxy-Authorization", "secret")
	req.Header.Set("Cookie", "kept")
	resp, err := o.program().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil || string(body) != "POST /a?b=c hello" || resp.Header.Get("X-Seen") != "|kept" {
		t.Errorf("got %q, seen %q, %v", body, resp.Header.Get("X-Seen"), err)
	}
	status, text, err := o.get("http://denied.test/")
	if err != nil || status != "403 denied.test is not among the hosts this sandbox may reach" || !strings.HasPrefix(text, "denied.test is not") {
		t.Errorf("refused: %q %q %v", status, text, err)
	}
	if _, _, line := o.connect("denied.test:443"); line != "HTTP/1.1 403 denied.test is not among the hosts this sandbox may reach" {
		t.Errorf("tunnel refused: %q", line)
	}

	conn, in, line := o.connect("echo.test:443")
	if line != "HTTP/1.1 200 Connection established" {
		t.Fatal(line)
	}
	data := make([]byte, 8<<20)
	_, _ = rand.Read(data)
	go func() {
		_, _ = conn.Write(data)
		_ = conn.(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // it was dialled as one
	}()
	back, err := io.ReadAll(in)
	if err != nil || sha256.Sum256(back) != sha256.Sum256(data) {
		t.Errorf("the echo has %d bytes of %d: %v", len(back), len(data), err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if got := strings.Join(o.asked, ", "); got != "POST web.test:8080, GET denied.test, CONNECT denied.test:443, CONNECT echo.test:443" {
		t.Errorf("asked: %s", got)
	}
}

// socks makes a SOCKS 5 greeting and a request, and gives the reply's code.
func (o *outside) socks(request string) int {
	o.t.Helper()
	conn, err := new(net.Dialer).DialContext(o.t.Context(), "tcp", o.proxy)
	if err != nil {
		o.t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "\x05\x02\x02\x00")
	b := make([]byte, 10)
	if _, err := io.ReadFull(conn, b[:2]); err != nil || string(b[:2]) != "\x05\x00" {
		o.t.Fatalf("greeting: %q %v", b[:2], err)
	}
	_, _ = io.WriteString(conn, request)
	if _, err := io.ReadFull(conn, b); err != nil {
		o.t.Fatal(err)
	}
	if b[1] == 0 {
		_, _ = io.WriteString(conn, "ping")
		if _, err := io.ReadFull(conn, b[:4]); err != nil || string(b[:4]) != "ping" {
			o.t.Errorf("the echo says %q, %v", b[:4], err)
		}
		return 0
	}
	return int(b[1])
}

func TestSOCKS(t *testing.T) {
	o := newOutside(t, nil)
	o.open("")
	for name, tt := range map[string]struct {
		request string
		code    int
		asked   string
	}{
		"a name":        {"\x05\x01\x00\x03\x09echo.test\x01\xbb", 0, "CONNECT echo.test:443"},
		"IPv4":          {"\x05\x01\x00\x01\x01\x02\x03\x04\x00\x50", 0, "CONNECT 1.2.3.4:80"},
		"IPv6":          {"\x05\x01\x00\x04\x20\x01\x0d\xb8" + strings.Repeat("\x00", 11) + "\x01\x00\x50", 0, "CONNECT [2001:db8::1]:80"},
		"denied":        {"\x05\x01\x00\x03\x0bdenied.test\x01\xbb", 2, "CONNECT denied.test:443"},
		"BIND":          {"\x05\x02\x00\x01\x01\x02\x03\x04\x00\x50", 7, ""},
		"UDP ASSOCIATE": {"\x05\x03\x00\x01\x01\x02\x03\x04\x00\x50", 7, ""},
		"another type":  {"\x05\x01\x00\x05\x01\x02\x03\x04\x00\x50", 8, ""},
		"no name":       {"\x05\x01\x00\x03\x03a/b\x00\x50", 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			o.mu.Lock()
			o.asked = nil
			o.mu.Unlock()
			if code := o.socks(tt.request); code != tt.code {
				t.Errorf("code %d, want %d", code, tt.code)
			}
			o.mu.Lock()
			defer o.mu.Unlock()
			if got := strings.Join(o.asked, ""); got != tt.asked {
				t.Errorf("asked for %q, want %q", got, tt.asked)
			}
		})
	}
}

// A door that is cut resets what goes through it, and what comes later waits
// for the next door.
func TestDoorsComeAndGo(t *testing.T) {
	o := newOutside(t, map[string]string{agentapi.NetworkEnv: "packages"})
	early := make(chan string, 1)
	go func() { // promised: it waits
		status, _, err := o.get("http://web.test/")
		early <- fmt.Sprint(status, err)
	}()
	closeDoor := o.open("")
	if got := <-early; got != "200 OK<nil>" {
		t.Errorf("before the door: %s", got)
	}
	conn, in, _ := o.connect("echo.test:443")
	if _, err := io.WriteString(conn, "x"); err != nil {
		t.Fatal(err)
	}
	if b, err := in.ReadByte(); err != nil || b != 'x' {
		t.Fatalf("echo: %c %v", b, err)
	}
	plain, err := new(net.Dialer).DialContext(t.Context(), "tcp", o.proxy)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	fmt.Fprint(plain, "GET http://web.test/endless HTTP/1.1\r\nHost: web.test\r\n\r\n")
	if _, err := plain.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	closeDoor()
	if _, err := io.Copy(io.Discard, plain); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("an answer of a door that was cut: %v, want a reset", err)
	}
	if _, err := in.ReadByte(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the tunnel of a door that was cut: %v, want a reset", err)
	}
	o.open("")
	if status, _, err := o.get("http://web.test/"); err != nil || status != "200 OK" {
		t.Errorf("after the next door: %s %v", status, err)
	}
	// A second one takes the place of the first.
	last := o.open("")
	if status, _, err := o.get("http://web.test/"); err != nil || status != "200 OK" {
		t.Errorf("after the third: %s %v", status, err)
	}
	// A copy has no door, and who had one knows none of it.
	if _, err := o.client.Configure(t.Context(), agentapi.Configure{Token: testToken, Clone: true}); err != nil {
		t.Fatal(err)
	}
	if status, _, err := o.get("http://web.test/"); err != nil || !strings.HasPrefix(status, "403 This sandbox has no network") {
		t.Errorf("a copy without a network: %s %v", status, err)
	}
	last()
}

func TestHoldCutsTheDoor(t *testing.T) {
	o := newOutside(t, nil)
	o.open("")
	conn, in, line := o.connect("echo.test:443")
	if !strings.Contains(line, " 200 ") {
		t.Fatal(line)
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, endless{})
		sent <- err
	}()
	if _, err := in.ReadByte(); err != nil {
		t.Fatal(err)
	}
	release, err := o.client.Hold(t.Context())
	if err != nil {
		t.Fatalf("work in a tunnel keeps the sandbox from being held: %v", err)
	}
	_, got := io.Copy(io.Discard, in)
	if err := errors.Join(got, <-sent); !errors.Is(err, syscall.ECONNRESET) { // one of them is told
		t.Errorf("the tunnel: %v, want a reset", err)
	}
	release()
	o.open("")
	if status, _, err := o.get("http://web.test/"); err != nil || status != "200 OK" {
		t.Errorf("after the hold: %s %v", status, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestProxyFlood(t *testing.T) {
	o := newOutside(t, nil)
	o.open("")
	var conns []net.Conn
	for range 200 {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", o.proxy)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	refused := 0
	for _, c := range conns[128:] {
		text, _ := io.ReadAll(c) // a reset is as good
		if len(text) == 0 || strings.HasPrefix(string(text), "HTTP/1.1 503 Too many connections") {
			refused++
		}
	}
	if refused != 72 {
		t.Errorf("%d of 72 beyond the bound were refused", refused)
	}
	for _, c := range conns {
		_ = c.Close()
	}
	for end := time.Now().Add(10 * time.Second); ; {
		status, _, err := o.get("http://web.test/")
		if err == nil && status == "200 OK" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after the flood: %s %v", status, err)
		}
	}
}

// What programs are told holds from the start; the user's own word counts more.
func TestProgramsAreTold(t *testing.T) {
	o := newOutside(t, map[string]string{"PIP_INDEX_URL": "https://mine.test/simple"})
	env := o.environ(t)
	for name, want := range map[string]string{
		"HTTP_PROXY": "http://" + o.proxy, "https_proxy": "http://" + o.proxy, "NO_PROXY": "localhost,127.0.0.1,::1",
		"UV_DEFAULT_INDEX": "http://packages.caesarion.internal/simple/", "PIP_TRUSTED_HOST": "packages.caesarion.internal",
		"PIP_INDEX_URL": "https://mine.test/simple",
	} {
		if env[name] != want {
			t.Errorf("%s=%q, want %q", name, env[name], want)
		}
	}
	file := env["SSL_CERT_FILE"]
	for _, name := range []string{"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"} {
		if env[name] != file {
			t.Errorf("%s=%q, want %q", name, env[name], file)
		}
	}
	for _, certs := range []string{"", "the company's\n", "another\n", ""} {
		o.open(certs)
		got, err := os.ReadFile(file)
		want := "the image's\n"
		if certs != "" {
			want += "\n" + certs
		}
		if err != nil || string(got) != want {
			t.Errorf("with %q: %q, %v", certs, got, err)
		}
	}
}

// run gives what a command prints.
func (o *outside) run(t *testing.T, command string) string {
	t.Helper()
	stream, err := o.client.Run(t.Context(), agentapi.Run{ID: "prc_" + rand.Text(), Command: command, Dir: "/workspace"})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var text strings.Builder
	for {
		e, err := stream.Next()
		if err != nil {
			return text.String()
		}
		var line struct{ Data struct{ Text string } }
		if json.Unmarshal(e.Line, &line) == nil {
			text.WriteString(line.Data.Text)
		}
	}
}

// environ gives the environment of a process.
func (o *outside) environ(t *testing.T) map[string]string {
	t.Helper()
	plain, err := base64.StdEncoding.DecodeString(o.run(t, "env | base64 -w0"))
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(plain)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		env[name] = value
	}
	return env
}

// An index that refuses is said in the output: pip keeps it to itself.
func TestRefusedPackagesAreTold(t *testing.T) {
	o := newOutside(t, nil)
	o.open("")
	got := o.run(t, "for i in 1 2 3; do curl -s -o /dev/null $PIP_INDEX_URL; done; echo done")
	if strings.Count(got, "[caesarion] packages.caesarion.internal is not among the hosts this sandbox may reach\n") != 1 || !strings.Contains(got, "done\n") {
		t.Errorf("the process shows %q", got)
	}
}
