package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/bench"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// benchCmd measures a server and, beside it, peers.
type benchCmd struct {
	Scenario     []string      `help:"Scenarios to measure: create-hit, create-miss, create-cold, live, live-rested, first-byte, forwarded, interrupt, output, burst, sustained, pause, resume, fork, files, list, memory. Default: all." placeholder:"NAME,…"`
	Compare      []string      `help:"Measure peers in the same run: the URL of another Caesarion server (or NAME=URL), jupyter, gateway, e2b, runsc-do, bubblewrap, pyodide, or all (of these, but for URLs)." placeholder:"URL|NAME,…"`
	CompareToken string        `help:"Token of the server whose URL --compare has; the environment is the better place." env:"CAESARION_COMPARE_TOKEN" placeholder:"TOKEN"`
	Replica      string        `help:"URL of another server of the same installation, by way of which forwarded is measured; it has the same token." placeholder:"URL"`
	Peers        string        `help:"Folder in which scripts/bench-peers.sh has installed peers." default:".cache/peers" placeholder:"DIR"`
	Python       string        `help:"Python with jupyter-server and ipykernel (default: that of --peers if it is there, or else python3)." placeholder:"PATH"`
	Creates      int           `help:"Starts of each subject in the create scenarios; 0: 100 hits, 50 misses, 20 cold." default:"0" placeholder:"N"`
	Executions   int           `help:"Live executions of each subject." default:"500" placeholder:"N"`
	Parallel     int           `help:"Sandboxes that live executes on at once." default:"20" placeholder:"N"`
	Repeats      int           `help:"Samples of first-byte, interrupt, pause, resume and fork." default:"50" placeholder:"N"`
	Duration     time.Duration `help:"How long sustained goes on." default:"60s" placeholder:"TIME"`
	FileSize     config.Bytes  `help:"Size of the file in files." default:"1GiB" placeholder:"SIZE"`
	Sessions     int           `help:"Sessions in list." default:"1000" placeholder:"N"`
	Sleeping     int           `help:"How many of them have a sandbox that sleeps; each takes some 100 MB of disk." default:"10" placeholder:"N"`
	Markdown     bool          `help:"Print the table as Markdown."`
}

// benchPeers are the names that --compare takes beside URLs.
var benchPeers = []string{"jupyter", "gateway", "e2b", "runsc-do", "bubblewrap", "pyodide"}

// Help implements kong.HelpProvider.
func (*benchCmd) Help() string {
	return `Measures a server of its own, with sandboxes of its own and the settings that each scenario needs: with and without the pool and snapshots. Or the server that --server names, or that runs on the data directory; scenarios that need other settings are then skipped, which the table says. The clock runs in the client, from the request to the last byte.

A server that is not the command's own gets 1,000 sessions in list, which are deleted again, and in burst as many sandboxes as it allows, up to 100.

Examples:
  caesarion bench
  caesarion bench --scenario live,first-byte
  caesarion bench --compare jupyter --python .cache/venv/bin/python --json > results.json
  caesarion bench --scenario live --compare https://other.example.org:8443`
}

// Validate looks at names before anything is started; kong calls it.
func (c *benchCmd) Validate() error {
	for _, name := range c.Scenario {
		if !slices.Contains(bench.Scenarios(), name) {
			return fmt.Errorf("--scenario: there is no %q: choose from %s", name, strings.Join(bench.Scenarios(), ", "))
		}
	}
	for _, name := range c.Compare {
		if name != "all" && !slices.Contains(benchPeers, name) && !strings.Contains(name, "://") {
			return fmt.Errorf("--compare: there is no peer %q: choose from %s, all, or give the URL of a server", name, strings.Join(benchPeers, ", "))
		}
	}
	if c.Creates < 0 || c.Executions < 1 || c.Parallel < 1 || c.Repeats < 1 || c.Duration <= 0 || c.FileSize < 1 || c.Sessions < 1 || c.Sleeping < 0 {
		return errors.New("bench: numbers of samples, times and sizes must be positive")
	}
	return nil
}

// Run measures.
func (c *benchCmd) Run(ctx context.Context, g *globals) (err error) {
	ctx, release := untilSignal(ctx)
	defer release()
	progress := func(format string, args ...any) { fmt.Fprintf(g.Stderr, "bench: "+format+"\n", args...) }
	machine := bench.ThisMachine()
	machine.Build = buildVersion()

	targets, err := c.targets(ctx, g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, targets.close()) }()
	results := []bench.Result{}
	add := func(r bench.Result) {
		r.Judge()
		r.Machine = &machine
		results = append(results, r)
	}
	peers, stop, err := c.startPeers(ctx, progress, func(name, reason string) {
		add(bench.Result{Scenario: "peer", Subject: name, Skipped: reason})
	})
	defer func() { err = errors.Join(err, stop()) }()
	if err != nil {
		return err
	}
	plan := bench.Plan{
		Target: func(ctx context.Context, s bench.Setting) (*bench.Caesarion, error) {
			target, err := targets.target(ctx, s)
			if err == nil && machine.Platform == "" {
				machine.Platform = platform(ctx, target.Client)
			}
			return target, err
		},
		Peers:     peers,
		Scenarios: c.Scenario,
		Options: bench.Options{
			Creates: c.Creates, Executions: c.Executions, Parallel: c.Parallel, Repeats: c.Repeats, Duration: c.Duration,
			FileBytes: int64(c.FileSize), Sessions: c.Sessions, Sleeping: c.Sleeping, Progress: progress,
		},
	}
	if c.Sleeping == 0 {
		plan.Options.Sleeping = -1
	}
	if err := plan.Run(ctx, add); err != nil {
		return err
	}
	switch {
	case g.JSON:
		return printJSON(g.Stdout, results)
	case c.Markdown:
		fmt.Fprintf(g.Stdout, "%s\n\n", machine)
		return bench.Markdown(g.Stdout, results)
	default:
		fmt.Fprintf(g.Stdout, "%s\n\n", machine)
		return bench.Table(g.Stdout, results)
	}
}

// platform says what isolates the sandboxes of a server.
func platform(ctx context.Context, cl *client.Client) string {
	info, err := cl.Info(ctx)
	switch {
	case err != nil:
		return "unknown"
	case info.Driver == "gvisor":
		return "gvisor (systrap)"
	default:
		return info.Driver
	}
}

// targets gives where the server under test comes from.
func (c *benchCmd) targets(ctx context.Context, g *globals) (benchTargets, error) {
	token, err := g.Token()
	if err != nil {
		return nil, err
	}
	if g.Server != "" {
		target, err := caesarionAt(g.Server, token.Reveal(), 0)
		if err != nil {
			return nil, err
		}
		if c.Replica != "" {
			if target.Replica, err = caesarionAt(c.Replica, token.Reveal(), 0); err != nil {
				return nil, err
			}
		}
		return &givenTarget{server: target, why: "--server names a server as it is"}, nil
	}
	conn, err := g.running(ctx, token.Reveal())
	if err != nil {
		return nil, err
	}
	if conn != nil {
		defer conn.Close()
		rec, err := readServerRecord(g.DataDir)
		if err != nil {
			return nil, err
		}
		secret := token.Reveal()
		if secret == "" {
			secret = rec.Token
		}
		target, err := caesarionAt(rec.URL, secret, rec.PID)
		if err != nil {
			return nil, err
		}
		if rec.TLSSHA256 != "" {
			target.HTTP = pinned(rec.TLSSHA256)
			if target.Client, err = client.New(rec.URL, client.Options{Token: secret, HTTP: target.HTTP}); err != nil {
				return nil, err
			}
		}
		return &givenTarget{server: target, why: "a server runs on the data directory and was measured as it is: stop it first, or name another --data-dir"}, nil
	}
	return newOwnTargets(g)
}

// caesarionAt gives the server at an address.
func caesarionAt(address, token string, pid int) (*bench.Caesarion, error) {
	h := bench.NewHTTP()
	cl, err := client.New(address, client.Options{Token: token, HTTP: h})
	if err != nil {
		return nil, err
	}
	if u, err := url.Parse(address); err == nil && token == "" {
		token = u.Query().Get("token")
	}
	return &bench.Caesarion{Client: cl, HTTP: h, Token: token, PID: pid, Local: pid != 0}, nil
}

// startPeers starts the peers that --compare names. One that can't run here is
// left out, and skipped says why. stop is never nil.
func (c *benchCmd) startPeers(ctx context.Context, progress func(string, ...any), skipped func(name, reason string)) (peers []bench.Subject, stop func() error, err error) {
	var stops []func() error
	stop = func() (err error) {
		for _, f := range slices.Backward(stops) {
			err = errors.Join(err, f())
		}
		return err
	}
	names := c.Compare
	if slices.Contains(names, "all") {
		names = append(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "all" || slices.Contains(benchPeers, n) }), benchPeers...)
	}
	for _, name := range names {
		progress("start %s", name)
		started, finish, err := c.startPeer(ctx, name)
		if finish != nil {
			stops = append(stops, finish)
		}
		for _, p := range started {
			if err == nil {
				err = bench.Check(ctx, p)
			}
		}
		if ctx.Err() != nil {
			return nil, stop, context.Cause(ctx)
		}
		if err != nil {
			progress("%s is left out: %v", name, err)
			skipped(name, oneLine(err.Error()))
			continue
		}
		for _, p := range started {
			if _, ok := p.(bench.Readier); !ok {
				spares := &bench.Prespawned{Subject: p, Size: 2}
				stops = append(stops, func() error { return spares.Close(context.WithoutCancel(ctx)) })
				p = spares
			}
			peers = append(peers, p)
		}
	}
	return peers, stop, nil
}

// startPeer starts one peer, which may be several subjects.
func (c *benchCmd) startPeer(ctx context.Context, name string) ([]bench.Subject, func() error, error) {
	python := c.python()
	switch name {
	case "jupyter", "gateway":
		start := bench.StartJupyter
		if name == "gateway" {
			start = bench.StartGateway
		}
		j, err := start(ctx, python)
		if err != nil {
			return nil, nil, err
		}
		return []bench.Subject{j, j.QuickAck()}, j.Stop, nil
	case "e2b":
		e, err := bench.StartE2B(ctx, filepath.Join(c.Peers, "e2b", "bin", "python"), filepath.Join(c.Peers, "e2b-source"))
		if err != nil {
			return nil, nil, err
		}
		return []bench.Subject{e}, e.Stop, nil
	case "runsc-do":
		p, err := bench.RunscDo("/proc/self/exe", python)
		if err != nil {
			return nil, nil, err
		}
		return []bench.Subject{p}, func() error { return p.Close(ctx) }, nil
	case "bubblewrap":
		p, err := bench.Bubblewrap("bwrap", python)
		return []bench.Subject{p}, nil, err
	case "pyodide":
		p, err := bench.NewPyodide("node", filepath.Join(c.Peers, "pyodide"))
		return []bench.Subject{p}, nil, err
	default:
		label, address, ok := strings.Cut(name, "=")
		if !ok || strings.Contains(label, "://") {
			label, address = "", name
		}
		other, err := caesarionAt(address, c.CompareToken, 0)
		if err != nil {
			return nil, nil, err
		}
		other.Label = cmp.Or(label, other.Client.URL())
		if err := other.Client.Health(ctx); err != nil {
			return nil, nil, err
		}
		return []bench.Subject{other}, nil, nil
	}
}

// python gives the interpreter that peers run in.
func (c *benchCmd) python() string {
	if c.Python != "" {
		return c.Python
	}
	if path := filepath.Join(c.Peers, "python", "bin", "python"); isExecutable(path) {
		return path
	}
	return "python3"
}

// benchTargets is where servers under test come from.
type benchTargets interface {
	target(ctx context.Context, s bench.Setting) (*bench.Caesarion, error)
	close() error
}

// givenTarget is a server that is measured as it is.
type givenTarget struct {
	server *bench.Caesarion
	why    string // it has no other setting
}

func (t *givenTarget) target(ctx context.Context, s bench.Setting) (*bench.Caesarion, error) {
	info, err := t.server.Client.Info(ctx)
	if err != nil {
		return nil, err
	}
	if s != bench.Default && s != settingOf(info) {
		return nil, &bench.ErrNoTarget{Reason: fmt.Sprintf("needs a server %s, and %s", s, t.why)}
	}
	return t.server, nil
}

// settingOf says how a server starts sandboxes of its default template.
func settingOf(info v1.Info) bench.Setting {
	i := slices.IndexFunc(info.Templates, func(t v1.Template) bool { return t.Default })
	switch {
	case i < 0:
		return bench.Default
	case info.Templates[i].Pool == nil:
		return bench.NoSnapshots
	}
	switch pool := info.Templates[i].Pool; {
	case pool.Size > 0:
		return bench.Default
	case pool.Snapshot == "none":
		return bench.NoSnapshots
	default:
		return bench.NoPool
	}
}

func (t *givenTarget) close() error {
	t.server.Client.Close()
	return nil
}

// benchFailed says that a server of the command's own did not start.
func benchFailed(err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "bench-server-failed", "the server to measure did not start").
		WithHint("what it said is above; caesarion serve on the same machine shows the same").WithCause(err)
}
