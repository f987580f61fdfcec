package fleet

import (
	"context"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// WithMemory has a fleet believe this of the machine.
func (o Options) WithMemory(total, available int64) Options {
	o.memory = func() (int64, int64) { return total, available }
	return o
}

// WaitingStarts gives how many starts of an owner wait.
func (f *Fleet) WaitingStarts(owner identity.Owner) int {
	n, _ := f.starts.Waiting(owner)
	return n
}

// StateOf gives a sandbox's state.
func StateOf(s *Sandbox) sandbox.State { return s.View().State }

// MeterOnce reads the CPU time of all sandboxes now.
func (f *Fleet) MeterOnce() { f.meterOnce() }

// TakeTurn does what an execution does before and after it is handed over.
func (s *Sandbox) TakeTurn(ctx context.Context) error {
	if err := s.admitExecution(ctx, ExecuteRequest{}); err != nil {
		return err
	}
	leave, err := s.turnToRun(ctx)
	if err == nil {
		leave()
	}
	return err
}
