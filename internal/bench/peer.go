package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// NewHTTP makes an HTTP client that keeps a connection for each of many
// sessions: what is measured is the answer, not the handshake.
func NewHTTP() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the library's own
	transport.MaxIdleConnsPerHost = 256
	return &http.Client{Transport: transport}
}

// peerTimeout bounds a peer's start.
const peerTimeout = time.Minute

// process is a peer's server, with a folder of its own.
type process struct {
	name  string
	cmd   *exec.Cmd
	words *lockedBuffer
	done  chan struct{}
}

// lockedBuffer keeps the last words of a program.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.b.Len() > 1<<20 {
		l.b.Reset()
	}
	return l.b.Write(p)
}

func (l *lockedBuffer) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.Split(strings.TrimSpace(l.b.String()), "\n")
	return strings.Join(lines[max(len(lines)-3, 0):], " ")
}

// startProcess starts what command gives, in a new folder and a process group
// of its own. It is stopped by Stop, which lets it end its children.
func startProcess(_ context.Context, name string, command func(dir string) *exec.Cmd) (*process, error) {
	dir, err := os.MkdirTemp("", "caesarion-bench-"+name+"-")
	if err != nil {
		return nil, err
	}
	p := &process{name: name, cmd: command(dir), words: &lockedBuffer{}, done: make(chan struct{})}
	if p.cmd.Dir == "" {
		p.cmd.Dir = dir
	}
	p.cmd.Env = append(append(os.Environ(), "HOME="+dir, "JUPYTER_PATH="+dir, "JUPYTER_PLATFORM_DIRS=1"), p.cmd.Env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.Stderr = p.words
	if p.cmd.Stdout == nil {
		p.cmd.Stdout = p.words
	}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", name, err), os.RemoveAll(dir))
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// until waits until the server answers.
func (p *process) until(ctx context.Context, answers func() error) error {
	for deadline := time.Now().Add(peerTimeout); ; {
		err := answers()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.words.lastWords())
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not answer: %w: %s", p.name, err, p.words.lastWords())
		}
	}
}

// Stop ends the process and its children.
func (p *process) Stop() error {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
	for _, v := range p.cmd.Env {
		if dir, ok := strings.CutPrefix(v, "HOME="); ok && strings.Contains(dir, "caesarion-bench-"+p.name) {
			return os.RemoveAll(dir)
		}
	}
	return nil
}

// absolute gives a program's path, because a peer has a folder of its own.
func absolute(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}

func freePort(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
	return strconv.Itoa(port), l.Close()
}

// weighKernel gives the memory of the process that a session's code runs in.
func weighKernel(ctx context.Context, s Session) (int64, error) {
	sample, err := s.Run(ctx, "import os; print(os.getpid())")
	if err != nil {
		return 0, err
	}
	return field("/proc/"+strings.TrimSpace(sample.Text)+"/smaps_rollup", "Pss:")
}

// Prespawned is a peer that keeps sessions ready, with the libraries imported
// that our templates import: the like of a pool.
type Prespawned struct {
	Subject
	Size int

	mu    sync.Mutex
	ready []Session // guarded by mu
}

func (p *Prespawned) unwrap() Subject { return p.Subject }

// cold implements coldOnly.
func (p *Prespawned) cold() Subject { return p.Subject }

// take gives a session that is ready, or nil.
func (p *Prespawned) take() Session {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.ready) == 0 {
		return nil
	}
	s := p.ready[0]
	p.ready = p.ready[1:]
	return s
}

func (p *Prespawned) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.ready)
}

// Close ends the sessions that are still ready.
func (p *Prespawned) Close(ctx context.Context) error {
	var err error
	for s := p.take(); s != nil; s = p.take() {
		err = errors.Join(err, s.Close(ctx))
	}
	return err
}

// capable gives the side of a subject that can do something, its own or of
// what it wraps.
func capable[T any](s Subject) (T, bool) {
	for {
		if t, ok := s.(T); ok {
			return t, true
		}
		wrapped, ok := s.(interface{ unwrap() Subject })
		if !ok {
			var none T
			return none, false
		}
		s = wrapped.unwrap()
	}
}

// parker is a session that is connected to when it is taken.
type parker interface {
	park()
	unpark(ctx context.Context) error
}

// preload is what ready sessions have imported, where there is such a thing.
const preload = "try:\n    import numpy, pandas, matplotlib.pyplot\nexcept ImportError: pass"

// Ready implements Readier.
func (p *Prespawned) Ready(ctx context.Context) error {
	for p.count() < p.Size {
		s, err := p.Subject.Create(ctx)
		if err != nil {
			return err
		}
		if _, err := s.Run(ctx, preload); err != nil {
			return errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
		if parked, ok := s.(parker); ok {
			parked.park()
		}
		p.mu.Lock()
		p.ready = append(p.ready, s)
		p.mu.Unlock()
	}
	return nil
}

// Create implements Subject.
func (p *Prespawned) Create(ctx context.Context) (Session, error) {
	s := p.take()
	if s == nil {
		return p.Subject.Create(ctx)
	}
	if parked, ok := s.(parker); ok {
		if err := parked.unpark(ctx); err != nil {
			return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
		}
	}
	return s, nil
}
