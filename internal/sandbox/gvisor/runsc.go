package gvisor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

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
		maincli.Main() // exits
		os.Exit(0)
	}
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
