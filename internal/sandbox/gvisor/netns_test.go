package gvisor

import (
	"os"
	"runtime"
	"testing"
)

func TestTheProcessItselfStaysInItsNetworkNamespace(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("network namespaces need root")
	}
	before, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	// Many at once: some goroutine lands on the process's first thread.
	files := make(chan *os.File)
	const n = 50
	for range n {
		go func() {
			f, err := newLoopbackNetNS()
			if err != nil {
				t.Error(err)
			}
			files <- f
		}()
		runtime.Gosched()
	}
	for range n {
		if f := <-files; f != nil {
			_ = f.Close()
		}
	}
	if after, _ := os.Readlink("/proc/self/ns/net"); after != before {
		t.Errorf("the process went from %s to %s", before, after)
	}
}
