package httpapi_test

import (
	"os/exec"
	"strings"
	"testing"
)

// huma is fenced inside httpapi, and httpapi knows no driver: then either can
// be replaced without touching the rest.
func TestImports(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-f", "{{.ImportPath}} {{join .Imports \" \"}}", "../../internal/...", "../../api/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		pkg, imports, _ := strings.Cut(strings.TrimSpace(line), " ")
		_, pkg, _ = strings.Cut(pkg, "caesarion/caesarion/")
		for imp := range strings.FieldsSeq(imports) {
			if strings.Contains(imp, "danielgtaylor/huma") && pkg != "internal/httpapi" {
				t.Errorf("%s imports %s", pkg, imp)
			}
			if strings.HasPrefix(pkg, "internal/httpapi") && strings.Contains(imp, "caesarion/internal/sandbox/") && !strings.HasSuffix(imp, "/pool") {
				t.Errorf("%s imports the driver %s", pkg, imp)
			}
			if strings.HasPrefix(pkg, "internal/fleet") && (strings.Contains(imp, "internal/httpapi") || strings.Contains(imp, "api/v1")) {
				t.Errorf("%s imports %s: calls go the other way", pkg, imp)
			}
		}
	}
}
