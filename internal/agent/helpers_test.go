package agent_test

import (
	"context"
	"net"
	"testing"

	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

func TestMain(m *testing.M) {
	// net/http lingers half a second on a connection it closes, and is not waited for.
	lingers := goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait")
	kerneltest.Main(m, lingers)
}

const testToken = "test-token"

// serve runs an agent in this process, with a folder for its file system.
func serve(t testing.TB, change func(*agent.Options)) (*agent.Agent, *agentapi.Client, string) {
	t.Helper()
	root := t.TempDir()
	opts := agent.Options{Root: root, Version: "test", Home: "/home/user", Python: "no-python-wanted"}
	if change != nil {
		change(&opts)
	}
	a := agent.New(opts)
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, l) }()
	client := agentapi.NewClient(func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}, testToken)
	t.Cleanup(func() {
		client.CloseIdle()
		a.Close()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return a, client, root
}

// configured is serve with an agent that was configured.
func configured(t testing.TB, conf agentapi.Configure, change func(*agent.Options)) (*agentapi.Client, string) {
	t.Helper()
	_, client, root := serve(t, change)
	conf.Token = testToken
	if _, err := client.Configure(t.Context(), conf); err != nil {
		t.Fatal(err)
	}
	return client, root
}

func withPython(t testing.TB) func(*agent.Options) {
	t.Helper()
	interpreter, program := kerneltest.Python(t), kerneltest.Program(t)
	return func(o *agent.Options) { o.Python, o.ProgramDir = interpreter, program }
}

// newSandbox gives an agent with a real kernel.
func newSandbox(t testing.TB, conf agentapi.Configure) (*agenttest.Sandbox, string) {
	t.Helper()
	client, root := configured(t, conf, withPython(t))
	return agenttest.New(t, client), root
}
