// Package bounds compares docs/security/validation.md with the code: each row
// that names a constant has its value.
package bounds

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/test/escape"
)

// row is a bound of the list: `folder` name, and its value.
var row = regexp.MustCompile("(?m)^\\| ([^|]+) \\| ([^|]+) \\|(?:[^|]*\\|)? `([a-z0-9/]+)` ([A-Za-z]\\w*) \\|$")

func TestTheListHasTheValuesOfTheCode(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(escape.Root(), "docs/security/validation.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := row.FindAllStringSubmatch(string(text), -1)
	if len(rows) < 40 {
		t.Fatalf("only %d rows name a constant", len(rows))
	}
	packages := map[string]consts{}
	for _, r := range rows {
		what, bound, folder, name := r[1], r[2], r[3], r[4]
		c, ok := packages[folder]
		if !ok {
			c = read(t, filepath.Join(escape.Root(), folder))
			packages[folder] = c
		}
		v, ok := c.value(name)
		if !ok {
			t.Errorf("%s: %s has no constant %s that can be read", what, folder, name)
			continue
		}
		want, ok := number(bound)
		if !ok {
			t.Errorf("%s: %q is no figure", what, bound)
			continue
		}
		if got, _ := constant.Int64Val(constant.ToInt(v)); got != want {
			t.Errorf("%s: the list says %s (%d), and %s.%s is %d", what, bound, want, folder, name, got)
		}
	}
}

// figure is how the list writes them: 64 KiB, 10,000, 60 s.
var figure = regexp.MustCompile(`^([0-9][0-9,]*) ?(KiB|MiB|GiB|s|min|h|days)?\b`)

func number(text string) (int64, bool) {
	m := figure.FindStringSubmatch(strings.TrimSpace(text))
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(m[1], ",", ""), 10, 64)
	unit := map[string]int64{
		"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "s": int64(time.Second), "min": int64(time.Minute), "h": int64(time.Hour), "days": int64(24 * time.Hour),
	}[m[2]]
	return n * unit, err == nil
}

// consts are the constants and plain variables of a package, by name.
type consts map[string]ast.Expr

func read(t *testing.T, dir string) consts {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join(dir, "*.go"))
	c := consts{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST && g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok || len(v.Values) != len(v.Names) {
					continue
				}
				for i, name := range v.Names {
					c[name.Name] = v.Values[i]
				}
			}
		}
		// Bounds that are fields of a literal, such as an http.Server's.
		ast.Inspect(f, func(n ast.Node) bool {
			if kv, ok := n.(*ast.KeyValueExpr); ok {
				if key, ok := kv.Key.(*ast.Ident); ok && c[key.Name] == nil {
					c[key.Name] = kv.Value
				}
			}
			return true
		})
	}
	return c
}

func (c consts) value(name string) (constant.Value, bool) {
	e, ok := c[name]
	if !ok {
		return nil, false
	}
	return c.eval(e, 0)
}

var times = map[string]time.Duration{"Nanosecond": 1, "Microsecond": time.Microsecond, "Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}

func (c consts) eval(e ast.Expr, depth int) (v constant.Value, ok bool) {
	if depth > 10 {
		return nil, false
	}
	switch e := e.(type) {
	case *ast.BasicLit:
		v = constant.MakeFromLiteral(e.Value, e.Kind, 0)
		return v, v.Kind() == constant.Int || v.Kind() == constant.Float
	case *ast.ParenExpr:
		return c.eval(e.X, depth+1)
	case *ast.Ident:
		if x, ok := c[e.Name]; ok {
			return c.eval(x, depth+1)
		}
	case *ast.SelectorExpr:
		if d, ok := times[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(d)), true
		}
	case *ast.CallExpr: // a conversion
		if len(e.Args) == 1 {
			return c.eval(e.Args[0], depth+1)
		}
	case *ast.BinaryExpr:
		x, okX := c.eval(e.X, depth+1)
		y, okY := c.eval(e.Y, depth+1)
		if !okX || !okY {
			return nil, false
		}
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), true
		}
		op := e.Op
		if op == token.QUO {
			op = token.QUO_ASSIGN // of integers
		}
		return constant.BinaryOp(x, op, y), true
	}
	return nil, false
}
