package image

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"

	"github.com/caesarion/caesarion/images/python"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// builderVersion changes when this package makes something else of the same
// recipe, so that the next build is a real one.
const builderVersion = "2"

// recipeKey identifies what a build would make.
func recipeKey() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, builderVersion, runtime.GOARCH, python.Suite, python.PythonVersion,
		python.SourceDate.Unix(), python.User, python.WorkingDir, python.Env())
	err := fs.WalkDir(python.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := python.Files.ReadFile(name)
		fmt.Fprintln(h, name, len(content))
		h.Write(content)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("image: recipe: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// writeRecipe puts the recipe's files into a folder, for the programs that read
// them.
func writeRecipe(dir string) error {
	return fs.WalkDir(python.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := python.Files.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, name), content, 0o644) // mmdebstrap may read it as another user
	})
}

// debianPackages reads packages.txt.
func debianPackages() ([]string, error) {
	content, err := python.Files.ReadFile("packages.txt")
	if err != nil {
		return nil, fmt.Errorf("image: recipe: %w", err)
	}
	var packages []string
	for line := range strings.Lines(string(content)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			packages = append(packages, line)
		}
	}
	return packages, nil
}

var requirement = regexp.MustCompile(`(?m)^[A-Za-z0-9._-]+==`)

// wheelCount is how many wheels requirements.txt names.
func wheelCount() (int, error) {
	content, err := python.Files.ReadFile("requirements.txt")
	if err != nil {
		return 0, fmt.Errorf("image: recipe: %w", err)
	}
	return len(requirement.FindAll(content, -1)), nil
}

// machine is the architecture's name in wheel tags.
func machine() (string, error) {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64", nil
	case "arm64":
		return "aarch64", nil
	default:
		return "", errdefs.New(errdefs.ErrUnsupported, "image-architecture",
			"images can be built on amd64 and arm64, this machine is %s", runtime.GOARCH)
	}
}
