package gvisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Level says how a check of the host came out.
type Level string

// The levels of a check.
const (
	LevelOK   Level = "ok"
	LevelWarn Level = "warn" // works, but something is not enforced
	LevelFail Level = "fail" // sandboxes can't run
)

// Check is one line of what this host offers.
type Check struct {
	Name   string `json:"name"`   // what was looked at, e.g. "memory limit"
	Level  Level  `json:"level"`  //
	Detail string `json:"detail"` // what was found, and by what a limit is enforced
	Fix    string `json:"fix,omitempty"`
}

// minKernel is the oldest Linux on which systrap works (seccomp user
// notification and memfd sealing in the forms it uses).
var minKernel = [2]int{4, 15}

// needHost refuses hosts on which no sandbox could start, quickly, with the
// first thing to mend.
func needHost() error {
	for _, c := range []Check{checkRoot(), checkKernel()} {
		if c.Level == LevelFail {
			return errdefs.New(errdefs.ErrUnsupported, "host-unsupported", "%s: %s", c.Name, c.Detail).WithHint("%s", c.Fix)
		}
	}
	return nil
}

func checkRoot() Check {
	if os.Geteuid() != 0 {
		return Check{"privileges", LevelFail, "not root", "run as root: gVisor needs to make namespaces and cgroups"}
	}
	if unix.Unshare(0) != nil {
		return Check{"privileges", LevelFail, "unshare is refused", "a seccomp profile forbids namespaces: run outside of this container, or with it unconfined"}
	}
	return Check{"privileges", LevelOK, "root", ""}
}

func checkKernel() Check {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Check{"kernel", LevelFail, err.Error(), ""}
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	_, _ = fmt.Sscanf(release, "%d.%d", &major, &minor)
	detail := "Linux " + release + " " + runtime.GOARCH
	if major < minKernel[0] || major == minKernel[0] && minor < minKernel[1] {
		return Check{"kernel", LevelFail, detail, fmt.Sprintf("gVisor needs Linux %d.%d or newer", minKernel[0], minKernel[1])}
	}
	return Check{"kernel", LevelOK, detail, ""}
}

// Doctor looks at everything a sandbox needs of this host and at which limits
// it can enforce by what. It starts and ends one real gVisor sandbox.
func Doctor(ctx context.Context) []Check {
	checks := []Check{checkRoot(), checkKernel()}
	checks = append(checks, checkGVisor(ctx), checkNetwork())
	cg := detectCgroups("doctor")
	switch cg.version {
	case 0:
		checks = append(checks, Check{"cgroups", LevelWarn, "none usable", "mount cgroup2 on " + cgroupRoot + " (or its v1 controllers) writable"})
	default:
		checks = append(checks, Check{"cgroups", LevelOK, fmt.Sprintf("version %d on %s", cg.version, cgroupRoot), ""})
	}
	capabilities := cg.capabilities()
	for _, limit := range []string{"memory_bytes", "cpus", "processes", "disk_bytes", "network"} {
		name := strings.NewReplacer("_bytes", "", "cpus", "cpu").Replace(limit) + " limit"
		if how := capabilities.Enforces[limit]; how != "" {
			checks = append(checks, Check{name, LevelOK, "enforced by " + how, ""})
		} else {
			checks = append(checks, Check{name, LevelWarn, capabilities.Missing[limit], "give the host the cgroup controller it lacks"})
		}
	}
	return checks
}

// checkGVisor runs /bin/true of the host in a throw-away sandbox.
func checkGVisor(ctx context.Context) Check {
	const name = "gVisor"
	if os.Geteuid() != 0 {
		return Check{name, LevelFail, "not tried without root", "run as root"}
	}
	root, err := os.MkdirTemp("", "caesarion-doctor-")
	if err != nil {
		return Check{name, LevelFail, err.Error(), "make the temporary directory writable"}
	}
	defer func() { _ = removeRunDir(root) }()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	program, err := exec.LookPath("true")
	if err != nil {
		return Check{name, LevelFail, "no `true` on this host", ""}
	}
	words := &tail{max: 4 << 10}
	start := time.Now()
	cmd := exec.CommandContext(ctx, self, "--root="+root, "--platform=systrap", "--network=none", "--ignore-cgroups", "--host-settings=ignore", "do", program)
	cmd.Args[0] = "runsc"
	cmd.Stderr = words
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer within 30 s")
		}
		return Check{name, LevelFail, fmt.Sprintf("a trial sandbox failed: %v: %s", err, words), "the host may forbid user namespaces or ptrace (seccomp, AppArmor, Yama); see the message"}
	}
	return Check{name, LevelOK, fmt.Sprintf("a trial sandbox ran in %d ms (platform systrap)", time.Since(start).Milliseconds()), ""}
}

func checkNetwork() Check {
	ns, err := newLoopbackNetNS()
	if err != nil {
		return Check{"network namespace", LevelFail, err.Error(), "run as root outside of an unprivileged container"}
	}
	_ = ns.Close()
	return Check{"network namespace", LevelOK, "can be made", ""}
}

// Capabilities says which limits this host enforces and by what.
func (d *Driver) Capabilities() sandbox.Capabilities { return d.cgroups.capabilities() }

func (cg cgroups) capabilities() sandbox.Capabilities {
	c := sandbox.Capabilities{
		Driver: "gvisor",
		Can:    []string{sandbox.CanPause, sandbox.CanSnapshot, sandbox.CanFork},
		Enforces: map[string]string{
			"disk_bytes": "the size of gVisor's overlay",
			"processes":  "RLIMIT_NPROC in gVisor and the agent's watch",
			"network":    "gVisor's own network stack, loopback only",
		},
		Missing: map[string]string{},
	}
	by := func(controller string) string {
		if cg.controllers[controller] == "" {
			return ""
		}
		return fmt.Sprintf("cgroup v%d", cg.version)
	}
	if how := by("memory"); how != "" {
		c.Enforces["memory_bytes"] = "the agent's watch, RLIMIT_DATA and " + how
	} else {
		c.Missing["memory_bytes"] = "only the agent inside the sandbox watches memory: no cgroup memory controller"
	}
	if how := by("cpu"); how != "" {
		c.Enforces["cpus"] = how + " quota"
	} else {
		c.Missing["cpus"] = "not enforced: no cgroup cpu controller"
	}
	if how := by("pids"); how != "" {
		c.Enforces["processes"] += " and " + how
	}
	return c
}
