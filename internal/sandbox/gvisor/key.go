package gvisor

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"sync"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// StateKey says what must be the same where a sandbox of spec is saved and
// where it is restored. See sandbox.Snapshotter.
func (d *Driver) StateKey(ctx context.Context, spec sandbox.Spec) (string, error) {
	root, err := d.opts.Rootfs(ctx, spec.Image)
	if err != nil {
		return "", err
	}
	return d.key(root, d.agentArgs(spec), spec.Limits.DiskBytes), nil
}

// key hashes what a saved state depends on: this build of gVisor and of us,
// the processor, the image, and the OCI spec but for what may change: paths of
// the sandbox's own folders, and limits that cgroups enforce.
func (d *Driver) key(root Rootfs, args []string, diskBytes int64) string {
	spec := d.ociSpec("", "", root, sandbox.Limits{DiskBytes: diskBytes}, args)
	spec.Linux.CgroupsPath = ""
	h := sha256.New()
	_ = json.NewEncoder(h).Encode([]any{thisHost(), root.Digest, spec}) // neither fails
	return hex.EncodeToString(h.Sum(nil))
}

// thisHost is the build and the processor, as a hash.
var thisHost = sync.OnceValue(func() string {
	h := sha256.New()
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == "gvisor.dev/gvisor" {
				fmt.Fprintln(h, m.Version, m.Sum)
			}
		}
	}
	if f, err := os.Open(self); err == nil {
		_, _ = io.Copy(h, f)
		_ = f.Close()
	}
	fmt.Fprintln(h, processor())
	return hex.EncodeToString(h.Sum(nil))
})

// processor gives the model and the features of this machine's first
// processor. gVisor refuses a state that was saved with features which are
// missing here; with others added, programs would go on without them, but
// nothing promises that libraries which looked once stay right.
//
// Source: /proc/cpuinfo.
func processor() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	var out strings.Builder
	for lines := bufio.NewScanner(f); lines.Scan() && lines.Text() != ""; { // the first processor ends at the empty line
		name, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(name) {
		case "vendor_id", "cpu family", "model", "model name", "flags", "CPU implementer", "CPU architecture", "CPU part", "Features":
			out.WriteString(strings.TrimSpace(value) + "\n")
		}
	}
	return out.String()
}
