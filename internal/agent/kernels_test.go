package agent_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

func startKernel(t testing.TB, client *agentapi.Client) error {
	t.Helper()
	_, err := client.StartKernel(t.Context(), agentapi.StartKernel{ID: agenttest.NewID("krn")})
	return err
}

func TestAnImageWithoutPython(t *testing.T) {
	client, _ := configured(t, agentapi.Configure{}, nil)
	if err := startKernel(t, client); codeOf(err) != "python-not-found" || !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("got %v, want python-not-found", err)
	}
	if list, err := client.Kernels(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("kernels: %+v, %v", list, err)
	}
}

func TestAPythonThatFailsSaysWhy(t *testing.T) {
	script := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho 'ModuleNotFoundError: No module named IPython' >&2\nexit 1\n"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	client, _ := configured(t, agentapi.Configure{}, func(o *agent.Options) { o.Python = script })
	err := startKernel(t, client)
	if codeOf(err) != "kernel-start-failed" || !strings.Contains(err.Error(), "No module named IPython") || !strings.Contains(err.Error(), "exit code 1") {
		t.Errorf("got %v, want kernel-start-failed with what Python said", err)
	}
}

func TestAKernelThatKeepsDyingIsGivenUpAndCanBeRestarted(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "python")
	text := "#!/bin/sh\n[ -e " + dir + "/broken ] && exit 7\nexec " + kerneltest.Python(t) + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	client, _ := configured(t, agentapi.Configure{}, func(o *agent.Options) {
		withPython(t)(o)
		o.Python = script
	})
	s := agenttest.New(t, client)
	if err := os.WriteFile(filepath.Join(dir, "broken"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Run("import os; os._exit(0)").Expect(t, event.StatusKilled, event.ReasonKernelDied)
	for t.Context().Err() == nil {
		k, err := client.Kernel(t.Context(), s.KernelID)
		if err != nil {
			t.Fatal(err)
		}
		if k.State == agentapi.KernelDead {
			if !strings.Contains(k.Reason, "exit code 7") {
				t.Errorf("reason %q", k.Reason)
			}
			break
		}
	}
	_, err := client.Execute(t.Context(), s.KernelID, agentapi.Execute{ID: agenttest.NewID("exe"), Code: "1"})
	if codeOf(err) != "kernel-start-failed" {
		t.Errorf("execute on a dead kernel: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "broken")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.RestartKernel(t.Context(), s.KernelID); err != nil {
		t.Errorf("restart: %v", err)
	}
	s.Usable()
}

func TestAPrestartedKernelIsHandedOver(t *testing.T) {
	a, client, root := serve(t, withPython(t))
	if err := a.Prestart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: testToken, Env: map[string]string{"A": "1", "Ü": "'\"\n"}}); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "workspace/sub"), 0o755); err != nil { //nolint:gosec // as in a sandbox
		t.Fatal(err)
	}
	s := &agenttest.Sandbox{Client: client, KernelID: agenttest.NewID("krn"), T: t}
	k, err := client.StartKernel(t.Context(), agentapi.StartKernel{ID: s.KernelID, Dir: "sub", Env: map[string]string{"B": "2"}})
	if err != nil || k.ID != s.KernelID || k.State != agentapi.KernelIdle {
		t.Fatalf("start: %+v, %v", k, err)
	}
	r := s.Run("import os; print(os.environ['A'], os.environ['B'], repr(os.environ['Ü']), os.path.basename(os.getcwd()), In)")
	if got, want := r.Text("stdout"), "1 2 '\\'\"\\n' sub "; !strings.HasPrefix(got, want) || r.Finished.ExecutionCount != 1 {
		t.Errorf("got %q, %+v; want %q", got, r.Finished, want)
	}
	if list, err := client.Kernels(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("kernels: %+v, %v", list, err)
	}
}

func TestAReaderThatWasCutOffResumes(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{})
	ctx, cancel := context.WithCancel(t.Context())
	req := agentapi.Execute{ID: agenttest.NewID("exe"), Code: "print('one', flush=True)\ninput()\nprint('two')", AllowStdin: true}
	stream, err := s.Execute(ctx, s.KernelID, req)
	if err != nil {
		t.Fatal(err)
	}
	var last int64
	for {
		rec, err := stream.Next()
		if err != nil {
			t.Fatal(err)
		}
		if last = rec.Seq; rec.Type == event.InputRequested {
			break
		}
	}
	cancel() // the tab is closed; the code goes on
	_ = stream.Close()
	if err := s.Input(t.Context(), req.ID, agentapi.Input{Value: "x"}); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() (*agentapi.Stream, error){
		"events after the last seen": func() (*agentapi.Stream, error) { return s.Events(t.Context(), req.ID, last) },
		"the same execute again":     func() (*agentapi.Stream, error) { return s.Execute(t.Context(), s.KernelID, req) },
	} {
		again, err := open()
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for {
			rec, err := again.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			text.Write(rec.Line)
		}
		if !strings.Contains(text.String(), "two") || !strings.Contains(text.String(), "execution.finished") {
			t.Errorf("%s: %s", name, text.String())
		}
		_ = again.Close()
	}
	list, err := s.Executions(t.Context())
	if err != nil || len(list) != 1 || !list[0].Finished {
		t.Errorf("executions: %+v, %v", list, err)
	}
}

func TestAFullQueueIsSaid(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{})
	first := s.Start("input()", func(e *agentapi.Execute) { e.AllowStdin = true })
	first.Until(event.InputRequested, "")
	var waiting []*agenttest.Running
	for range 64 {
		waiting = append(waiting, s.Start("1", nil))
	}
	_, err := s.Execute(t.Context(), s.KernelID, agentapi.Execute{ID: agenttest.NewID("exe"), Code: "1"})
	if codeOf(err) != "kernel-queue-full" || !errors.Is(err, errdefs.ErrExhausted) {
		t.Errorf("got %v, want kernel-queue-full", err)
	}
	if err := s.Input(t.Context(), first.ID, agentapi.Input{}); err != nil {
		t.Fatal(err)
	}
	for _, r := range waiting {
		r.Wait().Expect(t, event.StatusOK, "")
	}
}

func TestMemoryOverTheLimitKillsTheKernel(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{MemoryBytes: 256 << 20})
	s.Run("l = []\nwhile len(l) < 64: l.append(b'x' * (16 << 20))\nimport time; time.sleep(60)").Expect(t, event.StatusKilled, event.ReasonOutOfMemory)
	s.Usable()
}

func TestTooManyThreadsKillTheKernel(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{Processes: 40})
	s.Run("import threading, time\nfor _ in range(60): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(60)").Expect(t, event.StatusKilled, event.ReasonProcessLimit)
	s.Usable()
}

func TestStrangersCannotFillTheAgent(t *testing.T) {
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a := agent.New(agent.Options{Root: t.TempDir(), Home: "/home/user"})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	dial := func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}
	client := agentapi.NewClient(dial, testToken)
	defer func() {
		client.CloseIdle()
		a.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: testToken}); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		conn, err := dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	fresh := agentapi.NewClient(dial, testToken)
	defer fresh.CloseIdle()
	for _, c := range []*agentapi.Client{client, fresh} {
		if _, err := c.Kernels(t.Context()); err != nil {
			t.Errorf("beside a crowd: %v", err)
		}
	}
}
