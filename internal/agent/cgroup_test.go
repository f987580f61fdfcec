package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryOfAContainer(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
		ok    bool
	}{
		{"cgroup v2", map[string]string{"memory.max": "1073741824\n", "memory.stat": "anon 4096\nfile 99999\nkernel 5\nshmem 8192\nanon_thp 7\n"}, 12288, true},
		{"the machine's own group of v2", map[string]string{"memory.stat": "anon 4096\nshmem 8192\n"}, 0, false},
		{"cgroup v1", map[string]string{"memory/memory.limit_in_bytes": "1073741824\n", "memory/memory.stat": "cache 1\nrss 2\nshmem 3\ntotal_cache 100\ntotal_rss 4096\ntotal_shmem 8192\n"}, 12288, true},
		{"a group of v1 without a limit", map[string]string{"memory/memory.limit_in_bytes": "9223372036854771712\n", "memory/memory.stat": "total_rss 4096\ntotal_shmem 8192\n"}, 0, false},
		{"a kernel that says less", map[string]string{"memory.max": "max\n", "memory.stat": "anon 4096\n"}, 4096, false},
		{"nothing", nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range c.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, ok := containerMemory(root)
			if got != c.want || ok != c.ok {
				t.Errorf("got %d, %v; want %d, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
