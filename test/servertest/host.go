package servertest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

// Memory is the server's own memory, without its sandboxes, in bytes.
type Memory struct {
	RSS  int64 // resident now
	Peak int64 // most that was resident since ResetPeak, or since the start
}

// Memory reads the server's memory.
//
// Source: /proc/<pid>/status, proc_pid_status(5).
func (s *Server) Memory(tb testing.TB) Memory {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.PID))
	if err != nil {
		tb.Fatalf("the server is gone: %v", err)
	}
	var m Memory
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		var to *int64
		switch {
		case len(fields) < 2:
			continue
		case fields[0] == "VmRSS:":
			to = &m.RSS
		case fields[0] == "VmHWM:":
			to = &m.Peak
		default:
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			tb.Fatal(err)
		}
		*to = kib << 10
	}
	return m
}

// ResetPeak lets the peak begin anew and reports whether this host can.
//
// Source: /proc/<pid>/clear_refs, proc(5); needs CONFIG_PROC_PAGE_MONITOR.
func (s *Server) ResetPeak() bool {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.PID), []byte("5"), 0) == nil
}

// WantNothingLeft checks, after the end of the server and of all sandboxes of
// a data directory, that nothing on this host is theirs any more. Sandboxes of
// other installations may run meanwhile.
//
// A network namespace lives by the processes in it, by mounts and by open
// files of the server, so that without these there is none.
func WantNothingLeft(tb testing.TB, dataDir string) {
	tb.Helper()
	for _, item := range left(tb, dataDir) {
		tb.Errorf("left behind: %s", item)
	}
}

// WaitNothingLeft is WantNothingLeft for what ends by itself.
func WaitNothingLeft(tb testing.TB, dataDir string) {
	tb.Helper()
	for end := time.Now().Add(Patience); len(left(tb, dataDir)) > 0 && time.Now().Before(end); {
		time.Sleep(50 * time.Millisecond)
	}
	WantNothingLeft(tb, dataDir)
}

func left(tb testing.TB, dataDir string) []string {
	tb.Helper()
	var list []string
	runDir := gvisor.RunDir(filepath.Join(dataDir, "state"))
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		text, _ := os.ReadFile(file)
		if cmdline := strings.ReplaceAll(string(text), "\x00", " "); strings.Contains(cmdline, runDir) || strings.Contains(cmdline, dataDir) {
			list = append(list, "process "+file+" "+cmdline)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if place := strings.Fields(line)[4]; strings.HasPrefix(place, runDir) || strings.HasPrefix(place, dataDir+"/") {
			list = append(list, "mount "+line)
		}
	}
	name := "caesarion-" + filepath.Base(runDir)
	for _, pattern := range []string{"/sys/fs/cgroup/*/" + name, "/sys/fs/cgroup/" + name, runDir} {
		found, _ := filepath.Glob(pattern)
		list = append(list, found...)
	}
	_ = filepath.WalkDir(dataDir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.Contains(filepath.Base(path), "sbx_") {
			list = append(list, path)
		}
		return nil
	})
	return list
}
