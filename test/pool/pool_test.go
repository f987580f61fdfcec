package pool_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// randomness prints one value of each source a program may draw from, and the
// random bytes of the hello that TLS clients begin with.
const randomness = `
import random, uuid, secrets, ssl, os
import numpy
def hello():
    ctx = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ctx.check_hostname = False
    ctx.verify_mode = ssl.CERT_NONE
    out = ssl.MemoryBIO()
    conn = ctx.wrap_bio(ssl.MemoryBIO(), out)
    try:
        conn.do_handshake()
    except ssl.SSLWantReadError:
        pass
    record = out.read()
    assert record[0] == 22 and record[5] == 1, record[:16]
    return record[11:43].hex(), record[44:44 + record[43]].hex()
first, session = hello()
print(random.random(), numpy.random.rand(), numpy.random.default_rng().random(), uuid.uuid4(), uuid.uuid1(), secrets.token_hex(), os.urandom(16).hex(),
      first, session, hello()[0], ssl.RAND_bytes(16).hex(), hash("a string"), random.SystemRandom().random())
`

var sources = []string{
	"random.random()", "numpy.random.rand()", "numpy.random.default_rng()", "uuid.uuid4()", "uuid.uuid1()", "secrets.token_hex()", "os.urandom()",
	"ssl's client random", "ssl's session id", "ssl's second client random", "ssl.RAND_bytes()", "hash of a string", "random.SystemRandom()",
}

// hashes of strings are decided when Python starts, and every copy has the
// same. That is no secret worth a new Python: it guards against crafted keys.
const sharedHash = "hash of a string"

func TestFiftySandboxesFromOneSnapshotShareNoRandomness(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	defer gvisortest.Empty(t, d)
	p := openPool(t, d, options(t, 2))
	defer shut(t, p)
	settled(t, p)
	var mu sync.Mutex
	seen := make([]map[string]int, len(sources))
	for i := range seen {
		seen[i] = map[string]int{}
	}
	inParallel(make([]struct{}, 50), func(int, struct{}) {
		l, err := p.Lease(t.Context(), request())
		if err != nil {
			t.Error(err)
			return
		}
		defer l.Client.CloseIdle()
		if l.Start == pool.StartCold {
			t.Error("a cold start")
		}
		out := run(t, l.Client, randomness)
		mu.Lock()
		defer mu.Unlock()
		values := strings.Fields(out)
		if len(values) != len(sources) {
			t.Errorf("got %q", out)
			return
		}
		for i, v := range values {
			seen[i][v]++
		}
		if err := d.Delete(context.Background(), l.Info.ID); err != nil {
			t.Error(err)
		}
	})
	for i, values := range seen {
		if len(values) != 50 && sources[i] != sharedHash {
			t.Errorf("%s: %d different values of 50", sources[i], len(values))
		}
	}
	t.Logf("%+v", p.Stats()["python"])
}

func TestAReadySandboxBecomesItsOwners(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	defer gvisortest.Empty(t, d)
	p := openPool(t, d, options(t, 1))
	defer shut(t, p)
	settled(t, p)
	l := lease(t, p, pool.StartWarm)
	if got := run(t, l.Client, "import os, sys; print(os.environ['MINE'], os.getcwd(), 'pandas' in sys.modules, _oh, len(In))"); got != "yes /workspace True {} 2" {
		t.Errorf("inside: %s", got)
	}
	info, err := d.Get(t.Context(), l.Info.ID)
	if err != nil || info.Pooled || info.Labels["owner"] != "me" || len(info.Labels) != 1 {
		t.Errorf("%+v, %v", info, err)
	}
	settled(t, p)
	next := lease(t, p, pool.StartWarm)
	if next.Info.ID == l.Info.ID || next.Info.AgentToken == l.Info.AgentToken {
		t.Error("two owners of one sandbox")
	}
	if got := run(t, next.Client, "print('x' in globals())"); got != "False" {
		t.Errorf("inside the next: %s", got)
	}
}

func TestADamagedSnapshotMeansAColdStartAndANewOne(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	p := openPool(t, d, options(t, 0))
	settled(t, p)
	l := lease(t, p, pool.StartRestore)
	run(t, l.Client, "x = 1")
	l.Client.CloseIdle()
	shut(t, p)
	gvisortest.Empty(t, d)

	pages, err := filepath.Glob(filepath.Join(h.state, "snapshots", "snp_*", "pages.img"))
	if err != nil || len(pages) != 1 {
		t.Fatalf("snapshots on disk: %v, %v", pages, err)
	}
	f, err := os.OpenFile(pages[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("damage"), 1000), 1<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}

	d = h.open(t)
	defer gvisortest.Empty(t, d)
	var log lockedBuffer
	opts := options(t, 0)
	opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p = openPool(t, d, opts)
	defer shut(t, p)
	settled(t, p)
	lease(t, p, pool.StartCold)
	if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "the sandbox starts cold") {
		t.Errorf("the log says nothing of it:\n%s", got)
	}
	settled(t, p)
	l = lease(t, p, pool.StartRestore)
	if got := run(t, l.Client, "import sys; print('numpy' in sys.modules)"); got != "True" {
		t.Errorf("inside: %s", got)
	}
	if left, _ := filepath.Glob(filepath.Join(h.state, "snapshots", "*")); len(left) != 1 || strings.HasPrefix(pages[0], left[0]) {
		t.Errorf("snapshots on disk: %v, the bad one was %s", left, pages[0])
	}
}

func TestARestartKeepsTheSnapshotAndTheReadySandboxes(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	opts := options(t, 2)
	opts.KeepReady = true
	p := openPool(t, d, opts)
	settled(t, p)
	shut(t, p)
	before, err := d.List(t.Context())
	if err != nil || len(before) != 2 {
		t.Fatalf("%d are left, %v", len(before), err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}

	d = h.open(t)
	defer gvisortest.Empty(t, d)
	begin := time.Now()
	p = openPool(t, d, opts)
	defer shut(t, p)
	settled(t, p)
	t.Logf("ready again after %v", time.Since(begin))
	l := lease(t, p, pool.StartWarm)
	if l.Info.ID != before[0].ID && l.Info.ID != before[1].ID {
		t.Errorf("%s is none of those that were left", l.Info.ID)
	}
	if got := run(t, l.Client, "print(1)"); got != "1" {
		t.Errorf("inside: %s", got)
	}
}

func TestABurstOfAHundredSucceeds(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	defer gvisortest.Empty(t, d)
	p := openPool(t, d, options(t, 4))
	defer shut(t, p)
	settled(t, p)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			l, err := p.Lease(t.Context(), request())
			if err != nil {
				t.Error(err)
				return
			}
			if l.Start == pool.StartCold {
				t.Error("a cold start")
			}
			if got := run(t, l.Client, "print(6 * 7)"); got != "42" {
				t.Errorf("inside: %s", got)
			}
			l.Client.CloseIdle()
			if err := d.Delete(context.Background(), l.Info.ID); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestACallerWhoLeavesLeavesNothing(t *testing.T) {
	h := newHost(t)
	d := h.open(t)
	defer gvisortest.Empty(t, d)
	p := openPool(t, d, options(t, 0))
	defer shut(t, p)
	settled(t, p)
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond, 120 * time.Millisecond} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), after, errdefs.New(errdefs.ErrUnavailable, "left", "left"))
		l, err := p.Lease(ctx, request())
		cancel()
		if err == nil {
			t.Logf("done within %v", after)
			if err := d.Delete(t.Context(), l.Info.ID); err != nil {
				t.Error(err)
			}
			continue
		}
		if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != "left" {
			t.Errorf("after %v: %v", after, err)
		}
	}
	shut(t, p) // joins what is being deleted
	if infos, err := d.List(t.Context()); err != nil || len(infos) != 0 {
		t.Errorf("%d are left, %v", len(infos), err)
	}
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
