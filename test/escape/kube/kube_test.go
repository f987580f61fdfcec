package kube

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/caesarion/caesarion/internal/sandbox"
	kubedriver "github.com/caesarion/caesarion/internal/sandbox/kube"
	"github.com/caesarion/caesarion/internal/sandbox/sandboxtest"
	"github.com/caesarion/caesarion/test/escape"
	"github.com/caesarion/caesarion/test/kubetest"
)

func TestMain(m *testing.M) { os.Exit(kubetest.Main(m)) }

// TestEscape attacks pods. The tests run on their node, so that canaries of
// this machine are canaries of the node. Addresses are none of its attacks: the
// installation's NetworkPolicy keeps them away, and test/kube/egress tries that.
func TestEscape(t *testing.T) {
	for name, class := range map[string]string{"pod, runc": "", "pod, gVisor": kubetest.RuntimeClass} {
		t.Run(name, func(t *testing.T) {
			d, err := kubedriver.New(t.Context(), kubedriver.Options{
				Config: kubetest.Config(t), Namespace: kubetest.Namespace(t), Replica: "test", Secret: bytes.Repeat([]byte("s"), 32),
				AgentImage: kubetest.Image(t, "server"), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
				Pods: map[string]kubedriver.PodTemplate{"": {
					RuntimeClass: class, RequestMemory: resource.MustParse("64Mi"), RequestCPU: resource.MustParse("10m"), RequestEphemeralStorage: resource.MustParse("16Mi"),
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
			canary, files := escape.NewCanary(t, os.TempDir(), "/var/tmp", "/dev/shm", ".")
			w := escape.World{
				Name: name, Canary: canary, Canaries: files,
				Create: func(t testing.TB) escape.Box {
					t.Helper()
					ctx, cancel := context.WithTimeout(t.Context(), sandboxtest.Patience)
					defer cancel()
					info, err := d.Create(ctx, sandbox.Spec{
						Template: "python", Image: kubetest.Image(t, "python"),
						Limits: sandbox.Limits{MemoryBytes: 768 << 20, CPUs: 1, Processes: 60, DiskBytes: 1 << 30},
					})
					if err != nil {
						t.Fatal(err)
					}
					t.Cleanup(func() {
						if err := d.Delete(context.WithoutCancel(t.Context()), info.ID); err != nil {
							t.Error(err)
						}
					})
					return escape.Box{Client: sandboxtest.Client(t, d, info), Info: info}
				},
			}
			escape.Compare(t, name, escape.Run(t, w))
		})
	}
}
