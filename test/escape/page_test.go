package escape

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The table is whole, the tests that it names are there, and the page is made
// of it and of what was measured.
func TestThePageIsTheTable(t *testing.T) {
	if err := Check(Root()); err != nil {
		t.Error(err)
	}
	all := recorded(t)
	want := Page(all)
	if *update {
		write(t, pageFile, want)
		return
	}
	got, err := os.ReadFile(filepath.Join(Root(), pageFile))
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/security/attacks.md is not what the table says: go test ./test/escape -update writes it")
	}
	for world, answers := range all {
		for name, answer := range answers {
			if !wanted(world, name, answer) {
				t.Errorf("%s: %s: %q was measured, and is none of what is wanted", world, name, answer)
			}
		}
	}
}

func wanted(world, name, answer string) bool {
	return slices.ContainsFunc(Attacks(), func(a Attack) bool { return a.Name == name && a.wants(world, answer) })
}
