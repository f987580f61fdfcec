// Package python is the recipe of the default sandbox image: Debian 13 with its
// Python 3.13 and a locked list of wheels. internal/image builds it.
//
// packages.txt lists Debian's packages, requirements.txt the wheels with their
// hashes (locked from requirements.in, see README.md), setup.sh turns both into
// the image, and selftest.py proves it before it is kept.
package python

import (
	"embed"
	"time"
)

// Files are the recipe's files, by their plain names.
//
//go:embed packages.txt requirements.txt setup.sh fontfallback.py selftest.py
var Files embed.FS

const (
	// Name is the image's name in the store, and that of the default template.
	Name = "python"
	// Suite is the Debian release.
	Suite = "trixie"
	// PythonVersion is that release's Python; wheels are chosen for it.
	PythonVersion = "3.13"
	// GlibcMinor is the minor version of that release's glibc (2.x): the newest
	// manylinux tag whose wheels run on it.
	GlibcMinor = 41
)

// SourceDate is the youngest time that a file of the image carries. It is fixed,
// so that two builds from the same packages have one digest; raise it when the
// recipe changes.
var SourceDate = time.Date(2026, time.November, 23, 0, 0, 0, 0, time.UTC)

// Env is the environment of processes in the image. Nothing in it belongs to the
// kernel, which sets its own (MPLBACKEND).
func Env() []string {
	return []string{
		"PATH=/home/user/.local/bin:/usr/local/bin:/usr/bin:/bin",
		"LANG=C.UTF-8",
		"HOME=/home/user",
		"USER=user",
		"SHELL=/bin/bash",
	}
}

const (
	// User is the image's unprivileged user, uid and gid 1000.
	User = "user"
	// WorkingDir is where executions start; the user owns it.
	WorkingDir = "/workspace"
)
