package workspace

import (
	"path"
	"slices"
	"strings"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// Linux's own bounds, checked here for a clearer answer.
const (
	maxName = 255
	maxPath = 4095
)

// cleanPath checks a path by the agent's rules: relative ones begin at the
// workspace, and all lie below the folders that are kept.
func cleanPath(name string) (string, error) {
	if name == "" || strings.ContainsRune(name, 0) {
		return "", errdefs.New(errdefs.ErrInvalid, "invalid-path", "a path must not be empty or contain NUL").WithHint("give the path of a file or folder, such as /workspace/data.csv")
	}
	if len(name) > maxPath {
		return "", errdefs.New(errdefs.ErrInvalid, "path-too-long", "a path has at most %d bytes", maxPath).WithHint("use shorter names or fewer folders")
	}
	clean := name
	if !path.IsAbs(name) {
		clean = agentapi.WorkspaceDir + "/" + name
	}
	clean = path.Clean(clean)
	for part := range strings.SplitSeq(clean, "/") {
		if len(part) > maxName {
			return "", errdefs.New(errdefs.ErrInvalid, "name-too-long", "a file name has at most %d bytes", maxName).WithHint("choose a shorter name")
		}
	}
	for _, root := range roots {
		if within(clean, root) {
			return clean, nil
		}
	}
	return "", errdefs.New(errdefs.ErrForbidden, "path-escapes", "%.200q is outside the folders of a session", printable(name)).
		WithHint("use a path below %s or %s", agentapi.WorkspaceDir, agentapi.UploadsDir)
}

// within reports whether a path is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir) && (dir == "/" || p[len(dir)] == '/')
}

func isRoot(p string) bool { return slices.Contains(roots, p) }

// parent gives the folder a path is in.
func parent(p string) string { return path.Dir(p) }

// printable gives a name as valid UTF-8.
func printable(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

func noFile(p string) error {
	return errdefs.New(errdefs.ErrNotFound, "file-not-found", "there is no %.300q in the session", printable(p)).WithHint("list the folder to see what is there")
}

func errIsRoot(p string) error {
	return errdefs.New(errdefs.ErrInvalid, "is-a-root", "%s itself cannot be deleted, moved or replaced", p).WithHint("name what is in it")
}

func errExists(p string) *errdefs.Error {
	return errdefs.New(errdefs.ErrConflict, "file-exists", "%.300q exists already", printable(p))
}
