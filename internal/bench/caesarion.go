package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
)

// Caesarion is a running server of this product.
type Caesarion struct {
	Client *client.Client
	PID    int // of the server's process on this machine; 0: not known
}

// Name implements Subject.
func (*Caesarion) Name() string { return "caesarion" }

// Create implements Subject.
func (c *Caesarion) Create(ctx context.Context) (Session, error) {
	sb, err := c.Client.CreateSandbox(ctx, v1.CreateSandbox{})
	if err != nil {
		return nil, err
	}
	return &caesarionSession{c.Client, sb.ID}, nil
}

type caesarionSession struct {
	client *client.Client
	id     string
}

func (s *caesarionSession) Close(ctx context.Context) error { return s.client.DeleteSandbox(ctx, s.id) }

func (s *caesarionSession) Run(ctx context.Context, code string) (Sample, error) {
	var sample Sample
	start := time.Now()
	stream, err := s.client.Execute(ctx, s.id, v1.Execute{Code: code})
	if err != nil {
		return sample, err
	}
	defer stream.Close()
	for {
		e, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return sample, nil
		}
		if err != nil {
			return sample, err
		}
		switch e.Type {
		case event.OutputStream:
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			var data event.Stream
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return sample, err
			}
			sample.Characters += len(data.Text)
		case event.OutputResult:
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
		case event.ExecutionFinished:
			sample.Total = time.Since(start)
			var data event.Finished
			if err := json.Unmarshal(e.Data, &data); err != nil {
				return sample, err
			}
			if data.Status != event.StatusOK {
				return sample, fmt.Errorf("execution ended with %s %s", data.Status, data.Message)
			}
		}
	}
}

// zeros is an endless source that costs nothing to read.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// files measures one large file in and out of a sandbox, and how much the
// server grew meanwhile. Peers have no like of it.
func files(ctx context.Context, subjects []Subject, opts Options, report func(Result)) error {
	for _, subject := range subjects {
		c, ok := subject.(*Caesarion)
		if !ok {
			continue
		}
		s, err := c.Create(ctx)
		if err != nil {
			return err
		}
		before, err := memoryOf(c.PID)
		if err == nil {
			err = transfer(ctx, c, s.(*caesarionSession).id, opts, report) //nolint:forcetypeassert // Create gives no other
		}
		if after, merr := memoryOf(c.PID); err == nil && merr == nil && c.PID != 0 {
			report(Result{Scenario: "files: growth of the server", Subject: c.Name(), N: 1, Value: float64(after-before) / (1 << 20), Unit: "MiB"})
		}
		if err := errors.Join(err, s.Close(context.WithoutCancel(ctx))); err != nil {
			return err
		}
	}
	return nil
}

func transfer(ctx context.Context, c *Caesarion, id string, opts Options, report func(Result)) error {
	size := opts.FileBytes
	rate := func(since time.Time) float64 { return float64(size) / 1e6 / time.Since(since).Seconds() }
	start := time.Now()
	f, err := c.Client.Upload(ctx, id, "/workspace/bench.bin", io.LimitReader(zeros{}, size), size)
	if err != nil {
		return err
	}
	if f.SizeBytes != size {
		return fmt.Errorf("%d of %d bytes arrived", f.SizeBytes, size)
	}
	report(Result{Scenario: fmt.Sprintf("upload of %d MiB", size>>20), Subject: c.Name(), N: 1, Value: rate(start), Unit: "MB/s"})
	start = time.Now()
	body, _, err := c.Client.Download(ctx, id, "/workspace/bench.bin")
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, body, make([]byte, 1<<20))
	if err != nil {
		return err
	}
	if n != size {
		return fmt.Errorf("%d of %d bytes came back", n, size)
	}
	report(Result{Scenario: fmt.Sprintf("download of %d MiB", size>>20), Subject: c.Name(), N: 1, Value: rate(start), Unit: "MB/s"})
	return nil
}
