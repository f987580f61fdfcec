package limits

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
)

// Figure is how much of one limit is used.
type Figure struct {
	Limit Name
	Used  int64
	Most  int64     // Unlimited: there is none
	Frees time.Time // zero: when something is given back
}

// Usage is what a subject uses.
type Usage struct {
	Owner       identity.Owner // of an organisation: without a user
	Scope       Scope
	Figures     []Figure // of all limits, in one order
	UploadMost  int64    // Unlimited: no limit
	UploadTypes []string // none: all
}

// Of gives what a user uses, and his organisation, if he has one.
func (s *Service) Of(ctx context.Context, owner identity.Owner, held Held) ([]Usage, error) {
	p := s.of(owner)
	for _, x := range p.subjects() {
		for _, c := range x.counters {
			c.mu.Lock()
			s.queueLocked(c, false)
			c.mu.Unlock()
		}
	}
	err := s.exchange(ctx, false)
	list := []Usage{s.usage(p.user, held.User)}
	if p.org != nil {
		list = append(list, s.usage(p.org, held.Organisation))
	}
	return list, err
}

func (s *Service) usage(x *subject, has Holding) Usage {
	now, rules := s.opts.now(), x.rules.Load()
	u := Usage{Owner: x.owner, Scope: x.scope, UploadMost: rules.of(UploadSize), UploadTypes: rules.UploadTypes}
	for _, k := range kinds {
		f := Figure{Limit: k.name, Most: rules.of(k.name)}
		switch k.name {
		case Sandboxes:
			f.Used = has.Sandboxes
		case Memory:
			f.Used = has.MemoryBytes
		case Disk:
			f.Used = has.DiskBytes
		default:
			c := x.counters[place(k.name)]
			c.mu.Lock()
			c.rollLocked(now)
			f.Used, f.Frees = max(0, c.usedLocked()), c.start.Add(k.window)
			c.mu.Unlock()
		}
		u.Figures = append(u.Figures, f)
	}
	return u
}

// Nothing gives the usage of an owner where nothing is limited or counted.
func Nothing(owner identity.Owner, held Held) []Usage {
	one := func(owner identity.Owner, scope Scope, has Holding) Usage {
		u := Usage{Owner: owner, Scope: scope, UploadMost: Unlimited}
		for i, used := range [...]int64{has.Sandboxes, has.MemoryBytes, has.DiskBytes} {
			u.Figures = append(u.Figures, Figure{Limit: kinds[i].name, Used: used, Most: Unlimited})
		}
		return u
	}
	if owner.User == "" && owner.Org != "" {
		return []Usage{one(owner, Organisation, held.User)}
	}
	list := []Usage{one(owner, User, held.User)}
	if owner.Org != "" {
		list = append(list, one(identity.Owner{Org: owner.Org}, Organisation, held.Organisation))
	}
	return list
}

// All gives what everybody uses who used or has something today, of one
// organisation or, with "", of all. Held is what they have, by owner; under an
// owner without a user stands what an organisation has.
func (s *Service) All(ctx context.Context, org string, held map[identity.Owner]Holding) ([]Usage, error) {
	if err := s.exchange(ctx, false); err != nil {
		return nil, err
	}
	rows, err := s.rows(ctx, "")
	if err != nil {
		return nil, err
	}
	list := map[identity.Owner]*Usage{}
	find := func(owner identity.Owner) *Usage {
		u := list[owner]
		if u == nil {
			x := s.subjectOf(owner)
			made := s.usage(x, held[owner])
			u, list[owner] = &made, &made
		}
		return u
	}
	for owner := range held {
		if org == "" || owner.Org == org {
			find(owner)
		}
	}
	for _, r := range rows {
		owner, _, ok := ownerOf(r.subject)
		if !ok || org != "" && owner.Org != org {
			continue
		}
		u := find(owner)
		i := slices.IndexFunc(u.Figures, func(f Figure) bool { return f.Limit == Name(r.name) })
		if at := place(Name(r.name)); i >= 0 && at >= 0 {
			u.Figures[i].Used = s.subjectOf(owner).counters[at].usedOf(s, r.used) // of which this server need not know yet
		}
	}
	out := make([]Usage, 0, len(list))
	for _, u := range list {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(a, b Usage) int {
		return cmp.Or(cmp.Compare(a.Owner.Org, b.Owner.Org), cmp.Compare(a.Owner.User, b.Owner.User))
	})
	return out, nil
}

// subjectOf finds the subject of an owner, which without a user is his
// organisation.
func (s *Service) subjectOf(owner identity.Owner) *subject {
	if owner.User == "" && owner.Org != "" {
		return s.organisation(owner.Org)
	}
	return s.of(owner).user
}
