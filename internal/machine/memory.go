// Package machine reads what the host that we run on has and could give away.
package machine

import (
	"bufio"
	"os"
	"strconv"
	"strings"
)

// Memory gives the bytes that the machine has and those it could still give
// away without swapping; 0 for what is not known.
//
// Source: /proc/meminfo, MemTotal and MemAvailable.
func Memory() (total, available int64) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan() && (total == 0 || available == 0); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		switch {
		case err != nil:
		case name == "MemTotal":
			total = kib << 10
		case name == "MemAvailable":
			available = kib << 10
		}
	}
	return total, available
}
