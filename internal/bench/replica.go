package bench

import "context"

// byAnother is a server whose sandboxes are spoken to by way of another replica
// of its installation, which gives each request on to their owner.
type byAnother struct{ *Caesarion }

// Name implements Subject.
func (s byAnother) Name() string { return s.Caesarion.Name() + "-forwarded" }

// Create implements Subject.
func (s byAnother) Create(ctx context.Context) (Session, error) {
	owned, err := s.Caesarion.Create(ctx)
	if err != nil {
		return nil, err
	}
	id := owned.(*caesarionSession).id //nolint:forcetypeassert // a server gives no other
	return &caesarionSession{s.Replica.Client, id}, nil
}

// forwarded measures 1+1 on a sandbox by way of the replica that owns it, and by
// way of another one.
func forwarded(ctx context.Context, r *run) error {
	if r.server.Replica == nil {
		r.skip("forwarded", r.server, "needs another replica of the same installation: name it with --replica")
		return nil
	}
	subjects := []Subject{r.server, byAnother{r.server}}
	measured, err := onLive(ctx, r, subjects, r.Executions, block, func(_ Subject, s Session) (float64, error) {
		took, err := oneAndOne(ctx, s)
		return ms(took), err
	})
	if err != nil {
		return err
	}
	r.reportTimed("forwarded", subjects, measured, nil)
	return nil
}
