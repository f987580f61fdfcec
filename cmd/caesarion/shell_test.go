package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

// terminal is a program on a pseudo terminal.
type terminal struct {
	t    *testing.T
	file *os.File

	mu   sync.Mutex
	seen bytes.Buffer // guarded by mu; what the program wrote and nobody waited for
}

// TestMain's command is this test binary under another name.
func startTerminal(t *testing.T, args ...string) (*terminal, *exec.Cmd) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "caesarion")
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), link, args...)
	cmd.Env = append(os.Environ(), "TERM=xterm", "NO_COLOR=1")
	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 100})
	if err != nil {
		t.Fatal(err)
	}
	term := &terminal{t: t, file: file}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 4096)
		for {
			n, err := file.Read(buf)
			term.mu.Lock()
			term.seen.Write(buf[:n])
			term.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = file.Close()
		<-done
	})
	return term, cmd
}

// expect waits for text and takes what came up to it.
func (term *terminal) expect(text string) string {
	term.t.Helper()
	got, ok := term.within(60*time.Second, text)
	if !ok {
		term.t.Fatalf("no %q in %q", text, got)
	}
	return got
}

// tab presses Tab until the completion shows text: a machine that is busy may
// take longer than the shell waits for one.
func (term *terminal) tab(text string) string {
	term.t.Helper()
	for range 6 {
		term.send("\t")
		if got, ok := term.within(10*time.Second, text); ok {
			return got
		}
	}
	return term.expect(text)
}

// within gives what came up to text and takes it, or all that came if text did not.
func (term *terminal) within(d time.Duration, text string) (string, bool) {
	for deadline := time.Now().Add(d); ; time.Sleep(5 * time.Millisecond) {
		late := time.Now().After(deadline)
		term.mu.Lock()
		if i := bytes.Index(term.seen.Bytes(), []byte(text)); i >= 0 {
			got := string(term.seen.Next(i + len(text)))
			term.mu.Unlock()
			return got, true
		}
		got := term.seen.String()
		term.mu.Unlock()
		if late {
			return got, false
		}
	}
}

func (term *terminal) send(keys string) {
	term.t.Helper()
	if _, err := term.file.WriteString(keys); err != nil {
		term.t.Fatal(err)
	}
}

func TestShellOnATerminal(t *testing.T) {
	needReal(t)
	t.Setenv("CAESARION_AGENT", agentBinary(t))
	data := dataDir(t)
	term, cmd := startTerminal(t, "shell", "--data-dir", data)

	term.expect("In [1]: ")
	term.send("x = 41\r")
	term.expect("In [2]: ")
	term.send("x + 1\r")
	term.expect("Out[2]: 42")
	term.expect("In [3]: ")

	// a block ends with an empty line
	term.send("for i in range(2):\r")
	term.expect("...: ")
	term.send("    print('n', i)\r")
	term.expect("...: ")
	term.send("\r")
	term.expect("n 0\r\nn 1\r\n")
	term.expect("In [4]: ")

	// Tab completes what is the only choice, and lists what is not
	term.send("value_one = 1; value_two = 2\r")
	term.expect("In [5]: ")
	term.send("value_o")
	term.tab("value_one")
	term.send("\r")
	term.expect("Out[5]: 1")
	term.expect("In [6]: ")
	term.send("value_")
	if list := term.tab("value_two"); !strings.Contains(list, "value_one") {
		t.Errorf("the list of completions is %q", list)
	}
	// Ctrl-C leaves the line
	term.send("\x03")
	term.expect("^C")
	term.expect("In [6]: ")

	term.send("len?\r")
	term.expect("Return the number of items")
	term.expect("In [6]: ")

	// the code asks, once with echo and once without
	term.send("word = input('word? ')\r")
	term.expect("word? ")
	term.send("apple\r")
	term.expect("In [7]: ")
	term.send("import getpass; secret = getpass.getpass('secret? ')\r")
	term.expect("\r\nsecret? ")
	term.send("hunter2\r")
	if echo := term.expect("In [8]: "); strings.Contains(echo, "hunter2") {
		t.Errorf("the secret shows in %q", echo)
	}
	term.send("word, len(secret)\r")
	term.expect("Out[8]: ('apple', 7)")
	term.expect("In [9]: ")

	// Ctrl-C interrupts what runs, and what asks; the state stays
	term.send("while True: pass\r")
	term.send("\x03")
	term.expect("KeyboardInterrupt")
	term.expect("In [10]: ")
	term.send("input('never? ')\r")
	term.expect("\r\nnever? ")
	term.send("\x03")
	term.expect("KeyboardInterrupt")
	term.expect("In [11]: ")
	// also when it comes with Enter, before the code runs; or leaves a block
	term.send("while True: pass\r\x03")
	term.expect("KeyboardInterrupt")
	term.expect("In [12]: ")
	term.send("for i in range(3):\r\x03")
	term.expect("In [12]: ")
	term.send("x\r")
	term.expect("Out[12]: 41")
	term.expect("In [13]: ")

	// arrow up finds the line before; Ctrl-D leaves
	term.send("\x1b[A\r")
	term.expect("Out[13]: 41")
	term.expect("In [14]: ")
	term.send("\x04")
	if err := cmd.Wait(); err != nil {
		t.Errorf("the shell ended with %v", err)
	}

	history, err := os.ReadFile(filepath.Join(data, "shell_history"))
	if err != nil || !strings.Contains(string(history), "x + 1") || strings.Contains(string(history), "hunter2") || strings.Contains(string(history), "apple") {
		t.Errorf("the history is %q, %v", history, err)
	}
	if left, _ := filepath.Glob(filepath.Join(data, soloDir, "*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// A terminal that is closed takes the sandbox with it.
func TestAClosedTerminalLeavesNothing(t *testing.T) {
	needReal(t)
	t.Setenv("CAESARION_AGENT", agentBinary(t))
	for _, args := range [][]string{{"run", "-c", "import time; print('ready', flush=True); time.sleep(600)"}, {"shell"}} {
		data := dataDir(t)
		term, cmd := startTerminal(t, append(args, "--data-dir", data)...)
		if args[0] == "shell" {
			term.expect("In [1]: ")
			term.send("import time; print('rea' + 'dy'); time.sleep(600)\r")
		}
		term.expect("ready")
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil { // what the system sends then
			t.Fatal(err)
		}
		_ = cmd.Wait() // whatever its status: nobody reads it
		if left, _ := os.ReadDir(filepath.Join(data, soloDir)); len(left) != 0 {
			t.Errorf("%s: %d folders left", args[0], len(left))
		}
	}
}

// dataDir makes a data directory with the real images.
func dataDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(testData(), imagesDir), filepath.Join(dir, imagesDir)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A run that is killed leaves its sandbox; the next one removes it.
func TestTheNextCommandSweepsWhatAKilledOneLeft(t *testing.T) {
	needReal(t)
	t.Setenv("CAESARION_AGENT", agentBinary(t))
	data := dataDir(t)
	term, cmd := startTerminal(t, "run", "--data-dir", data, "-c", "import time; print('ready', flush=True); time.sleep(600)")
	term.expect("ready")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	solo := filepath.Join(data, soloDir)
	if left, _ := os.ReadDir(solo); len(left) != 1 {
		t.Fatalf("%d folders left by the killed command, want 1", len(left))
	}
	var out bytes.Buffer
	if status := run(context.Background(), []string{"--data-dir", data, "run", "-c", "print(1)"}, stdio{strings.NewReader(""), &out, t.Output()}); status != exitOK || out.String() != "1\n" {
		t.Fatalf("status %d, output %q", status, out.String())
	}
	if left, _ := os.ReadDir(solo); len(left) != 0 {
		t.Errorf("%d folders left after the next command", len(left))
	}
}
