package gvisor

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"gvisor.dev/gvisor/runsc/cli/maincli"
)

// self is this executable. gVisor re-executes the same path for its sentry
// and gofer processes.
const self = "/proc/self/exe"

// MaybeRunsc turns this process into gVisor's runsc when it was started under
// that name, and then never returns. Call it first in main, before flags are
// parsed: the processes of every sandbox pass through here.
func MaybeRunsc() {
	// One helper, which unmounts the sentry's /proc, goes by the path itself.
	if strings.HasPrefix(filepath.Base(os.Args[0]), "runsc") || os.Args[0] == self {
		tune(filepath.Base(os.Args[0]))
		maincli.Main() // exits
		os.Exit(0)
	}
}

const (
	// startHeap is what the sentry's heap may grow to in its first seconds
	// before the collector runs.
	startHeap = 96 << 20
	// settled is when a start or a restore is over on a slow machine too.
	settled = 4 * time.Second
	// settledGC keeps the heap near what is live from then on.
	settledGC = 40
)

// tune sets the collector of the processes that stay as long as their sandbox.
// They are told so here because gVisor gives them no environment.
//
// Measured with a kernel that has the data libraries: a sentry that does not collect
// costs 6 to 11 % less processor time per restore, execute and delete in two runs,
// which is hardly more than their noise (see docs/live-path-notes.md). One collection
// afterwards leaves 4 MB less in the sentry (22 to 18) and 1.6 MB less
// in the gofer (5.8 to 4.2). GOMAXPROCS is not for us to set: gVisor's loader
// sets it to the sandbox's processors.
func tune(role string) {
	if role != "runsc-sandbox" && role != "runsc-gofer" {
		return
	}
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(startHeap)
	time.AfterFunc(settled, func() {
		debug.SetGCPercent(settledGC)
		debug.SetMemoryLimit(math.MaxInt64)
		debug.FreeOSMemory()
	})
}

// runscCommand prepares a runsc command. The caller sets its standard files:
// those of "run" become the agent's.
func (d *Driver) runscCommand(ctx context.Context, flags []string, args ...string) *exec.Cmd {
	all := append([]string{
		"--root=" + d.opts.RunDir,
		"--log=" + filepath.Join(d.opts.RunDir, "runsc.log"),
		"--log-format=text",
		// KVM hangs on some virtual machines and is absent on most; systrap
		// runs everywhere.
		"--platform=systrap",
		// A network stack of the sandbox's own, in which PortForward can dial.
		"--network=sandbox",
		"--host-settings=ignore",
		// The sentry then needs no file system calls of its own: the root is
		// an image it has open, the agent comes through the gofer.
		"--directfs=false",
		"--ignore-cgroups=" + fmt.Sprint(d.cgroups.version == 0),
	}, flags...)
	cmd := exec.CommandContext(ctx, self, append(all, args...)...)
	cmd.Args[0] = "runsc"
	// Nothing of the server's environment goes to runsc: it may hold secrets.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=/tmp"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

// tail keeps the last bytes written to it: enough of a failing command's
// words for an error, however much it says.
type tail struct {
	max int
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

func (t *tail) String() string { return string(bytes.TrimSpace(t.buf)) }
