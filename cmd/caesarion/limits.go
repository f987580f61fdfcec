package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/chat"
	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/limits"
)

// limiter is what a fleet and a chat ask how much users may use.
type limiter struct{ *limits.Service }

var (
	_ fleet.Limits = limiter{}
	_ chat.Limits  = limiter{}
)

// Hold implements fleet.Limits.
func (l limiter) Hold(owner identity.Owner, more fleet.Holding, held fleet.Held) error {
	return l.Service.Hold(owner, limits.Holding(more), limits.Held{User: limits.Holding(held.User), Organisation: limits.Holding(held.Organisation)})
}

// openLimits opens what counts and limits. A server with one user and no limits
// has none.
func (s *server) openLimits(ctx context.Context, opts serverOptions) (err error) {
	if opts.cfg.Auth != config.AuthAccounts && opts.cfg.Limits.IsZero() {
		return nil
	}
	options := limits.Options{Rules: rulesOf(opts.cfg.Limits), Replicas: s.replicas != nil, Logger: opts.log}
	if s.accounts != nil {
		options.Directory = s.directory
	}
	s.limits, err = limits.New(ctx, s.store, options)
	return err
}

// directory tells which users there are, by what settings call them.
func (s *server) directory(ctx context.Context) (limits.Directory, error) {
	dir := limits.Directory{People: map[string]limits.Person{}, Organisations: map[string]string{}}
	users, err := s.accounts.Users(ctx, "")
	if err != nil {
		return dir, err
	}
	for _, u := range users {
		p := limits.Person{Email: u.Email, Roles: map[string]identity.Role{}}
		for _, m := range u.Roles {
			p.Roles[m.Org] = m.Role
		}
		dir.People[u.ID] = p
	}
	orgs, err := s.accounts.Orgs(ctx)
	for _, o := range orgs {
		dir.Organisations[o.ID] = o.Name
	}
	return dir, err
}

// rulesOf turns settings into rules.
func rulesOf(l config.Limits) limits.Rules {
	sets := func(from map[string]config.LimitSet) map[string]limits.Set {
		to := make(map[string]limits.Set, len(from))
		for name, set := range from {
			to[name] = setOf(set)
		}
		return to
	}
	return limits.Rules{Default: setOf(l.Default), Roles: sets(l.Roles), Users: sets(l.Users), Organisations: sets(l.Organisations)}
}

func setOf(from config.LimitSet) limits.Set {
	to := limits.Set{Most: map[limits.Name]int64{}}
	for name, n := range map[limits.Name]*config.CountLimit{
		limits.Sandboxes: from.Sandboxes, limits.Creates: from.CreatesPerMinute, limits.Executions: from.ExecutionsPerMinute, limits.Tokens: from.ModelTokensPerDay,
	} {
		if n != nil {
			to.Most[name] = int64(*n)
		}
	}
	for name, n := range map[limits.Name]*config.SizeLimit{
		limits.Memory: from.Memory, limits.Disk: from.Disk, limits.Egress: from.EgressPerDay, limits.UploadSize: from.UploadSize,
	} {
		if n != nil {
			to.Most[name] = int64(*n)
		}
	}
	if t := from.CPUPerDay; t != nil {
		to.Most[limits.CPU] = limits.Unlimited
		if *t != config.Unlimited {
			to.Most[limits.CPU] = time.Duration(*t).Milliseconds()
		}
	}
	switch {
	case from.UploadTypes == nil:
	case slices.Equal(from.UploadTypes, []string{"*"}):
		to.UploadTypes = []string{}
	default:
		for _, ext := range from.UploadTypes {
			to.UploadTypes = append(to.UploadTypes, "."+strings.ToLower(strings.TrimPrefix(ext, ".")))
		}
	}
	return to
}
