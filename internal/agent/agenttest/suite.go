package agenttest

import (
	"context"
	"testing"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// Options says what the sandboxes under test can take.
type Options struct {
	// Isolated says that each sandbox is a real one with limits of its own:
	// bombs go off only there. The limits below are what it was made with.
	Isolated    bool
	MemoryBytes int64
	Processes   int
}

// testCase is one thing that every agent must do.
type testCase struct {
	name string
	run  func(*Sandbox, Options)
}

// Run runs the suite. NewClient gives a configured agent in a new sandbox that
// is removed by t.Cleanup.
func Run(t *testing.T, newClient func(t testing.TB) *agentapi.Client, opts Options) {
	t.Run("ordinary", func(t *testing.T) {
		client := newClient(t)
		t.Run("cases", func(t *testing.T) {
			for _, c := range ordinary {
				t.Run(c.name, func(t *testing.T) {
					t.Parallel()
					s := New(t, client)
					defer s.remove()
					c.run(s, opts)
				})
			}
		})
	})
	if !opts.Isolated {
		return
	}
	t.Run("bombs", func(t *testing.T) {
		for _, c := range bombs {
			t.Run(c.name, func(t *testing.T) {
				c.run(New(t, newClient(t)), opts)
			})
		}
	})
}

func (s *Sandbox) remove() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.T.Context()), Patience)
	defer cancel()
	if err := s.DeleteKernel(ctx, s.KernelID); err != nil {
		s.T.Errorf("delete kernel: %v", err)
	}
}
