package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/mail"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/erofs/go-erofs"
)

// defaultImages is where `make image` puts the image.
const defaultImages = "/var/lib/caesarion/images"

// sandboxImage is an image of the store, opened.
type sandboxImage struct {
	fs.FS
	digest string
	close  func() error
}

// openImage opens an image of a store by its name.
func openImage(store, name string) (*sandboxImage, error) {
	raw, err := os.ReadFile(filepath.Join(store, "catalog.json"))
	if err != nil {
		return nil, fmt.Errorf("no image store: %w", err)
	}
	var catalog struct {
		Names map[string]string `json:"names"`
	}
	if err := json.Unmarshal(raw, &catalog); err != nil {
		return nil, wrap("catalog.json", err)
	}
	digest := catalog.Names[name]
	if digest == "" {
		return nil, fmt.Errorf("the store %s has no image %q; make image builds it", store, name)
	}
	f, err := os.Open(filepath.Join(store, "erofs", strings.TrimPrefix(digest, "sha256:")+".erofs"))
	if err != nil {
		return nil, err
	}
	fsys, err := erofs.Open(f)
	if err != nil {
		f.Close()
		return nil, wrap(f.Name(), err)
	}
	return &sandboxImage{FS: fsys, digest: digest, close: f.Close}, nil
}

// site is where setup.sh of the image installs wheels.
const site = "usr/local/lib/python3.13/dist-packages"

// wheels gives the wheels that are installed in the image.
func wheels(fsys fs.FS) ([]Component, error) {
	files, err := fs.Glob(fsys, site+"/*.dist-info/METADATA")
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("the image has no wheels in %s: %w", site, err)
	}
	var list []Component
	for _, file := range files {
		f, err := fsys.Open(file)
		if err != nil {
			return nil, err
		}
		// Metadata are written as a mail's head; the description is its body.
		message, err := mail.ReadMessage(f)
		f.Close()
		if err != nil {
			return nil, wrap(file, err)
		}
		head := message.Header
		c := Component{Kind: "wheel", Name: normalName(head.Get("Name")), Version: head.Get("Version"), Declared: wheelLicence(head)}
		if c.Texts, err = wheelTexts(fsys, path.Dir(file), head["License-File"]); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	sortComponents(list)
	return list, nil
}

// wheelTexts reads the licence files that a wheel's metadata name, or, as older
// wheels name none, those that lie beside the metadata.
func wheelTexts(fsys fs.FS, dir string, names []string) ([]Text, error) {
	if len(names) == 0 {
		entries, err := fs.ReadDir(fsys, dir)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			if e.Type().IsRegular() && isLegal(e.Name()) {
				names = append(names, e.Name())
			}
		}
	}
	var texts []Text
	for _, name := range names {
		for _, at := range []string{"licenses/" + name, name} {
			if body, err := fs.ReadFile(fsys, path.Join(dir, at)); err == nil {
				texts = append(texts, Text{Name: name, Body: tidy(string(body))})
				break
			}
		}
	}
	return texts, nil
}

var separators = regexp.MustCompile(`[-_.]+`)

// normalName is a Python package's name as PEP 503 compares it.
func normalName(name string) string {
	return strings.ToLower(separators.ReplaceAllString(name, "-"))
}

// classified are the classifiers of wheels that name no expression yet. "BSD
// License" is of two or three clauses: the texts decide.
var classified = map[string]string{
	"MIT License":                                        "MIT",
	"Apache Software License":                            "Apache-2.0",
	"ISC License (ISCL)":                                 "ISC",
	"Mozilla Public License 2.0 (MPL 2.0)":               "MPL-2.0",
	"Python Software Foundation License":                 "PSF-2.0",
	"The Unlicense (Unlicense)":                          "Unlicense",
	"Historical Permission Notice and Disclaimer (HPND)": "HPND",
}

var spdxWord = regexp.MustCompile(`^[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+()-]+)*$`)

// wheelLicence reads what metadata say: the expression, a classifier, or the old
// field where it is a short name. Empty if none of these is clear.
func wheelLicence(head mail.Header) string {
	if e := head.Get("License-Expression"); e != "" {
		return e
	}
	var ids []string
	for _, c := range head["Classifier"] {
		if name, ok := strings.CutPrefix(c, "License :: OSI Approved :: "); ok && classified[name] != "" {
			ids = append(ids, classified[name])
		}
	}
	if len(ids) > 0 {
		return strings.Join(ids, " AND ")
	}
	if l := head.Get("License"); spdxWord.MatchString(l) && l != "BSD" {
		return l
	}
	return ""
}

// debianPackages gives what dpkg installed in the image. Their licences are in
// the image, /usr/share/doc/PACKAGE/copyright.
func debianPackages(fsys fs.FS) ([]Component, error) {
	f, err := fsys.Open("var/lib/dpkg/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var list []Component
	var c Component
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		switch key, value, _ := strings.Cut(lines.Text(), ": "); key {
		case "Package":
			c = Component{Kind: "debian", Name: value}
		case "Version":
			c.Version = value
		case "":
			if c.Name != "" {
				list = append(list, c)
			}
			c = Component{}
		}
	}
	if c.Name != "" {
		list = append(list, c)
	}
	sortComponents(list)
	return list, lines.Err()
}

var requirement = regexp.MustCompile(`(?m)^([A-Za-z0-9._-]+)==([^ \\\n]+)((?: \\\n +--hash=sha256:[0-9a-f]{64})*)`)

// lockedWheels gives what the image's recipe locks. Each has the hashes of all
// its files, of which one is installed.
func lockedWheels(root string) ([]Component, error) {
	raw, err := os.ReadFile(filepath.Join(root, "images/python/requirements.txt"))
	if err != nil {
		return nil, err
	}
	var list []Component
	for _, m := range requirement.FindAllStringSubmatch(string(raw), -1) {
		if m[3] == "" {
			return nil, fmt.Errorf("images/python/requirements.txt: %s has no hash; its README says how to lock anew", m[1])
		}
		list = append(list, Component{Kind: "wheel", Name: normalName(m[1]), Version: m[2]})
	}
	sortComponents(list)
	return list, nil
}
