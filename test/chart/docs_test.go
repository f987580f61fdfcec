package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/test/chart/helmtest"
)

func document(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(helmtest.Root(), "docs", "operate", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var examples = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// TestExamplesRender checks that the document's examples are values that the
// chart takes.
func TestExamplesRender(t *testing.T) {
	found := examples.FindAllStringSubmatch(document(t), -1)
	if len(found) == 0 {
		t.Fatal("no examples")
	}
	policies := ""
	for _, example := range found {
		values := filepath.Join(t.TempDir(), "values.yaml")
		if err := os.WriteFile(values, []byte(example[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		policies += render(t, values)["templates/networkpolicy.yaml"]
	}
	for _, want := range []string{"demo-caesarion-template-with-internet", "demo-caesarion-template-with-warehouse", "192.0.2.10/32"} {
		if !strings.Contains(policies, want) {
			t.Errorf("no %s in\n%s", want, policies)
		}
	}
}

// TestEverySettingIsExplained checks that the document's tables have every
// setting: a group may stand for what is below it.
func TestEverySettingIsExplained(t *testing.T) {
	text := document(t)
	values, s := readValues(t)
	explained := func(path string) bool {
		for path != "" {
			if strings.Contains(text, "`"+path+"`") {
				return true
			}
			i := strings.LastIndexByte(path, '.')
			if i < 0 {
				return false
			}
			path = path[:i]
			if len(strings.Split(path, ".")) < 2 { // the whole of a top group explains nothing
				return false
			}
		}
		return false
	}
	leaves(s, s, "", values, func(path string, _ any, _ bool) {
		if path != "global" && !explained(path) {
			t.Errorf("docs/operate/kubernetes.md does not explain %s", path)
		}
	})
	for key := range s.Definitions["template"].Properties {
		if !strings.Contains(text, "`"+key+"`") && !strings.Contains(text, "`"+key+".") {
			t.Errorf("docs/operate/kubernetes.md does not explain a template's %s", key)
		}
	}
	for key := range s.Definitions["template"].Properties["kubernetes"].Properties {
		if !strings.Contains(text, "`"+key+"`") {
			t.Errorf("docs/operate/kubernetes.md does not explain a template's kubernetes.%s", key)
		}
	}
}
