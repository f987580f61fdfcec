package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// stopsSlowly makes this binary a process that takes its time to stop.
const stopsSlowly = "CAESARION_TEST_STOPS_SLOWLY"

func TestOnlyCtrlCCutsTheStopShort(t *testing.T) {
	if os.Getenv(stopsSlowly) != "" {
		ctx, stop := untilSignal(context.Background())
		fmt.Println("ready")
		<-ctx.Done()
		fmt.Println("stops")
		_, _ = os.Stdin.Read(make([]byte, 1)) // until the test lets it
		stop()
		fmt.Println("stopped")
		return
	}
	for _, c := range []struct {
		name   string
		second syscall.Signal
		cut    bool
	}{
		{"SIGTERM again", syscall.SIGTERM, false},
		{"Ctrl-C", syscall.SIGINT, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestOnlyCtrlCCutsTheStopShort$")
			cmd.Env = append(os.Environ(), stopsSlowly+"=1")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for _, step := range []struct {
				line   string
				signal syscall.Signal
			}{{"ready", syscall.SIGTERM}, {"stops", c.second}} {
				if !lines.Scan() || lines.Text() != step.line {
					t.Fatalf("it says %q, want %q", lines.Text(), step.line)
				}
				if err := cmd.Process.Signal(step.signal); err != nil {
					t.Fatal(err)
				}
			}
			if !c.cut {
				// The signal is there before it: a process gets what is pending
				// before it reads on.
				_ = in.Close()
			}
			stopped := lines.Scan() && lines.Text() == "stopped"
			if err := cmd.Wait(); stopped == c.cut || cmd.ProcessState.ExitCode() == exitInterrupted != c.cut {
				t.Errorf("stopped in order: %v, %v", stopped, err)
			}
		})
	}
}
