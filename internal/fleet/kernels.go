package fleet

import (
	"context"
	"errors"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// kernelStart is one try to start the default kernel.
type kernelStart struct {
	id   string
	done chan struct{}
	err  error // read after done
}

func startedKernel(id string) *kernelStart {
	k := &kernelStart{id: id, done: make(chan struct{})}
	close(k.done)
	return k
}

func (k *kernelStart) ready() bool  { return k != nil && closed(k.done) && k.err == nil }
func (k *kernelStart) failed() bool { return closed(k.done) && k.err != nil }

// startDefaultKernel starts the default kernel, unless that was done, and
// gives the try to wait for.
func (s *Sandbox) startDefaultKernel() *kernelStart {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kernel != nil && !s.kernel.failed() {
		return s.kernel
	}
	newID := s.rec.kernelID == ""
	if newID {
		s.rec.kernelID = "krn_" + sandbox.RandomSuffix()
	}
	k := &kernelStart{id: s.rec.kernelID, done: make(chan struct{})}
	s.kernel = k
	s.fleet.background(func() {
		defer close(k.done)
		_, err := s.client.StartKernel(s.fleet.ctx, agentapi.StartKernel{ID: k.id, Language: "python"})
		if errors.Is(err, errdefs.ErrConflict) {
			err = nil // it was started before, for instance by a request that this side gave up
		}
		k.err = err
		if err != nil && !closed(s.ended) {
			s.fleet.log.Warn("default kernel does not start", "sandbox_id", string(s.id), "kernel_id", k.id, "err", err)
		}
		if newID && err == nil {
			ctx, cancel := context.WithTimeout(s.fleet.ctx, 10*time.Second)
			defer cancel()
			_ = s.saveLabels(ctx) // without it a restart of the server makes another default kernel
		}
	})
	return k
}

// DefaultKernel gives the kernel of executions that name none, once it is
// ready to run code.
func (s *Sandbox) DefaultKernel(ctx context.Context) (string, error) {
	k := s.startDefaultKernel()
	select {
	case <-k.done:
		return k.id, k.err
	default:
	}
	select {
	case <-k.done:
		return k.id, k.err
	case <-s.ended:
		return "", s.goneError()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// IsDefaultKernel reports whether id is the kernel of executions that name none.
func (s *Sandbox) IsDefaultKernel(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kernel != nil && s.kernel.id == id
}

// StartKernel starts one more kernel.
func (s *Sandbox) StartKernel(ctx context.Context, start agentapi.StartKernel) (agentapi.Kernel, error) {
	defer s.Use()()
	start.ID = "krn_" + sandbox.RandomSuffix()
	return s.client.StartKernel(ctx, start)
}

// DeleteKernel ends a kernel. When it is the default one, the next execution
// without a kernel starts a fresh one.
func (s *Sandbox) DeleteKernel(ctx context.Context, id string) error {
	defer s.Use()()
	if err := s.client.DeleteKernel(ctx, id); err != nil {
		return err
	}
	s.mu.Lock()
	wasDefault := s.kernel != nil && s.kernel.id == id
	if wasDefault {
		s.kernel, s.rec.kernelID = nil, ""
	}
	s.mu.Unlock()
	if wasDefault {
		return s.saveLabels(ctx)
	}
	return nil
}

// Agent gives the client of the sandbox's agent, for calls that need no
// decision here: kernels, files, processes, usage. Callers mark the time they
// need it with Use.
func (s *Sandbox) Agent() *agentapi.Client { return s.client }
