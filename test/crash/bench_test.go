package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/caesarion/caesarion/test/servertest"
)

func TestABenchThatIsKilledLeavesNothingRunning(t *testing.T) {
	data := servertest.DataDir(t)
	bench := exec.Command(filepath.Join(servertest.Binaries(t), "caesarion"), "--data-dir", data, "bench", "--scenario", "create-cold") //nolint:noctx // it is killed below
	bench.Env = append(os.Environ(), "CAESARION_CONFIG="+os.DevNull, "CAESARION_SERVER=", "CAESARION_TOKEN=")
	if err := bench.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- bench.Wait() }()
	t.Cleanup(func() { _ = bench.Process.Kill() })

	var dir string
	for end := time.Now().Add(servertest.Patience); dir == ""; time.Sleep(10 * time.Millisecond) {
		if found, _ := filepath.Glob(filepath.Join(data, "solo", "*", "state", "sandboxes", "sbx_*")); len(found) > 0 {
			dir = filepath.Join(found[0], "../../..")
		}
		select {
		case err := <-done:
			t.Fatalf("the command ended by itself: %v", err)
		default:
		}
		if time.Now().After(end) {
			t.Fatal("its server made no sandbox")
		}
	}
	_ = bench.Process.Kill()
	<-done
	servertest.WaitNothingLeft(t, dir)
}
