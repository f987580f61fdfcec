package escape

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

func TestMain(m *testing.M) { os.Exit(gvisortest.Main(m)) }

// TestEscape attacks the wall of one machine.
func TestEscape(t *testing.T) {
	img, state := gvisortest.Image(t), gvisortest.StateDir(t)
	opts := gvisortest.Options(t, img, state, slog.LevelWarn)
	canary, files := NewCanary(t, os.TempDir(), state, "/dev/shm", "/var/tmp", ".")
	d, err := gvisor.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { gvisortest.Empty(t, d) })
	w := World{
		Name: "gVisor", Canary: canary, Canaries: files, Server: listeners(t),
		Create: func(t testing.TB) Box {
			t.Helper()
			info, err := d.Create(t.Context(), sandbox.Spec{Limits: sandbox.Limits{MemoryBytes: 1 << 30, CPUs: 2, Processes: 128, DiskBytes: 1 << 30}})
			if err != nil {
				t.Fatal(err)
			}
			c := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) { return d.Dial(ctx, info.ID) }, info.AgentToken)
			t.Cleanup(func() {
				c.CloseIdle()
				if err := d.Delete(context.WithoutCancel(t.Context()), info.ID); err != nil {
					t.Error(err)
				}
			})
			return Box{c, info}
		},
		// Of the whole file system, others take and free some meanwhile.
		HostInodes: func(t testing.TB) uint64 {
			t.Helper()
			var n uint64
			_ = filepath.WalkDir(state, func(string, os.DirEntry, error) error { n++; return nil }) // what goes meanwhile is no matter
			return n
		},
	}
	Compare(t, w.Name, Run(t, w))
}

// listeners answer on every address that this machine has, as a server might.
func listeners(t *testing.T) (addresses []string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ip, ok := a.(*net.IPNet)
		if !ok || ip.IP.IsLinkLocalUnicast() {
			continue
		}
		address := net.JoinHostPort(ip.IP.String(), port)
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(fmt.Errorf("not even from here: %w", err))
		}
		_ = conn.Close()
		addresses = append(addresses, address)
	}
	return addresses
}
