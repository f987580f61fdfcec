package main

import (
	"go/build"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/caesarion/caesarion/"

// The picture in the style guide: calls go right, imports follow the calls.
func TestImportsFollowThePicture(t *testing.T) {
	// Only these may import what the key names, besides the folder itself.
	only := map[string][]string{
		"internal/httpapi":        {"cmd/caesarion", "test"},
		"internal/sandbox/gvisor": {"cmd/caesarion", "test"},
		"internal/sandbox/kube":   {"cmd/caesarion", "test"},
		"internal/sandbox/pool":   {"cmd/caesarion", "internal/fleet", "internal/sandbox/kube", "test"},
		"internal/metrics":        {"cmd/caesarion", "internal/sandbox/pool", "internal/sandbox/kube", "internal/fleet", "internal/httpapi", "internal/sandbox/gvisor", "test"},
		"internal/replica":        {"cmd/caesarion", "internal/fleet", "internal/session", "internal/httpapi", "test"},
		"internal/agent":          {"cmd/caesarion-agent", "internal/sandbox/fake", "test"},
		"internal/client":         {"cmd/caesarion", "internal/bench", "test"},
		"internal/chat":           {"cmd/caesarion", "internal/httpapi", "test"},
		"internal/session":        {"cmd/caesarion", "internal/httpapi", "internal/chat", "test"},
		"internal/workspace":      {"cmd/caesarion", "internal/httpapi", "test"},
		"internal/store":          {"cmd/caesarion", "internal/session", "internal/workspace", "internal/identity/accounts", "internal/limits", "internal/egress", "internal/httpapi/httpapitest", "test"},
		"internal/config":         {"cmd/caesarion", "test"},
	}
	packages := packagesOf(t)
	if len(packages) < 8 {
		t.Fatalf("found only %d packages: %v", len(packages), packages)
	}
	for pkg, imports := range packages {
		for _, imported := range imports {
			for owner, users := range only {
				if !within(imported, owner) || within(pkg, owner) {
					continue
				}
				if !slices.ContainsFunc(users, func(user string) bool { return within(pkg, user) }) {
					t.Errorf("%s imports %s, which only %s may", pkg, imported, strings.Join(users, ", "))
				}
			}
		}
	}
}

// What runs inside the sandbox, beside hostile code, has nothing of the server.
func TestTheAgentIsSmall(t *testing.T) {
	allowed := []string{"cmd/caesarion-agent", "internal/agent", "internal/agentapi", "internal/errdefs", "internal/event", "internal/kernel", "internal/quiet"}
	packages := packagesOf(t)
	seen := map[string]bool{}
	var visit func(pkg, by string)
	visit = func(pkg, by string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		if !slices.ContainsFunc(allowed, func(a string) bool { return within(pkg, a) }) {
			t.Errorf("the agent links %s, by way of %s", pkg, by)
		}
		for _, imported := range packages[pkg] {
			visit(imported, pkg)
		}
	}
	if _, ok := packages["cmd/caesarion-agent"]; !ok {
		t.Fatal("there is no cmd/caesarion-agent")
	}
	visit("cmd/caesarion-agent", "itself")
}

// Nothing of the wire format depends on who sends it.
func TestContractsImportNoImplementation(t *testing.T) {
	packages := packagesOf(t)
	for _, contract := range []string{"api/v1", "internal/errdefs", "internal/event", "internal/sandbox", "internal/agentapi"} {
		for _, imported := range packages[contract] {
			switch imported {
			case "internal/errdefs", "internal/event", "internal/sandbox", "api/v1":
			default:
				t.Errorf("%s imports %s", contract, imported)
			}
		}
	}
}

// within reports whether pkg is folder or below it.
func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// packagesOf gives the imports of every package of this module, tests left
// out, by their paths in it.
func packagesOf(t *testing.T) map[string][]string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	packages := map[string][]string{}
	for _, top := range []string{"api", "cmd", "internal", "images", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return err
			}
			if name := d.Name(); name == "testdata" || strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			pkg, err := build.Default.ImportDir(path, 0)
			if pkg == nil || len(pkg.GoFiles) == 0 {
				return nil // no Go here, or tests only
			}
			if err != nil {
				return err
			}
			name, err := filepath.Rel(root, path)
			if err != nil {
				return err
			}
			imports := []string{}
			for _, i := range pkg.Imports {
				if own, ok := strings.CutPrefix(i, module); ok {
					imports = append(imports, own)
				}
			}
			packages[filepath.ToSlash(name)] = imports
			return nil
		})
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	return packages
}
