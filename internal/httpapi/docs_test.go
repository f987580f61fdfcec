package httpapi_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A code is a promise to programs: one that is made here stands in the manual.
func TestCodesAreDocumented(t *testing.T) {
	manual, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile(`errdefs\.New\([a-zA-Z.]+, "([a-z0-9-]+)"`)
	for _, pattern := range []string{"*.go", "../fleet/*.go", "../session/*.go", "../identity/*.go", "../identity/accounts/*.go", "../identity/oidc/*.go"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range code.FindAllStringSubmatch(string(text), -1) {
				if !strings.Contains(string(manual), "`"+m[1]+"`") {
					t.Errorf("%s: %s is not in docs/api.md", file, m[1])
				}
			}
		}
	}
}
