package main

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// lockFile is what is read of a package-lock.json, version 3.
type lockFile struct {
	Packages map[string]lockedPackage `json:"packages"`
}

type lockedPackage struct {
	Version   string    `json:"version"`
	Integrity string    `json:"integrity"`
	Resolved  string    `json:"resolved"`
	License   string    `json:"license"`
	Dev       bool      `json:"dev"`
	Link      bool      `json:"link"`
	Optional  bool      `json:"optional"`
	OS        oneOrMore `json:"os"`
	CPU       oneOrMore `json:"cpu"`
	Libc      oneOrMore `json:"libc"`
	Scripts   bool      `json:"hasInstallScript"`
}

// oneOrMore is a list that npm writes as a plain string when it has one entry.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*o = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(o))
}

func readLock(file string) (lockFile, error) {
	var lock lockFile
	raw, err := os.ReadFile(file)
	if err != nil {
		return lock, err
	}
	return lock, wrap(file, json.Unmarshal(raw, &lock))
}

// builders are development packages that leave some of themselves in what they
// build: the reset of styles, and how modules find each other.
var builders = []string{"tailwindcss", "vite", "rolldown"}

// npmPackages gives every package that may be in the built page: the whole
// closure of its dependencies, of which the bundler leaves out what nothing uses.
func npmPackages(root string) ([]Component, error) {
	web := filepath.Join(root, "web")
	lock, err := readLock(filepath.Join(web, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	var list []Component
	for key, p := range lock.Packages {
		name := key // "node_modules/a/node_modules/b" is b; "" is the page itself
		if i := strings.LastIndex(key, "node_modules/"); i >= 0 {
			name = key[i+len("node_modules/"):]
		}
		if key == "" || p.Link || p.Dev && !slices.Contains(builders, name) {
			continue
		}
		c := Component{Kind: "npm", Name: name, Version: p.Version, Declared: p.License}
		if c.Texts, err = textsIn(filepath.Join(web, filepath.FromSlash(key)), ""); err != nil {
			return nil, fmt.Errorf("%s: %w; make deps-web and scripts/web.sh install the page's packages", name, err)
		}
		algorithm, sum, _ := strings.Cut(p.Integrity, "-")
		if raw, err := base64.StdEncoding.DecodeString(sum); err == nil && algorithm == "sha512" {
			c.Hashes = map[string]string{"SHA-512": hex.EncodeToString(raw)}
		}
		list = append(list, c)
	}
	sortComponents(list)
	// The same package at the same version in two folders is one.
	return slices.CompactFunc(list, func(a, b Component) bool { return a.Name == b.Name && a.Version == b.Version }), nil
}
