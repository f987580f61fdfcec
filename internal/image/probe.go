package image

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
)

const (
	// minPython is the oldest 3.x that the kernel program is written for.
	minPython = 9
	// defaultPath is what Docker gives a container whose image sets no PATH.
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// smallFile bounds what the probe reads of one file, in bytes.
	smallFileLimit = 1 << 20
)

var (
	pythonName    = regexp.MustCompile(`^python3\.(\d+)$`)
	distInfo      = regexp.MustCompile(`^(?i)(ipython|ipykernel)-(\d[^-]*)\.(dist-info|egg-info)$`)
	pyvenvVersion = regexp.MustCompile(`(?m)^version(?:_info)?\s*=\s*3\.(\d+)`)
)

// probe finds the interpreter with which kernels will start: the first on the
// image's PATH that is new enough and has IPython. It only looks at files, since
// nothing of a foreign image may run on the host.
func probe(t *tree, s *spool, env []string) (Python, error) {
	searched := envValue(env, "PATH")
	if searched == "" {
		searched = defaultPath
	}
	var found, tooOld []string
	for dir := range strings.SplitSeq(searched, ":") {
		if !path.IsAbs(dir) {
			continue
		}
		for _, name := range candidates(t, dir) {
			python, minor, ok := examine(t, s, path.Join(dir, name), env)
			switch {
			case !ok:
			case minor < minPython:
				tooOld = append(tooOld, fmt.Sprintf("%s (3.%d)", python.Path, minor))
			case python.IPython == "":
				found = append(found, fmt.Sprintf("%s (%s)", python.Path, python.Version))
			default:
				return python, nil
			}
		}
	}
	switch {
	case len(found) > 0:
		return Python{}, errdefs.New(errdefs.ErrInvalid, "image-without-ipython",
			"the image has Python at %s, but no IPython for it", strings.Join(slices.Compact(found), ", ")).
			WithHint("add it to the image with `pip install ipykernel`, or take an image that has it, such as jupyter/scipy-notebook")
	case len(tooOld) > 0:
		return Python{}, errdefs.New(errdefs.ErrInvalid, "image-without-python",
			"the image has only an old Python: %s", strings.Join(slices.Compact(tooOld), ", ")).
			WithHint("Python 3.%d or newer is needed", minPython)
	default:
		return Python{}, errdefs.New(errdefs.ErrInvalid, "image-without-python",
			"the image has no Python on its PATH (%s)", searched).
			WithHint("take an image with Python 3.%d or newer and IPython, such as jupyter/scipy-notebook, "+
				"or make one from python:3 with `pip install ipykernel`", minPython)
	}
}

// candidates are the interpreters of a directory, the plainest name first.
func candidates(t *tree, dir string) []string {
	n, _ := t.lookup(dir)
	if n == nil || !n.mode.IsDir() {
		return nil
	}
	var names []string
	for _, name := range []string{"python3", "python"} {
		if n.entries[name] != nil {
			names = append(names, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		if pythonName.MatchString(name) {
			names = append(names, name)
		}
	}
	return names
}

// examine looks at one interpreter. minor is that of its version 3.minor.
func examine(t *tree, s *spool, name string, env []string) (python Python, minor int, ok bool) {
	n, target := t.lookup(name)
	if n == nil || !n.mode.IsRegular() || n.mode&0o111 == 0 {
		return Python{}, 0, false
	}
	// prefix is where Python itself takes its packages from: by the name it was
	// started with in a virtual environment, else by the file that leads to.
	prefix := path.Dir(path.Dir(target))
	venv := path.Dir(path.Dir(name))
	prefixes := []string{prefix}
	if cfg := readSmall(t, s, path.Join(venv, "pyvenv.cfg"), smallFileLimit); cfg != nil {
		if m := pyvenvVersion.FindSubmatch(cfg); m != nil {
			minor, _ = strconv.Atoi(string(m[1]))
		}
		prefixes = []string{venv}
		if bytes.Contains(cfg, []byte("include-system-site-packages = true")) {
			prefixes = append(prefixes, prefix)
		}
	}
	if m := pythonName.FindStringSubmatch(path.Base(target)); m != nil {
		minor, _ = strconv.Atoi(m[1])
	}
	if minor == 0 {
		minor = libMinor(t, prefix)
	}
	if minor == 0 {
		return Python{}, 0, false // Python 2, or something else by that name
	}
	python = Python{Path: name, Version: fmt.Sprintf("3.%d", minor)}
	var dirs []string
	for p := range strings.SplitSeq(envValue(env, "PYTHONPATH"), ":") {
		if path.IsAbs(p) {
			dirs = append(dirs, p)
		}
	}
	for _, p := range prefixes {
		lib := fmt.Sprintf("%s/lib/python3.%d/", p, minor)
		dirs = append(dirs, lib+"site-packages", p+"/lib64/"+path.Base(lib)+"/site-packages")
		if p == "/usr" { // Debian's own rule
			dirs = append(dirs, fmt.Sprintf("/usr/local/lib/python3.%d/dist-packages", minor),
				"/usr/lib/python3/dist-packages", lib+"dist-packages")
		}
	}
	for _, dir := range dirs {
		n, _ := t.lookup(dir)
		if n == nil || !n.mode.IsDir() {
			continue
		}
		for _, entry := range n.names() {
			m := distInfo.FindStringSubmatch(entry)
			if m == nil {
				continue
			}
			if strings.EqualFold(m[1], "ipython") && python.IPython == "" && n.entries["IPython"] != nil {
				python.IPython = m[2]
			}
			if strings.EqualFold(m[1], "ipykernel") && python.IPyKernel == "" && n.entries["ipykernel"] != nil {
				python.IPyKernel = m[2]
			}
		}
	}
	return python, minor, true
}

// libMinor finds the version of an interpreter whose name does not tell it, by its
// library: <prefix>/lib/python3.N/os.py.
func libMinor(t *tree, prefix string) int {
	lib, _ := t.lookup(prefix + "/lib")
	if lib == nil || !lib.mode.IsDir() {
		return 0
	}
	newest := 0
	for name := range lib.entries {
		m := pythonName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		if n, _ := t.lookup(path.Join(prefix, "lib", name, "os.py")); n == nil {
			continue
		}
		if minor, err := strconv.Atoi(m[1]); err == nil {
			newest = max(newest, minor)
		}
	}
	return newest
}

func envValue(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// sandboxUID is the user that everything in a sandbox runs as.
const sandboxUID = 1000

// account reads /etc/passwd and /etc/group as a container runtime does: user is
// "name", "uid", "name:group" or "uid:gid"; empty is root.
func account(t *tree, s *spool, user string) (uid, gid int, home string) {
	name, group, _ := strings.Cut(user, ":")
	uid, err := strconv.Atoi(name)
	if err != nil {
		uid = 0
	}
	for _, f := range colonFile(t, s, "/etc/passwd", 7) {
		id, err1 := strconv.Atoi(f[2])
		own, err2 := strconv.Atoi(f[3])
		if err1 != nil || err2 != nil {
			continue
		}
		if f[0] == name || strconv.Itoa(id) == name {
			uid, gid = id, own
		}
		if id == sandboxUID && home == "" {
			home = f[5]
		}
	}
	if group == "" {
		return uid, gid, home
	}
	if id, err := strconv.Atoi(group); err == nil {
		return uid, id, home
	}
	for _, f := range colonFile(t, s, "/etc/group", 4) {
		if id, err := strconv.Atoi(f[2]); err == nil && f[0] == group {
			gid = id
		}
	}
	return uid, gid, home
}

func colonFile(t *tree, s *spool, name string, fields int) [][]string {
	var rows [][]string
	scanner := bufio.NewScanner(bytes.NewReader(readSmall(t, s, name, smallFileLimit)))
	for scanner.Scan() {
		if f := strings.Split(scanner.Text(), ":"); len(f) == fields {
			rows = append(rows, f)
		}
	}
	return rows
}
