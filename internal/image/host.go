package image

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// HostTool is something that Build needs on the host.
type HostTool struct {
	Command string // looked up on PATH; empty when File is meant
	File    string // must exist; empty when Command is meant
	Package string // Debian's and Ubuntu's package
	Purpose string
}

// HostTools lists what Build needs on the host; Import needs nothing.
func HostTools() []HostTool {
	return []HostTool{
		{Command: "mmdebstrap", Package: "mmdebstrap", Purpose: "makes the Debian system"},
		{Command: "gpg", Package: "gpg", Purpose: "lets mmdebstrap choose Debian's signing keys"},
		{
			File:    "/usr/share/keyrings/debian-archive-keyring.gpg",
			Package: "debian-archive-keyring", Purpose: "Debian's signing keys",
		},
		{Command: "python3", Package: "python3", Purpose: "runs pip"},
		{Command: "python3 -m pip", Package: "python3-pip", Purpose: "downloads the wheels"},
	}
}

// CheckHost gives errdefs.ErrUnavailable, with the packages to install, when
// something that Build needs is missing.
func CheckHost(ctx context.Context) error {
	var missing, packages []string
	for _, tool := range HostTools() {
		if tool.present(ctx) {
			continue
		}
		missing = append(missing, tool.Command+tool.File)
		if !slices.Contains(packages, tool.Package) {
			packages = append(packages, tool.Package)
		}
	}
	if missing == nil {
		return nil
	}
	return errdefs.New(errdefs.ErrUnavailable, "image-host-tool-missing",
		"building an image needs %s, which this machine lacks", strings.Join(missing, ", ")).
		WithHint("apt-get install -y %s", strings.Join(packages, " "))
}

func (t HostTool) present(ctx context.Context) bool {
	if t.File != "" {
		_, err := os.Stat(t.File)
		return err == nil
	}
	words := strings.Fields(t.Command)
	if _, err := exec.LookPath(words[0]); err != nil {
		return false
	}
	if len(words) == 1 {
		return true
	}
	// A python3 without pip is the usual case on a fresh Debian.
	cmd := exec.CommandContext(ctx, words[0], append(words[1:], "--version")...)
	return cmd.Run() == nil
}

// stopTime is what mmdebstrap gets to unmount and clean up after itself.
const stopTime = 20 * time.Second

// command makes a host command that is stopped, with all its children, when ctx
// ends: first kindly.
//
// It ends with this process too, however that ends. The kernel takes the thread
// that started it for its parent, so the caller keeps to one thread
// (runtime.LockOSThread) until it has ended.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if os.Geteuid() == 0 {
		// As the first process of a namespace it takes all its children along when
		// it is killed; mmdebstrap alone would wait for them.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
		// Whatever it mounts below our folders is then invisible to us, also when
		// it dies without unmounting: sweep must never descend into a bind mount
		// of the host's /dev.
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = stopTime
	return cmd
}

// hostError says which command failed and what it said last.
func hostError(ctx context.Context, what, logFile string, tail *tailWriter, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, syscall.ENOSPC) || strings.Contains(tail.String(), "No space left on device") {
		return errdefs.New(errdefs.ErrExhausted, "disk-full", "%s: the disk is full", what).WithCause(err)
	}
	return errdefs.New(errdefs.ErrUnavailable, "image-build-failed", "%s failed; it said last:\n%s", what, tail.String()).
		WithHint("the whole log is in %s", logFile).WithCause(err)
}

// tailWriter keeps the last lines of a program's output and passes each one on.
type tailWriter struct {
	line  []byte
	lines []string
	each  func(line string)
}

// tailLines is enough for a Python traceback and pip's or apt's own message.
const tailLines = 20

func (w *tailWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		if b != '\n' && b != '\r' {
			if len(w.line) < 1<<12 {
				w.line = append(w.line, b)
			}
			continue
		}
		if len(w.line) == 0 {
			continue
		}
		line := string(w.line)
		w.line = w.line[:0]
		if w.lines = append(w.lines, line); len(w.lines) > tailLines {
			w.lines = w.lines[1:]
		}
		if w.each != nil {
			w.each(line)
		}
	}
	return len(p), nil
}

func (w *tailWriter) String() string {
	lines := w.lines
	if len(w.line) > 0 {
		lines = append(slices.Clone(lines), string(w.line))
	}
	return strings.Join(lines, "\n")
}
