// Package egress lets programs of real sandboxes out through the one door, and
// tries what must not get out.
package egress

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// start starts a server whose templates have all sorts of networks.
func start(t *testing.T, o *outside, data string, flags ...string) *servertest.Server {
	t.Helper()
	at := o.plain.Listener.Addr().String()
	config := filepath.Join(data, "config.yaml")
	secret := filepath.Join(data, "secret")
	if err := os.WriteFile(secret, []byte(planted+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := os.WriteFile(config, fmt.Appendf(nil, `
network: packages
egress:
  package_index: http://%s/simple
  allow_private: [127.0.0.0/8]
  ca_certs: [%s]
templates:
  closed: {network: none, pool_size: 0}
  listed: {network: {allow: ["%s", "%s"]}, pool_size: 0}
  secret: {network: {secrets: [{name: KEY, host: "%s", value_file: %s}, {name: PLAIN, host: "%s", value_file: %s}]}, pool_size: 0}
`, at, o.caFile, at, o.tls.Listener.Addr(), o.tls.Listener.Addr(), secret, at, secret), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.Start(t, data, append([]string{"--config", config}, flags...)...)
}

// sandbox is one sandbox, and a test of it.
type sandbox struct {
	*servertest.Server
	t  *testing.T
	id string
}

func create(t *testing.T, s *servertest.Server, in v1.CreateSandbox) sandbox {
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
	return sandbox{s, t, sb.ID}
}

// run runs code and gives what it showed, errors included.
func (s sandbox) run(code string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 2*time.Minute)
	defer cancel()
	r, err := s.Run(ctx, s.id, code)
	if err != nil {
		s.t.Fatalf("%s: %v", code, err)
	}
	text := strings.ReplaceAll(r.Text, "\r\n", "\n") // commands have a terminal
	for _, e := range r.Errors {
		text += e.Name + ": " + e.Value + "\n"
	}
	return text
}

func (s sandbox) want(what, code, want string) {
	s.t.Helper()
	if got := s.run(code); !strings.Contains(got, want) {
		s.t.Errorf("%s: got %q, want %q in it", what, got, want)
	}
}

// fetch is a cell that gets a page.
func fetch(url string) string {
	return fmt.Sprintf("import urllib.request\nprint(urllib.request.urlopen(%q, timeout=20).read())", url)
}

const none = "403: This sandbox has no network"

func TestPackages(t *testing.T) {
	o := newOutside(t)
	s := start(t, o, servertest.DataDir(t))
	sb := create(t, s, v1.CreateSandbox{})
	// Any compiled extension will do; this one is the image's own.
	so := sb.run("import markupsafe._speedups as m, base64; print(base64.b64encode(open(m.__file__, 'rb').read()).decode())")
	ext, err := base64.StdEncoding.DecodeString(strings.TrimSpace(so))
	if err != nil || len(ext) == 0 {
		t.Fatalf("there is no extension to pack: %v %.200s", err, so)
	}
	o.wheels["tinybinary"] = newWheel(t, "tinybinary", "cp313-cp313-linux_x86_64", map[string][]byte{
		"tinybinary/__init__.py": nil, "tinybinary/_speedups.cpython-313-x86_64-linux-gnu.so": ext,
	})
	sb.want("a pure one", "%pip install tinypure", "Successfully installed tinypure-1.0")
	sb.want("without a restart", "import tinypure; print(tinypure.answer)", "42\n")
	sb.want("a binary one", "!pip install tinybinary", "Successfully installed tinybinary-1.0")
	sb.want("its code", "import tinybinary._speedups as m; print(m.__name__)", "tinybinary._speedups")
	sb.want("one that is not there", "%pip install nothere", "No matching distribution found for nothere")
	sb.want("nothing else", fetch(o.plain.URL+"/hello"), "only packages by pip and uv are")

	// The second sandbox's comes from the server's cache.
	before := o.downloads.Load()
	other := create(t, s, v1.CreateSandbox{})
	begun := time.Now()
	other.want("from the cache", "%pip install tinypure", "Successfully installed tinypure-1.0")
	t.Logf("%%pip install of a package in the cache: %v", time.Since(begun).Round(time.Millisecond))
	if n := o.downloads.Load() - before; n != 0 {
		t.Errorf("it was downloaded again, %d times", n)
	}

	closed := create(t, s, v1.CreateSandbox{Template: "closed"})
	for _, code := range []string{"%pip install tinypure", "!pip install -q tinypure==1.0"} {
		got := closed.run(code)
		if strings.Count(got, "[caesarion] This sandbox has no network: nothing can be downloaded or installed.") != 1 {
			t.Errorf("%s without a network shows %q, want one clear sentence", code, got)
		}
	}
	// The user's word counts more than ours.
	own := create(t, s, v1.CreateSandbox{Env: map[string]string{"PIP_INDEX_URL": "http://mine.test/simple"}})
	own.want("an index of one's own", "import os; print(os.environ['PIP_INDEX_URL'])", "http://mine.test/simple\n")
}

func TestClients(t *testing.T) {
	o := newOutside(t)
	sb := create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	for _, base := range []string{o.plain.URL, o.tls.URL} {
		scheme, _, _ := strings.Cut(base, ":")
		url := base + "/hello"
		sb.want("urllib, "+scheme, fetch(url), "b'hello'")
		sb.want("requests, "+scheme, fmt.Sprintf("import requests; print(requests.get(%q, timeout=20).text)", url), "hello\n")
		sb.want("httpx, "+scheme, fmt.Sprintf("import httpx; print(httpx.get(%q, timeout=20).text)", url), "hello\n")
		sb.want("curl, "+scheme, fmt.Sprintf("!curl -sS %s && echo", url), "hello\n")
		sb.want("curl by SOCKS, "+scheme, fmt.Sprintf("!curl -sS --noproxy '' -x socks5h://127.0.0.1:44773 %s && echo", url), "hello\n")
		sb.want("what is not on the list, "+scheme, fetch(scheme+"://example.com/"), "example.com")
	}
	sb.want("a redirect inwards", fetch(o.plain.URL+"/inward"), "403")
	sb.want("the index, which the list has", "%pip install tinypure", "Successfully installed tinypure-1.0")
	t.Run("a gigabyte", func(t *testing.T) {
		const size = 1 << 30
		for _, base := range []string{o.plain.URL, o.tls.URL} {
			got := sb.run(fmt.Sprintf("!curl -sS -p -o /dev/null -w '%%{size_download} %%{speed_download}\\n' %s/zeros/%d", base, size))
			m := regexp.MustCompile(`(\d+) (\d+)`).FindStringSubmatch(got)
			if m == nil || m[1] != strconv.Itoa(size) {
				t.Fatalf("%s: %q", base, got)
			}
			speed, _ := strconv.ParseFloat(m[2], 64)
			t.Logf("%.5s: %.0f MB/s", base, speed/1e6)
		}
	})
}

// planted is a secret's value.
const planted = "planted-6f1d0c"

// A secret's value reaches its host and never the sandbox, also by TLS, whose
// certificate the sandbox trusts from its first instruction on.
func TestSecrets(t *testing.T) {
	o := newOutside(t)
	s := start(t, o, servertest.DataDir(t))
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("Bearer "+planted)))
	for name, url := range map[string]string{"PLAIN": o.plain.URL, "KEY": o.tls.URL} {
		sb := create(t, s, v1.CreateSandbox{Template: "secret"})
		sb.want("a secret at once, "+name, fmt.Sprintf(`import urllib.request
r = urllib.request.Request("%s/whoami", headers={"Authorization": "Bearer {{secret.%s}}"})
print(urllib.request.urlopen(r, timeout=20).read().decode())`, url, name), sum)
		if got := sb.run("!env; cat /proc/1/environ 2>/dev/null; grep -rs planted- /tmp /workspace ~"); strings.Contains(got, planted) {
			t.Errorf("the secret is in the sandbox: %s", got)
		}
	}
}

// nothing tries every way out but the proxy.
const nothing = `
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

func TestNothingElseLeaves(t *testing.T) {
	o := newOutside(t)
	s := start(t, o, servertest.DataDir(t))
	addr, port, _ := strings.Cut(o.plain.Listener.Addr().String(), ":")
	for _, template := range []string{"closed", "listed"} {
		sb := create(t, s, v1.CreateSandbox{Template: template})
		got := sb.run(fmt.Sprintf(nothing, fmt.Sprintf("(%q, %s)", addr, port)))
		if strings.Contains(got, "GETS OUT") || strings.Count(got, " fails: ") != 12 || !strings.HasSuffix(got, "tried\n") {
			t.Errorf("%s: %s", template, got)
		}
	}
}

// The policy holds from the first instruction, however a sandbox came to be.
func TestThePolicyHoldsForAll(t *testing.T) {
	o := newOutside(t)
	s := start(t, o, servertest.DataDir(t), "--snapshots")
	hello := fetch(o.plain.URL + "/hello")
	for template, want := range map[string]string{"closed": none, "listed": "b'hello'", "python": "only packages by pip and uv are"} {
		t.Run(template, func(t *testing.T) {
			// Cold, then restored from the template's snapshot, or ready.
			starts := map[string]bool{}
			for end := time.Now().Add(2 * time.Minute); len(starts) < 2 && time.Now().Before(end); {
				sb := create(t, s, v1.CreateSandbox{Template: template})
				sb.want("new", hello, want)
				info, err := s.Sandbox(t.Context(), sb.id)
				if err != nil {
					t.Fatal(err)
				}
				if !starts[string(info.Start)] {
					starts[string(info.Start)] = true
					t.Logf("started %s", info.Start)
				}
				if starts["restore"] || starts["warm"] {
					break
				}
				if err := s.DeleteSandbox(t.Context(), sb.id); err != nil {
					t.Fatal(err)
				}
			}
			if !starts["restore"] && !starts["warm"] {
				t.Errorf("none was restored: %v", starts)
			}

			sb := create(t, s, v1.CreateSandbox{Template: template})
			sb.want("first", "import threading, time, urllib.request\nn = 1", "")
			copies, err := s.Fork(t.Context(), sb.id, v1.ForkSandbox{Count: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range copies {
				sandbox{s, t, c.ID}.want("copy", hello, want)
			}
			snap, err := s.Snapshot(t.Context(), sb.id, v1.SnapshotSandbox{})
			if err != nil {
				t.Fatal(err)
			}
			create(t, s, v1.CreateSandbox{Snapshot: snap.ID}).want("from a snapshot", hello, want)
			sb.want("after the snapshot", hello, want)
			if _, err := s.Pause(t.Context(), sb.id); err != nil {
				t.Fatal(err)
			}
			sb.want("resumed", hello, want)
			for _, c := range copies {
				if err := s.DeleteSandbox(t.Context(), c.ID); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A sandbox with work in its tunnel can be put to sleep; the work is told.
func TestASleepCutsWhatGoesOut(t *testing.T) {
	o := newOutside(t)
	sb := create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	sb.want("a download begins", fmt.Sprintf(`
import threading, urllib.request
def follow():
    global ended
    try:
        while r.read(1000): got.set()
        ended = "the end"
    except Exception as e:
        ended = repr(e)
got, ended = threading.Event(), None
r = urllib.request.urlopen("%s/zeros/1000000000000")
thread = threading.Thread(target=follow)
thread.start()
print(got.wait(20))`, o.plain.URL), "True")
	if _, err := sb.Pause(t.Context(), sb.id); err != nil {
		t.Fatalf("it can't be paused: %v", err)
	}
	sb.want("it was cut", "thread.join(20); print(ended)", "Error")
	sb.want("and can go on", fetch(o.plain.URL+"/hello"), "b'hello'")
}
