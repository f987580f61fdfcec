package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
)

const caesarionName = "caesarion"

// Caesarion is a running server of this product.
type Caesarion struct {
	Label  string // default: caesarion
	Client *client.Client
	HTTP   *http.Client // for calls that Client has no method for
	Token  string
	PID    int // of the server's process on this machine; 0: not known
	// Wanted is how sandboxes are expected to start ("warm", "restore",
	// "cold"); a sandbox that started another way is a failure. "": any.
	Wanted string
	// Local says that the sandboxes run on this machine.
	Local bool
	// Driver is what makes the sandboxes, by the server's own word; "": not asked yet.
	Driver string
	// Replica is another server of the same installation; may be nil.
	Replica *Caesarion
}

// Name implements Subject.
func (c *Caesarion) Name() string {
	if c.Label != "" {
		return c.Label
	}
	return caesarionName
}

// wanting gives the same server, of which sandboxes are expected to start so.
func (c *Caesarion) wanting(start string) *Caesarion {
	other := *c
	other.Wanted = start
	return &other
}

// ask finds out what makes the sandboxes.
func (c *Caesarion) ask(ctx context.Context) error {
	if c.Driver != "" {
		return nil
	}
	info, err := c.Client.Info(ctx)
	if err != nil {
		return err
	}
	c.Driver = info.Driver
	return nil
}

// Create implements Subject.
func (c *Caesarion) Create(ctx context.Context) (Session, error) {
	sb, err := c.Client.CreateSandbox(ctx, v1.CreateSandbox{})
	if err != nil {
		return nil, err
	}
	s := &caesarionSession{c.Client, sb.ID}
	if c.Wanted != "" && sb.Start != c.Wanted {
		return nil, errors.Join(fmt.Errorf("the sandbox started %q, not %q", sb.Start, c.Wanted), s.Close(ctx))
	}
	return s, nil
}

// readyTimeout bounds how long a pool may take to be full again.
const readyTimeout = 2 * time.Minute

// Ready waits until the default template's pool is full and nothing is being
// made in the background: what comes next is measured alone.
func (c *Caesarion) Ready(ctx context.Context) error {
	for deadline := time.Now().Add(readyTimeout); ; {
		pool, err := c.pool(ctx)
		if err != nil {
			return err
		}
		if pool == nil {
			pool = &v1.Pool{Snapshot: "none"}
		}
		if c.Wanted == "restore" && pool.Snapshot == "failed" {
			return fmt.Errorf("the template has no snapshot: %s", pool.Message)
		}
		made := pool.Snapshot == "ready" || c.Wanted != "restore" && pool.Snapshot != "making"
		if made && pool.Ready >= pool.Size && pool.Starting == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the pool is not full after %s: %d of %d are ready, snapshot %s, %s", readyTimeout, pool.Ready, pool.Size, pool.Snapshot, pool.Message)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pool gives the default template's pool, nil without one.
func (c *Caesarion) pool(ctx context.Context) (*v1.Pool, error) {
	info, err := c.Client.Info(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range info.Templates {
		if t.Default {
			return t.Pool, nil
		}
	}
	return nil, nil
}

type caesarionSession struct {
	client *client.Client
	id     string
}

func (s *caesarionSession) Close(ctx context.Context) error { return s.client.DeleteSandbox(ctx, s.id) }

func (s *caesarionSession) Run(ctx context.Context, code string) (Sample, error) {
	sample, status, err := s.run(ctx, code, nil)
	if err == nil && status != event.StatusOK {
		err = fmt.Errorf("execution ended with %s: %s", status, sample.Text)
	}
	return sample, err
}

// run runs code to its end; started is called with the execution's id when the
// kernel has the code.
func (s *caesarionSession) run(ctx context.Context, code string, started func(execution string)) (Sample, event.Status, error) {
	var sample Sample
	var status event.Status
	start := time.Now()
	stream, err := s.client.Execute(ctx, s.id, v1.Execute{Code: code})
	if err != nil {
		return sample, "", err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return sample, status, nil
		}
		if err != nil {
			return sample, "", err
		}
		switch e.Type {
		case event.ExecutionStarted:
			if started != nil {
				started(stream.ID)
			}
		case event.OutputStream:
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			var data event.Stream
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return sample, "", err
			}
			sample.printed(data.Text)
		case event.OutputResult:
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			var data struct {
				Data map[string]json.RawMessage `json:"data"`
			}
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return sample, "", err
			}
			_ = json.Unmarshal(data.Data["text/plain"], &sample.Result)
		case event.ExecutionFinished:
			sample.Total = time.Since(start)
			var data event.Finished
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return sample, "", err
			}
			if status = data.Status; data.Message != "" {
				sample.Text = data.Message
			}
		}
	}
}

// busy never ends by itself, and is not in C code when the interrupt comes.
const busy = "while True: pass"

// runsFor is how long a busy loop has run when it is interrupted: longer than
// any of what begins it takes.
const runsFor = 50 * time.Millisecond

func (*Caesarion) interrupts() {}

// Interrupt implements Interrupter.
func (s *caesarionSession) Interrupt(ctx context.Context) (time.Duration, error) {
	execution := make(chan string, 1)
	type end struct {
		status event.Status
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		_, status, err := s.run(ctx, busy, func(id string) { execution <- id })
		ended <- end{status, err}
	}()
	var id string
	select {
	case id = <-execution:
	case e := <-ended:
		return 0, fmt.Errorf("the loop ended by itself with %s: %w", e.status, e.err)
	}
	time.Sleep(runsFor)
	start := time.Now()
	if err := s.client.Interrupt(ctx, s.id, id); err != nil {
		return 0, err
	}
	next, err := s.Run(ctx, onePlusOne)
	took := time.Since(start)
	e := <-ended
	switch {
	case err != nil:
		return 0, err
	case e.err != nil:
		return 0, e.err
	case e.status != event.StatusInterrupted:
		return 0, fmt.Errorf("the loop ended with %s, not interrupted", e.status)
	case next.Result != "2":
		return 0, fmt.Errorf("the next cell gave %q, not 2", next.Result)
	}
	return took, nil
}
