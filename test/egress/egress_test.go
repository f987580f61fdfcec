package egress

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// start starts a server whose templates have all sorts of networks.
func start(t testing.TB, o *Outside, data string, flags ...string) *servertest.Server {
	t.Helper()
	at := o.Plain.Listener.Addr().String()
	listed := at
	if o.tight {
		listed = "nothing.test"
	}
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
  open: {network: open, pool_size: 0}
  pooled: {network: packages, pool_size: 1}
  listed: {network: {allow: ["%s", "%s"]}, pool_size: 0}
  secret: {network: {secrets: [{name: KEY, host: "%s", value_file: %s}, {name: PLAIN, host: "%s", value_file: %s, plain_http: true}]}, pool_size: 0}
`, at, o.CAFile, listed, o.TLS.Listener.Addr(), o.TLS.Listener.Addr(), secret, at, secret), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.Start(t, data, append([]string{"--config", config}, flags...)...)
}

func TestPackages(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t))
	sb := Create(t, s, v1.CreateSandbox{})
	// Any compiled extension will do; this one is the image's own.
	so := sb.Run("import markupsafe._speedups as m, base64; print(base64.b64encode(open(m.__file__, 'rb').read()).decode())")
	ext, err := base64.StdEncoding.DecodeString(strings.TrimSpace(so))
	if err != nil || len(ext) == 0 {
		t.Fatalf("there is no extension to pack: %v %.200s", err, so)
	}
	o.Wheels["tinybinary"] = NewWheel(t, "tinybinary", "cp313-cp313-linux_x86_64", map[string][]byte{
		"tinybinary/__init__.py": nil, "tinybinary/_speedups.cpython-313-x86_64-linux-gnu.so": ext,
	})
	sb.Want("a pure one", "%pip install tinypure", "Successfully installed tinypure-1.0")
	sb.Want("without a restart", "import tinypure; print(tinypure.answer)", "42\n")
	sb.Want("a binary one", "!pip install tinybinary", "Successfully installed tinybinary-1.0")
	sb.Want("its code", "import tinybinary._speedups as m; print(m.__name__)", "tinybinary._speedups")
	sb.Want("one that is not there", "%pip install nothere", "No matching distribution found for nothere")
	sb.Want("nothing else", Fetch(o.Plain.URL+"/hello"), "only packages by pip and uv are")

	// The second sandbox's comes from the server's cache.
	before := o.Downloads.Load()
	other := Create(t, s, v1.CreateSandbox{})
	begun := time.Now()
	other.Want("from the cache", "%pip install tinypure", "Successfully installed tinypure-1.0")
	t.Logf("%%pip install of a package in the cache: %v", time.Since(begun).Round(time.Millisecond))
	if n := o.Downloads.Load() - before; n != 0 {
		t.Errorf("it was downloaded again, %d times", n)
	}

	closed := Create(t, s, v1.CreateSandbox{Template: "closed"})
	for _, code := range []string{"%pip install tinypure", "!pip install -q tinypure==1.0"} {
		got := closed.Run(code)
		if strings.Count(got, "[caesarion] This sandbox has no network: nothing can be downloaded or installed.") != 1 {
			t.Errorf("%s without a network shows %q, want one clear sentence", code, got)
		}
	}
	info, err := s.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, template := range info.Templates {
		told[template.Name] = template.Network
	}
	if want := (map[string]string{"closed": "none", "open": "open", "python": "packages", "pooled": "packages", "listed": "list", "secret": "list"}); !maps.Equal(told, want) {
		t.Errorf("the networks that are told: %v, want %v", told, want)
	}

	// The user's word counts more than ours.
	own := Create(t, s, v1.CreateSandbox{Env: map[string]string{"PIP_INDEX_URL": "http://mine.test/simple"}})
	own.Want("an index of one's own", "import os; print(os.environ['PIP_INDEX_URL'])", "http://mine.test/simple\n")
}

func TestClients(t *testing.T) {
	o := NewOutside(t, Loopback)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	for _, base := range []string{o.Plain.URL, o.TLS.URL} {
		scheme, _, _ := strings.Cut(base, ":")
		url := base + "/hello"
		sb.Want("urllib, "+scheme, Fetch(url), "b'hello'")
		sb.Want("requests, "+scheme, fmt.Sprintf("import requests; print(requests.get(%q, timeout=20).text)", url), "hello\n")
		sb.Want("httpx, "+scheme, fmt.Sprintf("import httpx; print(httpx.get(%q, timeout=20).text)", url), "hello\n")
		sb.Want("curl, "+scheme, fmt.Sprintf("!curl -sS %s && echo", url), "hello\n")
		sb.Want("curl by SOCKS, "+scheme, fmt.Sprintf("!curl -sS --noproxy '' -x socks5h://127.0.0.1:44773 %s && echo", url), "hello\n")
		sb.Want("what is not on the list, "+scheme, Fetch(scheme+"://example.com/"), "example.com")
	}
	sb.Want("a redirect inwards", Fetch(o.Plain.URL+"/inward"), "403")
	sb.Want("the index, which the list has", "%pip install tinypure", "Successfully installed tinypure-1.0")
	t.Run("a gigabyte", func(t *testing.T) {
		const size = 1 << 30
		hash := sha256.New()
		if _, err := io.CopyN(hash, Random(), size); err != nil {
			t.Fatal(err)
		}
		want := hex.EncodeToString(hash.Sum(nil))
		for _, base := range []string{o.Plain.URL, o.TLS.URL} { // as a request, and in a tunnel
			sb.Want("whole, "+base, fmt.Sprintf("!curl -sS %s/random/%d | sha256sum", base, size), want)
		}
	})
}

// planted is a secret's value.
const planted = "planted-6f1d0c"

// A secret's value reaches its host and never the sandbox, also by TLS, whose
// certificate the sandbox trusts from its first instruction on.
func TestSecrets(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t))
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("Bearer "+planted)))
	for name, url := range map[string]string{"PLAIN": o.Plain.URL, "KEY": o.TLS.URL} {
		sb := Create(t, s, v1.CreateSandbox{Template: "secret"})
		sb.Want("a secret at once, "+name, fmt.Sprintf(`import urllib.request
r = urllib.request.Request("%s/whoami", headers={"Authorization": "Bearer {{secret.%s}}"})
print(urllib.request.urlopen(r, timeout=20).read().decode())`, url, name), sum)
		if got := sb.Run("!env; cat /proc/1/environ 2>/dev/null; grep -rs planted- /tmp /workspace ~"); strings.Contains(got, planted) {
			t.Errorf("the secret is in the sandbox: %s", got)
		}
	}
}

func TestNothingElseLeaves(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t))
	addr, port, _ := strings.Cut(o.Plain.Listener.Addr().String(), ":")
	for _, template := range []string{"closed", "listed"} {
		sb := Create(t, s, v1.CreateSandbox{Template: template})
		got := sb.Run(fmt.Sprintf(Nothing, fmt.Sprintf("(%q, %s)", addr, port)))
		if strings.Contains(got, "GETS OUT") || strings.Count(got, " fails: ") != 12 || !strings.HasSuffix(got, "tried\n") {
			t.Errorf("%s: %s", template, got)
		}
	}
}

// The policy holds from the first instruction, however a sandbox came to be.
func TestThePolicyHoldsForAll(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t), "--snapshots")
	hello := Fetch(o.Plain.URL + "/hello")
	for template, want := range map[string]string{"closed": NoNetwork, "listed": "b'hello'", "python": "only packages by pip and uv are"} {
		t.Run(template, func(t *testing.T) {
			// Cold, then restored from the template's snapshot, or ready.
			starts := map[string]bool{}
			for end := time.Now().Add(2 * time.Minute); len(starts) < 2 && time.Now().Before(end); {
				sb := Create(t, s, v1.CreateSandbox{Template: template})
				sb.Want("new", hello, want)
				info, err := s.Sandbox(t.Context(), sb.ID)
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
				if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
					t.Fatal(err)
				}
			}
			if !starts["restore"] && !starts["warm"] {
				t.Errorf("none was restored: %v", starts)
			}

			sb := Create(t, s, v1.CreateSandbox{Template: template})
			sb.Want("first", "import threading, time, urllib.request\nn = 1", "")
			copies, err := s.Fork(t.Context(), sb.ID, v1.ForkSandbox{Count: 2})
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range copies {
				Box{s, t, c.ID}.Want("copy", hello, want)
			}
			snap, err := s.Snapshot(t.Context(), sb.ID, v1.SnapshotSandbox{})
			if err != nil {
				t.Fatal(err)
			}
			Create(t, s, v1.CreateSandbox{Snapshot: snap.ID}).Want("from a snapshot", hello, want)
			sb.Want("after the snapshot", hello, want)
			if _, err := s.Pause(t.Context(), sb.ID); err != nil {
				t.Fatal(err)
			}
			sb.Want("resumed", hello, want)
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
	o := NewOutside(t, Loopback)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	sb.Want("a download begins", fmt.Sprintf(`
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
print(got.wait(20))`, o.Plain.URL), "True")
	if _, err := sb.Pause(t.Context(), sb.ID); err != nil {
		t.Fatalf("it can't be paused: %v", err)
	}
	sb.Want("it was cut", "thread.join(20); print(ended)", "Error")
	sb.Want("and can go on", Fetch(o.Plain.URL+"/hello"), "b'hello'")
}
