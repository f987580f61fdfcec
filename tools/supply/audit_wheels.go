package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
)

// maxAnswer bounds what is read of one answer of the index, in bytes: releases
// with many files have some megabytes.
const maxAnswer = 64 << 20

// auditWheels asks the index for each wheel that the image's recipe locks. All are
// serious: users' code calls what it likes.
func auditWheels(ctx context.Context, o auditOptions) report {
	r := report{what: "wheels of the image"}
	locked, err := lockedWheels(o.root)
	if err != nil || len(locked) == 0 {
		r.reason = fmt.Errorf("no locked wheels: %w", err)
		return r
	}
	// One first: where the index has no such answers, it is asked once.
	findings := make([][]Finding, len(locked))
	if findings[0], r.reason = wheelVulnerabilities(ctx, o.pypi, locked[0]); r.reason != nil {
		return r
	}
	errs := make([]error, len(locked))
	var all sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := 1; i < len(locked); i++ {
		all.Go(func() {
			slots <- struct{}{}
			findings[i], errs[i] = wheelVulnerabilities(ctx, o.pypi, locked[i])
			<-slots
		})
	}
	all.Wait()
	for i := range locked {
		if errs[i] != nil {
			r.reason = errs[i]
			return r
		}
		r.findings = append(r.findings, findings[i]...)
	}
	r.checked = fmt.Sprintf("%d wheels", len(locked))
	return r
}

func wheelVulnerabilities(ctx context.Context, index string, c Component) ([]Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(index, "/")+"/"+c.Name+"/"+c.Version+"/json", http.NoBody)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the index does not answer: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the index answers %s to the question about %s %s", resp.Status, c.Name, c.Version)
	}
	var answer struct {
		Vulnerabilities *[]struct {
			ID        string   `json:"id"`
			Aliases   []string `json:"aliases"`
			Summary   string   `json:"summary"`
			Details   string   `json:"details"`
			FixedIn   []string `json:"fixed_in"`
			Withdrawn *string  `json:"withdrawn"`
		} `json:"vulnerabilities"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&answer); err != nil {
		return nil, fmt.Errorf("the index answers no JSON about %s: %w", c.Name, err)
	}
	if answer.Vulnerabilities == nil {
		return nil, fmt.Errorf("the index says nothing of vulnerabilities about %s", c.Name)
	}
	var list []Finding
	for _, v := range *answer.Vulnerabilities {
		if v.Withdrawn != nil {
			continue
		}
		summary := v.Summary
		if summary == "" {
			summary, _, _ = strings.Cut(v.Details, "\n")
		}
		list = append(list, Finding{
			ID: v.ID, Aliases: v.Aliases, Component: c.Name + " " + c.Version, Fixed: strings.Join(v.FixedIn, ", "),
			Summary: summary, Serious: true, Why: "in the sandbox image",
		})
	}
	return list, nil
}
