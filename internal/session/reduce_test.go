package session_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/session"
)

var update = flag.Bool("update", false, "rewrite items.json of testdata/reduce")

// The same files test the page's reducer.
func TestReduce(t *testing.T) {
	files, err := filepath.Glob("testdata/reduce/*.txtar")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			v := session.NewView(v1.SessionDetail{})
			for line := range bytes.Lines(ar.Files[0].Data) {
				if err := v.Apply(line); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
			}
			var buf bytes.Buffer
			enc := json.NewEncoder(&buf)
			enc.SetEscapeHTML(false)
			enc.SetIndent("", "  ")
			if err := enc.Encode(v.Items()); err != nil {
				t.Fatal(err)
			}
			if *update {
				ar.Files[1].Data = buf.Bytes()
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(ar.Files[1].Data), buf.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
