package notebook_test

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/notebook"
)

// Every list of items that the session's fixtures end with is a valid notebook
// and a program that compiles.
func TestSessionsFixturesAreValidNotebooks(t *testing.T) {
	files, err := filepath.Glob("../session/testdata/reduce/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	dir := t.TempDir()
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name != "items.json" {
				continue
			}
			var items []v1.Item
			if err := json.Unmarshal(f.Data, &items); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			name := strings.TrimSuffix(filepath.Base(file), ".txtar")
			for _, format := range []string{"ipynb", "py"} {
				body, _, _, err := notebook.Export(format, v1.Session{Title: name}, items)
				if err != nil {
					t.Fatal(err)
				}
				writeTo(t, dir, name+"."+format, body)
			}
		}
	}
	checkFiles(t, dir)
}
