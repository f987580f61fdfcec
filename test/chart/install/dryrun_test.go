package install

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/kubetest"
)

// operators matches kinds that an operator brings, which this cluster lacks.
var operators = regexp.MustCompile(`(?m)^apiVersion: (gateway\.networking\.k8s\.io|cloud\.google\.com|networking\.gke\.io|monitoring\.coreos\.com)/`)

// TestServerTakesAllOfIt has the API server look at every object that any set
// of values gives, with its admission: schemas, defaults, Pod Security.
func TestServerTakesAllOfIt(t *testing.T) {
	t.Parallel()
	sets, err := filepath.Glob(filepath.Join(helmtest.Root(), "test", "chart", "testdata", "render", "*.txtar"))
	if err != nil || len(sets) == 0 {
		t.Fatalf("no sets of values: %v", err)
	}
	namespace := kubetest.Namespace(t)
	for _, path := range sets {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			values := filepath.Join(t.TempDir(), "values.yaml")
			if err := os.WriteFile(values, archive.Files[0].Data, 0o600); err != nil {
				t.Fatal(err)
			}
			rendered := helmtest.Must(t, "template", "demo", helmtest.Chart(), "--namespace", namespace,
				"--values", filepath.Join(helmtest.Root(), "test", "chart", "testdata", "base.yaml"), "--values", values,
				// A namespace that is there: a dry run makes none.
				"--set", "sandboxes.namespace.name=default")
			var docs []string
			for doc := range strings.SplitSeq(rendered, "\n---\n") {
				if !operators.MatchString(doc) && !strings.Contains(doc, "kind: Namespace") {
					docs = append(docs, doc)
				}
			}
			file := filepath.Join(t.TempDir(), "all.yaml")
			if err := os.WriteFile(file, []byte(strings.Join(docs, "\n---\n")), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := kubectl(t.Context(), "create", "--dry-run=server", "--validate=strict", "--filename", file)
			if err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "Warning:") && !strings.Contains(line, "kubernetes.io/ingress.class") { // GKE knows nothing else
					t.Error(line)
				}
			}
			if n := strings.Count(out, "(server dry run)"); n != len(docs) {
				t.Errorf("%d of %d objects were looked at", n, len(docs))
			}
		})
	}
}
