package gvisor_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor/gvisortest"
)

// output runs a shell command in a sandbox and gives what it wrote.
func output(t testing.TB, c *agentapi.Client, command string) string {
	t.Helper()
	stream, err := c.Run(t.Context(), agentapi.Run{ID: agenttest.NewID("prc"), Command: command})
	if err != nil {
		t.Fatal(err)
	}
	return text(t, stream)
}

// text gives what a stream of events prints, and its errors.
func text(t testing.TB, stream *agentapi.Stream) string {
	t.Helper()
	defer stream.Close()
	var text strings.Builder
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		if rec.Type == event.OutputStream {
			var e struct{ Data event.Stream }
			if err := json.Unmarshal(rec.Line, &e); err != nil {
				t.Fatal(err)
			}
			text.WriteString(e.Data.Text)
		}
	}
}

func TestWhatRunsInASandboxIsNobodyWithNothing(t *testing.T) {
	d := open(t, options(t, gvisortest.Image(t), gvisortest.StateDir(t)))
	info, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits})
	if err != nil {
		t.Fatal(err)
	}
	c := client(d, info)
	defer c.CloseIdle()
	for name, tt := range map[string]struct {
		command string
		want    []string
		never   []string
	}{
		"it is uid 1000":                         {"id -u; id -g", []string{"1000\n1000\n"}, nil},
		"it has no capability, nor can get one":  {"grep -E '^(Cap|NoNewPrivs)' /proc/self/status", []string{"CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000"}, []string{"CapEff:\t0000000000000001"}},
		"it has a loopback and no other network": {"tail -n +3 /proc/net/dev | cut -d: -f1", []string{"lo"}, []string{"eth", "veth"}},
		"nothing outside can be reached":         {"python3 -c 'import socket\ntry: socket.create_connection((\"192.0.2.1\", 80), 3); print(\"reached\")\nexcept OSError as e: print(e)'", []string{"unreachable"}, []string{"reached\n"}},
		"names are not resolved":                 {"python3 -c 'import socket\ntry: print(\"found\", socket.getaddrinfo(\"example.org\", 80))\nexcept OSError as e: print(\"refused\", e)'", []string{"refused"}, []string{"found"}},
		"the image can't be changed by it":       {"touch /usr/bin/x; echo done", []string{"Permission denied", "done"}, nil},
		"the agent's binary can't be changed":    {"touch /opt/caesarion/caesarion-agent && echo changed", []string{"Permission denied"}, []string{"changed"}},
		"it sees its own processes only":         {"ls /proc | grep -c '^[0-9]'", nil, []string{"100"}},
		"the host's name is not to be seen":      {"hostname", []string{"sandbox"}, nil},
		"set-uid programs give nothing":          {"find / -xdev -perm -4000 -type f 2>/dev/null | head -1; su -c id 2>&1; echo done", []string{"done"}, []string{"uid=0"}},
		"no device of the host is there":         {"ls /dev", []string{"null"}, []string{"vda", "sda", "kvm", "mem\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := output(t, c, tt.command)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("got %s, want %q in it", got, want)
				}
			}
			for _, never := range tt.never {
				if strings.Contains(got, never) {
					t.Errorf("got %s, with %q in it", got, never)
				}
			}
		})
	}
}

func TestTheSentryIsConfinedOnTheHost(t *testing.T) {
	opts := options(t, gvisortest.Image(t), gvisortest.StateDir(t))
	d := open(t, opts)
	info, err := d.Create(t.Context(), sandbox.Spec{Limits: smallLimits})
	if err != nil {
		t.Fatal(err)
	}
	dir := sentry(t, opts.StateDir, info.ID)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65534\t65534", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the sentry's status lacks %q:\n%s", want, status)
		}
	}
	for _, ns := range []string{"pid", "mnt", "ipc", "uts", "net", "user"} {
		its, err := os.Readlink(filepath.Join(dir, "ns", ns))
		if err != nil {
			t.Fatal(err)
		}
		if ours, _ := os.Readlink("/proc/self/ns/" + ns); its == ours {
			t.Errorf("the sentry shares our %s namespace", ns)
		}
	}
}

// sentry finds the process folder of a sandbox's sentry.
func sentry(t *testing.T, state string, id sandbox.ID) string {
	t.Helper()
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		b, _ := os.ReadFile(file)
		if strings.HasPrefix(string(b), "runsc-sandbox") && strings.Contains(string(b), gvisor.RunDir(state)) && strings.Contains(string(b), string(id)) {
			return filepath.Dir(file)
		}
	}
	t.Fatalf("no sentry of %s", id)
	return ""
}
