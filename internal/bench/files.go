package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"
)

// fileRepeats is how often the large file goes each way.
const fileRepeats = 3

// files measures one large file in and out of a sandbox, and how much the
// server grew meanwhile. What comes back is compared with what went in.
func files(ctx context.Context, r *run) error {
	in, out := &series{}, &series{}
	before, err := memoryOf(r.server.PID)
	if err != nil {
		return err
	}
	for range fileRepeats {
		wrote, read, err := transfer(ctx, r)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			in.failures++
			out.failures++
			r.fail(r.server, err)
			continue
		}
		in.add(wrote)
		out.add(read)
	}
	after, err := memoryOf(r.server.PID)
	if err != nil {
		return err
	}
	for name, s := range map[string]*series{"files": in, "files-out": out} {
		r.reportTimed(name, []Subject{r.server}, []*series{s}, func(_ int, res *Result) {
			if res.Unit = "MB/s"; res.P50 > 0 {
				res.Value = float64(r.FileBytes) / 1e3 / res.P50
			}
			if res.Note = fmt.Sprintf("%d MiB", r.FileBytes>>20); name == "files" {
				res.Note += ", into the sandbox"
			} else {
				res.Note += ", out of it"
			}
		})
	}
	if r.server.PID != 0 {
		r.report(Result{Scenario: "files-server", Subject: r.server.Name(), N: 1, Value: float64(after-before) / (1 << 20), Unit: "MiB", Note: "growth of the server"})
	}
	return nil
}

// transfer sends a file in, reads it back and compares each byte.
func transfer(ctx context.Context, r *run) (in, out time.Duration, err error) {
	s, err := r.server.Create(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close(context.WithoutCancel(ctx))) }()
	if err := r.server.Ready(ctx); err != nil {
		return 0, 0, err
	}
	id := s.(*caesarionSession).id //nolint:forcetypeassert // a server gives no other
	start := time.Now()
	f, err := r.server.Client.Upload(ctx, id, "/workspace/bench.bin", io.LimitReader(&noise{}, r.FileBytes), r.FileBytes)
	if err != nil {
		return 0, 0, err
	}
	in = time.Since(start)
	if f.SizeBytes != r.FileBytes {
		return 0, 0, fmt.Errorf("%d of %d bytes arrived", f.SizeBytes, r.FileBytes)
	}
	start = time.Now()
	body, _, err := r.server.Client.Download(ctx, id, "/workspace/bench.bin")
	if err != nil {
		return 0, 0, err
	}
	defer body.Close()
	check := &checker{}
	n, err := io.CopyBuffer(struct{ io.Writer }{check}, body, make([]byte, 1<<20))
	if err != nil {
		return 0, 0, err
	}
	if n != r.FileBytes {
		return 0, 0, fmt.Errorf("%d of %d bytes came back", n, r.FileBytes)
	}
	return in, time.Since(start), nil
}

// noiseBlock is what files are made of, over and over: not zeros, which might be
// stored as a hole, and of a prime length, so that a part that is lost or comes
// twice shows. It is made when it is needed: what is made at the start of the
// program is made in each of gVisor's processes, too.
var noiseBlock = sync.OnceValue(func() []byte {
	b := make([]byte, 1_048_573)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b) // never fails
	return b
})

// noise reads noiseBlock for ever.
type noise struct{ at int }

func (n *noise) Read(p []byte) (int, error) {
	block := noiseBlock()
	c := copy(p, block[n.at:])
	n.at = (n.at + c) % len(block)
	return c, nil
}

// checker is a writer that accepts what noise reads.
type checker struct {
	at    int
	total int64
}

func (c *checker) Write(p []byte) (int, error) {
	block := noiseBlock()
	for done := 0; done < len(p); {
		n := min(len(p)-done, len(block)-c.at)
		if !bytes.Equal(p[done:done+n], block[c.at:c.at+n]) {
			return done, fmt.Errorf("what came back differs within %d bytes after byte %d", n, c.total)
		}
		done += n
		c.at = (c.at + n) % len(block)
		c.total += int64(n)
	}
	return len(p), nil
}
