package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// auditPage asks npm. What may be in the page is serious; what only builds and
// tests it gets our own files to read, and is told.
func auditPage(ctx context.Context, o auditOptions) report {
	r := report{what: "packages of the page"}
	page, err := npmAudit(ctx, o.root, "--omit=dev")
	if err != nil {
		r.reason = err
		return r
	}
	tools, err := npmAudit(ctx, o.root)
	if err != nil {
		r.reason = err
		return r
	}
	for _, f := range tools {
		if f.Serious = slices.ContainsFunc(page, func(p Finding) bool { return p.ID == f.ID && p.Component == f.Component }); f.Serious {
			f.Why += ", in the page"
		} else {
			f.Why += ", only where the page is built and tested"
		}
		r.findings = append(r.findings, f)
	}
	r.checked = "package-lock.json of web, with what builds it"
	return r
}

func npmAudit(ctx context.Context, root string, flags ...string) ([]Finding, error) {
	cmd := exec.CommandContext(ctx, "npm", append([]string{"audit", "--json", "--package-lock-only"}, flags...)...)
	cmd.Dir = filepath.Join(root, "web")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	// It exits 1 both when it found something and when it could not ask.
	stdout, err := cmd.Output()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return nil, err
	}
	return readNPMAudit(stdout)
}

// readNPMAudit reads the report, version 2.
func readNPMAudit(raw []byte) ([]Finding, error) {
	var answer struct {
		Version         int    `json:"auditReportVersion"`
		Message         string `json:"message"`
		Vulnerabilities map[string]struct {
			Via []json.RawMessage `json:"via"`
			Fix json.RawMessage   `json:"fixAvailable"`
		} `json:"vulnerabilities"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil {
		return nil, fmt.Errorf("npm audit said no JSON: %w", err)
	}
	if answer.Version != 2 {
		what, _, _ := strings.Cut(answer.Message, " - ")
		return nil, fmt.Errorf("the registry does not answer npm audit (%s)", what)
	}
	var findings []Finding
	for _, name := range slices.Sorted(maps.Keys(answer.Vulnerabilities)) {
		for _, via := range answer.Vulnerabilities[name].Via {
			// A plain name says that it comes through another package, which has its own entry.
			var v struct {
				Source   int    `json:"source"`
				Title    string `json:"title"`
				URL      string `json:"url"`
				Severity string `json:"severity"`
				Range    string `json:"range"`
			}
			if json.Unmarshal(via, &v) != nil {
				continue
			}
			f := Finding{ID: v.URL[strings.LastIndex(v.URL, "/")+1:], Component: name + " " + v.Range, Summary: v.Title, Why: v.Severity}
			if f.ID == "" {
				f.ID = fmt.Sprint("npm-", v.Source)
			}
			findings = append(findings, f)
		}
	}
	return findings, nil
}
