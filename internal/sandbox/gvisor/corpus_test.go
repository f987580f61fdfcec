package gvisor_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/kernel"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// TestKernelCorpusInARealSandbox runs every case of the kernel's corpus, whose
// expectations are compared with ipykernel's own answers in internal/kernel,
// in gVisor on the real image.
func TestKernelCorpusInARealSandbox(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	opts.Agent = filepath.Join(t.TempDir(), "tunnel")
	build := exec.Command("go", "build", "-o", opts.Agent, "github.com/caesarion/caesarion/internal/kernel/kerneltest/tunnel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := open(t, opts)
	info, err := d.Create(t.Context(), sandbox.Spec{})
	if err != nil {
		t.Fatal(err)
	}
	cases, err := kerneltest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				received, err := kerneltest.Run(ctx, c, startKernel(t, ctx, d, info.ID))
				if err != nil {
					t.Fatal(err)
				}
				// gVisor's terminals do not show the ^C that was typed.
				want := strings.ReplaceAll(kerneltest.Format(c.Want), `"^C\r\n"`, `"\r\n"`)
				if diff := cmp.Diff(want, kerneltest.Format(kerneltest.Normalise(received))); diff != "" {
					t.Errorf("%s\n(-want +got)\n%s", c.Doc, diff)
				}
			})
		}
	})
}

// remoteKernel is a kernel behind the tunnel.
type remoteKernel struct {
	kernel.Conn
	interrupt func() error
}

func (k remoteKernel) Interrupt() error { return k.interrupt() }

func startKernel(t *testing.T, ctx context.Context, d *gvisor.Driver, id sandbox.ID) kerneltest.Client { //nolint:revive // the test comes first
	t.Helper()
	conn, resp := post(t, ctx, d, id, "/kernel")
	if resp.StatusCode != http.StatusSwitchingProtocols {
		b, _ := io.ReadAll(resp.Body)
		t.Fatalf("start kernel: %s: %s", resp.Status, b)
	}
	n := resp.Header.Get("X-Kernel")
	return remoteKernel{kernel.NewConn(conn, kernel.Limits{}), func() error {
		other, resp := post(t, ctx, d, id, "/interrupt?n="+n)
		defer other.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("interrupt: %s", resp.Status)
		}
		return nil
	}}
}

// bufferedConn reads through the buffer that the response's header was read with.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.in.Read(p) }

func post(t *testing.T, ctx context.Context, d *gvisor.Driver, id sandbox.ID, path string) (net.Conn, *http.Response) { //nolint:revive // the test comes first
	t.Helper()
	conn, err := d.Dial(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: tunnel\r\nContent-Length: 0\r\n\r\n", path); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil) //nolint:bodyclose // the connection is closed instead
	if err != nil {
		t.Fatal(err)
	}
	return bufferedConn{conn, in}, resp
}
