package image_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/images/python"
	"github.com/caesarion/caesarion/internal/image"
)

// builtImage opens the image that `make image` built. CAESARION_IMAGES names the
// data directory it is in.
func builtImage(t *testing.T) image.Image {
	t.Helper()
	data := os.Getenv("CAESARION_IMAGES")
	if data == "" {
		data = "/var/lib/caesarion"
	}
	missing := t.Skipf
	if os.Getenv("CI") == "true" {
		missing = t.Fatalf
	}
	// Open would make a store that is not there.
	if _, err := os.Stat(filepath.Join(data, "images")); err != nil {
		missing("no image store: %v; run make image", err)
	}
	s, err := image.Open(data)
	if err != nil {
		missing("%v", err)
	}
	img, err := s.Resolve(python.Name)
	if err != nil {
		missing("%v; run make image", err)
	}
	if key, err := image.RecipeKey(); err != nil || img.Recipe != key {
		missing("the image %s is from another recipe (%v); run make image", img.Digest, err)
	}
	return img
}

func TestBuiltImage(t *testing.T) {
	img := builtImage(t)
	fsys := openEROFS(t, img.EROFSPath)
	if img.Python.Version != python.PythonVersion || !strings.HasPrefix(img.Python.IPython, "9.") || !strings.HasPrefix(img.Python.IPyKernel, "7.") {
		t.Errorf("got %+v, want Python %s, IPython 9, ipykernel 7", img.Python, python.PythonVersion)
	}
	if img.Config.UID != 1000 || img.Config.GID != 1000 || img.Config.Home != "/home/user" || img.Config.WorkingDir != "/workspace" {
		t.Errorf("got configuration %+v, want user 1000:1000 in /workspace", img.Config)
	}
	for _, name := range []string{"workspace", "uploaded_files", "home/user", "home/user/.cache/matplotlib"} {
		if st := erofsStat(t, fsys, name); st.UID != 1000 || st.GID != 1000 || !st.Mode.IsDir() || st.Mode&0o700 != 0o700 {
			t.Errorf("%s: got %v of %d:%d, want a folder of the user", name, st.Mode, st.UID, st.GID)
		}
	}
	if st := erofsStat(t, fsys, "usr/bin/su"); st.Mode&fs.ModeSetuid == 0 {
		t.Errorf("usr/bin/su: got mode %v, want its set-uid bit", st.Mode)
	}
	if passwd := readFile(t, fsys, "etc/passwd"); !strings.Contains(passwd, "user:x:1000:1000:") {
		t.Errorf("etc/passwd has no user:\n%s", passwd)
	}
	for _, name := range []string{"build", "var/lib/apt/lists/lock", "usr/lib/python3.13/EXTERNALLY-MANAGED"} {
		if _, err := fs.Stat(fsys, name); err == nil {
			t.Errorf("%s is left in the image", name)
		}
	}
	if got := readFile(t, fsys, "etc/resolv.conf"); got != "" {
		t.Errorf("etc/resolv.conf has what the builder's host had: %q", got)
	}
}

// Imports are a large part of a cold start: every module needs byte code that
// Python takes without a look at the source.
func TestBuiltImageByteCode(t *testing.T) {
	fsys := openEROFS(t, builtImage(t).EROFSPath)
	checked := 0
	for _, root := range []string{"usr/lib/python3.13", "usr/local/lib/python3.13/dist-packages"} {
		err := fs.WalkDir(fsys, root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() || path.Ext(name) != ".py" {
				return err
			}
			pyc := path.Join(path.Dir(name), "__pycache__", strings.TrimSuffix(path.Base(name), ".py")+".cpython-313.pyc")
			raw, err := fs.ReadFile(fsys, pyc)
			if err != nil {
				t.Errorf("%s has no byte code", name)
				return nil
			}
			// PEP 552: magic number, then flags; 1 is "hash-based, unchecked".
			if len(raw) < 16 || raw[4] != 1 {
				t.Errorf("%s is checked against its source at each import", pyc)
			}
			checked++
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if checked < 5000 {
		t.Errorf("checked %d modules, want thousands", checked)
	}
}

func TestRecipeKeepsToItself(t *testing.T) {
	err := fs.WalkDir(python.Files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := python.Files.ReadFile(name)
		if err != nil {
			return err
		}
		for _, word := range []string{"://", "index-url", "find-links=http", "trusted-host"} {
			if strings.Contains(string(content), word) {
				t.Errorf("%s contains %q: where packages come from is the host's business", name, word)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestRequirementsAreLocked(t *testing.T) {
	raw, err := python.Files.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	locked := map[string]bool{}
	for block := range strings.SplitSeq(strings.ReplaceAll(string(raw), "\\\n", ""), "\n") {
		if name, _, ok := strings.Cut(block, "=="); ok && !strings.HasPrefix(block, " ") {
			locked[name] = true
			if !strings.Contains(block, "--hash=sha256:") {
				t.Errorf("%s has no hash", name)
			}
		}
	}
	for name := range strings.FieldsSeq(`ipykernel ipython numpy pandas pyarrow polars duckdb scipy scikit-learn statsmodels
		sympy matplotlib seaborn plotly altair pillow openpyxl xlsxwriter python-docx pypdf beautifulsoup4 lxml requests
		httpx networkx tabulate tqdm pyyaml comm matplotlib-inline`) {
		if !locked[name] {
			t.Errorf("%s is not in requirements.txt", name)
		}
	}
	if locked["debugpy"] {
		t.Error("debugpy is in requirements.txt; overrides.txt leaves it out")
	}
}
