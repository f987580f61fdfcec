package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// E2B is the server that runs inside E2B's code interpreter sandboxes: FastAPI
// in front of a jupyter-server, as their template starts them, without the
// virtual machine around it. So it is what an execution costs there once it is
// inside; network and isolation come on top.
//
// Source: template/server of github.com/e2b-dev/code-interpreter, which is not
// on PyPI.
type E2B struct {
	*process
	jupyter *Jupyter
	base    string
	http    *http.Client
}

// e2bLauncher starts their server with the address of the jupyter-server that
// was started for it: theirs is a constant, in two places.
const e2bLauncher = `
import sys
port, jupyter = sys.argv[1:]
import consts
consts.JUPYTER_BASE_URL = "http://" + jupyter
import messaging
connect = messaging.connect
messaging.connect = lambda url, **options: connect(url.replace("localhost:8888", jupyter), **options)
import uvicorn
uvicorn.run("main:app", host="127.0.0.1", port=int(port), access_log=False, log_level="warning")
`

// e2bJavaScript stands in for the JavaScript kernel that the server starts
// beside the Python one; nothing runs in it here.
const e2bJavaScript = `{"argv": ["%s", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "JavaScript", "language": "javascript"}`

// StartE2B starts the server from a checkout of its repository, with a Python
// that has what its lists name.
func StartE2B(ctx context.Context, python, checkout string) (_ *E2B, err error) {
	if python, err = absolute(python); err != nil {
		return nil, err
	}
	server, err := filepath.Abs(filepath.Join(checkout, "template", "server"))
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(server, "main.py")); err != nil {
		return nil, fmt.Errorf("no checkout of E2B's code interpreter: %w", err)
	}
	e := &E2B{http: NewHTTP()}
	// Their jupyter-server: no token, no limit of output.
	e.jupyter, err = startJupyter(ctx, "e2b-jupyter", python, "jupyter_server", func(port, _, dir string) []string {
		spec := filepath.Join(dir, "kernels", "javascript", "kernel.json") // JUPYTER_PATH is the folder
		if err == nil {
			err = os.MkdirAll(filepath.Dir(spec), 0o755) //nolint:gosec // holds no secret
		}
		if err == nil {
			err = os.WriteFile(spec, fmt.Appendf(nil, e2bJavaScript, python), 0o644) //nolint:gosec // holds no secret
		}
		return []string{
			"--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=" + port, "--IdentityProvider.token=",
			"--ServerApp.root_dir=" + dir, "--ServerApp.disable_check_xsrf=True", "--ServerApp.iopub_data_rate_limit=1000000000",
		}
	})
	if err != nil {
		return nil, err
	}
	port, err := freePort(ctx)
	if err != nil {
		return nil, errors.Join(err, e.jupyter.Stop())
	}
	e.base = "http://127.0.0.1:" + port
	e.process, err = startProcess(ctx, "e2b", func(string) *exec.Cmd {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), python, "-c", e2bLauncher, port, e.jupyter.base)
		cmd.Dir = server
		cmd.Env = []string{"E2B_LOCAL=1", "PYTHONDONTWRITEBYTECODE=1"}
		return cmd
	})
	if err != nil {
		return nil, errors.Join(err, e.jupyter.Stop())
	}
	if err := e.until(ctx, func() error { return e.call(ctx, http.MethodGet, "/health", nil, nil) }); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// Stop ends both servers.
func (e *E2B) Stop() error { return errors.Join(e.process.Stop(), e.jupyter.Stop()) }

// Name implements Subject.
func (*E2B) Name() string { return "e2b-inner" }

func (e *E2B) call(ctx context.Context, method, path string, in, out any) error {
	return callJSON(ctx, e.http, method, e.base+path, "", in, out)
}

type e2bSession struct {
	e  *E2B
	id string
}

// Create implements Subject.
func (e *E2B) Create(ctx context.Context) (Session, error) {
	var made struct {
		ID string `json:"id"`
	}
	if err := e.call(ctx, http.MethodPost, "/contexts", map[string]string{"cwd": "/tmp", "language": "python"}, &made); err != nil {
		return nil, err
	}
	return &e2bSession{e, made.ID}, nil
}

// weigh implements weigher.
func (*E2B) weigh(ctx context.Context, s Session) (int64, error) { return weighKernel(ctx, s) }

// Close implements Session.
func (s *e2bSession) Close(ctx context.Context) error {
	return s.e.call(ctx, http.MethodDelete, "/contexts/"+s.id, nil, nil)
}

// Run implements Session.
func (s *e2bSession) Run(ctx context.Context, code string) (Sample, error) {
	var sample Sample
	body, err := json.Marshal(map[string]string{"code": code, "context_id": s.id})
	if err != nil {
		return sample, err
	}
	start := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.e.base+"/execute", strings.NewReader(string(body)))
	if err != nil {
		return sample, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.e.http.Do(req)
	if err != nil {
		return sample, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return sample, fmt.Errorf("execute: %s", resp.Status)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var m struct {
			Type  string `json:"type"`
			Text  string `json:"text"`
			Name  string `json:"name"`
			Value string `json:"value"`
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			return sample, err
		}
		switch m.Type {
		case "stdout", "result":
			if sample.First == 0 {
				sample.First = time.Since(start)
			}
			if m.Type == "result" {
				sample.Result = m.Text
			} else {
				sample.printed(m.Text)
			}
		case "error":
			return sample, errors.New(m.Name + ": " + m.Value)
		}
	}
	sample.Total = time.Since(start)
	return sample, lines.Err()
}
