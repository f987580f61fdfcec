package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/google/licensecheck"
)

// Component is one thing of somebody else's.
type Component struct {
	Kind     string // go, npm, wheel, debian
	Name     string
	Version  string
	Declared string            // the licence that its own metadata names; empty if they name none
	Texts    []Text            // its licence and notice files
	Hashes   map[string]string // algorithm as CycloneDX writes it ("SHA-256") to hex
	Scope    []string          // programs that have it, of a Go module
}

// Text is one licence or notice file.
type Text struct {
	Name string // path inside the component
	Body string
}

func (c Component) id() string { return c.Kind + ":" + c.Name }

// purl is the component's package URL.
func (c Component) purl() string {
	switch c.Kind {
	case "go":
		return "pkg:golang/" + c.Name + "@" + c.Version
	case "npm":
		return "pkg:npm/" + strings.Replace(c.Name, "@", "%40", 1) + "@" + c.Version
	case "wheel":
		return "pkg:pypi/" + strings.ToLower(strings.ReplaceAll(c.Name, "_", "-")) + "@" + c.Version
	default:
		escape := strings.NewReplacer(":", "%3A", "+", "%2B", "~", "%7E")
		return "pkg:deb/debian/" + escape.Replace(c.Name) + "@" + escape.Replace(c.Version)
	}
}

// licence is what the component is under, as an SPDX expression: what its
// metadata declare, else what its texts are. Empty if neither says.
func (c Component) licence() string {
	if c.Declared != "" {
		return c.Declared
	}
	return strings.Join(c.found(), " AND ")
}

// minimumCoverage is the share of a file, in percent, that must be the text of
// licences for them to be believed to be all that it says.
const minimumCoverage = 75

// found gives the licences whose texts the component brings, sorted. A file with
// much else in it counts as none.
func (c Component) found() []string {
	var ids []string
	for _, t := range c.Texts {
		if !isLicence(t.Name) {
			continue
		}
		cover := licensecheck.Scan([]byte(t.Body))
		if cover.Percent < minimumCoverage {
			continue
		}
		for _, m := range cover.Match {
			if !m.IsURL && !slices.Contains(ids, m.ID) {
				ids = append(ids, m.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}

var (
	legalFile = regexp.MustCompile(`(?i)^(licen[cs]es?|copying|notice|patents|unlicense|copyright)([-_.].*)?$`)
	notLegal  = regexp.MustCompile(`(?i)\.(go|js|mjs|cjs|ts|json|py|html|docs|logo)$|-logo$`)
)

func isLegal(name string) bool { return legalFile.MatchString(name) && !notLegal.MatchString(name) }

// isLicence tells a licence from a notice, which grants nothing.
func isLicence(name string) bool {
	name = strings.ToLower(filepath.Base(name))
	return !strings.HasPrefix(name, "notice") && !strings.HasPrefix(name, "patents")
}

// textsIn reads the licence and notice files of one folder; prefix goes before
// their names.
func textsIn(dir, prefix string) ([]Text, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var texts []Text
	for _, e := range entries {
		if !e.Type().IsRegular() || !isLegal(e.Name()) {
			continue
		}
		body, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		texts = append(texts, Text{Name: prefix + e.Name(), Body: tidy(string(body))})
	}
	return texts, nil
}

// tidy makes two copies of a text equal that differ in ends of lines only, and
// takes out what a terminal would act on: these texts are printed.
func tidy(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, s)
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " \t")
	}
	return strings.Trim(strings.Join(lines, "\n"), "\n")
}

func sortComponents(list []Component) {
	slices.SortFunc(list, func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
