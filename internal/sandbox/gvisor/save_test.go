package gvisor_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// python is a sandbox with one kernel.
type python struct {
	t  testing.TB
	d  *gvisor.Driver
	c  *agentapi.Client
	id sandbox.ID
}

const kernelID = "krn_aaaaaaaaaaaaaaaaaaaaaaaaaa"

func newPython(t testing.TB, d *gvisor.Driver) *python {
	t.Helper()
	info, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits, Labels: map[string]string{"a": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	p := &python{t, d, client(d, info), info.ID}
	defer p.c.CloseIdle()
	if _, err := p.c.StartKernel(t.Context(), agentapi.StartKernel{ID: kernelID, Language: "python"}); err != nil {
		t.Fatal(err)
	}
	return p
}

// of gives the same kernel in another sandbox.
func (p *python) of(info sandbox.Info) *python { return &python{p.t, p.d, client(p.d, info), info.ID} }

// run runs code and gives what it prints; the connection is closed after it.
func (p *python) run(code string) string {
	p.t.Helper()
	defer p.c.CloseIdle()
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Minute)
	defer cancel()
	stream, err := p.c.Execute(ctx, kernelID, agentapi.Execute{ID: agenttest.NewID("exe"), Code: code, StoreHistory: true})
	if err != nil {
		p.t.Fatalf("execute: %v", err)
	}
	return text(p.t, stream)
}

func (p *python) want(code, want string) {
	p.t.Helper()
	if got := strings.TrimSpace(p.run(code)); got != want {
		p.t.Errorf("%s: got %q, want %q", code, got, want)
	}
}

func snapshot(t testing.TB, d *gvisor.Driver, id sandbox.ID, opts sandbox.SnapshotOptions) sandbox.Snapshot {
	t.Helper()
	s, err := d.Snapshot(t.Context(), id, opts)
	if err != nil {
		t.Fatal(errors.Unwrap(err), err)
	}
	return s
}

func TestACopyHasEverythingAndGoesItsOwnWay(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	p := newPython(t, d)
	p.run(`
import threading, time
x = [1, 2, 3]
f = open("/workspace/f", "w+"); f.write("hello"); f.flush()
n = 0
def count():
    global n
    while True:
        n += 1; time.sleep(0.01)
threading.Thread(target=count, daemon=True).start()
`)
	s := snapshot(t, d, p.id, sandbox.SnapshotOptions{Name: "first"})
	p.want("x.append(4); f.write(' original'); f.flush(); print(x, open('/workspace/f').read())", "[1, 2, 3, 4] hello original")
	info, err := d.Restore(t.Context(), s.ID, sandbox.Spec{Limits: smallLimits}, false)
	if err != nil {
		t.Fatal(err)
	}
	c := p.of(info)
	c.want("f.write(' copy'); f.flush(); print(x, open('/workspace/f').read())", "[1, 2, 3] hello copy")
	c.want("a = n; time.sleep(0.1); print(n > a)", "True")
	p.want("print(x, open('/workspace/f').read())", "[1, 2, 3, 4] hello original")
	s2 := snapshot(t, d, c.id, sandbox.SnapshotOptions{})
	info2, err := d.Restore(t.Context(), s2.ID, sandbox.Spec{Limits: smallLimits}, false)
	if err != nil {
		t.Fatal(err)
	}
	c2 := p.of(info2)
	c2.want("print(x, open('/workspace/f').read())", "[1, 2, 3] hello copy")
}

func TestASandboxSleepsAndWakes(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	p := newPython(t, d)
	p.run("x = 41; f = open('/workspace/f', 'w+'); f.write('hello'); f.flush()")
	for range 3 {
		begin := time.Now()
		if err := d.Pause(t.Context(), p.id); err != nil {
			t.Fatal(errors.Unwrap(err), err)
		}
		t.Log("pause", time.Since(begin))
		info, err := d.Get(t.Context(), p.id)
		if err != nil || info.State != sandbox.StatePaused || info.MemoryBytes == 0 || info.FilesBytes == 0 {
			t.Errorf("paused: %+v, %v", info, err)
		}
		begin = time.Now()
		if _, err = d.Resume(t.Context(), p.id, false); err != nil {
			t.Fatal(errors.Unwrap(err), err)
		}
		t.Log("resume", time.Since(begin))
		p.want("f.write('.'); x += 1; print(x > 41)", "True")
	}
	p.want("f.flush(); print(x, open('/workspace/f').read())", "44 hello...")
	if err := d.Pause(t.Context(), p.id); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Resume(t.Context(), p.id, true); err != nil {
		t.Fatal(errors.Unwrap(err), err)
	}
	if got := output(t, p.c, "ls -la /workspace; cat /workspace/f"); !strings.Contains(got, "hello...") {
		t.Error(got)
	}
}

func TestACopyHasTheLimitsItWasMadeWith(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	p := newPython(t, d)
	s := snapshot(t, d, p.id, sandbox.SnapshotOptions{})
	limits := smallLimits
	limits.MemoryBytes, limits.CPUs = 512<<20, 1
	info, err := d.Restore(t.Context(), s.ID, sandbox.Spec{Limits: limits, Template: "small"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if info.Limits != limits || info.Template != "small" {
		t.Errorf("got %+v", info)
	}
	const total = "print(int(open('/proc/meminfo').readline().split()[1]) >> 20)" // KiB to GiB, gVisor's own share included
	p.want(total, "1")
	p.of(info).want("print(int(open('/proc/meminfo').readline().split()[1]) <= 1 << 20)", "True")
}
