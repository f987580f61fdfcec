package thousands

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/caesarion/caesarion/test/chart/helmtest"
)

const token = "token-of-the-installation"

// The images are never started.
var (
	sandboxImage = "registry.test/caesarion/python@sha256:" + strings.Repeat("1", 64)
	agentImage   = "registry.test/caesarion/server@sha256:" + strings.Repeat("2", 64)
)

// build gives the product's binary, as it is released.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "caesarion")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./cmd/caesarion")
	cmd.Dir = helmtest.Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// server is a process of the product.
type server struct {
	url  string
	took time.Duration // from its start until it was ready
	cmd  *exec.Cmd
	log  bytes.Buffer
	wire func() (in, out int64) // bytes that it got from the API server and sent to it
	done chan struct{}          // closed when it has ended
}

// start starts a server that keeps so many pods ready, and waits until it takes
// requests.
func start(t *testing.T, program, namespace, database string, pool int) *server {
	t.Helper()
	s := &server{done: make(chan struct{})}
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	settings := write("config.yaml", fmt.Sprintf("templates:\n  python: {image: %q, memory: 1GiB, cpus: 0.5, pool_size: %d, kubernetes: {request_memory: 128Mi, request_cpu: 10m}}\n", sandboxImage, pool))
	kubeconfig, err := clientcmd.LoadFromFile(os.Getenv("KUBECONFIG"))
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range kubeconfig.Clusters {
		u, err := url.Parse(cluster.Server)
		if err != nil {
			t.Fatal(err)
		}
		u.Host, s.wire = meter(t, u.Host)
		cluster.Server = u.String()
	}
	file := filepath.Join(dir, "kubeconfig")
	if err := clientcmd.WriteToFile(*kubeconfig, file); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	s.url = "http://" + address
	s.cmd = exec.Command(program, "serve")
	s.cmd.Env = append(os.Environ(),
		"CAESARION_CONFIG="+settings, "CAESARION_DATA_DIR="+dir, "CAESARION_LISTEN="+address, "CAESARION_TOKEN="+token, "CAESARION_LOG_FORMAT=json",
		"CAESARION_DRIVER=kubernetes", "CAESARION_KUBECONFIG="+file, "CAESARION_KUBE_NAMESPACE="+namespace, "CAESARION_KUBE_AGENT_IMAGE="+agentImage,
		"CAESARION_SECRET_FILE="+write("secret", strings.Repeat("s", 32)), "CAESARION_DATABASE_URL="+database, "CAESARION_REPLICA_ADDRESS="+address,
	)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	begin := time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait()
		close(s.done)
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-s.done
		if t.Failed() {
			t.Logf("the server said:\n%s", s.log.Bytes()[max(0, s.log.Len()-8000):])
		}
	})
	eventually(t, "the server", func(ctx context.Context) error {
		select {
		case <-s.done:
			t.Fatalf("the server has ended: %s", s.log.Bytes())
		default:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	s.took = time.Since(begin)
	return s
}

// stop ends it as an orchestrator does.
func (s *server) stop(t *testing.T) {
	t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(patience):
		t.Fatal("the server does not stop")
	}
}

// memory gives what the kernel says that it has: all of it, what is no file's,
// and the most it ever had.
func (s *server) memory(t *testing.T) (rss, anonymous, peak int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		to := map[string]*int64{"VmRSS": &rss, "RssAnon": &anonymous, "VmHWM": &peak}[name]
		if to == nil {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		*to = kb << 10
	}
	return rss, anonymous, peak
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// meter passes connections on to an address and counts their bytes.
func meter(t *testing.T, to string) (address string, count func() (in, out int64)) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var in, out atomic.Int64
	var mu sync.Mutex
	var open []net.Conn
	pipe := func(dst, src net.Conn, n *atomic.Int64) {
		_, _ = io.Copy(io.MultiWriter(dst, counter{n}), src) // either end may go first
		_, _ = dst.Close(), src.Close()
	}
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			dest, err := net.Dial("tcp", to)
			if err != nil {
				_ = from.Close()
				continue
			}
			mu.Lock()
			open = append(open, from, dest)
			mu.Unlock()
			go pipe(dest, from, &out)
			go pipe(from, dest, &in)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, c := range open {
			_ = c.Close()
		}
	})
	return l.Addr().String(), func() (int64, int64) { return in.Load(), out.Load() }
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
