package httpapi

import (
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/limits"
)

// Starts and executions are counted where they begin, in fleet, whoever asks for
// them; tokens in chat, and bytes of the network at the gateway. What is left is
// here: uploads and commands, and a first look before a request is taken on that
// would be refused later, where nobody sees it.

// limit refuses what somebody may not do now. It comes last before the handlers.
func (a *API) limit(next http.Handler) http.Handler {
	if a.opts.Limits == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost && r.Method != http.MethodPut {
			next.ServeHTTP(w, r)
			return
		}
		_, pattern := a.mux.Handler(r)
		var err error
		switch owner := identity.From(r.Context()).Owner(); a.access[pattern].operation {
		case "write-file":
			err = a.limitUpload(r, owner, r.ContentLength)
		case "write-session-file":
			size := r.ContentLength
			if m := contentRange.FindStringSubmatch(r.Header.Get("Content-Range")); m != nil {
				size, _ = strconv.ParseInt(m[3], 10, 64) // digits, and few
			}
			err = a.limitUpload(r, owner, size)
		case "run-process":
			err = a.opts.Limits.Execute(r.Context(), owner)
		case "run-items":
			err = a.opts.Limits.MayExecute(owner)
		}
		if err != nil {
			a.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// limitUpload checks an upload, and its body while it comes if nobody says how
// long it is.
func (a *API) limitUpload(r *http.Request, owner identity.Owner, size int64) error {
	if err := a.opts.Limits.Upload(owner, r.URL.Query().Get("path"), size); err != nil {
		return err
	}
	if size < 0 {
		r.Body = &limitedBody{r.Body, a.limitedReader(owner, r.Body)}
	}
	return nil
}

type limitedBody struct {
	io.Closer
	io.Reader
}

// limitedReader ends with an error when more comes than somebody may upload.
func (a *API) limitedReader(owner identity.Owner, from io.Reader) io.Reader {
	if a.opts.Limits == nil {
		return from
	}
	most := a.opts.Limits.UploadMost(owner)
	if most == limits.Unlimited {
		return from
	}
	return &uploadReader{from, most, most}
}

type uploadReader struct {
	from       io.Reader
	left, most int64
}

func (u *uploadReader) Read(p []byte) (int, error) {
	if int64(len(p)) > u.left+1 { // one more tells that there is more
		p = p[:u.left+1]
	}
	n, err := u.from.Read(p)
	if u.left -= int64(n); u.left < 0 {
		return 0, limits.TooLarge(0, u.most)
	}
	return n, err
}

// mayUpload checks the name of a file in a form, whose size is not known.
func (a *API) mayUpload(ctx context.Context, name string) error {
	if a.opts.Limits == nil {
		return nil
	}
	return a.opts.Limits.Upload(identity.From(ctx).Owner(), name, -1)
}

// tooLarge gives the refusal of an upload that was ended by it, which comes back
// as the failure of whatever read it.
func tooLarge(read, err error) error {
	if e, ok := errors.AsType[*limits.Error](read); ok {
		return e
	}
	return err
}

// limited tells of the limit in a problem, and when to come again.
func (p *problem) limited(err error) {
	e, ok := errors.AsType[*limits.Error](err)
	if !ok {
		return
	}
	p.Limit = &v1.LimitReached{Limit: string(e.Limit), Scope: string(e.Scope), Used: e.Used, Most: e.Most, Unit: limits.UnitOf(e.Limit)}
	if !e.Frees.IsZero() {
		p.Limit.FreesAt = &e.Frees
		p.header.Set("Retry-After", strconv.Itoa(max(1, int(math.Ceil(time.Until(e.Frees).Seconds())))))
	}
}

type usageInput struct {
	Org string `query:"organisation" maxLength:"64" doc:"Of another organisation, for operators; *: all, and what belongs to none"`
}

func (a *API) usageRoutes() {
	register(a, huma.Operation{
		OperationID: "get-my-usage", Method: http.MethodGet, Path: "/v1/usage", Tags: []string{tagServer},
		Summary:     "What one uses, and of how much",
		Description: "One's own figures, and those of the organisation in which one acts. A limit without `most` has no bound. What is counted by the minute or the day says when it begins anew (`frees_at`).\n\nA refusal is 429, or 403 for what can never be, with the code of the limit and `limit` in the problem: which, whose, how much is used, of how much, until when (also Retry-After).",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.Allowance], error) {
		owner := identity.From(ctx).Owner()
		held, err := a.fleet.Held(ctx, owner)
		if err != nil {
			return nil, err
		}
		has := limits.Held{User: limits.Holding(held.User), Organisation: limits.Holding(held.Organisation)}
		var list []limits.Usage
		if a.opts.Limits == nil {
			list = limits.Nothing(owner, has)
		} else if list, err = a.opts.Limits.Of(ctx, owner, has); err != nil {
			return nil, err
		}
		out := v1.Allowance{User: viewUsage(list[0])}
		if len(list) > 1 {
			org := viewUsage(list[1])
			out.Organisation = &org
		}
		return &answer[v1.Allowance]{out}, nil
	})
	register(a, huma.Operation{
		OperationID: "list-usage", Method: http.MethodGet, Path: "/v1/usage/all", Tags: []string{tagAdmin},
		Summary: "What everybody uses who used or has something today", Description: "The users of the organisation, and itself.",
	}, func(ctx context.Context, in *usageInput) (*answer[v1.UsageList], error) {
		org := ""
		if who := identity.From(ctx); !who.Operator || in.Org != "*" && (in.Org != "" || who.Org != "") {
			var err error
			if org, err = organisation(ctx, in.Org); err != nil {
				return nil, err
			}
		}
		all, err := a.fleet.Holdings(ctx)
		if err != nil {
			return nil, err
		}
		held := make(map[identity.Owner]limits.Holding, len(all))
		for owner, h := range all {
			held[owner] = limits.Holding(h)
		}
		var list []limits.Usage
		if a.opts.Limits == nil {
			for owner, h := range held {
				if org == "" || owner.Org == org {
					list = append(list, limits.Nothing(owner, limits.Held{User: h})[0])
				}
			}
		} else if list, err = a.opts.Limits.All(ctx, org, held); err != nil {
			return nil, err
		}
		out := v1.UsageList{Usage: make([]v1.SubjectUsage, 0, len(list))}
		for _, u := range list {
			out.Usage = append(out.Usage, viewUsage(u))
		}
		return &answer[v1.UsageList]{out}, nil
	})
}

func viewUsage(u limits.Usage) v1.SubjectUsage {
	out := v1.SubjectUsage{Scope: string(u.Scope), UserID: u.Owner.User, OrganisationID: u.Owner.Org, UploadTypes: u.UploadTypes, Limits: []v1.LimitFigure{}}
	if u.UploadMost != limits.Unlimited {
		out.UploadBytes = &u.UploadMost
	}
	for _, f := range u.Figures {
		figure := v1.LimitFigure{Limit: string(f.Limit), Unit: limits.UnitOf(f.Limit), Used: f.Used}
		if f.Most != limits.Unlimited {
			figure.Most = &f.Most
		}
		if !f.Frees.IsZero() {
			figure.FreesAt = &f.Frees
		}
		out.Limits = append(out.Limits, figure)
	}
	return out
}
