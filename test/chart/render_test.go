package chart

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/caesarion/caesarion/test/chart/helmtest"
)

var update = flag.Bool("update", false, "write what is rendered into testdata/render")

// release and namespace are those of every rendering here.
const (
	release   = "demo"
	namespace = "apps"
	sandboxes = "apps-sandboxes"
)

// render renders the chart with testdata/base.yaml and then so many more files
// of values, and gives the documents of each template by its path in the chart.
func render(t *testing.T, files ...string) map[string]string {
	t.Helper()
	args := []string{"template", release, helmtest.Chart(), "--namespace", namespace, "--values", "testdata/base.yaml"}
	for _, f := range files {
		args = append(args, "--values", f)
	}
	return byTemplate(helmtest.Must(t, args...))
}

func byTemplate(text string) map[string]string {
	out := map[string]string{}
	for doc := range strings.SplitSeq(text, "---\n# Source: caesarion/") {
		if name, body, ok := strings.Cut(doc, "\n"); ok && strings.HasSuffix(name, ".yaml") {
			out[name] += "---\n" + strings.TrimSpace(body) + "\n"
		}
	}
	return out
}

// generated matches what is random, and what changes with every setting.
var generated = regexp.MustCompile(`(?m)^(\s+(?:token|installation-secret|postgres-password|database-url|checksum/config): ).+$`)

// valueSets gives the sets of values of testdata/render, written to files.
func valueSets(t *testing.T) map[string]string {
	t.Helper()
	paths, err := filepath.Glob("testdata/render/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no sets of values: %v", err)
	}
	out := map[string]string{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		values := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(values, file(archive, "values.yaml"), 0o600); err != nil {
			t.Fatal(err)
		}
		out[path] = values
	}
	return out
}

func file(a *txtar.Archive, name string) []byte {
	if i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name }); i >= 0 {
		return a.Files[i].Data
	}
	return nil
}

// TestRender compares the templates that a set is about with what they gave
// when somebody last looked: go test ./test/chart -update, then read the diff.
func TestRender(t *testing.T) {
	for path, values := range valueSets(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			docs := render(t, values)
			var got bytes.Buffer
			for name := range strings.FieldsSeq(string(file(archive, "show"))) {
				text, ok := docs["templates/"+name]
				if !ok {
					text = "---\n# nothing\n"
				}
				got.WriteString("# " + name + "\n" + generated.ReplaceAllString(text, "${1}…") + "\n")
			}
			if *update {
				archive.Files = []txtar.File{
					{Name: "values.yaml", Data: file(archive, "values.yaml")},
					{Name: "show", Data: file(archive, "show")},
					{Name: "want", Data: got.Bytes()},
				}
				if err := os.WriteFile(path, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(file(archive, "want")), got.String()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestSecretsAreGeneratedApart checks that what is made once is long enough and
// never the same twice.
func TestSecretsAreGeneratedApart(t *testing.T) {
	one, two := render(t)["templates/secret.yaml"], render(t)["templates/secret.yaml"]
	for _, key := range []string{"token", "installation-secret"} {
		find := regexp.MustCompile(`(?m)^  ` + key + `: (\S{40,})$`)
		a, b := find.FindStringSubmatch(one), find.FindStringSubmatch(two)
		if a == nil || b == nil || a[1] == b[1] {
			t.Errorf("%s: %q and %q", key, a, b)
		}
	}
}

// TestConfigChangesPods checks that other settings give other pods, and the
// same settings the same: or each upgrade would restart every replica.
func TestConfigChangesPods(t *testing.T) {
	find := regexp.MustCompile(`checksum/config: (\w+)`)
	sum := func(args ...string) string {
		t.Helper()
		out := helmtest.Must(t, append([]string{"template", release, helmtest.Chart(), "--namespace", namespace, "--values", "testdata/base.yaml"}, args...)...)
		return find.FindStringSubmatch(out)[1]
	}
	plain := sum()
	if again := sum(); again != plain {
		t.Errorf("the same settings gave %s and %s", plain, again)
	}
	if other := sum("--set", "sandboxes.templates.python.cpus=1"); other == plain {
		t.Error("other settings gave the same pods")
	}
}

func TestLint(t *testing.T) {
	for path, values := range valueSets(t) {
		out, errOut, err := helmtest.Run(t, "lint", "--strict", helmtest.Chart(), "--values", "testdata/base.yaml", "--values", values)
		if err != nil {
			t.Errorf("%s: %v\n%s%s", path, err, out, errOut)
		}
	}
}
