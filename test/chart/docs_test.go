package chart

import (
	"os"
	"path/filepath"
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
