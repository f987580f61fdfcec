package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files that licences writes. The first is embedded in the program, the second is
// served with the page, the third is a list only: the texts are in the image.
const (
	goTexts   = "licenses/third-party.txt"
	pageTexts = "web/public/assets/licenses.txt"
	imageList = "licenses/image.txt"
)

// licences writes the lists, or compares them, and judges every component.
func licences(ctx context.Context, root, images string, check bool, out io.Writer) error {
	p, err := readPolicy(root)
	if err != nil {
		return err
	}
	modules, err := goModules(ctx, root)
	if err != nil {
		return err
	}
	packages, err := npmPackages(root)
	if err != nil {
		return err
	}
	locked, err := lockedWheels(root)
	if err != nil {
		return err
	}
	files := map[string]string{
		goTexts:   render("The Go modules that are linked into caesarion and caesarion-agent.", p, modules),
		pageTexts: render("The packages that the page is built from.", p, packages),
	}
	all := slices.Concat(modules, packages)

	image, imageErr := openImage(images, "python")
	if imageErr == nil {
		defer image.close()
		installed, err := wheels(image)
		if err != nil {
			return err
		}
		if !slices.EqualFunc(installed, locked, sameVersion) {
			imageErr = errors.New("the image there is from another list of wheels; make image builds it anew")
		} else {
			files[imageList] = listed(p, installed)
			all = slices.Concat(all, installed)
		}
	}
	if imageErr != nil {
		// What the image was when the list was written must still be what is locked.
		fmt.Fprintf(out, "licences: the texts of the image's wheels were NOT CHECKED (%v); their names and versions are\n", imageErr)
		if err := compareList(root, locked); err != nil {
			return err
		}
	}

	var errs []error
	for _, c := range all {
		if _, refused := p.judge(c); refused != "" {
			errs = append(errs, fmt.Errorf("%s %s: %s", c.id(), c.Version, refused))
		}
	}
	errs = append(errs, p.stale(all, imageErr == nil)...)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("licences that are not allowed, or not known:\n%w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := put(filepath.Join(root, name), files[name], check); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "licences: %d Go modules, %d packages of the page, %d wheels of the image: all allowed\n", len(modules), len(packages), len(locked))
	return nil
}

// stale names decisions about what is no longer there.
func (p policy) stale(all []Component, withImage bool) []error {
	var errs []error
	for _, id := range slices.Sorted(maps.Keys(p.Decided)) {
		if strings.HasPrefix(id, "wheel:") && !withImage {
			continue
		}
		if !slices.ContainsFunc(all, func(c Component) bool { return c.id() == id }) {
			errs = append(errs, fmt.Errorf("licenses/policy.json decides on %s, which is not there any more", id))
		}
	}
	return errs
}

func put(file, content string, check bool) error {
	was, err := os.ReadFile(file)
	if err == nil && string(was) == content {
		return nil
	}
	if check {
		return fmt.Errorf("%s is not what the sources say: commit what make licences writes", file)
	}
	return os.WriteFile(file, []byte(content), 0o644)
}

func sameVersion(a, b Component) bool { return a.Name == b.Name && a.Version == b.Version }

// listed is a table: name, version, licence.
func listed(p policy, list []Component) string {
	var b strings.Builder
	for _, c := range list {
		licence, _ := p.judge(c)
		fmt.Fprintf(&b, "%s %s  %s\n", c.Name, cmp.Or(c.Version, "(the builder's)"), licence)
	}
	return b.String()
}

// compareList compares names and versions of the list of the image's wheels with
// what is locked.
func compareList(root string, locked []Component) error {
	raw, err := os.ReadFile(filepath.Join(root, imageList))
	if err != nil {
		return err
	}
	var have []string
	for line := range strings.Lines(string(raw)) {
		nameVersion, _, _ := strings.Cut(line, "  ")
		have = append(have, nameVersion)
	}
	want := make([]string, len(locked))
	for i, c := range locked {
		want[i] = c.Name + " " + c.Version
	}
	if !slices.Equal(have, want) {
		return fmt.Errorf("%s is not the list of images/python/requirements.txt: build the image, then commit what make licences writes", imageList)
	}
	return nil
}

// render lists components and gives each text once, with those it is of.
func render(title string, p policy, list []Component) string {
	type text struct {
		body string
		of   []string
	}
	var texts []*text
	byBody := map[string]*text{}
	for _, c := range list {
		for _, t := range c.Texts {
			// A copy that differs in line breaks only is the same text.
			key := strings.Join(strings.Fields(t.Body), " ")
			if byBody[key] == nil {
				byBody[key] = &text{body: t.Body}
				texts = append(texts, byBody[key])
			}
			byBody[key].of = append(byBody[key].of, strings.TrimSpace(c.Name+" "+c.Version)+", "+t.Name)
		}
	}
	const rule = "--------------------------------------------------------------------------------\n"
	var b strings.Builder
	b.WriteString(title + "\nName, version and licence first, then the texts they come with.\n\n")
	b.WriteString(listed(p, list))
	for _, t := range texts {
		b.WriteString("\n" + rule)
		for _, of := range t.of {
			b.WriteString(of + "\n")
		}
		b.WriteString(rule + "\n" + t.body + "\n")
	}
	return b.String()
}
