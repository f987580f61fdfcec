package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/kernel"
)

const (
	// previewTimeout bounds one page: past it the file is too much to page.
	previewTimeout = 30 * time.Second
	// previewIdle is how long the reader of tables waits for the next page. It
	// holds where pages begin, and the libraries it has imported.
	previewIdle = time.Minute
	// maxPreview bounds the JSON of a page.
	maxPreview = 15 << 20
)

// previewStart finds the program where kernels find it. Isolated mode: no file
// of the user's can stand in for a module.
const previewStart = "import sys; sys.path.insert(0, sys.argv[1]); from caesarion_kernel import previews; previews.main()"

// previews keeps one Python process that pages files with rows and columns,
// beside the kernels, so that a page is there while they are busy.
type previews struct {
	turn chan struct{} // held by who uses proc

	proc *previewer // guarded by turn
}

// previewer is that process.
type previewer struct {
	cmd    *exec.Cmd
	owner  owner
	in     io.WriteCloser
	out    *bufio.Reader
	pipe   io.Closer
	ended  chan struct{}
	idle   *time.Timer
	ending sync.Once
}

func newPreviews() *previews { return &previews{turn: make(chan struct{}, 1)} }

func postTable(a *Agent, w http.ResponseWriter, r *http.Request) error {
	req, err := readJSON[agentapi.TableRequest](w, r)
	if err != nil {
		return err
	}
	p, err := a.place(req.Path)
	if err != nil {
		return err
	}
	defer p.close()
	f, _, err := p.open() // tells what is no file; the program opens it itself
	if err != nil {
		return err
	}
	_ = f.Close()
	line, err := json.Marshal(struct {
		agentapi.TableRequest
		File string `json:"file"`
	}{req, filepath.Join(p.root.Name(), p.name)})
	if err != nil {
		return err
	}
	select {
	case a.previews.turn <- struct{}{}:
		defer func() { <-a.previews.turn }()
	case <-r.Context().Done():
		return context.Cause(r.Context())
	}
	answer, err := a.preview(line)
	if err != nil {
		return err
	}
	var reply struct {
		Error *agentapi.Problem `json:"error"`
		Table json.RawMessage   `json:"table"`
	}
	if err := json.Unmarshal(answer, &reply); err != nil {
		return errPreview(err)
	}
	if e := reply.Error; e != nil {
		kind := errdefs.ErrInvalid
		for _, k := range statusOfKind {
			if k.status == e.Status {
				kind = k.kind
			}
		}
		return errdefs.New(kind, e.Code, "%s", e.Detail).WithHint("%s", e.Hint)
	}
	writeJSON(w, http.StatusOK, reply.Table)
	return nil
}

func errPreview(err error) error {
	return errdefs.New(errdefs.ErrUnavailable, "preview-failed", "the file could not be read as a table: the program that reads it ended").
		WithHint("it may need more memory than there is; read a part of it with code").WithCause(err)
}

// preview asks the process, which it starts if need be. The turn is held.
func (a *Agent) preview(line []byte) ([]byte, error) {
	for {
		p, fresh := a.previews.proc, false
		if p == nil || closed(p.ended) {
			if p != nil {
				a.endPreview(p)
			}
			var err error
			if p, err = a.startPreview(); err != nil {
				return nil, err
			}
			fresh = true
		}
		p.idle.Stop() // should it run just now, the process counts as killed meanwhile
		answer, timedOut, err := a.askPreview(p, line)
		switch {
		case err == nil:
			p.idle.Reset(previewIdle)
			return answer, nil
		case timedOut:
			return nil, errdefs.New(errdefs.ErrUnavailable, "preview-timeout", "the page was not found in %v", previewTimeout).
				WithHint("the file is too large to be paged this far; read a part of it with code")
		case fresh:
			return nil, errPreview(err)
		}
		// One that was kept and has been killed meanwhile is nobody's failure.
	}
}

// askPreview has one page made. A process that did not answer well is ended.
func (a *Agent) askPreview(p *previewer, line []byte) (answer []byte, timedOut bool, err error) {
	var late atomic.Bool
	timer := time.AfterFunc(previewTimeout, func() {
		late.Store(true)
		a.endPreview(p)
	})
	defer func() {
		timer.Stop()
		if err != nil {
			a.endPreview(p)
		}
	}()
	a.watch.begin()
	defer a.watch.finish()
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		return nil, late.Load(), err
	}
	for {
		part, err := p.out.ReadSlice('\n')
		if len(answer)+len(part) > maxPreview {
			return nil, false, fmt.Errorf("agent: a page of more than %d bytes", maxPreview)
		}
		answer = append(answer, part...)
		if err == nil {
			return answer, false, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, late.Load(), err
		}
	}
}

func (a *Agent) startPreview() (_ *previewer, err error) {
	program := a.opts.ProgramDir
	if program == "" {
		if program, err = kernel.Unpack(a.real("/tmp")); err != nil {
			return nil, err
		}
	}
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		return nil, errdefs.New(errdefs.ErrUnavailable, "agent-closed", "the agent is going away")
	}
	a.wg.Add(1) // before Close can wait
	a.mu.Unlock()
	p := &previewer{owner: newOwner(), ended: make(chan struct{})}
	stdin, in, err := os.Pipe()
	if err != nil {
		a.wg.Done()
		return nil, err
	}
	defer stdin.Close()
	out, stdout, err := os.Pipe()
	if err != nil {
		_ = in.Close()
		a.wg.Done()
		return nil, err
	}
	defer stdout.Close()
	p.in, p.pipe, p.out = in, out, bufio.NewReaderSize(out, 64<<10)
	p.cmd = exec.Command(a.opts.Python, "-I", "-c", previewStart, program) //nolint:gosec,noctx // the interpreter is the operator's choice; its life is its own
	p.cmd.Dir, p.cmd.Stdin, p.cmd.Stdout = a.real("/"), stdin, stdout
	p.cmd.Env = append(a.environ(nil), p.owner.variable(), "POLARS_MAX_THREADS=2", "OMP_NUM_THREADS=1")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	unwanted := false
	a.spawning.RLock()
	err = a.spawner(func() (int, error) {
		if err := p.cmd.Start(); err != nil {
			return 0, err
		}
		return p.cmd.Process.Pid, nil
	})
	if err == nil {
		p.owner.pid = p.cmd.Process.Pid
		a.limitProcess(p.owner.pid)
		a.mu.Lock()
		a.previewer = p
		unwanted = a.closed
		a.mu.Unlock()
	}
	a.spawning.RUnlock()
	if err != nil {
		_ = in.Close()
		_ = out.Close()
		a.wg.Done()
		return nil, errdefs.New(errdefs.ErrUnsupported, "preview-unsupported", "the sandbox has no Python to read the file with").WithCause(err)
	}
	p.idle = time.AfterFunc(previewIdle, func() { a.endPreview(p) })
	a.previews.proc = p
	if unwanted { // Close has found nothing to end
		a.endPreview(p)
	}
	go func() {
		defer a.wg.Done()
		_ = p.cmd.Wait() // how it ended changes nothing
		a.reaped(p.owner.pid)
		close(p.ended)
		a.endPreview(p)
	}()
	return p, nil
}

// endPreview ends the process; again is harmless.
func (a *Agent) endPreview(p *previewer) {
	p.ending.Do(func() {
		_ = p.in.Close()
		_ = p.pipe.Close()
		_ = syscall.Kill(-p.owner.pid, syscall.SIGKILL)
		a.mu.Lock()
		if a.previewer == p {
			a.previewer = nil
		}
		a.mu.Unlock()
	})
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
