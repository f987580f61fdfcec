package egress

import (
	"fmt"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// tries has threads of a program ask for the page all the time, by new
// connections and by ones that are kept, in tunnels and without, and count what
// comes of it.
const tries = `
import http.client, socket, threading, time, urllib.request
at = %q
came, refused, cut = 0, 0, 0
def new():
    return urllib.request.urlopen("http://" + at + "/hello", timeout=10).read()
class Kept:
    c = None
    def __call__(self):
        try:
            if self.c is None: self.c = http.client.HTTPConnection("127.0.0.1", 44773, timeout=10)
            self.c.request("GET", "http://" + at + "/hello", headers={"Host": at})
            r = self.c.getresponse(); body = r.read()
            if r.status == 403: raise PermissionError("403")
            return body
        except Exception:
            if self.c: self.c.close()
            self.c = None
            raise
class Tunnel:
    c = None
    def __call__(self):
        try:
            if self.c is None:
                self.c = http.client.HTTPConnection("127.0.0.1", 44773, timeout=10)
                host, port = at.split(":")
                self.c.set_tunnel(host, int(port))
            self.c.request("GET", "/hello")
            r = self.c.getresponse(); return r.read()
        except Exception:
            if self.c: self.c.close()
            self.c = None
            raise
def loop(f):
    global came, refused, cut
    while True:
        try:
            if f() == b"hello": came += 1
        except Exception as e:
            if "403" in str(e): refused += 1
            else: cut += 1
        time.sleep(0.002)
for f in (new, new, Kept(), Tunnel()): threading.Thread(target=loop, args=(f,), daemon=True).start()
while came < 40: time.sleep(0.01)
print("it tries")
`

// count shows the program's figures once it was refused some times more.
const count = `
before, end = refused, time.time() + 60
while refused < before + 20 and time.time() < end: time.sleep(0.01)
print("refused" if refused >= before + 20 else f"never: {came} came, {refused} refused, {cut} cut")
`

// A program that tries all the time gets not one request through that the
// policy in force does not allow: not in its own sandbox after the server came
// back with a tighter policy, not while that adopts it, wakes it from sleep,
// copies it, or makes another from its snapshot.
func TestNotOneRequestPassesATighterPolicy(t *testing.T) {
	o := NewOutside(t, Loopback)
	data := servertest.DataDir(t)
	s := start(t, o, data)
	running := Create(t, s, v1.CreateSandbox{Template: "listed"})
	asleep := Create(t, s, v1.CreateSandbox{Template: "listed"})
	program := fmt.Sprintf(tries, o.Plain.Listener.Addr())
	for _, sb := range []Box{running, asleep} {
		sb.Want("the program", program, "it tries")
	}
	snap, err := s.Snapshot(t.Context(), running.ID, v1.SnapshotSandbox{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Pause(t.Context(), asleep.ID); err != nil {
		t.Fatal(err)
	}
	// While it sleeps nothing of it gets out, and a door that is cut and opened
	// anew lets the allowed pass.
	allowed := o.Hellos.Load()
	running.Want("after the snapshot", "n = came\nend = time.time() + 30\nwhile came < n + 20 and time.time() < end: time.sleep(0.01)\nprint(came >= n + 20)", "True")
	if o.Hellos.Load() == allowed {
		t.Error("nothing came although it is allowed")
	}

	s.Kill()
	// What was on its way out of the dead server arrives now, if ever.
	before := settled(o)
	o.tight = true
	s = start(t, o, data)
	running.Server, asleep.Server = s, s
	running.Want("adopted", count, "refused")
	asleep.Want("woken", count, "refused")
	copies, err := s.Fork(t.Context(), running.ID, v1.ForkSandbox{Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range copies {
		Box{s, t, c.ID}.Want("copied", count, "refused")
	}
	Create(t, s, v1.CreateSandbox{Snapshot: snap.ID}).Want("from a snapshot", count, "refused")
	for range 3 { // doors that come and go
		if _, err := s.Pause(t.Context(), running.ID); err != nil {
			t.Fatal(err)
		}
		running.Want("woken again", count, "refused")
	}
	if n := settled(o) - before; n != 0 {
		t.Errorf("%d requests got out that the policy in force does not allow", n)
	}
}

// settled gives the number of requests that arrived once no more do.
func settled(o *Outside) int64 {
	for n := o.Hellos.Load(); ; n = o.Hellos.Load() {
		time.Sleep(200 * time.Millisecond) // longer than a loopback connection has anything under way
		if o.Hellos.Load() == n {
			return n
		}
	}
}

// Programs that were there before the lease, in a sandbox that the pool made,
// find no way out; the first instruction of whoever gets it finds its policy.
func TestAPooledSandboxHasItsPolicyFromTheFirstInstruction(t *testing.T) {
	o := NewOutside(t, Loopback)
	s := start(t, o, servertest.DataDir(t), "--snapshots")
	for end := time.Now().Add(2 * time.Minute); ; {
		sb := Create(t, s, v1.CreateSandbox{Template: "pooled"})
		info, err := s.Sandbox(t.Context(), sb.ID)
		if err != nil {
			t.Fatal(err)
		}
		sb.Want("the first instruction, "+string(info.Start), Fetch(o.Plain.URL+"/hello"), "only packages by pip and uv are")
		if info.Start == "warm" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("none was ready: %s", info.Start)
		}
		if err := s.DeleteSandbox(t.Context(), sb.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := o.Hellos.Load(); n != 0 {
		t.Errorf("%d requests got out", n)
	}
}
