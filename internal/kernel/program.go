package kernel

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
)

// program is the kernel's Python side. The globs are spelled out because a folder given to
// the directive would be embedded without the names that begin with an underscore.
//
//go:embed python/launch.py python/caesarion_kernel/*.py
var program embed.FS

// programID is a digest of the program: two agents of different builds may share a folder.
var programID = sync.OnceValue(func() string {
	sum := sha256.New()
	err := fs.WalkDir(program, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := program.ReadFile(path)
		fmt.Fprintf(sum, "%s %d\n", path, len(body))
		sum.Write(body)
		return err
	})
	if err != nil {
		panic(err) // the embedded tree is part of this binary
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
})

// Unpack writes the kernel program below dir, unless it is there already, and
// returns the folder to give to Options.ProgramDir. Python keeps its compiled form there
// too if the kernel's user may write to it, so that the next start need not compile.
func Unpack(dir string) (string, error) {
	target := filepath.Join(dir, "caesarion-kernel-"+programID())
	if _, err := os.Stat(filepath.Join(target, "launch.py")); err == nil {
		return target, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the kernel's user reads it
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	tmp, err := os.MkdirTemp(dir, ".caesarion-kernel-*")
	if err != nil {
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	defer os.RemoveAll(tmp)
	files, err := fs.Sub(program, "python")
	if err != nil {
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	if err := os.CopyFS(tmp, files); err != nil {
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // the kernel's user reads it
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	// Another agent may have been first: its files are the same.
	if err := os.Rename(tmp, target); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("kernel: unpack: %w", err)
	}
	return target, nil
}
