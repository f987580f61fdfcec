package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var testPolicy = policy{Allowed: map[string][]string{"go": {"MIT", "BSD-3-Clause", "GPL-3.0-or-later WITH GCC-exception-3.1"}}}

func TestPolicy(t *testing.T) {
	for _, c := range []struct {
		name, licence string
		refused       bool
	}{
		{"one that is allowed", "MIT", false},
		{"one that is not", "AGPL-3.0-only", true},
		{"of two choices one is allowed", "AGPL-3.0-only OR MIT", false},
		{"of two choices none is", "AGPL-3.0-only OR SSPL-1.0", true},
		{"both apply and both are allowed", "MIT AND BSD-3-Clause", false},
		{"both apply and one is not allowed", "MIT AND AGPL-3.0-only", true},
		{"nested: all must be allowed", "(MIT OR AGPL-3.0-only) AND BSD-3-Clause", true},
		{"an exception belongs to its licence", "MIT AND GPL-3.0-or-later WITH GCC-exception-3.1", false},
		{"the same licence without the exception", "GPL-3.0-or-later", true},
		{"another exception", "GPL-3.0-or-later WITH Bison-exception-2.2", true},
		{"none at all", "", true},
	} {
		_, refused := testPolicy.judge(Component{Kind: "go", Name: "example.org/x", Declared: c.licence})
		if (refused != "") != c.refused {
			t.Errorf("%s: %q gives %q, want refused %v", c.name, c.licence, refused, c.refused)
		}
	}
}

func mustRead(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestATextIsBelievedBeforeWhatIsDeclared(t *testing.T) {
	apache := Text{Name: "LICENSE", Body: mustRead(t, "../../LICENSE")}
	if got := (Component{Texts: []Text{apache}}).licence(); got != "Apache-2.0" {
		t.Errorf("got %q of our own licence's text, want Apache-2.0", got)
	}
	licence, refused := testPolicy.judge(Component{Kind: "go", Declared: "MIT", Texts: []Text{apache}})
	if licence != "MIT" || !strings.Contains(refused, "Apache-2.0") {
		t.Errorf("got %q, %q: want the text that gainsays MIT named", licence, refused)
	}
	half := Text{Name: "LICENSE", Body: "You must also pay us.\n" + strings.Repeat("And do much else that no licence says. ", 2000) + apache.Body}
	if got := (Component{Texts: []Text{half}}).licence(); got != "" {
		t.Errorf("got %q of a text with much else in it, want nothing", got)
	}
	if _, refused := (policy{Decided: map[string]decision{"go:x": {"MIT", "read"}}, Allowed: testPolicy.Allowed}).judge(Component{Kind: "go", Name: "x"}); refused != "" {
		t.Errorf("what a person decided is refused: %s", refused)
	}
}

func TestTextsCannotTalkToATerminal(t *testing.T) {
	if got, want := tidy("a\x1b[2Jb\r\nc \t\n\u009bd\n"), "a[2Jb\nc\nd"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEveryTextIsGivenOnce(t *testing.T) {
	body := "Permission is granted."
	got := render("Title", testPolicy, []Component{
		{Kind: "go", Name: "a", Version: "v1", Declared: "MIT", Texts: []Text{{"LICENSE", body}}},
		{Kind: "go", Name: "b", Version: "v2", Declared: "MIT", Texts: []Text{{"COPYING", "Permission\nis granted."}}},
	})
	if strings.Count(got, "granted") != 1 || !strings.Contains(got, "a v1, LICENSE\nb v2, COPYING\n") {
		t.Errorf("want the text once, with both that it is of:\n%s", got)
	}
}

// The repository's own lists are what its sources say (the texts of wheels need
// the image, and are left out without it).
func TestOurs(t *testing.T) {
	if testing.Short() {
		t.Skip("reads all of the repository's dependencies")
	}
	var out strings.Builder
	if err := locks("../..", &out); err != nil {
		t.Error(err)
	}
	list, err := lockedWheels("../..")
	if err != nil || len(list) < 50 {
		t.Fatalf("got %d locked wheels, %v", len(list), err)
	}
	if err := compareList("../..", list); err != nil {
		t.Error(err)
	}
	if err := compareList("../..", list[1:]); err == nil {
		t.Error("a list without its first wheel is taken for the same")
	}
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLocks(t *testing.T) {
	hash := "--hash=sha256:" + strings.Repeat("0", 64)
	lock := func(entry string) string { return `{"packages":{"":{},"node_modules/x":` + entry + `}}` }
	for _, c := range []struct{ name, file, content, want string }{
		{"a wheel without a hash", "requirements.txt", "x==1.0\n", "has no hash"},
		{"a wheel without a version", "requirements.txt", "x " + hash + "\n", "has no version"},
		{"another index", "e2e-requirements.txt", "--index-url x\n", "has an option"},
		{"a wheel with its hash", "requirements.txt", "# x\nx==1.0 \\\n    " + hash + "\n    # via y\n", ""},
		{"a package without a hash", "a/package-lock.json", lock(`{"version":"1"}`), "has no sha512"},
		{"a package with an old hash", "a/package-lock.json", lock(`{"version":"1","integrity":"sha1-x"}`), "has no sha512"},
		{"a package with a script", "a/package-lock.json", lock(`{"version":"1","integrity":"sha512-x","hasInstallScript":true}`), "runs a script"},
		{"a package from elsewhere", "a/package-lock.json", lock(`{"version":"1","integrity":"sha512-x","resolved":"git+ssh://y"}`), "comes from"},
		{"another platform's tool", "a/package-lock.json", lock(`{"version":"1","dev":true,"optional":true,"os":"darwin"}`), ""},
		{"another platform's part of the page", "a/package-lock.json", lock(`{"version":"1","optional":true,"os":["darwin"]}`), "has no sha512"},
		{"our platform's tool", "a/package-lock.json", lock(`{"version":"1","dev":true,"optional":true,"os":["linux"],"cpu":["arm64"],"libc":["glibc"]}`), "has no sha512"},
		{"what is installed is not read", "node_modules/requirements.txt", "x\n", ""},
	} {
		dir := t.TempDir()
		write(t, dir, map[string]string{c.file: c.content})
		err := locks(dir, &strings.Builder{})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
}
