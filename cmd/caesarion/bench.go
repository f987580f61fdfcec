package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/bench"
	"github.com/caesarion/caesarion/internal/client"
)

// benchCmd measures a server and, beside it, a peer.
type benchCmd struct {
	Scenario   []string `help:"Scenarios to measure: create-cold, live, live-rested, first-byte, output, files, memory. Default: all." placeholder:"NAME"`
	Compare    string   `help:"Measure a peer in the same run: jupyter (jupyter-server and ipykernel, no isolation)." enum:",jupyter" default:""`
	Python     string   `help:"Python with jupyter-server and ipykernel, for --compare jupyter." default:"python3" placeholder:"PATH"`
	Creates    int      `help:"Cold starts of each subject." default:"10"`
	Executions int      `help:"Live executions of each subject." default:"500"`
}

// Help implements kong.HelpProvider.
func (*benchCmd) Help() string {
	return `Measures the server named by --server, the one that runs on the data directory, or one started for the run. The clock runs in the client, from the request to the last byte.

Examples:
  caesarion bench
  caesarion bench --scenario live,first-byte
  caesarion bench --compare jupyter --python .cache/venv/bin/python --json > results.json`
}

// Run measures.
func (c *benchCmd) Run(ctx context.Context, g *globals) (err error) {
	subject, stop, err := c.server(ctx, g)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	subjects := []bench.Subject{subject}
	if c.Compare == "jupyter" {
		j, err := bench.StartJupyter(ctx, c.Python)
		if err != nil {
			return err
		}
		defer func() { _ = j.Stop() }()
		subjects = append(subjects, j, bench.JupyterQuickAck{Jupyter: j})
	}
	results := []bench.Result{}
	err = bench.Run(ctx, subjects, c.Scenario, bench.Options{
		Creates: c.Creates, Executions: c.Executions,
		Progress: func(format string, args ...any) { fmt.Fprintf(g.Stderr, "bench: "+format+"\n", args...) },
	}, func(r bench.Result) { results = append(results, r) })
	if err != nil {
		return err
	}
	if g.JSON {
		return printJSON(g.Stdout, results)
	}
	return bench.Table(g.Stdout, results)
}

// server gives the server to measure: one that runs, or a process of its own,
// so that its memory is the server's and not this command's.
func (c *benchCmd) server(ctx context.Context, g *globals) (*bench.Caesarion, func() error, error) {
	token, err := g.Token()
	if err != nil {
		return nil, nil, err
	}
	if g.Server != "" {
		cl, err := client.New(g.Server, client.Options{Token: token.Reveal()})
		return &bench.Caesarion{Client: cl}, func() error { return nil }, err
	}
	if conn, err := g.running(ctx, token.Reveal()); err != nil {
		return nil, nil, err
	} else if conn != nil {
		rec, err := readServerRecord(g.DataDir)
		return &bench.Caesarion{Client: conn.Client, PID: rec.PID}, conn.Close, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "serve", "--data-dir", g.DataDir, "--listen", "127.0.0.1:0", "--on-exit", "delete", "--json")
	cmd.Args[0] = "caesarion"
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop := func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return cmd.Wait()
	}
	var ready struct{ URL, Token string }
	if err := json.NewDecoder(bufio.NewReader(out)).Decode(&ready); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("the server did not start: %w", err), stop())
	}
	cl, err := client.New(ready.URL, client.Options{Token: ready.Token})
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	return &bench.Caesarion{Client: cl, PID: cmd.Process.Pid}, stop, nil
}
