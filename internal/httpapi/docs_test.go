package httpapi_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What belongs to the command line alone.
var unanswered = []string{"config", "client", "image"}

// A code is a promise to programs: every one that the source has stands in the
// manual's table, also those of the drivers, the agent and the models.
func TestCodesAreDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string]bool{}
	for _, m := range regexp.MustCompile("`([a-z0-9]+(?:[-_][a-z0-9]+)*)`").FindAllStringSubmatch(string(manual), -1) {
		table[m[1]] = true
	}
	for code, where := range codes(t, "..") {
		if !table[code] {
			t.Errorf("%s: %s is not in docs/api.md", where, code)
		}
	}
}

// codes gives the codes that errdefs.New is called with below a folder, and
// where. Those made up at run time are others' that are passed on, or the
// reasons of the driver of a cluster.
func codes(t *testing.T, root string) map[string]string {
	t.Helper()
	files := map[string]*ast.File{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (d.Name() == "testdata" || strings.HasSuffix(d.Name(), "test") || slices.Contains(unanswered, d.Name())):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		files[path], err = parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found, constants := map[string]string{}, map[string]string{} // by package.name
	for path, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			v, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			for i, name := range v.Names {
				if i >= len(v.Values) {
					break
				}
				if text, ok := literal(v.Values[i]); ok {
					constants[f.Name.Name+"."+name.Name] = text
					if f.Name.Name == "kube" && strings.HasPrefix(name.Name, "Reason") {
						found[text] = path
					}
				}
			}
			return true
		})
	}
	for path, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 || qualified(call.Fun, f.Name.Name) != "errdefs.New" {
				return true
			}
			text, ok := literal(call.Args[1])
			if !ok {
				text = constants[qualified(call.Args[1], f.Name.Name)]
			}
			if text != "" { // a kind has a code of its own
				found[text] = path
			}
			return true
		})
	}
	if len(found) < 100 {
		t.Fatalf("only %d codes are found", len(found))
	}
	return found
}

// qualified gives a name with its package's.
func qualified(e ast.Expr, pkg string) string {
	switch e := e.(type) {
	case *ast.Ident:
		return pkg + "." + e.Name
	case *ast.SelectorExpr:
		if x, ok := e.X.(*ast.Ident); ok {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}

func literal(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}
