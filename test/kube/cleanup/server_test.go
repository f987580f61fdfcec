package cleanup_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// A server is a process of its own, so that it can be killed. It has the real
// driver, warm pods and reaper, and of the rest of a server what matters here:
// it ends sandboxes of its own whose time is over, and writes down that they are
// used.

const (
	serverEnv = "CLEANUP_TEST_SERVER"

	life       = 10 * time.Second // of a sandbox after its last use
	renewEvery = 2 * time.Second
	poolSize   = 20

	digest   = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	imageRef = "none.test/python@" + digest
)

var limits = sandbox.Limits{MemoryBytes: 128 << 20, CPUs: 0.1, DiskBytes: 64 << 20}

// settings of a server process.
type settings struct {
	Name, Namespace, Kubeconfig string
	Registry                    string // address of the test, which knows who owns what
	Pool                        int    // -1: it knows no template
	Log                         bool
}

// order is what the test asks of a server, answer what it says.
type order struct {
	N       int
	Op      string // "lease", "adopt"
	ID      sandbox.ID
	Session string
	Used    bool // its owner goes on using it
}

type answer struct {
	N         int
	ID        sandbox.ID
	Start     pool.Start
	Code, Err string
}

func serverMain(text string) int {
	var set settings
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	s := &server{set: set, mine: map[sandbox.ID]order{}, out: json.NewEncoder(os.Stdout)}
	if err := s.run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, set.Name+":", err)
		return 1
	}
	return 0
}

type server struct {
	set settings
	d   *kube.Driver
	w   *kube.Warm

	mu   sync.Mutex
	mine map[sandbox.ID]order
	out  *json.Encoder
}

func (s *server) run(ctx context.Context) error {
	cfg, err := kube.LoadConfig(s.set.Kubeconfig)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	if s.set.Log {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("server", s.set.Name)
	}
	s.d, err = kube.New(ctx, kube.Options{
		Config: cfg, Namespace: s.set.Namespace, Replica: s.set.Name, Secret: []byte(strings.Repeat("secret ", 8)), AgentImage: imageRef, Logger: log,
	})
	if err != nil {
		return err
	}
	defer s.d.Close()
	opts := kube.WarmOptions{Templates: map[string]kube.WarmTemplate{}, Logger: log, Reaper: kube.ReaperOptions{
		Every: 2 * time.Second,
		Expired: func(info sandbox.Info, now time.Time) (string, bool) {
			return fleet.Expired(info, fleet.Template{}, now)
		},
		Owned: func(ctx context.Context, _ sandbox.ID, session string) (bool, error) {
			return s.ask(ctx, "owned", session)
		},
		Alive: func(ctx context.Context, replica string) (bool, error) { return s.ask(ctx, "alive", replica) },
	}}
	if s.set.Pool >= 0 {
		opts.Templates["python"] = kube.WarmTemplate{Image: imageRef, Limits: limits, Size: s.set.Pool}
	}
	if s.w, err = kube.NewWarm(ctx, s.d, opts); err != nil {
		return err
	}
	defer s.w.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go s.tend(ctx)
	s.say(answer{N: -1})
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var o order
		if err := json.Unmarshal(in.Bytes(), &o); err != nil {
			return err
		}
		switch o.Op {
		case "lease":
			go s.lease(ctx, o)
		case "adopt":
			s.mu.Lock()
			s.mine[o.ID] = o
			s.mu.Unlock()
			s.say(answer{N: o.N})
		}
	}
	return in.Err() // the test has closed its end: an orderly stop
}

func (s *server) say(a answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.out.Encode(a)
}

// ask asks the test, which stands for the database of owners.
func (s *server) ask(ctx context.Context, what, of string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.set.Registry+"/"+what+"?of="+url.QueryEscape(of), nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return string(text) == "yes", err
}

// labels are what a fleet keeps with a sandbox, as far as its end needs it.
func labels(session string) map[string]string {
	now := time.Now().UTC()
	return map[string]string{
		"caesarion.session": session, "caesarion.used": now.Format(time.RFC3339Nano),
		"caesarion.expires": now.Add(life).Format(time.RFC3339Nano),
	}
}

func (s *server) lease(ctx context.Context, o order) {
	a := answer{N: o.N}
	lease, err := s.w.Lease(ctx, pool.Request{Spec: sandbox.Spec{
		ID: sandbox.NewID(), Template: "python", Image: imageRef, Limits: limits, Labels: labels(o.Session),
	}})
	if err != nil {
		a.Code, a.Err = errdefs.CodeOf(err), err.Error()
		s.say(a)
		return
	}
	lease.Client.CloseIdle()
	a.ID, a.Start = lease.Info.ID, lease.Start
	o.ID = a.ID
	s.mu.Lock()
	s.mine[a.ID] = o
	s.mu.Unlock()
	s.say(a)
}

// tend does for the server's own sandboxes what a fleet does.
func (s *server) tend(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(renewEvery) {
		s.mu.Lock()
		var mine []order
		for _, o := range s.mine {
			mine = append(mine, o)
		}
		s.mu.Unlock()
		var wg sync.WaitGroup
		for _, o := range mine {
			info, err := s.d.Get(ctx, o.ID)
			_, over := fleet.Expired(info, fleet.Template{}, time.Now())
			switch {
			case err != nil || info.State == sandbox.StateStopped || !o.Used && over:
				s.mu.Lock()
				delete(s.mine, o.ID)
				s.mu.Unlock()
				wg.Go(func() { _ = s.d.Delete(ctx, o.ID) })
			case o.Used:
				wg.Go(func() { _ = s.d.SetLabels(ctx, o.ID, labels(o.Session)) })
			}
		}
		wg.Wait()
	}
}
