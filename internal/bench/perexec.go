package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// PerExecution is a peer that starts a new interpreter, in new isolation, for
// each execution. There is no state between two of them, and so nothing to
// create beforehand.
type PerExecution struct {
	name    string
	command func(ctx context.Context, code string) *exec.Cmd
	root    string // folder of its own, "" if it needs none
}

// RunscDo runs each execution by gVisor's "runsc do": a sandbox with the host's
// files, read-only, and no network. self is a program that becomes runsc when
// its name is.
func RunscDo(self, python string) (*PerExecution, error) {
	python, err := absolute(python)
	if err != nil {
		return nil, err
	}
	root, err := os.MkdirTemp("", "caesarion-bench-runsc-")
	if err != nil {
		return nil, err
	}
	return &PerExecution{name: "runsc-do", root: root, command: func(ctx context.Context, code string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, self, "--root="+root, "--platform=systrap", "--network=none", "--ignore-cgroups", "do", python, "-c", code)
		cmd.Args[0] = "runsc"
		return cmd
	}}, nil
}

// Bubblewrap runs each execution by bwrap: Linux namespaces, the host's files
// read-only, no network; the kernel itself is not shielded.
func Bubblewrap(bwrap, python string) (*PerExecution, error) {
	python, err := absolute(python)
	if err != nil {
		return nil, err
	}
	if bwrap, err = absolute(bwrap); err != nil {
		return nil, err
	}
	return &PerExecution{name: "bubblewrap", command: func(ctx context.Context, code string) *exec.Cmd {
		return exec.CommandContext(ctx, bwrap, "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc",
			"--unshare-all", "--die-with-parent", python, "-c", code)
	}}, nil
}

// Name implements Subject.
func (p *PerExecution) Name() string { return p.name }

// Create implements Subject.
func (p *PerExecution) Create(context.Context) (Session, error) { return perExecutionSession{p}, nil }

// Ready implements Readier: it is as ready as it gets.
func (*PerExecution) Ready(context.Context) error { return nil }

// Close removes what it needed.
func (p *PerExecution) Close(context.Context) error {
	if p.root == "" {
		return nil
	}
	return os.RemoveAll(p.root)
}

type perExecutionSession struct{ p *PerExecution }

func (perExecutionSession) Close(context.Context) error { return nil }

// Run implements Session. A plain interpreter shows no value of a last
// expression, so the only one that is measured is printed.
func (s perExecutionSession) Run(ctx context.Context, code string) (Sample, error) {
	var sample Sample
	expression := code == onePlusOne
	if expression {
		code = "print(" + code + ")"
	}
	cmd := s.p.command(ctx, code)
	words := &bytes.Buffer{}
	cmd.Stderr = words
	out, err := cmd.StdoutPipe()
	if err != nil {
		return sample, err
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return sample, err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := out.Read(buf)
		if n > 0 {
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			sample.printed(string(buf[:n]))
		}
		if err != nil { // the end, or Wait says what
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		return sample, errors.Join(err, errors.New(strings.TrimSpace(words.String())))
	}
	sample.Total = time.Since(start)
	if expression {
		sample.Result = strings.TrimSpace(sample.Text)
	}
	return sample, nil
}

// Check runs one cell, so that a peer that can't work here is left out with its
// reason.
func Check(ctx context.Context, subject Subject) error {
	s, took, err := firstOutput(ctx, subject)
	if err != nil {
		return fmt.Errorf("%s does not work here: %w", subject.Name(), err)
	}
	_ = took
	return s.Close(ctx)
}
