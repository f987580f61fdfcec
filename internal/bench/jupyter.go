package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// Jupyter is a plain jupyter-server with ipykernel, without any isolation,
// started for the run.
//
// Source of the protocol: jupyter-server's REST API and the legacy kernel
// WebSocket (JSON texts, one a message).
type Jupyter struct {
	cmd   *exec.Cmd
	base  string
	token string
	http  *http.Client
}

// StartJupyter starts a server with the given Python, which must have
// jupyter-server and ipykernel. Its output limits are lifted: by default it
// drops what comes faster than 1,000 messages or 1 MB a second.
func StartJupyter(ctx context.Context, python string) (*Jupyter, error) {
	if strings.Contains(python, "/") { // the server gets a folder of its own
		var err error
		if python, err = filepath.Abs(python); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := l.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener's
	_ = l.Close()
	dir, err := os.MkdirTemp("", "caesarion-bench-jupyter-")
	if err != nil {
		return nil, err
	}
	j := &Jupyter{base: "127.0.0.1:" + strconv.Itoa(port), token: rand.Text(), http: &http.Client{}}
	// Stopped by Stop, which lets it end its kernels.
	j.cmd = exec.CommandContext(context.WithoutCancel(ctx), python, "-m", "jupyter_server", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
		"--ServerApp.port="+strconv.Itoa(port), "--IdentityProvider.token="+j.token, "--ServerApp.root_dir="+dir,
		"--ZMQChannelsWebsocketConnection.limit_rate=False")
	j.cmd.Dir = dir
	j.cmd.Env = append(os.Environ(), "HOME="+dir, "JUPYTER_PLATFORM_DIRS=1")
	j.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	words := &bytes.Buffer{}
	j.cmd.Stderr = words
	if err := j.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start jupyter-server: %w", err)
	}
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		err := j.call(ctx, http.MethodGet, "/api", nil, nil)
		if err == nil {
			return j, nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("jupyter-server does not answer: %w: %s", err, lastLine(words.String())), j.Stop())
		}
	}
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}

// Stop ends the server and its kernels.
func (j *Jupyter) Stop() error {
	_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = j.cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		_ = syscall.Kill(-j.cmd.Process.Pid, syscall.SIGKILL)
		<-done
	}
	return os.RemoveAll(j.cmd.Dir)
}

func (j *Jupyter) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+j.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "token "+j.token)
	resp, err := j.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// Name implements Subject.
func (*Jupyter) Name() string { return "jupyter" }

// Create implements Subject: a kernel, connected as a common client does.
func (j *Jupyter) Create(ctx context.Context) (Session, error) {
	return j.create(ctx, http.DefaultClient)
}

// JupyterQuickAck is the same server with a client that acknowledges every
// segment at once. The server leaves Nagle's algorithm on and sends several
// small messages for an execution, so with a common client each waits 40 ms for
// the delayed acknowledgement of the one before: this is the best that can be
// had of it.
type JupyterQuickAck struct{ *Jupyter }

// Name implements Subject.
func (JupyterQuickAck) Name() string { return "jupyter-quickack" }

// Create implements Subject.
func (j JupyterQuickAck) Create(ctx context.Context) (Session, error) {
	return j.create(ctx, &http.Client{Transport: &http.Transport{DialContext: dialQuick}})
}

func (j *Jupyter) create(ctx context.Context, dialer *http.Client) (Session, error) {
	var kernel struct {
		ID string `json:"id"`
	}
	if err := j.call(ctx, http.MethodPost, "/api/kernels", map[string]string{"name": "python3"}, &kernel); err != nil {
		return nil, err
	}
	conn, _, err := websocket.Dial(ctx, "ws://"+j.base+"/api/kernels/"+kernel.ID+"/channels?session_id="+rand.Text(),
		&websocket.DialOptions{
			HTTPHeader: http.Header{"Authorization": {"token " + j.token}},
			HTTPClient: dialer,
		})
	if err != nil {
		return nil, err
	}
	conn.SetReadLimit(64 << 20)
	return &jupyterSession{j: j, kernel: kernel.ID, conn: conn}, nil
}

// dialQuick connects so that every segment is acknowledged at once.
func dialQuick(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn() //nolint:forcetypeassert // the address is one of TCP
	if err != nil {
		return nil, err
	}
	return quickConn{conn, raw}, nil
}

type quickConn struct {
	net.Conn
	raw syscall.RawConn
}

// Read asks for quick acknowledgements again: the kernel falls back by itself.
func (c quickConn) Read(p []byte) (int, error) {
	_ = c.raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1) // a wish; it works without
	})
	return c.Conn.Read(p)
}

type jupyterSession struct {
	j      *Jupyter
	kernel string
	conn   *websocket.Conn
}

func (s *jupyterSession) Close(ctx context.Context) error {
	_ = s.conn.CloseNow()
	return s.j.call(ctx, http.MethodDelete, "/api/kernels/"+s.kernel, nil, nil)
}

// Run sends an execute_request and waits for its reply and for idle.
func (s *jupyterSession) Run(ctx context.Context, code string) (Sample, error) {
	var sample Sample
	id := rand.Text()
	request, err := json.Marshal(map[string]any{
		"channel": "shell",
		"header": map[string]string{
			"msg_id": id, "msg_type": "execute_request", "session": "bench", "username": "bench", "version": "5.3",
			"date": time.Now().UTC().Format(time.RFC3339Nano),
		},
		"parent_header": struct{}{}, "metadata": struct{}{},
		"content": map[string]any{"code": code, "silent": false, "store_history": true, "allow_stdin": false, "user_expressions": struct{}{}},
	})
	if err != nil {
		return sample, err
	}
	start := time.Now()
	if err := s.conn.Write(ctx, websocket.MessageText, request); err != nil {
		return sample, err
	}
	for replied, idle := false, false; !replied || !idle; {
		_, text, err := s.conn.Read(ctx)
		if err != nil {
			return sample, err
		}
		var m struct {
			Type   string `json:"msg_type"`
			Parent struct {
				ID string `json:"msg_id"`
			} `json:"parent_header"`
			Content struct {
				Status string `json:"status"`
				State  string `json:"execution_state"`
				Text   string `json:"text"`
				Value  string `json:"evalue"`
			} `json:"content"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return sample, err
		}
		if m.Parent.ID != id {
			continue
		}
		switch m.Type {
		case "stream", "execute_result":
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			sample.Characters += len(m.Content.Text)
		case "execute_reply":
			if replied = true; m.Content.Status != "ok" {
				return sample, errors.New(m.Content.Value)
			}
		case "status":
			idle = m.Content.State == "idle"
		}
	}
	sample.Total = time.Since(start)
	return sample, nil
}
