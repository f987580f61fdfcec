package main

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// filtered is set in the process that the filter is tried in: there is no way
// to be rid of it.
const filtered = "CAESARION_TEST_FILTERED"

func TestTheFilterRefusesCalls(t *testing.T) {
	if os.Getenv(filtered) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestTheFilterRefusesCalls$", "-test.v") //nolint:gosec // this test
		cmd.Env = append(os.Environ(), filtered+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if fd, _, errno := unix.Syscall(unix.SYS_ADD_KEY, 0, 0, 0); errno == unix.EPERM {
		t.Logf("this machine refuses some by itself (%d)", fd)
	}
	if err := filterCalls(); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 { // on whatever thread
		all.Go(func() {
			for _, number := range refusedCalls {
				if _, _, errno := unix.RawSyscall6(uintptr(number), 0, 0, 0, 0, 0, 0); errno != unix.EPERM {
					t.Errorf("call %d: %v", number, errno)
				}
			}
			for family := range 64 {
				allowed := family == unix.AF_UNIX || family == unix.AF_INET || family == unix.AF_INET6 || family == unix.AF_NETLINK
				fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
				if err == nil {
					_ = unix.Close(fd)
				}
				if allowed == errors.Is(err, unix.EAFNOSUPPORT) {
					t.Errorf("socket of family %d: %v", family, err)
				}
			}
		})
	}
	all.Wait()
	if pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
		t.Error(err)
	} else {
		_, _ = unix.Close(pair[0]), unix.Close(pair[1])
	}
	// What it starts has it, too.
	out, err := exec.CommandContext(t.Context(), "grep", "Seccomp:", "/proc/self/status").Output()
	if err != nil || !strings.Contains(string(out), "2") {
		t.Errorf("%v %s", err, out)
	}
}
