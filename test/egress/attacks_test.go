package egress

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// forbidden is a server that no policy names. Whatever reaches it got out.
func forbidden(t *testing.T) (addr string, hits *atomic.Int64) {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	hits = new(atomic.Int64)
	s := &httptest.Server{Listener: l, Config: &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "REACHED") }),
		ConnState: func(_ net.Conn, st http.ConnState) {
			if st == http.StateNew {
				hits.Add(1)
			}
		},
		ReadHeaderTimeout: time.Minute,
	}}
	s.Start()
	t.Cleanup(s.Close)
	return l.Addr().String(), hits
}

// raw defines say(bytes): what the proxy answers to them, as text.
const raw = `
import json, socket
def say(data, more=b"", wait=5):
    s = socket.create_connection(("127.0.0.1", 44773)); s.settimeout(wait)
    got = b""
    try:
        s.sendall(data)
        if more:
            got += s.recv(65536)
            s.sendall(more)
        while len(got) < 1 << 20:
            b = s.recv(65536)
            if not b: break
            got += b
    except OSError as e:
        got += b" <" + type(e).__name__.encode() + b">"
    s.close()
    return got.decode("latin-1")
`

// sayAll sends each of many beginnings over a connection of its own.
func (s Box) sayAll(attacks map[string]string) map[string]string {
	s.T.Helper()
	// As Python reads it: a character for each byte.
	characters := map[string]string{}
	for name, bytes := range attacks {
		runes := make([]rune, len(bytes))
		for i := range len(bytes) {
			runes[i] = rune(bytes[i])
		}
		characters[name] = string(runes)
	}
	in, err := json.Marshal(characters)
	if err != nil {
		s.T.Fatal(err)
	}
	out := s.Run(raw + fmt.Sprintf(`
from concurrent.futures import ThreadPoolExecutor
attacks = json.loads(%q)
def one(item):
    data, _, more = item[1].encode("latin-1").partition(b"<THEN>")
    return item[0], say(data, more)[:2000]
with ThreadPoolExecutor(8) as pool: print(json.dumps(dict(pool.map(one, attacks.items()))))
`, in))
	answers := map[string]string{}
	if err := json.Unmarshal([]byte(out), &answers); err != nil {
		s.T.Fatalf("%v: %.500s", err, out)
	}
	return answers
}

var status = regexp.MustCompile(`HTTP/1\.[01] (\d{3})`)

// Every way to write an address that nobody may reach, also where all public
// ones are allowed.
func TestAddressesInEveryForm(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t))
	sb := Create(t, s, v1.CreateSandbox{Template: "open"})
	own := strings.TrimPrefix(s.URL(), "http://")
	_, port, err := net.SplitHostPort(own)
	if err != nil {
		t.Fatal(err)
	}
	attacks := map[string]string{}
	for _, at := range []string{
		"169.254.169.254:80", "2852039166:80", "0251.0376.0251.0376:80", "0xa9.0xfe.0xa9.0xfe:80", "0xa9fea9fe:80", "169.254.43518:80", "169.16689662:80",
		"169.254.169.254.:80", "[::ffff:169.254.169.254]:80", "[::ffff:a9fe:a9fe]:80", "[64:ff9b::a9fe:a9fe]:80", "[::169.254.169.254]:80", "[2002:a9fe:a9fe::1]:80",
		"[fd00:ec2::254]:80", "[fe80::a9fe:a9fe]:80", "[fe80::a9fe:a9fe%25eth0]:80", "168.63.129.16:80", "100.100.100.200:80",
		own, "[::ffff:127.0.0.1]:" + port, "localhost:" + port, "LOCALHOST.:" + port, "127.1:" + port, "0:" + port, "0.0.0.0:" + port, "[::]:" + port, "[::1]:" + port, "2130706433:" + port,
		"10.0.0.1:80", "172.16.0.1:80", "192.168.0.1:80", "100.64.0.1:80", "224.0.0.1:80", "255.255.255.255:80", "[fc00::1]:80", "[ff02::1]:80", "[2001:db8::1]:80",
		"metadata.google.internal:80", "kubernetes.default.svc.cluster.local:443", "printer.local:80", "db:5432", "1.1.1.1:25", "1.1.1.1:0", "1.1.1.1:65536",
	} {
		attacks["CONNECT "+at] = "CONNECT " + at + " HTTP/1.1\r\nHost: " + at + "\r\n\r\n"
		attacks["GET "+at] = "GET http://" + at + "/ HTTP/1.1\r\nHost: " + at + "\r\nConnection: close\r\n\r\n"
	}
	for name, answer := range sb.sayAll(attacks) {
		m := status.FindStringSubmatch(answer)
		if len(m) == 0 || m[1] != "403" && m[1] != "400" {
			t.Errorf("%s: %.200q", name, answer)
		}
	}
	// By SOCKS: 5 (version) 1 (methods) 0 (none); 5 1 (connect) 0, kind, address, port.
	for name, address := range map[string]string{
		"metadata":            "\x01\xa9\xfe\xa9\xfe\x00\x50",
		"IPv6":                "\x04" + strings.Repeat("\x00", 10) + "\xff\xff\xa9\xfe\xa9\xfe\x00\x50",
		"a name":              "\x03\x09localhost\x00\x50",
		"a number":            "\x03\x0a2852039166\x00\x50",
		"a header in a name":  "\x03\x10a\r\nHost: b.test\r\n\x00\x50",
		"an authority within": "\x03\x0fa.test@10.0.0.1\x00\x50",
	} {
		if got := sb.sayAll(map[string]string{"": "\x05\x01\x00<THEN>\x05\x01\x00" + address})[""]; len(got) < 4 || got[:2] != "\x05\x00" || got[2] != 5 || got[3] == 0 {
			t.Errorf("SOCKS, %s: %q", name, got)
		}
	}
	for name, begin := range map[string]string{"bind": "\x05\x02\x00", "UDP": "\x05\x03\x00"} {
		if got := sb.sayAll(map[string]string{"": "\x05\x01\x00<THEN>" + begin + "\x01\x01\x01\x01\x01\x00\x50"})[""]; !strings.HasPrefix(got, "\x05\x00\x05\x07") {
			t.Errorf("SOCKS, %s: %q", name, got)
		}
	}
}

// What a proxy may be talked into, tried on the one host that is allowed.
func TestNoRequestIsSmuggled(t *testing.T) {
	o := NewOutside(t, Loopback)
	bad, hits := forbidden(t)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	good := o.Plain.Listener.Addr().String()
	second := "GET http://" + bad + "/ HTTP/1.1\r\nHost: " + bad + "\r\nConnection: close\r\n\r\n"
	ask := func(headers ...string) string {
		return "GET http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\n" + strings.Join(headers, "") + "Connection: close\r\n\r\n"
	}
	tests := map[string]struct{ send, want string }{
		"what is allowed":                         {ask(), `^HTTP/1.1 200 OK(?s:.*)hello$`},
		"what is not":                             {second, `^HTTP/1.1 403 127\.0\.0\.3:\d+ is not among the hosts`},
		"the Host of another":                     {strings.Replace(ask(), "Host: "+good, "Host: "+bad, 1), `^HTTP/1.1 200 OK(?s:.*)hello$`},
		"two Hosts":                               {strings.Replace(ask(), "Host: ", "Host: "+bad+"\r\nHost: ", 1), `^HTTP/1.1 400`},
		"another one on the same connection":      {strings.Replace(ask(), "Connection: close\r\n", "", 1) + second, `^HTTP/1.1 200 OK(?s:.*)hello(?s:.*)HTTP/1.1 403`},
		"a path alone, with another's Host":       {"GET / HTTP/1.1\r\nHost: " + bad + "\r\n\r\n", `^HTTP/1.1 400`},
		"length and chunks":                       {"POST http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + second, `^HTTP/1.1 (400|200 OK(?s:.*)HTTP/1.1 403)`},
		"two lengths":                             {"POST http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\nContent-Length: 0\r\nContent-Length: 99\r\n\r\n" + second, `^HTTP/1.1 400`},
		"an unknown coding":                       {"POST http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\nTransfer-Encoding: xchunked\r\n\r\n" + second, `^HTTP/1.1 (400|501)`},
		"a space before the colon":                {ask("Transfer-Encoding : chunked\r\n"), `^HTTP/1.1 400`},
		"a folded line":                           {ask("X-A: b\r\n Transfer-Encoding: chunked\r\n"), `^HTTP/1.1 (400|200 OK)`},
		"a bare line feed":                        {ask("X-A: b\nX-C: d\r\n"), `^HTTP/1.1 (400|200 OK)`},
		"a chunk's extension":                     {"POST http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2;a=\"\r\n" + second[:10] + "\"\r\nab\r\n0\r\n\r\n", `^HTTP/1.1 (400|200 OK|502)`},
		"a user that looks like the host":         {"GET http://" + good + "@" + bad + "/ HTTP/1.1\r\nHost: " + good + "\r\nConnection: close\r\n\r\n", `^HTTP/1.1 403`},
		"a host behind a fragment":                {"GET http://" + good + "#@" + bad + "/ HTTP/1.1\r\nHost: " + good + "\r\nConnection: close\r\n\r\n", `^HTTP/1.1 4`},
		"a host behind a backslash":               {"GET http://" + good + "\\@" + bad + "/ HTTP/1.1\r\nHost: " + good + "\r\nConnection: close\r\n\r\n", `^HTTP/1.1 4`},
		"https in the clear":                      {"GET https://" + bad + "/ HTTP/1.1\r\nHost: " + bad + "\r\nConnection: close\r\n\r\n", `^HTTP/1.1 400`},
		"a tunnel with another's Host":            {"CONNECT " + good + " HTTP/1.1\r\nHost: " + bad + "\r\n\r\n<THEN>GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", `^HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK(?s:.*)hello$`},
		"a tunnel to another with this one's":     {"CONNECT " + bad + " HTTP/1.1\r\nHost: " + good + "\r\n\r\n", `^HTTP/1.1 403`},
		"a tunnel with a path":                    {"CONNECT http://" + good + "/hello HTTP/1.1\r\nHost: " + good + "\r\n\r\n", `^HTTP/1.1 4`},
		"a tunnel to port 25":                     {"CONNECT 127.0.0.2:25 HTTP/1.1\r\nHost: 127.0.0.2:25\r\n\r\n", `^HTTP/1.1 403`},
		"HTTP/2 by an upgrade":                    {strings.Replace(ask("Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"), "Connection: close", "Connection: Upgrade, HTTP2-Settings, close", 1), `^HTTP/1.1 200 OK(?s:.*)hello$`},
		"HTTP/2 at once":                          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", `^(HTTP/1.1 [45]|$)`},
		"WebSocket by plain HTTP":                 {strings.Replace(strings.Replace(ask("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "Connection: close", "Connection: Upgrade, close", 1), "/hello", "/upgrade", 1), `^HTTP/1.1 200 OK(?s:.*)no upgrade$`},
		"a header that the host is said to need":  {ask("Caesarion-Egress: off\r\nProxy-Authorization: Basic eDp5\r\nX-Forwarded-Host: " + bad + "\r\n"), `^HTTP/1.1 200 OK(?s:.*)hello$`},
		"a header of a megabyte":                  {ask("X-Long: " + strings.Repeat("x", 1<<20) + "\r\n"), `^HTTP/1.1 431|<Connection|<BrokenPipe`},
		"ten thousand headers":                    {ask(strings.Repeat("X: y\r\n", 50000)), `^HTTP/1.1 431|<Connection|<BrokenPipe`},
		"TRACE, which would give headers back":    {strings.Replace(ask("X-A: b\r\n"), "GET", "TRACE", 1), `^HTTP/1.1 \d`},
		"an answer that claims to be the proxy's": {strings.Replace(ask(), "/hello", "/pretend", 1), `^HTTP/1.1 200 OK\r\n(?i:[^\r\n]*\r\n)*\r\n`},
	}
	attacks := map[string]string{}
	for name, test := range tests {
		attacks[name] = test.send
	}
	answers := sb.sayAll(attacks)
	for name, test := range tests {
		if got, ok := answers[name]; !ok || !regexp.MustCompile(test.want).MatchString(got) {
			t.Errorf("%s: %.300q, want %s", name, got, test.want)
		}
	}
	if got := answers["an answer that claims to be the proxy's"]; strings.Contains(got, "Caesarion-Egress") {
		t.Errorf("a host's own answer says %q", got)
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d connections reached a host that nobody allowed", n)
	}
	if n := o.Upgrades.Load(); n != 0 {
		t.Errorf("%d requests asked the host for an upgrade", n)
	}
}

// A program that takes all there is harms itself, and only as long as it does.
func TestFloodsOfTheProxy(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t))
	sb := Create(t, s, v1.CreateSandbox{Template: "listed"})
	other := Create(t, s, v1.CreateSandbox{Template: "listed"})
	hello := Fetch(o.Plain.URL + "/hello")
	at := o.Plain.Listener.Addr().String()
	before := s.Memory(t)
	for name, flood := range map[string]string{
		"connections that say nothing":   `open_all(600, b"")`,
		"requests that are half":         `open_all(600, b"GET http://` + at + `/hello HTTP/1.1\r\nHost: ")`,
		"tunnels that are left open":     `open_all(600, b"CONNECT ` + at + ` HTTP/1.1\r\n\r\n")`,
		"downloads that nobody reads":    `open_all(200, b"GET http://` + at + `/zeros/1000000000 HTTP/1.1\r\nHost: x\r\n\r\n")`,
		"uploads that do not come":       `open_all(200, b"POST http://` + at + `/hello HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")`,
		"requests for what is forbidden": `[say(b"CONNECT 10.0.0.1:80 HTTP/1.1\r\n\r\n") for _ in range(300)]`,
	} {
		t.Run(name, func(t *testing.T) {
			sb := Box{s, t, sb.ID}
			sb.Want("the flood", raw+`
def open_all(n, data):
    global held
    held = []
    for _ in range(n):
        try:
            c = socket.create_connection(("127.0.0.1", 44773), timeout=5)
            c.sendall(data)
            held.append(c)
        except OSError: pass
`+flood+"\nprint('flooded')", "flooded")
			Box{s, t, other.ID}.Want("another sandbox meanwhile", hello, "b'hello'")
			// Once it lets go, it is as before. Some connections take the agent a moment.
			sb.Want("afterwards", `
import time, urllib.request
for c in globals().get("held", []): c.close()
held = []
for _ in range(100):
    try:
        print(urllib.request.urlopen("`+o.Plain.URL+`/hello", timeout=20).read()); break
    except Exception as e: last = e; time.sleep(0.2)
else: print("never:", last)`, "b'hello'")
		})
	}
	if after := s.Memory(t); after.RSS > before.RSS+256<<20 {
		t.Errorf("the server grew from %d to %d MiB", before.RSS>>20, after.RSS>>20)
	}
}

// A secret goes to its host by TLS, and to nobody else, whatever the program says.
func TestASecretIsNotLedAway(t *testing.T) {
	o := NewOutside(t, Loopback)
	bad, hits := forbidden(t)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "secret"})
	got := sb.Run(fmt.Sprintf(`
import http.client, ssl, socket
at, plain, bad, holder = %q, %q, %q, "Bearer {{secret.KEY}}"
host, port = at.split(":")
def tunnel(to, name=None):
    s = socket.create_connection(("127.0.0.1", 44773)); s.settimeout(20)
    s.sendall(f"CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n".encode())
    line = s.recv(4096).split(b"\r\n")[0].decode()
    if " 200 " not in line: return line
    ctx = ssl.create_default_context()
    if name: ctx.check_hostname = False; ctx.verify_mode = ssl.CERT_NONE
    return ctx.wrap_socket(s, server_hostname=name or host)
def ask(s, path, host, **headers):
    head = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n".encode())
    r = http.client.HTTPResponse(s); r.begin()
    return f"{r.status} {r.headers} {r.read().decode('latin-1')}"
def attempt(name, f):
    try: print(f"### {name}: {f()}")
    except Exception as e: print(f"### {name}: {type(e).__name__} {e}")
s = tunnel(at)
attempt("echo", lambda: ask(s, "/echo", at, Authorization=holder))
attempt("other Host on the same connection", lambda: ask(s, "/echo", bad, Authorization=holder))
attempt("redirect", lambda: ask(tunnel(at), "/lead/" + bad, at, Authorization=holder))
attempt("trailer", lambda: ask(tunnel(at), "/trailer", at, Authorization=holder))
attempt("other name by TLS", lambda: tunnel(at, "other.test").version())
attempt("tunnel to another", lambda: tunnel(bad))
attempt("another's secret", lambda: ask(tunnel(at), "/whoami", at, Authorization="Bearer {{secret.PLAIN}}"))
def clear():
    s = socket.create_connection(("127.0.0.1", 44773)); s.settimeout(20)
    s.sendall(f"GET http://{at}/echo HTTP/1.1\r\nHost: {at}\r\nAuthorization: {holder}\r\nConnection: close\r\n\r\n".encode())
    return s.recv(4096).split(b"\r\n")[0].decode()
attempt("in the clear", clear)
`, o.TLS.Listener.Addr(), o.Plain.Listener.Addr(), bad))
	if strings.Contains(got, planted) {
		t.Errorf("the value is in the sandbox:\n%s", got)
	}
	for name, want := range map[string]string{
		"echo":                              `200 (?s:.*)Bearer \{\{secret\.KEY\}\}`,
		"other Host on the same connection": `403 (?s:.*)is asked for in a tunnel to`,
		"redirect":                          `302 (?s:.*)Location: http://.*\{\{secret`,
		"trailer":                           `200 `,
		"other name by TLS":                 `(SSL|Connection)`,
		"tunnel to another":                 `HTTP/1.1 403`,
		"another's secret":                  `200 `,
		"in the clear":                      `HTTP/1.1 403 the secret KEY is sent by https:// only`,
	} {
		if !regexp.MustCompile(`(?m)^### ` + regexp.QuoteMeta(name) + `: ` + want).MatchString(got) {
			t.Errorf("%s: want %s in\n%s", name, want, got)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Errorf("%d connections reached a host that nobody allowed", n)
	}
	for _, seen := range o.Authorizations() {
		if strings.HasPrefix(seen, "plain ") && strings.Contains(seen, planted) {
			t.Errorf("the value went in the clear: %q", seen)
		}
	}
}
