// containerd-shim-runsc-v1, with one change: upstream's manager.Start sets
// oom_score_adj -999 on the shim and treats a refusal as fatal; without
// CAP_SYS_RESOURCE (CI) that write is always refused. Start is restated here without it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/shim"
	"golang.org/x/sys/unix"
	v1 "gvisor.dev/gvisor/pkg/shim/v1"
	_ "gvisor.dev/gvisor/pkg/shim/v1/plugin" // registers the task service
)

const name = "io.containerd.runsc.v1"

type manager struct{ shim.Manager }

func (m manager) Start(ctx context.Context, id string, opts shim.StartOpts) (_ shim.BootstrapParams, err error) {
	none := shim.BootstrapParams{}
	ns, err := namespaces.NamespaceRequired(ctx)
	if err != nil {
		return none, err
	}
	// one shim for all containers of a pod
	grouping := id
	if b, err := os.ReadFile("config.json"); err == nil {
		var s struct {
			Annotations map[string]string `json:"annotations"`
		}
		if err := json.Unmarshal(b, &s); err != nil {
			return none, err
		}
		if g := s.Annotations["io.kubernetes.cri.sandbox-id"]; g != "" && os.Getenv("RUNSC_SHIM_GROUPING") != "" {
			grouping = g
		}
	}
	address, err := shim.SocketAddress(ctx, opts.Address, grouping, opts.Debug)
	if err != nil {
		return none, err
	}
	params := shim.BootstrapParams{Version: 2, Address: address, Protocol: "ttrpc"}
	socket, err := shim.NewSocket(address)
	if err != nil {
		if !shim.SocketEaddrinuse(err) {
			return none, fmt.Errorf("create new shim socket: %w", err)
		}
		if shim.CanConnect(address) {
			if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
				return none, err
			}
			return answer(params), nil
		}
		if err := shim.RemoveSocket(address); err != nil {
			return none, fmt.Errorf("remove pre-existing socket: %w", err)
		}
		if socket, err = shim.NewSocket(address); err != nil {
			return none, fmt.Errorf("create new shim socket again: %w", err)
		}
	}
	defer func() {
		if err != nil {
			socket.Close()
			_ = shim.RemoveSocket(address)
		}
	}()
	f, err := socket.File()
	if err != nil {
		return none, err
	}
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		return none, err
	}
	args := []string{"-namespace", ns, "-address", opts.Address, "-id", id}
	if opts.Debug {
		args = append(args, "-debug")
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), "GOMAXPROCS=2")
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	if err := os.WriteFile("address", []byte(address), 0o600); err != nil {
		return none, err
	}
	if err := cmd.Start(); err != nil {
		return none, err
	}
	if err := shim.WritePidFile("shim.pid", cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return none, err
	}
	return answer(params), nil
}

// answer serves containerd 1.6, which wants the bare address on standard output;
// 1.7 and later read the JSON that shim.Run prints.
func answer(p shim.BootstrapParams) shim.BootstrapParams {
	if os.Getenv("SHIM_PLAIN_ADDRESS") != "" {
		fmt.Print(p.Address)
		os.Exit(0)
	}
	return p
}

func main() { shim.Run(context.Background(), manager{v1.NewShimManager(name)}) }
