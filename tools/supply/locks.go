package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// locks sees that every list which npm or pip install from has a hash for all it
// names, so that what was reviewed is what comes.
func locks(root string, out io.Writer) error {
	var errs []error
	files, entries := 0, 0
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "node_modules" || name != "." && strings.HasPrefix(name, ".") && file != root {
				return filepath.SkipDir
			}
			return nil
		}
		check := func(n int, problems []string, err error) error {
			files, entries = files+1, entries+n
			for _, p := range problems {
				errs = append(errs, fmt.Errorf("%s: %s", file, p))
			}
			return err
		}
		switch {
		case name == "package-lock.json":
			return check(checkNPMLock(file))
		case strings.HasSuffix(name, "requirements.txt"):
			return check(checkRequirements(file))
		}
		return nil
	})
	if err := errors.Join(append(errs, err)...); err != nil {
		return fmt.Errorf("not locked by hash:\n%w", err)
	}
	fmt.Fprintf(out, "locks: %d packages in %d lists, each with its hash\n", entries, files)
	return nil
}

func checkNPMLock(file string) (entries int, problems []string, err error) {
	lock, err := readLock(file)
	if err != nil {
		return 0, nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(lock.Packages)) {
		p := lock.Packages[key]
		if key == "" || p.Link {
			continue
		}
		entries++
		switch {
		case p.Integrity == "" && p.Dev && p.Optional && !p.ours():
			// A registry may have the platforms of its users only; nothing of ours
			// is built on such a machine.
			entries--
		case !strings.HasPrefix(p.Integrity, "sha512-"):
			problems = append(problems, key+" "+p.Version+" has no sha512")
		case p.Scripts:
			problems = append(problems, key+" "+p.Version+" runs a script when it is installed: read it, or do without the package")
		case p.Resolved != "" && !strings.HasPrefix(p.Resolved, "https://"):
			problems = append(problems, key+" comes from "+p.Resolved)
		}
	}
	return entries, problems, nil
}

// ours tells whether a package is for machines that we build on: Linux with glibc
// on amd64 or arm64.
func (p lockedPackage) ours() bool {
	for _, limit := range []struct{ is, want []string }{{p.OS, []string{"linux"}}, {p.CPU, []string{"x64", "arm64"}}, {p.Libc, []string{"glibc"}}} {
		if len(limit.is) > 0 && !slices.ContainsFunc(limit.want, func(w string) bool { return slices.Contains(limit.is, w) }) {
			return false
		}
	}
	return true
}

// checkRequirements reads a list as pip does: a line goes on after a backslash,
// what is indented or begins with # is no requirement.
func checkRequirements(file string) (entries int, problems []string, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, nil, err
	}
	for line := range strings.Lines(strings.ReplaceAll(string(raw), "\\\n", " ")) {
		line = strings.TrimRight(line, "\n")
		if line == "" || strings.HasPrefix(strings.TrimSpace(line), "#") {
			continue
		}
		entries++
		name, _, pinned := strings.Cut(line, "==")
		switch {
		case strings.HasPrefix(line, "-"):
			problems = append(problems, "has an option: "+line)
		case !pinned:
			problems = append(problems, line+" has no version")
		case !strings.Contains(line, "--hash=sha256:"):
			problems = append(problems, name+" has no hash")
		}
	}
	return entries, problems, nil
}
