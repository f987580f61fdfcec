// Package helmtest runs helm in tests: the real binary, built in the module test/cluster/kube.
package helmtest

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"
)

// Root is the repository's folder.
var Root = sync.OnceValue(func() string {
	_, file, _, _ := runtime.Caller(0)
	if filepath.IsAbs(file) {
		return filepath.Join(filepath.Dir(file), "..", "..", "..")
	}
	// Built with -trimpath: tests run in their package's folder.
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "test", "cluster", "kube", "go.mod")); missing == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			break
		}
		dir = filepath.Dir(dir)
	}
	panic("helmtest: not inside the repository")
})

// Chart is the chart's folder.
func Chart() string { return filepath.Join(Root(), "deploy", "helm", "caesarion") }

// Binary gives helm, built if it is not there; the first time that takes minutes.
var Binary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(Root(), ".cache", "helm", "helm")
	cmd := exec.CommandContext(context.Background(), "make", "--silent", ".cache/helm/helm")
	cmd.Dir = Root()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make .cache/helm/helm: %w\n%s", err, out)
	}
	return path, nil
})

// lookAtChart lets go test know that the result depends on the chart, which only
// another process reads.
var lookAtChart = sync.OnceFunc(func() {
	_ = filepath.WalkDir(Chart(), func(string, fs.DirEntry, error) error { return nil })
})

// Run runs helm and gives what it wrote to either output. Its own files are in
// a folder of the test.
func Run(tb testing.TB, args ...string) (stdout, stderr string, err error) {
	tb.Helper()
	binary, err := Binary()
	if err != nil {
		tb.Fatal(err)
	}
	lookAtChart()
	home := tb.TempDir()
	// Not the test's context: that has ended when things are cleaned up.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err = cmd.Run()
	return out.String(), errOut.String(), err
}

// Must runs helm and fails the test if it fails.
func Must(tb testing.TB, args ...string) string {
	tb.Helper()
	out, errOut, err := Run(tb, args...)
	if err != nil {
		tb.Fatalf("helm %v: %v\n%s%s", args, err, out, errOut)
	}
	return out
}
