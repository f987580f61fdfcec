package pool_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// host is a machine with sandboxes that do what a test says. Their agents
// speak HTTP over pipes, so that time can be the test's.
type host struct {
	mu        sync.Mutex
	boxes     map[sandbox.ID]*box
	snaps     map[sandbox.SnapshotID]sandbox.Snapshot
	deleted   []sandbox.SnapshotID
	creates   int
	restores  int
	starting  int // at this moment
	most      int // at once
	stateKey  string
	noImage   bool
	onCreate  func(context.Context, sandbox.Spec) error
	onRestore func(context.Context, sandbox.Spec) error
	onSave    func() error
	takes     time.Duration // a restore; a cold start takes ten times that
}

type box struct {
	host  *host
	lost  chan struct{}
	ended bool // guarded by host.mu

	info     sandbox.Info
	conf     []agentapi.Configure
	unowned  int // times that it was configured while nobody owned it
	kernelID string
	checks   int
	trims    int
	slow     time.Duration // of each inert cell
	deaf     bool          // answers nothing
	calls    []string
	conns    []net.Conn
}

func newHost() *host {
	return &host{
		boxes: make(map[sandbox.ID]*box), snaps: make(map[sandbox.SnapshotID]sandbox.Snapshot), stateKey: "key-1", takes: 100 * time.Millisecond,
	}
}

func (h *host) locked(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
}

// each gives the sandboxes that pass, oldest first.
func (h *host) each(pass func(*box) bool) []*box {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.DeleteFunc(slices.Collect(maps.Values(h.boxes)), func(b *box) bool { return !pass(b) })
	slices.SortFunc(list, func(a, b *box) int { return a.info.CreatedAt.Compare(b.info.CreatedAt) })
	return list
}

func (h *host) pooled() []*box { return h.each(func(b *box) bool { return b.info.Pooled }) }
func (h *host) owned() []*box  { return h.each(func(b *box) bool { return !b.info.Pooled }) }

// start makes a sandbox, which takes its time.
func (h *host) start(ctx context.Context, spec sandbox.Spec, takes time.Duration, hook func(context.Context, sandbox.Spec) error) (sandbox.Info, error) {
	h.locked(func() { h.starting++; h.most = max(h.most, h.starting) })
	defer h.locked(func() { h.starting-- })
	if hook != nil {
		if err := hook(ctx, spec); err != nil {
			return sandbox.Info{}, err
		}
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return sandbox.Info{}, context.Cause(ctx)
	}
	if spec.ID == "" {
		spec.ID = sandbox.NewID()
	}
	b := &box{host: h, lost: make(chan struct{}), info: sandbox.Info{
		ID: spec.ID, Template: spec.Template, Image: spec.Image, State: sandbox.StateRunning, Limits: spec.Limits,
		Labels: maps.Clone(spec.Labels), CreatedAt: time.Now().UTC(), AgentToken: "token-" + string(spec.ID), Pooled: spec.Pooled,
	}}
	if spec.Prestart {
		b.kernelID = "krn_default"
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.boxes[spec.ID] = b
	return b.info, nil
}

func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := b.host
	h.mu.Lock()
	b.calls = append(b.calls, r.Method+" "+r.URL.Path)
	slow, deaf := b.slow, b.deaf
	h.mu.Unlock()
	if deaf {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see its caller leave
		<-r.Context().Done()
		return
	}
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	switch r.Method + " " + r.URL.Path {
	case "POST /configure":
		var c agentapi.Configure
		_ = json.NewDecoder(r.Body).Decode(&c)
		h.mu.Lock()
		b.conf = append(b.conf, c)
		if b.info.Pooled {
			b.unowned++
		}
		health := agentapi.Health{Configured: true}
		if c.KernelID != "" && b.kernelID != "" {
			b.kernelID, health.KernelID = c.KernelID, c.KernelID
		}
		h.mu.Unlock()
		answer(health)
	case "GET /kernels":
		h.mu.Lock()
		id := b.kernelID
		h.mu.Unlock()
		answer([]agentapi.Kernel{{ID: id}})
	case "POST /kernels/krn_default/check":
		time.Sleep(time.Millisecond + slow)
		h.locked(func() { b.checks++ })
		w.WriteHeader(http.StatusNoContent)
	case "POST /trim":
		h.locked(func() { b.trims++ })
		w.WriteHeader(http.StatusNoContent)
	case "GET /usage":
		answer(agentapi.Usage{MemoryBytes: 70 << 20})
	default:
		w.WriteHeader(http.StatusNotFound)
		answer(agentapi.Problem{Status: 404, Code: "not-found", Detail: r.URL.Path})
	}
}

// endLocked ends a sandbox.
func (b *box) endLocked() {
	if !b.ended {
		b.ended = true
		close(b.lost)
		for _, c := range b.conns {
			_ = c.Close()
		}
	}
}

// kill ends it as if it had crashed.
func (b *box) kill() {
	b.host.mu.Lock()
	defer b.host.mu.Unlock()
	b.info.State = sandbox.StateStopped
	b.endLocked()
}

// plain is a driver with no more than the contract; full can do everything.
type plain struct{ *host }

func (d plain) Create(ctx context.Context, spec sandbox.Spec) (sandbox.Info, error) {
	var hook func(context.Context, sandbox.Spec) error
	var noImage bool
	d.locked(func() { d.creates++; hook, noImage = d.onCreate, d.noImage })
	if noImage {
		return sandbox.Info{}, errNoImage()
	}
	return d.start(ctx, spec, 10*d.takes, hook)
}

func errNoImage() error {
	return errdefs.New(errdefs.ErrNotFound, "image-not-found", "there is no image")
}

func (d plain) find(id sandbox.ID) (*box, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.boxes[id]; b != nil {
		return b, nil
	}
	return nil, errdefs.New(errdefs.ErrNotFound, "sandbox-not-found", "there is no %s", id)
}

func (d plain) Get(_ context.Context, id sandbox.ID) (sandbox.Info, error) {
	b, err := d.find(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	return b.info, nil
}

func (d plain) Dial(_ context.Context, id sandbox.ID) (net.Conn, error) {
	b, err := d.find(id)
	if err != nil {
		return nil, err
	}
	near, far := net.Pipe()
	d.mu.Lock()
	defer d.mu.Unlock()
	if b.ended {
		_ = near.Close()
		return nil, errdefs.New(errdefs.ErrUnavailable, "sandbox-lost", "%s has stopped", id)
	}
	b.conns = append(b.conns, near, far)
	l := &oneConn{conn: far, done: make(chan struct{})}
	srv := &http.Server{Handler: b, ReadHeaderTimeout: time.Minute, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			l.close()
		}
	}}
	go func() { _ = srv.Serve(l) }()
	return near, nil
}

// oneConn is a listener with one connection.
type oneConn struct {
	conn net.Conn
	done chan struct{}
	once sync.Once
	end  sync.Once
}

func (l *oneConn) close() { l.end.Do(func() { close(l.done) }) }

func (l *oneConn) Accept() (c net.Conn, err error) {
	l.once.Do(func() { c = l.conn })
	if c == nil {
		<-l.done
		return nil, net.ErrClosed
	}
	return c, nil
}
func (l *oneConn) Close() error   { l.close(); return nil }
func (l *oneConn) Addr() net.Addr { return l.conn.LocalAddr() }

func (d plain) List(context.Context) ([]sandbox.Info, error) {
	var out []sandbox.Info
	for _, b := range d.each(func(*box) bool { return true }) {
		out = append(out, b.info)
	}
	return out, nil
}

func (d plain) SetLabels(context.Context, sandbox.ID, map[string]string) error {
	return errors.New("a pool sets no labels")
}

func (d plain) Lost(id sandbox.ID) (<-chan struct{}, error) {
	b, err := d.find(id)
	if err != nil {
		return nil, err
	}
	return b.lost, nil
}

func (d plain) Delete(_ context.Context, id sandbox.ID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.boxes[id]; b != nil {
		b.endLocked()
		delete(d.boxes, id)
	}
	return nil
}

func (d plain) Capabilities() sandbox.Capabilities { return sandbox.Capabilities{Driver: "test"} }
func (d plain) Close() error                       { return nil }

// claiming is a driver that can have a pool, but has no snapshots.
type claiming struct{ plain }

func (d claiming) Claim(_ context.Context, id sandbox.ID, labels, _ map[string]string) (sandbox.Info, error) {
	b, err := d.find(id)
	if err != nil {
		return sandbox.Info{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !b.info.Pooled {
		return sandbox.Info{}, errdefs.New(errdefs.ErrConflict, "sandbox-claimed", "it has an owner")
	}
	b.info.Pooled, b.info.Labels = false, maps.Clone(labels)
	return b.info, nil
}

type full struct{ claiming }

func (d full) StateKey(_ context.Context, spec sandbox.Spec) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.noImage {
		return "", errNoImage()
	}
	return fmt.Sprint(d.stateKey, spec.Preload, spec.Limits.DiskBytes), nil
}

func (d full) Snapshot(ctx context.Context, id sandbox.ID, opts sandbox.SnapshotOptions) (sandbox.Snapshot, error) {
	b, err := d.find(id)
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	var hook func() error
	d.locked(func() { hook = d.onSave })
	if hook != nil {
		if err := hook(); err != nil {
			return sandbox.Snapshot{}, err
		}
	}
	key, err := d.StateKey(ctx, sandbox.Spec{Preload: []string{"numpy"}, Limits: b.info.Limits})
	if err != nil {
		return sandbox.Snapshot{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range b.conns {
		if err := c.SetDeadline(time.Time{}); err == nil {
			return sandbox.Snapshot{}, errors.New("a connection is open")
		}
	}
	s := sandbox.Snapshot{
		ID: sandbox.NewSnapshotID(), Name: opts.Name, Labels: opts.Labels, Key: key, Memory: true, MemoryBytes: 60 << 20, Sandbox: id, CreatedAt: time.Now(),
	}
	d.snaps[s.ID] = s
	return s, nil
}

func (d full) Restore(ctx context.Context, id sandbox.SnapshotID, spec sandbox.Spec, _ bool) (sandbox.Info, error) {
	d.mu.Lock()
	d.restores++
	_, ok := d.snaps[id]
	hook := d.onRestore
	d.mu.Unlock()
	if !ok {
		return sandbox.Info{}, errdefs.New(errdefs.ErrNotFound, "snapshot-not-found", "there is no %s", id)
	}
	return d.start(ctx, spec, d.takes, hook)
}

func (d full) Snapshots(context.Context) ([]sandbox.Snapshot, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.snaps)), nil
}

func (d full) RenameSnapshot(context.Context, sandbox.SnapshotID, string) error {
	return errors.New("a pool renames none")
}

func (d full) DropMemory(context.Context, sandbox.SnapshotID) error {
	return errors.New("a pool drops none")
}

func (d full) DeleteSnapshot(_ context.Context, id sandbox.SnapshotID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deleted = append(d.deleted, id)
	delete(d.snaps, id)
	return nil
}

// Driver kinds.
func (h *host) full() sandbox.Driver     { return full{claiming{plain{h}}} }
func (h *host) claiming() sandbox.Driver { return claiming{plain{h}} }
func (h *host) plain() sandbox.Driver    { return plain{h} }

var limits = sandbox.Limits{MemoryBytes: 1 << 30, CPUs: 2, Processes: 128, DiskBytes: 1 << 30}

func options(size int) pool.Options {
	return pool.Options{
		Templates: map[string]pool.Template{"python": {Image: "python", Limits: limits, Preload: []string{"numpy"}, Size: size}},
		Snapshots: true, StartsAtOnce: 2, ReserveBytes: 1 << 30,
	}.WithMemory(func() (int64, int64) { return 16 << 30, 8 << 30 })
}

func request() pool.Request {
	return pool.Request{
		Spec: sandbox.Spec{
			ID: sandbox.NewID(), Template: "python", Image: "python", Limits: limits,
			Env: map[string]string{"A": "1"}, Labels: map[string]string{"owner": "me"},
		},
		KernelID: "krn_mine",
	}
}

// bubble runs a test in time of its own, with a pool that is closed at its end
// and leaves nothing pooled.
func bubble(t *testing.T, f func(*testing.T, *host)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h := newHost()
		f(t, h)
		for _, b := range h.each(func(*box) bool { return true }) {
			b.kill()
		}
		time.Sleep(time.Minute) // what agents were doing comes to its end
	})
}

func open(t *testing.T, d sandbox.Driver, opts pool.Options) *pool.Pool {
	t.Helper()
	p, err := pool.New(t.Context(), d, opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func shut(t *testing.T, p *pool.Pool) {
	t.Helper()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// settled lets time pass until the pool is full.
func settled(t *testing.T, p *pool.Pool) {
	t.Helper()
	until(t, "the pool is full", func() bool {
		s := p.Stats()["python"]
		return s.Ready == s.Size && s.Starting == 0 && (s.Snapshot == "ready" || !p.HasSnapshots())
	})
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 60_000 {
		if is() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("it never comes that %s", what)
}

func lease(t *testing.T, p *pool.Pool, req pool.Request) *pool.Lease {
	t.Helper()
	l, err := p.Lease(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	l.Client.CloseIdle()
	return l
}
