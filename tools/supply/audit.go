package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

type auditOptions struct {
	root   string
	goDB   string
	pypi   string
	strict bool
}

// Finding is one known vulnerability of something we have.
type Finding struct {
	ID        string   // GO-2026-1234, GHSA-…, PYSEC-…
	Aliases   []string // other names of the same, which accepted.json may use too
	Component string   // name and version
	Fixed     string   // the version that mends it; empty if none does
	Summary   string
	Serious   bool   // a failure unless accepted; else only told
	Why       string // why it is, or is not, serious
}

// report is what one source of data said.
type report struct {
	what     string // "Go", "page", "wheels"
	checked  string // what was looked at; empty if nothing could be
	reason   error  // why nothing could be
	findings []Finding
}

// acceptance is one entry of accepted.json: a vulnerability we live with for a while.
type acceptance struct {
	ID     string `json:"id"`
	Reason string `json:"reason"`
	Until  string `json:"until"` // the last day, as 2026-12-31
}

// longest is how far ahead an acceptance may end: what lasts longer is read anew.
const longest = 190 * 24 * time.Hour

// audit asks every source. A source that does not answer is told and no failure,
// unless strict: no build of ours must stop because another's server does.
func audit(ctx context.Context, o auditOptions, out io.Writer) error {
	now := time.Now().UTC()
	accepted, err := readAccepted(filepath.Join(o.root, "tools/supply/accepted.json"), now)
	if err != nil {
		return err
	}
	modules, err := auditGo(ctx, o)
	if err != nil {
		return err
	}
	return conclude([]report{modules, auditPage(ctx, o), auditWheels(ctx, o)}, accepted, o.strict, now, out)
}

func conclude(reports []report, accepted []acceptance, strict bool, now time.Time, out io.Writer) error {
	var errs []error
	used := map[string]bool{}
	whole := true // every source answered
	for _, r := range reports {
		if r.checked == "" {
			whole = false
			fmt.Fprintf(out, "audit: %s NOT CHECKED for known vulnerabilities: %s\n", r.what, oneLine(r.reason.Error()))
			if strict {
				errs = append(errs, fmt.Errorf("%s could not be checked", r.what))
			}
			continue
		}
		fmt.Fprintf(out, "audit: %s checked: %s; %d known vulnerabilities\n", r.what, r.checked, len(r.findings))
		for _, f := range r.findings {
			line := fmt.Sprintf("%s in %s: %s (%s)", f.ID, f.Component, f.Summary, f.Why)
			if f.Fixed != "" {
				line += "; mended in " + f.Fixed
			}
			line = oneLine(line)
			i := slices.IndexFunc(accepted, func(a acceptance) bool { return a.ID == f.ID || slices.Contains(f.Aliases, a.ID) })
			switch {
			case i >= 0 && !expired(accepted[i], now):
				used[accepted[i].ID] = true
				fmt.Fprintf(out, "  accepted until %s, %s: %s\n", accepted[i].Until, line, accepted[i].Reason)
			case i >= 0:
				used[accepted[i].ID] = true
				errs = append(errs, fmt.Errorf("%s; it was accepted until %s", line, accepted[i].Until))
			case f.Serious:
				errs = append(errs, errors.New(line))
			default:
				fmt.Fprintln(out, "  "+line)
			}
		}
	}
	for _, a := range accepted {
		if whole && !used[a.ID] {
			errs = append(errs, fmt.Errorf("tools/supply/accepted.json accepts %s, which nothing has any more", a.ID))
		}
	}
	if len(errs) > 0 {
		return fmt.Errorf("known vulnerabilities: upgrade, or enter a reason and a last day in tools/supply/accepted.json:\n%w", errors.Join(errs...))
	}
	return nil
}

// oneLine makes others' words fit for a log: they can neither move a terminal's
// cursor nor look like a line of ours.
func oneLine(s string) string { return strings.Join(strings.Fields(tidy(s)), " ") }

func expired(a acceptance, now time.Time) bool {
	until, err := time.Parse(time.DateOnly, a.Until)
	return err != nil || !now.Before(until.AddDate(0, 0, 1))
}

func readAccepted(file string, now time.Time) ([]acceptance, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []acceptance
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, wrap(file, err)
	}
	for _, a := range list {
		until, err := time.Parse(time.DateOnly, a.Until)
		switch {
		case a.ID == "" || a.Reason == "":
			return nil, fmt.Errorf("%s: %q needs an id and a reason", file, a.ID)
		case err != nil:
			return nil, fmt.Errorf("%s: %s: until is no day: %w", file, a.ID, err)
		case until.Sub(now) > longest:
			return nil, fmt.Errorf("%s: %s: until %s is too far ahead; half a year is the most", file, a.ID, a.Until)
		}
	}
	return list, nil
}
