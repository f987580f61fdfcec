package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// tarTree makes a tree; a name that ends in "!" is executable, "a>b" a link.
func tarTree(t *testing.T, files map[string]string) (*tree, *spool) {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(body))}
		if len(body) > 0 && body[0] == '>' {
			h.Typeflag, h.Linkname, h.Size, body = tar.TypeSymlink, body[1:], 0, ""
		}
		if body == "ELF" {
			h.Mode = 0o755
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sp, err := newSpool(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sp.Close() })
	u := &unpacker{tree: newTree(), spool: sp}
	if err := errors.Join(u.apply(t.Context(), &b, 0, false), sp.flush()); err != nil {
		t.Fatal(err)
	}
	u.tree.finish()
	return u.tree, sp
}

func TestProbe(t *testing.T) {
	for _, test := range []struct {
		what  string
		env   []string
		files map[string]string
		want  Python
		code  string // of the error
	}{
		{
			what: "Debian: packages of pip under /usr/local",
			files: map[string]string{
				"usr/bin/python3": ">python3.13", "usr/bin/python3.13": "ELF", "bin": ">usr/bin",
				"usr/local/lib/python3.13/dist-packages/IPython/__init__.py":              "",
				"usr/local/lib/python3.13/dist-packages/ipython-9.18.1.dist-info/RECORD":  "",
				"usr/local/lib/python3.13/dist-packages/ipykernel/__init__.py":            "",
				"usr/local/lib/python3.13/dist-packages/ipykernel-7.4.0.dist-info/RECORD": "",
			},
			want: Python{Path: "/usr/bin/python3", Version: "3.13", IPython: "9.18.1", IPyKernel: "7.4.0"},
		},
		{
			what: "Debian: packages of apt",
			files: map[string]string{
				"usr/bin/python3": ">python3.11", "usr/bin/python3.11": "ELF",
				"usr/lib/python3/dist-packages/IPython/__init__.py":      "",
				"usr/lib/python3/dist-packages/ipython-8.5.0.egg-info/x": "",
			},
			want: Python{Path: "/usr/bin/python3", Version: "3.11", IPython: "8.5.0"},
		},
		{
			what: "conda, first on the image's PATH",
			env:  []string{"PATH=/opt/conda/bin:/usr/bin"},
			files: map[string]string{
				"usr/bin/python3": ">python3.8", "usr/bin/python3.8": "ELF",
				"opt/conda/bin/python": ">python3.12", "opt/conda/bin/python3": ">python3.12", "opt/conda/bin/python3.12": "ELF",
				"opt/conda/lib/python3.12/site-packages/IPython/__init__.py":             "",
				"opt/conda/lib/python3.12/site-packages/ipython-8.31.0.dist-info/RECORD": "",
			},
			want: Python{Path: "/opt/conda/bin/python3", Version: "3.12", IPython: "8.31.0"},
		},
		{
			what: "docker's python image, where only the second interpreter has IPython",
			files: map[string]string{
				"usr/local/bin/python3": ">python3.14", "usr/local/bin/python3.14": "ELF",
				"usr/bin/python3.13": "ELF",
				"usr/lib/python3.13/site-packages/IPython/__init__.py":       "",
				"usr/lib/python3.13/site-packages/IPython-9.0.dist-info/REC": "",
			},
			want: Python{Path: "/usr/bin/python3.13", Version: "3.13", IPython: "9.0"},
		},
		{
			what: "a virtual environment",
			env:  []string{"PATH=/venv/bin"},
			files: map[string]string{
				"venv/bin/python": ">python3", "venv/bin/python3": ">/usr/local/bin/python3", "venv/pyvenv.cfg": "home = /usr/local/bin\nversion = 3.12.7\n",
				"usr/local/bin/python3": ">python3.12", "usr/local/bin/python3.12": "ELF",
				"venv/lib/python3.12/site-packages/IPython/__init__.py":         "",
				"venv/lib/python3.12/site-packages/ipython-9.1.dist-info/METAD": "",
			},
			want: Python{Path: "/venv/bin/python3", Version: "3.12", IPython: "9.1"},
		},
		{
			what: "an interpreter whose name does not tell its version",
			env:  []string{"PATH=/opt/py/bin"},
			files: map[string]string{
				"opt/py/bin/python3": "ELF", "opt/py/lib/python3.10/os.py": "",
				"opt/py/lib/python3.10/site-packages/IPython/__init__.py":         "",
				"opt/py/lib/python3.10/site-packages/ipython-8.9.dist-info/METAD": "",
			},
			want: Python{Path: "/opt/py/bin/python3", Version: "3.10", IPython: "8.9"},
		},
		{
			what: "packages where PYTHONPATH says",
			env:  []string{"PATH=/usr/bin", "PYTHONPATH=/srv/site"},
			files: map[string]string{
				"usr/bin/python3.13": "ELF", "srv/site/IPython/__init__.py": "", "srv/site/ipython-9.2.dist-info/METADATA": "",
			},
			want: Python{Path: "/usr/bin/python3.13", Version: "3.13", IPython: "9.2"},
		},
		{what: "nothing", files: map[string]string{"bin/sh": "ELF"}, code: "image-without-python"},
		{what: "a Python that can't be run", files: map[string]string{"usr/bin/python3.13": "text"}, code: "image-without-python"},
		{what: "a link to nowhere", files: map[string]string{"usr/bin/python3": ">/missing"}, code: "image-without-python"},
		{what: "a link to itself", files: map[string]string{"usr/bin/python3": ">python3"}, code: "image-without-python"},
		{what: "Python 2", files: map[string]string{"usr/bin/python": "ELF"}, code: "image-without-python"},
		{what: "Python 3.8", files: map[string]string{"usr/bin/python3.8": "ELF"}, code: "image-without-python"},
		{what: "no IPython", files: map[string]string{"usr/bin/python3.13": "ELF"}, code: "image-without-ipython"},
		{
			what: "what pip leaves of an IPython that was removed by hand",
			files: map[string]string{
				"usr/bin/python3.13": "ELF", "usr/lib/python3.13/site-packages/ipython-9.0.dist-info/RECORD": "",
			},
			code: "image-without-ipython",
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			tr, sp := tarTree(t, test.files)
			got, err := probe(tr, sp, test.env)
			if test.code != "" {
				if e, ok := errors.AsType[*errdefs.Error](err); !ok || e.Code != test.code || e.Hint == "" {
					t.Errorf("got %+v, %v, want the code %s and a hint", got, err, test.code)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAccount(t *testing.T) {
	tr, sp := tarTree(t, map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/bash\nother:x:1001:1001::/o:/bin/sh\nbroken\n",
		"etc/group":  "users:x:100:\nstaff:x:50:jovyan\n",
	})
	for user, want := range map[string][2]int{
		"": {0, 0}, "root": {0, 0}, "jovyan": {1000, 100}, "1000": {1000, 100}, "1001": {1001, 1001}, "4242": {4242, 0},
		"jovyan:staff": {1000, 50}, "1000:7": {1000, 7}, "nobody-knows": {0, 0},
	} {
		uid, gid, home := account(tr, sp, user)
		if [2]int{uid, gid} != want || home != "/home/jovyan" {
			t.Errorf("%q: got %d:%d with home %s, want %v with /home/jovyan", user, uid, gid, home, want)
		}
	}
}

func TestAmbiguousPrefix(t *testing.T) {
	c := &catalog{
		Names: map[string]string{"abcd": "sha256:ffff00"},
		Images: map[string]Image{
			"sha256:abcd01": {}, "sha256:abcd02": {}, "sha256:ffff00": {},
		},
	}
	for query, want := range map[string]string{"abcd0": "image-ambiguous", "ffff": "sha256:ffff00", "abcd": "sha256:ffff00", "abcd02": "sha256:abcd02"} {
		got, _, err := c.resolve(query)
		if e, ok := errors.AsType[*errdefs.Error](err); ok {
			got = e.Code
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", query, got, want)
		}
	}
}

func TestCheckHostNamesPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := CheckHost(t.Context())
	e, ok := errors.AsType[*errdefs.Error](err)
	if !ok || e.Code != "image-host-tool-missing" || !errors.Is(err, errdefs.ErrUnavailable) {
		t.Fatalf("got %v, want image-host-tool-missing", err)
	}
	if !bytes.Contains([]byte(e.Hint), []byte("mmdebstrap gpg")) || !bytes.Contains([]byte(e.Hint), []byte("python3-pip")) {
		t.Errorf("got the hint %q, want the packages to install", e.Hint)
	}
}

// A build that fails says what the program said, and leaves nothing but its log.
func TestBuildFailureSaysWhy(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{
		"gpg":        "exit 0",
		"python3":    `case "$*" in *download*) for a; do case $a in --dest=*) touch "${a#--dest=}/x.whl";; esac; done;; esac`,
		"mmdebstrap": "echo 'I: running apt-get update...' >&2; echo 'E: Unable to locate package nonsense' >&2; exit 25",
		"apt-config": "exit 0",
	} {
		if err := os.WriteFile(bin+"/"+name, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	if err := CheckHost(t.Context()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("this host can't build: %v", err)
		}
		t.Skipf("this host can't build: %v", err) // the keyring is a file of the host
	}
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var stages []Stage
	_, _, err = s.Build(context.Background(), BuildOptions{}, func(u Update) { stages = append(stages, u.Stage) })
	e, ok := errors.AsType[*errdefs.Error](err)
	if !ok || e.Code != "image-build-failed" || !bytes.Contains([]byte(e.Msg), []byte("Unable to locate package nonsense")) {
		t.Errorf("got %v, want image-build-failed with the program's words", err)
	}
	if len(stages) == 0 || stages[0] != StageWheels {
		t.Errorf("got the stages %v, want the wheels first", stages)
	}
	if list, err := s.List(); err != nil || len(list) != 0 {
		t.Errorf("got %v, %v, want no image", list, err)
	}
	entries, err := os.ReadDir(s.path("tmp"))
	if err != nil || len(entries) != 0 {
		t.Errorf("got %v, %v, want nothing left", entries, err)
	}
}
