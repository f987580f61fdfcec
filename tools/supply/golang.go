package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// programs are built for these machines; what is linked differs a little.
var (
	programs      = []string{"caesarion", "caesarion-agent"}
	architectures = []string{"amd64", "arm64"}
)

// goModules gives every module that any of the programs links, with the licences
// of the packages that are: a module's own, and those nearer to a package in it.
func goModules(ctx context.Context, root string) ([]Component, error) {
	type found struct {
		component Component
		dirs      map[string]bool
		dir       string
	}
	modules := map[string]*found{}
	for _, program := range programs {
		for _, arch := range architectures {
			cmd := exec.CommandContext(ctx, "go", "list", "-deps", "-f",
				"{{with .Module}}{{if not .Main}}{{.Path}}\t{{.Version}}\t{{.Dir}}\t{{$.Dir}}{{end}}{{end}}", "./cmd/"+program)
			cmd.Dir, cmd.Stderr = root, os.Stderr
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOFLAGS=-mod=readonly")
			out, err := cmd.Output()
			if err != nil {
				return nil, fmt.Errorf("go list ./cmd/%s: %w", program, err)
			}
			for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
				f := strings.Split(lines.Text(), "\t")
				if len(f) != 4 {
					continue // ours, or an empty line of the standard library
				}
				m := modules[f[0]]
				if m == nil {
					m = &found{component: Component{Kind: "go", Name: f[0], Version: f[1]}, dirs: map[string]bool{}, dir: f[2]}
					modules[f[0]] = m
				}
				m.dirs[f[3]] = true
				if !slices.Contains(m.component.Scope, program) {
					m.component.Scope = append(m.component.Scope, program)
				}
			}
		}
	}
	var list []Component
	for _, m := range modules {
		legal := map[string]bool{m.dir: true}
		for dir := range m.dirs {
			for d := dir; strings.HasPrefix(d, m.dir+string(filepath.Separator)); d = filepath.Dir(d) {
				legal[d] = true
			}
		}
		dirs := make([]string, 0, len(legal))
		for d := range legal {
			dirs = append(dirs, d)
		}
		slices.Sort(dirs)
		for _, d := range dirs {
			rel, err := filepath.Rel(m.dir, d)
			if err != nil {
				return nil, err
			}
			prefix := ""
			if rel != "." {
				prefix = filepath.ToSlash(rel) + "/"
			}
			texts, err := textsIn(d, prefix)
			if err != nil {
				return nil, wrap(m.component.Name, err)
			}
			m.component.Texts = append(m.component.Texts, texts...)
		}
		slices.Sort(m.component.Scope)
		list = append(list, m.component)
	}
	std, err := standardLibrary(list)
	if err != nil {
		return nil, err
	}
	list = append(list, std)
	sortComponents(list)
	return list, nil
}

// standardLibrary is Go's own, without a version: each builder has his, which
// `go version -m` says of a program. Its texts are those of its authors' other
// modules, word by word: some distributions keep them apart from their Go.
func standardLibrary(modules []Component) (Component, error) {
	at := slices.IndexFunc(modules, func(c Component) bool { return c.Name == "golang.org/x/sys" })
	if at < 0 {
		return Component{}, errors.New("golang.org/x/sys is linked no more: take Go's licence from another module of its authors")
	}
	return Component{Kind: "go", Name: "std", Texts: modules[at].Texts, Scope: slices.Clone(programs)}, nil
}
