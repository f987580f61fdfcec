package agent

import (
	"bytes"
	"os"
	"strings"
)

// containerMemory reads what the processes and tmpfs of this container hold and
// nobody could drop. Unlike the sum of resident sets it counts shared pages
// once: workers that were forked from one kernel have most of them in common.
//
// Source: memory.stat of the container's own control group, which runtimes
// mount at /sys/fs/cgroup; cgroup-v2 "anon" and "shmem", v1 "total_rss" and
// "total_shmem".
func containerMemory(root string) (int64, bool) {
	// The machine's own group has no limit, and is not what is meant.
	if _, err := os.Stat(root + "/memory.max"); err == nil {
		return sumOf(root+"/memory.stat", "anon", "shmem")
	}
	limit, err := os.ReadFile(root + "/memory/memory.limit_in_bytes")
	if err != nil || number(bytes.TrimSpace(limit)) >= unlimited {
		return 0, false
	}
	return sumOf(root+"/memory/memory.stat", "total_rss", "total_shmem")
}

// cgroupRoot is where a container finds its own control group.
const cgroupRoot = "/sys/fs/cgroup"

// unlimited is less than what cgroup v1 says for "no limit", which is nearly 2^63.
const unlimited = 1 << 60

// sumOf adds numbers of a file with lines of a name and a number. All names
// have to be there.
func sumOf(file string, names ...string) (sum int64, ok bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		for _, want := range names {
			if name == want {
				sum += int64(number([]byte(value)))
				found++
			}
		}
	}
	return sum, found == len(names)
}
