package kube_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// limits are what a node of a test machine has many times.
var limits = sandbox.Limits{MemoryBytes: 768 << 20, CPUs: 1, Processes: 60, DiskBytes: 1 << 30}

// runtimes are the classes that every test of a sandbox's behaviour runs with.
var runtimes = []string{"", kubetest.RuntimeClass}

func runtimeName(class string) string {
	if class == "" {
		return "runc"
	}
	return class
}

// options are for a driver in a namespace of its own.
func options(t testing.TB, class string) kube.Options {
	t.Helper()
	log := slog.DiscardHandler
	if testing.Verbose() {
		log = slog.NewTextHandler(t.Output(), nil)
	}
	return kube.Options{
		Config: kubetest.Config(t), Namespace: kubetest.Namespace(t), Replica: "test", Secret: bytes.Repeat([]byte("s"), 32),
		AgentImage: kubetest.Image(t, "server"), Logger: slog.New(log),
		Pods: map[string]kube.PodTemplate{"": {
			RuntimeClass: class, RequestMemory: resource.MustParse("64Mi"), RequestCPU: resource.MustParse("10m"), RequestEphemeralStorage: resource.MustParse("16Mi"),
		}},
	}
}

func open(t testing.TB, opts kube.Options) *kube.Driver {
	t.Helper()
	d, err := kube.New(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

func spec(t testing.TB) sandbox.Spec {
	return sandbox.Spec{Template: "python", Image: kubetest.Image(t, "python"), Limits: limits}
}

// create makes a sandbox that is deleted when the test ends.
func create(t testing.TB, d *kube.Driver, s sandbox.Spec) sandbox.Info {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sandboxtest.Patience)
	defer cancel()
	info, err := d.Create(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, d, info.ID) })
	return info
}

func remove(t testing.TB, d *kube.Driver, id sandbox.ID) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), sandboxtest.Patience)
	defer cancel()
	if err := d.Delete(ctx, id); err != nil {
		t.Errorf("delete: %v", err)
	}
}

// TestDriverContract is the suite that every driver passes.
func TestDriverContract(t *testing.T) {
	for _, class := range runtimes {
		t.Run(runtimeName(class), func(t *testing.T) {
			t.Parallel()
			sandboxtest.Run(t, func(t testing.TB) sandboxtest.Harness {
				opts := options(t, class)
				t.Cleanup(func() { wantNoPods(t, opts.Namespace) })
				return sandboxtest.Harness{
					Open: func(t testing.TB) sandbox.Driver {
						d, err := kube.New(t.Context(), opts)
						if err != nil {
							t.Fatal(err)
						}
						return d
					},
					Spec: spec(t),
					Kill: func(t testing.TB, d sandbox.Driver, id sandbox.ID) { kill(t, d, id, class) },
				}
			})
		})
	}
}

// wantNoPods checks that nothing is left in a namespace.
func wantNoPods(t testing.TB, namespace string) {
	t.Helper()
	list, err := kubetest.Client(t).CoreV1().Pods(namespace).List(context.WithoutCancel(t.Context()), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range list.Items {
		t.Errorf("pod left: %s, deletion %v", pod.Name, pod.DeletionTimestamp)
	}
}

// kill ends a sandbox's agent from outside: the tests run on its node.
func kill(t testing.TB, d sandbox.Driver, id sandbox.ID, class string) {
	t.Helper()
	info, err := d.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if class != "" { // one process of the node is many of the sandbox's; its init is shielded from nobody
		stream, err := sandboxtest.Client(t, d, info).Run(t.Context(), agentapi.Run{ID: agenttest.NewID("prc"), Command: "kill -9 1"})
		if err == nil {
			_ = stream.Close()
		}
		return
	}
	if err := unix.Kill(agentPID(t, info), unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// agentPID finds a sandbox's agent among the processes of the node, where the
// tests run; only under runc it is one.
func agentPID(t testing.TB, info sandbox.Info) int {
	t.Helper()
	sum := sha256.Sum256([]byte(info.AgentToken))
	mark := []byte("--token-sha256=" + hex.EncodeToString(sum[:]))
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		cmdline, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(cmdline, mark) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(file, "/")[2])
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatal("the sandbox's agent is no process of this node")
	return 0
}

// TestAgentInAPod lets user code do its worst, in pods.
func TestAgentInAPod(t *testing.T) {
	for _, class := range runtimes {
		t.Run(runtimeName(class), func(t *testing.T) {
			d := open(t, options(t, class)) // not side by side: bombs take all of a small machine
			agenttest.Run(t, func(t testing.TB) *agentapi.Client {
				return sandboxtest.Client(t, d, create(t, d, spec(t)))
			}, agenttest.Options{Isolated: true, MemoryBytes: limits.MemoryBytes, Processes: limits.Processes})
		})
	}
}
