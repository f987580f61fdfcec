package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/vuln/scan"
)

// publicGoDB is where Go's security team publishes.
const publicGoDB = "https://vuln.go.dev"

// patience is how long a source of data may take to answer at all.
const patience = 20 * time.Second

// auditGo runs govulncheck over the sources of the programs. Serious is what their
// code reaches; a vulnerable module whose bad part is never called is told only.
// Sources that can't be read are an error: the data were there.
func auditGo(ctx context.Context, o auditOptions) (report, error) {
	r := report{what: "Go modules"}
	db, err := reachGoDB(ctx, o.goDB)
	if err != nil {
		r.reason = err
		return r, nil
	}
	args := []string{"-format", "json", "-db", db, "-C", o.root}
	for _, p := range programs {
		args = append(args, "./cmd/"+p)
	}
	cmd := scan.Command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=-mod=readonly")
	if err := cmd.Start(); err != nil {
		return r, wrap("govulncheck", err)
	}
	if err := cmd.Wait(); err != nil {
		err = fmt.Errorf("govulncheck: %w: %s", err, strings.TrimSpace(stderr.String()))
		if strings.Contains(err.Error(), "loading packages") {
			return r, err
		}
		r.reason = err
		return r, nil
	}
	r.findings, r.checked, err = readGovulncheck(&stdout)
	return r, err
}

// reachGoDB gives the database in the form govulncheck takes, if it is there.
func reachGoDB(ctx context.Context, db string) (string, error) {
	if db == "" {
		db = publicGoDB
	}
	if !strings.Contains(db, "://") {
		dir, err := filepath.Abs(db)
		if err != nil {
			return "", err
		}
		if raw := filepath.Join(dir, "data", "osv"); isDir(raw) {
			dir = raw // a checkout
		}
		if !isDir(dir) {
			return "", fmt.Errorf("the database %s is no folder", db)
		}
		return (&url.URL{Scheme: "file", Path: dir}).String(), nil
	}
	if strings.HasPrefix(db, "file:") {
		return db, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, strings.TrimSuffix(db, "/")+"/index/modules.json.gz", http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", fmt.Errorf("the database does not answer: %w (-go-db or CAESARION_VULNDB names another, or a folder)", err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the database answers %s (-go-db or CAESARION_VULNDB names another, or a folder)", resp.Status)
	}
	return db, nil
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// vulnMessage is what is read of govulncheck's stream.
type vulnMessage struct {
	Config *struct {
		DBLastModified *time.Time `json:"db_last_modified"`
		GoVersion      string     `json:"go_version"`
	} `json:"config"`
	SBOM *struct {
		Modules []struct{} `json:"modules"`
	} `json:"SBOM"`
	OSV *struct {
		ID      string   `json:"id"`
		Aliases []string `json:"aliases"`
		Summary string   `json:"summary"`
	} `json:"osv"`
	Finding *struct {
		OSV   string `json:"osv"`
		Fixed string `json:"fixed_version"`
		Trace []struct {
			Module, Version, Package, Function, Receiver string
		} `json:"trace"`
	} `json:"finding"`
}

// levels of a finding: what is nearer to being reached replaces what is farther.
const (
	inModule = iota
	inPackage
	called
)

func readGovulncheck(stream io.Reader) (findings []Finding, checked string, err error) {
	level := map[string]int{}
	byID := map[string]*Finding{}
	known := map[string]vulnMessage{}
	modules, config := 0, ""
	for dec := json.NewDecoder(stream); ; {
		var m vulnMessage
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, "", wrap("govulncheck", err)
		}
		switch {
		case m.Config != nil:
			config = m.Config.GoVersion
			if t := m.Config.DBLastModified; t != nil && t.Year() > 1 {
				config += ", database of " + t.Format(time.DateOnly)
			}
		case m.SBOM != nil:
			modules = len(m.SBOM.Modules)
		case m.OSV != nil:
			known[m.OSV.ID] = m
		case m.Finding != nil && len(m.Finding.Trace) > 0:
			at := m.Finding.Trace[0]
			l, why := inModule, "the package that has it is not linked"
			if at.Function != "" {
				l, why = called, "called: "+strings.TrimPrefix(at.Package+".", ".")+strings.Trim(at.Receiver+"."+at.Function, ".")
			} else if at.Package != "" {
				l, why = inPackage, "linked, but never called"
			}
			f := byID[m.Finding.OSV]
			if f == nil {
				f = &Finding{ID: m.Finding.OSV}
				byID[f.ID] = f
			} else if l < level[f.ID] {
				continue
			}
			level[f.ID] = l
			f.Component, f.Fixed = strings.TrimSpace(at.Module+" "+at.Version), m.Finding.Fixed
			f.Serious, f.Why = l == called, why
		}
	}
	if config == "" {
		return nil, "", errors.New("govulncheck said nothing")
	}
	for id, f := range byID {
		if m, ok := known[id]; ok {
			f.Aliases, f.Summary = m.OSV.Aliases, m.OSV.Summary
		}
		findings = append(findings, *f)
	}
	slices.SortFunc(findings, func(a, b Finding) int { return strings.Compare(a.ID, b.ID) })
	return findings, fmt.Sprintf("%d modules, %s", modules, config), nil
}
