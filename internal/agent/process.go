package agent

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

const (
	// maxProcesses bounds the commands that run beside the kernels.
	maxProcesses = 64
	// pipeGrace is how long output is still taken from children that outlive
	// their command and hold its pipes; they go on, unheard.
	pipeGrace = 200 * time.Millisecond
)

// process is a command that runs beside the kernels.
type process struct {
	agent *Agent
	id    string
	cmd   *exec.Cmd
	log   *event.Log
	out   *output
	done  chan struct{}

	mu    sync.Mutex
	owner owner
	cause *ending // why it was killed by us
}

func postProcess(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.Run](w, r)
	if err != nil {
		return err
	}
	p, err := a.run(req)
	if err != nil {
		return err
	}
	return streamLog(w, r, p.log, 0, event.ProcessFinished, nil)
}

func deleteProcess(a *Agent, w http.ResponseWriter, r *http.Request) error {
	a.mu.Lock()
	p := a.processes[r.PathValue("id")]
	a.mu.Unlock()
	if p == nil {
		return errdefs.New(errdefs.ErrNotFound, "process-not-found", "no process %.80q runs in this sandbox", r.PathValue("id"))
	}
	p.end(ending{status: event.StatusKilled})
	<-p.done
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// command makes the command that req asks for.
func (a *Agent) command(req agentapi.Run) (*exec.Cmd, error) {
	args := req.Args
	switch {
	case req.Command != "" && len(args) > 0:
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-command", "give command or args, not both")
	case req.Command != "":
		shell := "/bin/sh"
		if _, err := os.Stat("/bin/bash"); err == nil {
			shell = "/bin/bash"
		}
		args = []string{shell, "-c", req.Command}
	case len(args) == 0:
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-command", "there is no command to run")
	}
	if strings.ContainsRune(strings.Join(args, ""), 0) {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-command", "a command must not contain NUL")
	}
	if err := checkEnv(req.Env); err != nil {
		return nil, err
	}
	dir := a.realDir(cmp.Or(req.Dir, agentapi.WorkspaceDir))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return nil, errdefs.New(errdefs.ErrInvalid, "invalid-cwd", "%.200q is not a folder in the sandbox", req.Dir)
	}
	cmd := exec.Command(args[0], args[1:]...) //nolint:gosec,noctx // running commands is what this is for; its life is the process's own
	cmd.Dir, cmd.Env = dir, a.environ(req.Env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

// run starts a command.
func (a *Agent) run(req agentapi.Run) (*process, error) {
	if err := checkID(req.ID, "prc_"); err != nil {
		return nil, err
	}
	cmd, err := a.command(req)
	if err != nil {
		return nil, err
	}
	p := &process{agent: a, id: req.ID, cmd: cmd, owner: newOwner(), done: make(chan struct{})}
	cmd.Env = append(cmd.Env, p.owner.variable())
	limit := min(cmp.Or(req.OutputLimitBytes, DefaultOutputLimit), maxOutputLimit)
	p.log = event.NewLog(event.LogOptions{MaxBytes: 8 * limit, MaxRecords: 2 * maxEvents})
	p.out = newOutput(p.log, limit, func() *spill { return a.openSpill(req.ID) })

	// Registered before it runs, so that nobody starts a second one of that name.
	a.mu.Lock()
	switch {
	case a.closed:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrUnavailable, "agent-closed", "the agent is going away")
	case a.processes[p.id] != nil:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrConflict, "process-exists", "process %s runs already", p.id)
	case len(a.processes) >= maxProcesses:
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrExhausted, "too-many-processes", "%d commands run in this sandbox already", maxProcesses).WithHint("end one first")
	}
	a.processes[p.id] = p
	a.wg.Add(1) // before Close can wait
	a.mu.Unlock()
	pipes, stdin, err := p.start(req.Stdin)
	if err != nil {
		a.forgetProcess(p)
		return nil, errdefs.New(errdefs.ErrInvalid, "command-not-started", "the command could not be started: %v", err)
	}
	go p.attend(pipes, stdin, req)
	return p, nil
}

func (a *Agent) forgetProcess(p *process) {
	a.mu.Lock()
	delete(a.processes, p.id)
	a.mu.Unlock()
	close(p.done)
	a.wg.Done()
}

// start makes the pipes and the process.
func (p *process) start(stdin string) (pipes [2]*pipe, in *os.File, err error) {
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
	}()
	for i, name := range []string{"stdout", "stderr"} {
		r, w, err := os.Pipe()
		if err != nil {
			return pipes, nil, err
		}
		theirs = append(theirs, w)
		pipes[i] = newPipe(name, r, p.out.text)
	}
	p.cmd.Stdout, p.cmd.Stderr = theirs[0], theirs[1]
	if stdin != "" {
		r, w, err := os.Pipe()
		if err != nil {
			return pipes, nil, err
		}
		theirs = append(theirs, r)
		p.cmd.Stdin, in = r, w
	}
	p.agent.spawning.RLock()
	err = p.agent.spawner(func() (int, error) {
		if err := p.cmd.Start(); err != nil {
			return 0, err
		}
		return p.cmd.Process.Pid, nil
	})
	if err != nil {
		p.agent.spawning.RUnlock()
		for _, pipe := range pipes {
			pipe.finish()
		}
		if in != nil {
			_ = in.Close()
		}
		return pipes, nil, err
	}
	pid := p.cmd.Process.Pid
	p.agent.limitProcess(pid)
	p.mu.Lock()
	p.owner.pid = pid
	unwanted := p.cause != nil
	p.mu.Unlock()
	p.agent.spawning.RUnlock()
	if unwanted {
		p.kill()
	}
	return pipes, in, nil
}

// attend serves the command until it is over.
func (p *process) attend(pipes [2]*pipe, stdin *os.File, req agentapi.Run) {
	began := time.Now()
	a := p.agent
	a.watch.begin()
	defer a.forgetProcess(p)
	defer a.watch.finish()
	p.out.event(event.ProcessStarted, map[string]int{"pid": p.cmd.Process.Pid})

	var pumps, feeding sync.WaitGroup
	if stdin != nil {
		feeding.Go(func() {
			_, _ = io.WriteString(stdin, req.Stdin) // a command need not read it
			_ = stdin.Close()
		})
		defer feeding.Wait()
		defer stdin.Close()
	}
	for _, pipe := range pipes {
		pumps.Go(pipe.pump)
	}
	if req.TimeoutMS > 0 {
		timer := time.AfterFunc(milliseconds(req.TimeoutMS), func() { p.end(ending{status: event.StatusTimeout}) })
		defer timer.Stop()
	}
	err := p.cmd.Wait()
	a.reaped(p.cmd.Process.Pid)
	ended := make(chan struct{})
	go func() { pumps.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(pipeGrace):
	}
	for _, pipe := range pipes {
		pipe.finish()
	}
	<-ended

	exit := event.ProcessExit{Status: event.StatusOK, DurationMS: float64(time.Since(began).Microseconds()) / 1000}
	if err != nil {
		exit.Status, exit.ExitCode = event.StatusError, -1
		if failed, ok := errors.AsType[*exec.ExitError](err); ok {
			exit.ExitCode = failed.ExitCode()
			if ws, ok := failed.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
				exit.Signal, exit.Status = signalName(ws.Signal()), event.StatusKilled
			}
		}
	}
	p.mu.Lock()
	if p.cause != nil && p.cause.status != "" {
		exit.Status = p.cause.status
		if p.cause.message != "" {
			p.out.text("stderr", fmt.Appendf(nil, "[caesarion] %s\n", p.cause.message))
		}
	}
	p.mu.Unlock()
	var fin event.Finished
	p.out.finish(&fin)
	_, _ = p.log.Append(event.ProcessFinished, exit)
	p.log.Close(nil)
}

// end kills the command and all it started.
func (p *process) end(cause ending) {
	p.mu.Lock()
	if p.cause == nil {
		p.cause = &cause
	}
	started := p.owner.pid != 0
	p.mu.Unlock()
	if started {
		p.kill()
	}
}

func (p *process) kill() {
	p.agent.killOwned(p.family())
}

// family gives the owner, whose pid is 0 until the command has started.
func (p *process) family() owner {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.owner
}
