package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// Jupyter is a plain jupyter-server or kernel gateway with ipykernel, without
// any isolation, started for the run.
//
// Source of the protocol: jupyter-server's REST API and the legacy kernel
// WebSocket (JSON texts, one a message).
type Jupyter struct {
	*process
	name   string
	base   string
	token  string
	http   *http.Client
	dialer *http.Client
	quick  bool // its client acknowledges at once
}

// StartJupyter starts a jupyter-server with the given Python, which must have
// it and ipykernel. Its output limits are lifted: by default it drops what comes
// faster than 1,000 messages or 1 MB a second.
func StartJupyter(ctx context.Context, python string) (*Jupyter, error) {
	return startJupyter(ctx, "jupyter", python, "jupyter_server", func(port, token, dir string) []string {
		return []string{
			"--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=" + port,
			"--IdentityProvider.token=" + token, "--ServerApp.root_dir=" + dir, "--ZMQChannelsWebsocketConnection.limit_rate=False",
		}
	})
}

// StartGateway starts a jupyter-kernel-gateway in the same way.
func StartGateway(ctx context.Context, python string) (*Jupyter, error) {
	return startJupyter(ctx, "gateway", python, "kernel_gateway", func(port, token, _ string) []string {
		return []string{
			"--KernelGatewayApp.ip=127.0.0.1", "--KernelGatewayApp.port=" + port, "--KernelGatewayApp.auth_token=" + token,
			"--ZMQChannelsWebsocketConnection.limit_rate=False",
		}
	})
}

func startJupyter(ctx context.Context, name, python, module string, args func(port, token, dir string) []string) (*Jupyter, error) {
	python, err := absolute(python)
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, err
	}
	j := &Jupyter{name: name, base: "127.0.0.1:" + port, token: rand.Text(), http: NewHTTP(), dialer: http.DefaultClient}
	j.process, err = startProcess(ctx, name, func(dir string) *exec.Cmd {
		return exec.CommandContext(context.WithoutCancel(ctx), python, append([]string{"-m", module}, args(port, j.token, dir)...)...)
	})
	if err != nil {
		return nil, err
	}
	err = j.until(ctx, func() error { return j.call(ctx, http.MethodGet, "/api", nil, nil) })
	if err != nil {
		return nil, errors.Join(err, j.Stop())
	}
	return j, nil
}

// QuickAck is the same server with a client that acknowledges every segment at
// once. The server leaves Nagle's algorithm on and sends several small messages
// for an execution, so with a common client each waits 40 ms for the delayed
// acknowledgement of the one before: this is the best that can be had of it.
func (j *Jupyter) QuickAck() *Jupyter {
	quick := *j
	quick.name, quick.quick = quick.name+"-quickack", true
	quick.dialer = &http.Client{Transport: &http.Transport{DialContext: dialQuick}}
	return &quick
}

func (j *Jupyter) call(ctx context.Context, method, path string, in, out any) error {
	return callJSON(ctx, j.http, method, "http://"+j.base+path, "token "+j.token, in, out)
}

// Name implements Subject.
func (j *Jupyter) Name() string { return j.name }

func (*Jupyter) interrupts() {}

// Create implements Subject.
func (j *Jupyter) Create(ctx context.Context) (Session, error) {
	var kernel struct {
		ID string `json:"id"`
	}
	if err := j.call(ctx, http.MethodPost, "/api/kernels", map[string]string{"name": "python3"}, &kernel); err != nil {
		return nil, err
	}
	s := &jupyterSession{j: j, kernel: kernel.ID}
	if err := s.connect(ctx); err != nil {
		return nil, errors.Join(err, s.Close(context.WithoutCancel(ctx)))
	}
	return s, nil
}

// weigh implements weigher: the kernel is a process of its own.
func (*Jupyter) weigh(ctx context.Context, s Session) (int64, error) { return weighKernel(ctx, s) }

// connect opens the kernel's WebSocket.
func (s *jupyterSession) connect(ctx context.Context) error {
	conn, resp, err := websocket.Dial(ctx, "ws://"+s.j.base+"/api/kernels/"+s.kernel+"/channels?session_id="+rand.Text(),
		&websocket.DialOptions{
			HTTPHeader: http.Header{"Authorization": {"token " + s.j.token}},
			HTTPClient: s.j.dialer,
		})
	if err != nil {
		return err
	}
	_ = resp // the library has closed its body
	conn.SetReadLimit(64 << 20)
	s.conn = conn
	return nil
}

// park implements parker: who takes a kernel that is ready connects to it.
func (s *jupyterSession) park() { _ = s.conn.CloseNow() }

func (s *jupyterSession) unpark(ctx context.Context) error { return s.connect(ctx) }

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
	if s.conn != nil {
		_ = s.conn.CloseNow()
	}
	return s.j.call(ctx, http.MethodDelete, "/api/kernels/"+s.kernel, nil, nil)
}

// Run implements Session: an execute_request, until its reply and idle.
func (s *jupyterSession) Run(ctx context.Context, code string) (Sample, error) {
	sample, status, err := s.run(ctx, code, nil)
	if err == nil && status != "ok" {
		err = errors.New("the cell ended with " + status)
	}
	return sample, err
}

func (s *jupyterSession) run(ctx context.Context, code string, started func()) (Sample, string, error) {
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
		return sample, "", err
	}
	start := time.Now()
	if err := s.conn.Write(ctx, websocket.MessageText, request); err != nil {
		return sample, "", err
	}
	status := ""
	for idle := false; status == "" || !idle; {
		_, text, err := s.conn.Read(ctx)
		if err != nil {
			return sample, "", err
		}
		var m struct {
			Type   string `json:"msg_type"`
			Parent struct {
				ID string `json:"msg_id"`
			} `json:"parent_header"`
			Content struct {
				Status string                     `json:"status"`
				State  string                     `json:"execution_state"`
				Text   string                     `json:"text"`
				Name   string                     `json:"ename"`
				Value  string                     `json:"evalue"`
				Data   map[string]json.RawMessage `json:"data"`
			} `json:"content"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return sample, "", err
		}
		if m.Parent.ID != id {
			continue
		}
		switch m.Type {
		case "execute_input":
			if started != nil {
				started()
			}
		case "stream", "execute_result":
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			sample.printed(m.Content.Text)
			_ = json.Unmarshal(m.Content.Data["text/plain"], &sample.Result)
		case "execute_reply":
			if status = m.Content.Status; status != "ok" {
				status += " " + m.Content.Name + " " + m.Content.Value
			}
		case "status":
			idle = m.Content.State == "idle"
		}
	}
	sample.Total = time.Since(start)
	return sample, status, nil
}

// Interrupt implements Interrupter.
func (s *jupyterSession) Interrupt(ctx context.Context) (time.Duration, error) {
	running := make(chan struct{}, 1)
	ended := make(chan error, 1)
	go func() {
		_, status, err := s.run(ctx, busy, func() { running <- struct{}{} })
		if err == nil && !strings.Contains(status, "KeyboardInterrupt") {
			err = fmt.Errorf("the loop ended with %q", status)
		}
		ended <- err
	}()
	select {
	case <-running:
	case err := <-ended:
		return 0, fmt.Errorf("the loop ended by itself: %w", err)
	}
	time.Sleep(runsFor)
	start := time.Now()
	if err := s.j.call(ctx, http.MethodPost, "/api/kernels/"+s.kernel+"/interrupt", nil, nil); err != nil {
		return 0, err
	}
	// The next cell has to wait for the loop's end: one reader on the socket.
	if err := <-ended; err != nil {
		return 0, err
	}
	_, err := oneAndOne(ctx, s)
	return time.Since(start), err
}
