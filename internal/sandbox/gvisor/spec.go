package gvisor

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// agentMount is where the agent stands in every sandbox.
	agentMount = "/opt/caesarion"
	agentName  = "caesarion-agent"

	// sandboxUID is who everything in a sandbox runs as, the agent included.
	sandboxUID = 1000
	sandboxGID = 1000

	// sentryMemory is what gVisor itself may use on top of the sandbox's
	// limit. The agent watches the sandbox's own use and ends the kernel
	// first; this is also its margin, because at the cgroup's limit the host
	// kills the whole sandbox without a word.
	sentryMemory = 512 << 20

	// processMemory is what the host's limit is raised by for each process that
	// the sandbox may have, once it runs (gVisor shows the limit it was started
	// with as the machine's memory). A fork bomb of Pythons takes 11 to 16 MiB a
	// process, faster than the agent gets a turn to stop it: with this, all that
	// RLIMIT_NPROC allows fit, and the agent, not the host, has the last word.
	processMemory = 12 << 20

	// hostTasksPerProcess bounds the sentry's host threads: systrap keeps one
	// stub thread a sandbox thread and the sentry some dozens of its own. The
	// sandbox's own count is bounded by RLIMIT_NPROC before this is reached.
	hostTasksPerProcess = 4
	hostTasksBase       = 512

	// cpuPeriod is the scheduling period of the CPU quota, in microseconds.
	cpuPeriod = 100_000

	// maxOpenFiles is RLIMIT_NOFILE in the sandbox.
	maxOpenFiles = 65536

	// netnsFD is the descriptor on which runsc inherits the network
	// namespace: the first of exec.Cmd.ExtraFiles.
	netnsFD = 3
)

// ociSpec gives the OCI runtime specification of a sandbox. It holds nothing
// that is different from one sandbox of a template to the next but paths: who
// a sandbox is reaches the agent later, by Configure, so that saved sandboxes
// can be woken under another name.
func (d *Driver) ociSpec(dir string, id sandbox.ID, root Rootfs, limits sandbox.Limits, agentArgs []string) *specs.Spec {
	env := slices.Clone(root.Env)
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATH=") }) {
		env = append(env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		env = append(env, "HOME="+cmp.Or(root.Home, agentapi.WorkspaceDir))
	}
	spec := &specs.Spec{
		Version:  specs.Version,
		Hostname: "sandbox",
		Process: &specs.Process{
			User:            specs.User{UID: sandboxUID, GID: sandboxGID},
			Args:            append([]string{agentMount + "/" + agentName}, agentArgs...),
			Env:             env,
			Cwd:             "/",
			NoNewPrivileges: true,
			Capabilities:    &specs.LinuxCapabilities{},
			Rlimits: []specs.POSIXRlimit{
				{Type: "RLIMIT_NOFILE", Soft: maxOpenFiles, Hard: maxOpenFiles},
				{Type: "RLIMIT_CORE"},
			},
		},
		// The root is the EROFS image of the annotation; the folder only has
		// to exist, and its path must be absolute.
		Root: &specs.Root{Path: filepath.Join(dir, "bundle", "root")},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "nosuid", "noexec", "nodev"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "nodev", "noexec", "mode=1777", "size=268435456"}},
			{Destination: agentMount, Type: "bind", Source: d.agentDir, Options: []string{"ro", "rbind", "nosuid", "nodev"}},
		},
		Annotations: map[string]string{
			"dev.gvisor.spec.rootfs.source":  root.EROFS,
			"dev.gvisor.spec.rootfs.type":    "erofs",
			"dev.gvisor.spec.rootfs.overlay": d.overlayMedium(),
		},
		Linux: &specs.Linux{
			CgroupsPath: d.cgroups.path(string(id)),
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.PIDNamespace},
				{Type: specs.MountNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace, Path: "/proc/self/fd/" + strconv.Itoa(netnsFD)},
			},
			Resources: &specs.LinuxResources{},
		},
	}
	if limits.DiskBytes > 0 {
		spec.Annotations["dev.gvisor.spec.rootfs.options"] = "size=" + strconv.FormatInt(limits.DiskBytes, 10)
	}
	if limits.MemoryBytes > 0 {
		memory := limits.MemoryBytes + sentryMemory
		spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
	}
	if limits.CPUs > 0 {
		quota, period := int64(limits.CPUs*cpuPeriod), uint64(cpuPeriod)
		spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
	}
	if limits.Processes > 0 {
		tasks := int64(hostTasksBase + hostTasksPerProcess*limits.Processes)
		spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: tasks}
	}
	return spec
}

func (d *Driver) overlayDir() string { return filepath.Join(d.opts.StateDir, "overlay") }

// overlayMedium puts what a sandbox writes into a file, and not into memory.
// gVisor unlinks that file at once: it is gone with the sentry, whatever
// happens. One folder serves all, because its path may not change between a
// save and a restore.
func (d *Driver) overlayMedium() string { return "dir=" + d.overlayDir() }

func writeBundle(dir string, spec *specs.Spec) error {
	if err := os.MkdirAll(filepath.Join(dir, "bundle", "root"), 0o700); err != nil {
		return err
	}
	b, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "bundle", "config.json"), b, 0o600)
}
