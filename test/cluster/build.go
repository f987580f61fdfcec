package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
)

// part is a binary that is built in a module of its own, so that what it needs
// stays out of the product's. What is built from Kubernetes' packages shares one
// module, so that they are compiled once.
type part struct {
	name    string
	module  string // folder below test/cluster
	pkg     string
	minutes string // about how long it takes with empty caches, on two processors
	tier    tier   // empty: both
	after   func(d dirs, dir string) error
}

var parts = []part{
	{name: "kube", module: "kube", pkg: ".", minutes: "six minutes"},
	{name: "dns", module: "kube", pkg: "./dns", minutes: "ten seconds", tier: tierNode},
	{name: "kwok", module: "kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok", minutes: "two minutes", tier: tierFake, after: writeStages},
	{name: "containerd-shim-runsc-v1", module: "shim", pkg: ".", minutes: "a minute", tier: tierNode},
}

// compile builds all binaries that a cluster needs. It takes its time, so that
// nobody waits for it who could have a cluster meanwhile.
func compile(d dirs, tiers ...tier) error {
	runtime.LockOSThread() // the kernel ends children with the thread that started them
	defer runtime.UnlockOSThread()
	if err := errors.Join(os.MkdirAll(d.bin(""), 0o755), os.MkdirAll(d.build(""), 0o755)); err != nil {
		return err
	}
	lock, err := d.lock("build.lock", "waiting for another build")
	if err != nil {
		return err
	}
	defer lock.Close()
	for _, p := range parts {
		if p.tier != "" && !slices.Contains(tiers, p.tier) {
			continue
		}
		if err := p.build(d); err != nil {
			return err
		}
	}
	if err := link("kube", d.bin("kubectl")); err != nil {
		return err
	}
	if slices.Contains(tiers, tierNode) {
		if err := compileProduct(d); err != nil {
			return err
		}
	}
	return writeInputs(d)
}

// writeInputs writes a file that changes when anything does that a cluster is
// made of. Tests look at it (test/kubetest), so that go test runs them again then.
func writeInputs(d dirs) error {
	h := sha256.New()
	stamps, err := filepath.Glob(d.bin("*.stamp"))
	if err != nil {
		return err
	}
	files := append(stamps, "/proc/self/exe")
	for _, name := range products {
		files = append(files, d.build(name))
	}
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the tier does without
		}
		if err != nil {
			return err
		}
		fmt.Fprintln(h, name)
		_, err = io.Copy(h, f)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	if python, err := sandboxImage(); err == nil {
		fmt.Fprintln(h, python.Digest)
	}
	sum := fmt.Sprintf("%x\n", h.Sum(nil))
	if old, err := os.ReadFile(d.build("inputs")); err == nil && string(old) == sum {
		return nil
	}
	return os.WriteFile(d.build("inputs"), []byte(sum), 0o644)
}

// install puts what compile has built of the product where clusters use it, and
// makes the images. No cluster runs.
func install(d dirs) error {
	if err := os.MkdirAll(d.slotBin(""), 0o755); err != nil {
		return err
	}
	for _, name := range products {
		tmp := d.slotBin(name + ".new")
		if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := errors.Join(os.Link(d.build(name), tmp), os.Rename(tmp, d.slotBin(name))); err != nil {
			return err
		}
		_ = os.Remove(tmp) // where both were the same file the rename does nothing
	}
	// The product is runsc too, when it is called so.
	if err := link("caesarion", d.slotBin("runsc")); err != nil {
		return err
	}
	return buildImages(d)
}

// build builds the part unless its stamp says that nothing has changed.
func (p part) build(d dirs) error {
	dir := filepath.Join(d.repo, "test", "cluster", p.module)
	stamp, err := stampOf(dir)
	if err != nil {
		return err
	}
	stampFile := d.bin(p.name + ".stamp")
	if old, err := os.ReadFile(stampFile); err == nil && string(old) == stamp {
		return nil
	}
	fmt.Fprintf(os.Stderr, "cluster: building %s; the first time takes about %s\n", p.name, p.minutes)
	if err := os.RemoveAll(stampFile); err != nil {
		return err
	}
	flags, err := versionFlags(dir)
	if err != nil {
		return err
	}
	if err := goBuild(dir, p.pkg, "-s -w "+flags, d.bin(p.name)); err != nil {
		return err
	}
	if p.after != nil {
		if err := p.after(d, dir); err != nil {
			return err
		}
	}
	return os.WriteFile(stampFile, []byte(stamp), 0o644)
}

// stampOf is a hash of a module's sources and of the compiler's version.
func stampOf(dir string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".sh" {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		fmt.Fprintln(h, "\n", path[len(dir):])
		_, err = io.Copy(h, f)
		return err
	})
	return fmt.Sprintf("%x", h.Sum(nil)), err
}

var kubeVersion = regexp.MustCompile(`k8s\.io/kubernetes (v1\.(\d+)\.\d+)`)

// versionFlags let the components of Kubernetes say their version.
func versionFlags(dir string) (string, error) {
	mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		return "", err
	}
	m := kubeVersion.FindSubmatch(mod)
	if m == nil {
		return "", nil
	}
	var flags []string
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		for _, kv := range []string{"gitVersion=" + string(m[1]), "gitMajor=1", "gitMinor=" + string(m[2]), "gitTreeState=clean", "gitCommit=test", "buildDate=2026-01-01T00:00:00Z"} {
			flags = append(flags, "-X "+pkg+"."+kv)
		}
	}
	return strings.Join(flags, " "), nil
}

// products are built anew for each cluster; go build knows whether they changed.
var products = []string{"caesarion", "caesarion-agent", "probe"}

// compileProduct builds the server and the agent as they are now. Where somebody
// works on code that does not compile at the moment, the last build serves.
func compileProduct(d dirs) error {
	for _, name := range products {
		pkg := "./cmd/" + name
		if name == "probe" {
			pkg = "./test/cluster/probe"
		}
		err := goBuild(d.repo, pkg, "-s -w -X main.version=v0.0.0-test", d.build(name))
		if err == nil {
			continue
		}
		info, old := os.Stat(d.build(name))
		if old != nil || os.Getenv("CI") == "true" {
			return err
		}
		fmt.Fprintf(os.Stderr, "cluster: %v\ncluster: taking %s as it was built at %s\n", err, name, info.ModTime().Format(time.TimeOnly))
	}
	return nil
}

// goBuild replaces out only with a complete binary: a running cluster may use it.
func goBuild(dir, pkg, ldflags, out string) error {
	cmd := exec.Command("nice", "-n", "10", "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", ldflags, "-o", out, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nobody waits for it any more
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, said)
	}
	return nil
}

// writeStages gives kwok the life of a node and of a pod: without them it does
// nothing.
func writeStages(d dirs, dir string) error {
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/kwok")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("kwok's files: %w", err)
	}
	var all strings.Builder
	for _, stages := range []string{"node/fast", "node/heartbeat-with-lease", "pod/fast"} {
		files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "kustomize", "stage", stages, "*.yaml"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if filepath.Base(file) == "kustomization.yaml" {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			all.WriteString("---\n")
			all.Write(text)
			all.WriteString("\n")
		}
	}
	if all.Len() == 0 {
		return errors.New("kwok's module has no stages where they were")
	}
	return os.WriteFile(d.bin("kwok.yaml"), []byte(all.String()), 0o644)
}

func link(target, name string) error {
	if old, err := os.Readlink(name); err == nil && old == target {
		return nil
	}
	_ = os.Remove(name)
	return os.Symlink(target, name)
}
