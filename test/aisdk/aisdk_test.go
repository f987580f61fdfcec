// Package aisdk has the AI SDK's own clients talk to a server.
package aisdk_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/llm/llmtest"
	"github.com/caesarion/caesarion/internal/sandbox/fake/faketest"
	"github.com/caesarion/caesarion/internal/session"
	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/workspace"
)

const script = `
scenarios:
  - match: sum
    steps:
      - reasoning: Hm.
        text: I compute it.
        split: 1
        usage: {input: 100, output: 10}
        calls:
          - {name: python_interpreter, arguments: {code: "x = \"ä😀\"\nprint(len(x) * 21)"}}
      - {expect: ^42$, text: Done., usage: {input: 120, cached: 90, output: 3}}
  - match: weather
    steps:
      - calls: [{name: get_current_weather, arguments: {latitude: 52.52, longitude: 13.41}}]
      - {expect: temperature_2m, text: Mild.}
  - match: error
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "1 / 0"}}]
      - {expect: ZeroDivisionError, text: It failed.}
  - match: both
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "1 + 1"}}, {name: send_mail, arguments: {to: you}}]
      - text: Both.
  - match: fail
    steps: [{status: 401}]
  - match: remember
    steps: [{text: I remember.}]
  - match: look
    steps:
      - calls: [{name: python_interpreter, arguments: {code: "import os\nprint(open('../uploaded_files/tiny.csv').read(), end='')"}}]
      - text: Read.
  - match: wait
    steps:
      - text: Wait.
        calls: [{name: python_interpreter, arguments: {code: "import os, time\nprint('waiting', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.01)\nos.remove('go')\nprint('gone')"}}]
      - text: Here you are.
`

// missing fails where everything must be there, and skips elsewhere.
func missing(tb testing.TB, what string, err error) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s: %v", what, err)
	}
	tb.Skipf("%s: %v", what, err)
}

// packages installs the clients once and gives the folder with the scripts.
func packages(tb testing.TB) string {
	tb.Helper()
	if _, err := exec.LookPath("npm"); err != nil {
		missing(tb, "npm is needed", err)
	}
	lock, err := os.ReadFile("package-lock.json")
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(lock)
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "aisdk-"+hex.EncodeToString(sum[:6])))
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		tb.Fatal(err)
	}
	for _, name := range []string{"package.json", "package-lock.json", "world.mjs", "ui.mjs", "data.mjs"} {
		text, err := os.ReadFile(name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), text, 0o644)
		}
		if err != nil {
			tb.Fatal(err)
		}
	}
	done := filepath.Join(dir, "installed")
	if _, err := os.Stat(done); err == nil {
		return dir
	}
	npm := exec.CommandContext(tb.Context(), "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	npm.Dir = dir
	if out, err := npm.CombinedOutput(); err != nil {
		missing(tb, "npm ci: "+string(out), err)
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		tb.Fatal(err)
	}
	return dir
}

func TestMain(m *testing.M) { kerneltest.Main(m) }

// serve starts a server with a scripted model and gives its address.
func serve(tb testing.TB) string {
	tb.Helper()
	weather := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"current":{"temperature_2m":7.5}}`))
	}))
	tb.Cleanup(weather.Close)
	model, err := llm.NewChatCompletions(llm.Endpoint{BaseURL: llmtest.Start(tb, script).URL, Info: llm.Info{Name: "scripted"}})
	if err != nil {
		tb.Fatal(err)
	}
	host := faketest.New(tb)
	data := tb.TempDir()
	var closers []interface{ Close() error }
	check := func(err error) {
		if err != nil {
			tb.Fatal(err)
		}
	}
	fl, err := fleet.New(context.WithoutCancel(tb.Context()), host.Driver(), nil, fleet.Options{Templates: map[string]fleet.Template{"python": {}}, MaxSandboxes: 50})
	check(err)
	st, err := store.Open(tb.Context(), filepath.Join(data, "caesarion.db"), store.Options{})
	check(err)
	files, err := workspace.New(filepath.Join(data, "sessions"), st, workspace.Options{})
	check(err)
	sessions, err := session.New(tb.Context(), fl, st, session.Options{Files: files})
	check(err)
	models := llm.NewRegistry([]llm.Model{model}, llm.RegistryOptions{})
	answers, err := chat.New(sessions, models, chat.Options{WeatherURL: weather.URL})
	check(err)
	closers = append(closers, sessions, files, fl, st)
	srv := httpapi.New(fl, httpapi.Options{AuthNone: true, Models: models, Sessions: sessions, Files: files, Chat: answers, Heartbeat: 50 * time.Millisecond}).Server()
	listener, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	check(err)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(listener) }()
	tb.Cleanup(func() {
		_ = srv.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			tb.Error(err)
		}
		answers.Close()
		for _, c := range closers {
			if err := c.Close(); err != nil {
				tb.Error(err)
			}
		}
	})
	return "http://" + listener.Addr().String()
}

// Every client reads what it should from every kind of answer.
func TestClients(t *testing.T) {
	dir := packages(t)
	for _, client := range []struct{ script, name string }{{"ui.mjs", "ai5"}, {"ui.mjs", "ai6"}, {"ui.mjs", "ai7"}, {"data.mjs", "ai4"}} {
		t.Run(client.name, func(t *testing.T) {
			url := serve(t)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			node := exec.CommandContext(ctx, "node", client.script)
			node.Dir = dir
			node.Env = append(os.Environ(), "CAESARION_URL="+url, "CAESARION_CLIENT="+client.name)
			out, err := node.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "ok ") {
				t.Errorf("%v\n%s", err, out)
			} else {
				t.Logf("%s", out)
			}
		})
	}
}
