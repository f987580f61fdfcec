package gvisor

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// CPUTime gives the CPU time that a sandbox used since it was made or woken, as
// the host counts it.
//
// Source: cpuacct.usage (v1, nanoseconds), cpu.stat (v2, field usage_usec).
func (d *Driver) CPUTime(_ context.Context, id sandbox.ID) (time.Duration, error) {
	if _, err := d.lookup(id); err != nil {
		return 0, err
	}
	if used, ok := d.cgroups.cpuTime(string(id)); ok {
		return used, nil
	}
	return 0, errdefs.New(errdefs.ErrUnsupported, "cpu-time-unknown", "This host does not count the CPU time of sandboxes.").
		WithHint("caesarion doctor says what of cgroups is missing.")
}

func (cg cgroups) cpuTime(id string) (time.Duration, bool) {
	switch cg.version {
	case 1:
		text, err := os.ReadFile(filepath.Join(cgroupRoot, "cpuacct", cg.parent, id, "cpuacct.usage"))
		n, bad := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
		return time.Duration(n), err == nil && bad == nil
	case 2:
		text, _ := os.ReadFile(filepath.Join(cgroupRoot, cg.parent, id, "cpu.stat")) // absent: no such field
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
				n, err := strconv.ParseInt(f[1], 10, 64)
				return time.Duration(n) * time.Microsecond, err == nil
			}
		}
	}
	return 0, false
}
