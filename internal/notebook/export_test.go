package notebook_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/notebook"
)

var update = flag.Bool("update", false, "write what is got as what is expected")

func TestExports(t *testing.T) {
	s, items := rich()
	dir := t.TempDir()
	for _, format := range []string{"ipynb", "py", "md"} {
		body, media, name, err := notebook.Export(format, s, items)
		if err != nil {
			t.Fatal(err)
		}
		if name != "Plot of co2 x."+format || media == "" {
			t.Errorf("%s is named %q, %q", format, name, media)
		}
		writeTo(t, dir, "rich."+format, body)
		golden := "testdata/rich." + format
		if *update {
			writeTo(t, "testdata", "rich."+format, body)
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(body)); diff != "" {
			t.Errorf("%s (-update writes it): -want +got:\n%s", golden, diff)
		}
		empty, _, name, err := notebook.Export(format, v1.Session{}, nil)
		if err != nil || name != "notebook."+format {
			t.Errorf("an empty session: %q, %v", name, err)
		}
		writeTo(t, dir, "empty."+format, empty)
	}
	checkFiles(t, dir)
	if _, _, _, err := notebook.Export("pdf", s, items); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("pdf: %v", err)
	}
}

func TestFileNamesAreHarmless(t *testing.T) {
	for title, want := range map[string]string{
		"": "notebook", "  ": "notebook", "../../etc/passwd": "etc passwd", "a\x00b\nc": "a b c", ".hidden": "hidden", "é 日本": "é 日本",
		`"><script>`: "script", "x; rm -rf $HOME": "x rm -rf HOME", strings.Repeat("a", 300): strings.Repeat("a", 80), "\u202egpj.exe": "gpj.exe",
	} {
		if _, _, got, _ := notebook.Export("md", v1.Session{Title: title}, nil); got != want+".md" {
			t.Errorf("%q: %q, want %q", title, got, want+".md")
		}
	}
}

// Whatever code cells hold, the exported file compiles.
func TestExportedPythonCompiles(t *testing.T) {
	syntaxError := []v1.Output{{Type: "error", ErrorName: "SyntaxError"}}
	cells := []v1.Item{
		{Code: "def f(:", Outputs: syntaxError},
		{Code: "x = (1,\n"},
		{Code: "s = '''open"},
		{Code: "s = 'open"},
		{Code: "x = 1)"},
		{Code: "for i in range(3):\n    !echo {i}\nprint('after')"},
		{Code: "if True:\n    %time x = 1\nelse:\n    pass"},
		{Code: "!echo it's\\\n  more\nprint(1)"},
		{Code: "await f()"},
		{Code: "async def f():\n    await g()\n    async with x:\n        pass\nasync for i in f():\n    pass"},
		{Code: "async def f():\n    await g()"},
		{Code: "from __future__ import annotations\nx: int = 1"},
		{Code: "from __future__ import annotations; y = 1"},
		{Code: "x = !ls -l\ny, z = %time 1"},
		{Code: "print?\n?print\nprint??\nx.y[0].z?"},
		{Code: "%%html\n<b>it's</b>"},
		{Code: "\n\n%%timeit -n 1\nsum(range(10))"},
		{Code: "x = 5 % 3\ny = x != 3\nz = '%d' % 3\nw = (\n  5\n  % 3)"},
		{Code: "a\rimport os"},
		{Code: "# comment\rimport os; os.abort()"},
		{Code: "x = \"\"\"\n%not magic\n!not shell\n\"\"\" + '\\'' + r'\\d'\n"},
		{Code: "\ufeffx = 1\x00"},
		{Code: "x = 1 \\\n  + 2"},
		{Code: "x = 1 \\"},
		{Code: "if True: !ls\nprint(1)"},
		{Code: "a!"},
		{Code: "cost = $5"},
		{Code: "x = 1 != 2; y = f'{x!r}'; z = '`$?!'  # `$?!"},
		{Code: "f'{1!r:>{10}}'\n# don't\nx = {'a': [1, 2]}"},
		{Code: ""},
		{Code: "   "},
		{Code: "\tx"},
	}
	dir := t.TempDir()
	for i := range cells {
		cells[i].Kind = "cell"
		if cells[i].Code == "\tx" {
			cells[i].Outputs = []v1.Output{{Type: "error", ErrorName: "IndentationError"}}
		}
		body, _, _, err := notebook.Export("py", v1.Session{Title: "coding: rot13"}, cells[i:i+1])
		if err != nil {
			t.Fatal(err)
		}
		writeTo(t, dir, fmt.Sprintf("cell%02d.py", i), body)
	}
	texts := []v1.Item{{Kind: "note", Text: "a\rimport os; os.abort()\r\nb\x00\xff"}, {Kind: "user", Text: "x\ry"}, {Kind: "assistant", Text: "\r!"}}
	body, _, _, err := notebook.Export("py", v1.Session{Title: "a\rimport os"}, append(texts, cells...))
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, dir, "all.py", body)
	checkFiles(t, dir)
	for line := range strings.Lines(string(body)) {
		if strings.Contains(line, "os.abort") && !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "import os; os.abort") {
			t.Errorf("text became code: %q", line)
		}
	}
	if strings.Contains(string(body), "\r") {
		t.Error("a lone carriage return is left")
	}
}

func TestLargeOutputsInMarkdown(t *testing.T) {
	item := v1.Item{Kind: "cell", Code: "x", Outputs: []v1.Output{
		{Type: "stream", Name: "stdout", Text: strings.Repeat("line\n", 100_000)},
		{Type: "display_data", Data: map[string]jsonRaw{"image/png": raw(strings.Repeat("A", 1<<20))}},
		{Type: "display_data", Data: map[string]jsonRaw{"image/png": raw(`"><script>`)}},
		{Type: "display_data", Data: map[string]jsonRaw{"text/html": raw("<script>alert(1)</script>"), "text/plain": raw("````\nout of the fence")}},
	}}
	body, _, _, err := notebook.Export("md", v1.Session{}, []v1.Item{item})
	if err != nil {
		t.Fatal(err)
	}
	text := string(body)
	for _, want := range []string{"characters left out", "768 KiB, is left out", "`````text\n````\nout of the fence\n`````"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not say %q", want)
		}
	}
	if len(text) > 100_000 || strings.Contains(text, "<script>") {
		t.Errorf("%d bytes, script: %t", len(text), strings.Contains(text, "<script>"))
	}
}
