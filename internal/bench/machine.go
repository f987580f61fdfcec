package bench

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
)

// Machine is what the figures were measured on.
type Machine struct {
	CPU         string  `json:"cpu"`
	Cores       int     `json:"cores"`
	MemoryBytes int64   `json:"memory_bytes"`
	OS          string  `json:"os"`
	Kernel      string  `json:"kernel"`
	Build       string  `json:"build"`    // of the program that measures
	Platform    string  `json:"platform"` // what isolates the sandboxes
	Load        float64 `json:"load"`     // runnable processes, mean of the minute before the run
}

// ThisMachine describes the machine, from /proc.
func ThisMachine() Machine {
	m := Machine{CPU: "unknown", Cores: runtime.NumCPU(), OS: runtime.GOOS}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	m.MemoryBytes, _ = field("/proc/meminfo", "MemTotal:")
	if b, err := os.ReadFile("/etc/os-release"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
				m.OS = strings.Trim(strings.TrimSpace(name), `"`)
			}
		}
	}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = "Linux " + string(bytes.TrimSpace(b)) + " " + runtime.GOARCH
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		_, _ = fmt.Sscan(string(b), &m.Load)
	}
	return m
}

// String gives the description in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %.1f GiB, %s, %s; build %s; %s; load %.2f before the run",
		m.CPU, m.Cores, float64(m.MemoryBytes)/(1<<30), m.OS, m.Kernel, m.Build, m.Platform, m.Load)
}
