package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// nobody is Debian's user without rights.
const nobody = 65534

// A host that can't run gVisor, here because of who asks, says what is missing
// and what to do, leaves nothing, and has an exit status of its own.
func TestAHostWithoutWhatGVisorNeedsSaysSo(t *testing.T) {
	needReal(t)
	dir, err := os.MkdirTemp("", "caesarion-nobody-") //nolint:usetesting // t.TempDir's parents are root's alone
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "caesarion")
	for _, step := range []error{
		os.Chmod(dir, 0o755), copyFile(program, self), copyFile(filepath.Join(dir, agentName), "/bin/true"),
		os.Mkdir(filepath.Join(dir, "home"), 0o700), os.Chown(filepath.Join(dir, "home"), nobody, nobody),
	} {
		if step != nil {
			t.Fatal(step)
		}
	}
	call := func(args ...string) (int, string) {
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Env = []string{"HOME=" + filepath.Join(dir, "home"), "PATH=/usr/bin:/bin"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, _ := cmd.CombinedOutput() // the status says more
		return cmd.ProcessState.ExitCode(), string(out)
	}
	for _, args := range [][]string{{"run", "-c", "print(1)"}, {"serve", "--listen", "127.0.0.1:0"}, {"sandbox", "ls"}} {
		status, out := call(args...)
		if status != exitUnavailable || !strings.Contains(out, "not root") || !strings.Contains(out, "what to do: run as root") {
			t.Errorf("%s: status %d, %q", strings.Join(args, " "), status, out)
		}
	}
	if status, out := call("doctor"); status != exitFailed || !strings.Contains(out, "fail  privileges") {
		t.Errorf("doctor: status %d, %q", status, out)
	}
	data := filepath.Join(dir, "home", ".local", "share", "caesarion")
	if left, _ := os.ReadDir(filepath.Join(data, soloDir)); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if _, err := os.Stat(filepath.Join(data, serverFile)); err == nil {
		t.Error("the server that did not start left its record")
	}
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
