package httpapi

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// answer is a JSON body.
type answer[T any] struct{ Body T }

// created is a JSON body with the address of what was made.
type created[T any] struct {
	Location string `header:"Location"`
	Body     T
}

// SandboxPath is the part of an input that names a sandbox.
type SandboxPath struct {
	SandboxID string `path:"sandbox_id" maxLength:"64" doc:"Identifier of the sandbox" example:"sbx_4kq2m7v6xqz5wd3hn2rjt0abcd"`
}

func (a *API) infoRoutes() {
	register(a, huma.Operation{
		OperationID: "get-info", Method: http.MethodGet, Path: "/v1/info", Tags: []string{tagServer},
		Summary:     "What this installation is and can do",
		Description: "Version, driver, templates and limits. capabilities.missing names each limit that this host can't enforce, with the reason.",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.Info], error) {
		return &answer[v1.Info]{a.info(ctx)}, nil
	})
	for _, r := range []struct{ id, method, path, summary string }{
		{"health", http.MethodGet, "/health", "Whether the server answers; needs no token"},
		{"health-post", http.MethodPost, "/health", "The same, as the original has it"},
		{"api-health", http.MethodGet, "/api/health", "The same under /api"},
		{"api-health-post", http.MethodPost, "/api/health", "The same under /api"},
	} {
		a.plain(huma.Operation{
			OperationID: r.id, Method: r.method, Path: r.path, Tags: []string{tagServer}, Summary: r.summary,
			Security: []map[string][]string{}, Responses: jsonResponse[v1.Health](a, "It answers"),
		}, health)
	}
}

// metricsRoute serves Metrics; the route is described even where there are none.
func (a *API) metricsRoute() {
	a.plain(huma.Operation{
		OperationID: "metrics", Method: http.MethodGet, Path: "/metrics", Tags: []string{tagServer},
		Summary: "What Prometheus reads", Description: "Starts, pools, sleep and failures as counters and histograms. It needs the token as everything does: `authorization` with `credentials_file` in Prometheus' settings.",
		Responses: map[string]*huma.Response{"200": {Description: "Prometheus' text format", Content: map[string]*huma.MediaType{"text/plain": {Schema: &huma.Schema{Type: "string"}}}}},
	}, func(w http.ResponseWriter, r *http.Request) {
		if a.opts.Metrics == nil {
			a.fail(w, r, errdefs.New(errdefs.ErrUnsupported, "metrics-off", "This server has no metrics.").WithHint("caesarion serve has them."))
			return
		}
		a.opts.Metrics.ServeHTTP(w, r)
	})
}

// health is byte for byte what the original answers: a float of seconds and no
// newline.
func health(w http.ResponseWriter, _ *http.Request) {
	now := strconv.FormatFloat(float64(time.Now().UnixMicro())/1e6, 'f', -1, 64)
	if !strings.Contains(now, ".") {
		now += ".0"
	}
	w.Header().Set("Content-Type", v1.MediaJSON)
	_, _ = io.WriteString(w, `{"status":"healthy","timestamp":`+now+`}`) // the client may have left
}

func (a *API) info(ctx context.Context) v1.Info {
	caps := a.fleet.Capabilities()
	templates, def := a.fleet.Templates()
	info := v1.Info{
		Version:      a.opts.Version,
		Driver:       caps.Driver,
		Capabilities: v1.Capabilities{Enforces: notNil(caps.Enforces), Missing: notNil(caps.Missing), Can: append([]string{}, caps.Can...)},
		Templates:    []v1.Template{},
		Limits:       v1.ServerLimits{MaxSandboxes: max(0, a.fleet.MaxSandboxes()), CodeBytes: maxCode, BodyBytes: maxBody},
		Sandboxes:    a.count(ctx),
	}
	pools := a.fleet.PoolStats()
	for _, name := range slices.Sorted(maps.Keys(templates)) {
		t := templates[name]
		view := v1.Template{
			Name: name, Default: name == def, Image: t.Image, Limits: v1.Limits(t.Limits),
			Network:            cmp.Or(a.fleet.Network(name), "none"),
			ExecutionTimeoutMS: t.ExecutionTimeout.Milliseconds(),
			IdleTimeoutMS:      t.IdleTimeout.Milliseconds(),
			LifetimeMS:         t.Lifetime.Milliseconds(),
			PauseAfterMS:       max(0, t.PauseAfter.Milliseconds()),
			Preload:            t.Preload,
		}
		if p, ok := pools[name]; ok {
			view.Pool = &v1.Pool{
				Size: p.Size, Ready: p.Ready, Starting: p.Starting, Snapshot: p.Snapshot, Message: p.Message, Hits: p.Hits, Misses: p.Misses,
			}
		}
		info.Templates = append(info.Templates, view)
	}
	return info
}

func (a *API) count(ctx context.Context) v1.SandboxesCount {
	var n v1.SandboxesCount
	list, _ := a.everywhere(ctx) // none of them, if they can't be listed
	for _, v := range list {
		n.Alive++
		if v.State == sandbox.StatePaused {
			n.Paused++
		}
	}
	return n
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func viewSandbox(s *fleet.Sandbox) v1.Sandbox { return sandboxOf(s.View()) }

func sandboxOf(v fleet.View) v1.Sandbox {
	sb := v1.Sandbox{
		ID: string(v.ID), Template: v.Template, Image: v.Image, State: string(v.State),
		Limits: v1.Limits(v.Limits), Labels: notNil(v.Labels), KernelID: v.KernelID,
		ExecutionTimeoutMS: v.ExecutionTimeout.Milliseconds(), IdleTimeoutMS: v.IdleTimeout.Milliseconds(),
		PauseAfterMS: max(0, v.PauseAfter.Milliseconds()), Start: string(v.Start), SavedBytes: v.SavedBytes,
		CreatedAt: v.CreatedAt, LastUsedAt: v.LastUsedAt, ExpiresAt: v.ExpiresAt,
	}
	if v.Owner != (identity.Owner{}) {
		sb.Owner = &v1.Owner{UserID: v.Owner.User, OrganisationID: v.Owner.Org}
	}
	if !v.PausedAt.IsZero() {
		sb.PausedAt = &v.PausedAt
	}
	if r := v.Restarted; r != nil {
		sb.Restarted = &v1.Restarted{At: r.At, Reason: r.Reason, Message: r.Message}
	}
	return sb
}

// nameOwners puts names to the owners of sandboxes, for those who see those of
// others.
func (a *API) nameOwners(ctx context.Context, list []v1.Sandbox) error {
	if a.opts.Accounts == nil || identity.From(ctx).May(identity.Administer) != nil {
		return nil
	}
	var owners []identity.Owner
	for _, sb := range list {
		if o := sb.Owner; o != nil {
			owners = append(owners, identity.Owner{User: o.UserID, Org: o.OrganisationID})
		}
	}
	names, err := a.opts.Accounts.NamesOf(ctx, owners)
	for _, sb := range list {
		if o := sb.Owner; o != nil {
			o.Email, o.OrganisationName = names.Emails[o.UserID], names.Organisations[o.OrganisationID]
		}
	}
	return err
}

func (a *API) sandboxRoutes() {
	tags := []string{tagSandboxes}
	register(a, huma.Operation{
		OperationID: "create-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary:     "Create a sandbox",
		Description: "Answers when the sandbox runs. Its default kernel starts meanwhile, and the first execution waits for it. If the connection is closed before the answer, nothing is left.\n\n`start` of the answer says how it came to be. With `snapshot` it has the memory and files of that state; where its memory can't be brought back here, it has the files and `restarted` says why.\n\nFailures: 400 `template-unknown`, `limit-too-high`, `invalid-labels`, `invalid-env`; 404 `snapshot-not-found`; 429 `too-many-sandboxes` with Retry-After; 501 `snapshot-unsupported`.",
	}, func(ctx context.Context, in *struct{ Body *v1.CreateSandbox }) (*created[v1.Sandbox], error) {
		body := v1.CreateSandbox{}
		if in.Body != nil {
			body = *in.Body
		}
		req := fleet.CreateRequest{
			Template: body.Template, Labels: body.Labels, Env: body.Env,
			ExecutionTimeout: millis(body.ExecutionTimeoutMS), IdleTimeout: millis(body.IdleTimeoutMS), Lifetime: millis(body.LifetimeMS),
			PauseAfter: millis(body.PauseAfterMS), Snapshot: body.Snapshot,
		}
		if body.Limits != nil {
			req.Limits = sandbox.Limits(*body.Limits)
		}
		s, err := a.create(ctx, req)
		if err != nil {
			return nil, err
		}
		note(ctx, slog.String("sandbox_id", string(s.ID())))
		return &created[v1.Sandbox]{"/v1/sandboxes/" + string(s.ID()), viewSandbox(s)}, nil
	})
	register(a, huma.Operation{
		OperationID: "list-sandboxes", Method: http.MethodGet, Path: "/v1/sandboxes", Tags: tags,
		Summary: "List the sandboxes, newest first", Description: "None of them is woken. Admins see those of all users of their organisation, and `owner` says by name whose each is.",
	}, func(ctx context.Context, _ *struct{}) (*answer[v1.SandboxList], error) {
		views, err := a.everywhere(ctx)
		if err != nil {
			return nil, err
		}
		list := v1.SandboxList{Sandboxes: make([]v1.Sandbox, 0, len(views))}
		for _, v := range views {
			list.Sandboxes = append(list.Sandboxes, sandboxOf(v))
		}
		return &answer[v1.SandboxList]{list}, a.nameOwners(ctx, list.Sandboxes)
	})
	register(a, huma.Operation{
		OperationID: "get-sandbox", Method: http.MethodGet, Path: "/v1/sandboxes/{sandbox_id}", Tags: tags,
		Summary:     "Get a sandbox",
		Description: "It is not woken. Failures, here and wherever a sandbox is named: 404 `sandbox-not-found`; 410 `sandbox-gone` with `reason` (deleted, expired, idle, out_of_memory, sandbox_lost, unresponsive; on Kubernetes also what the cluster did, such as evicted, preempted or node-lost).",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.Sandbox], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		return &answer[v1.Sandbox]{viewSandbox(s)}, nil
	})
	register(a, huma.Operation{
		OperationID: "delete-sandbox", Method: http.MethodDelete, Path: "/v1/sandboxes/{sandbox_id}", Tags: tags,
		Summary: "Delete a sandbox with all it holds", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, in *SandboxPath) (*struct{}, error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		return nil, s.Delete(ctx)
	})
	register(a, huma.Operation{
		OperationID: "extend-sandbox", Method: http.MethodPost, Path: "/v1/sandboxes/{sandbox_id}/extend", Tags: tags,
		Summary: "Move the end of a sandbox's life",
	}, func(ctx context.Context, in *struct {
		SandboxPath
		Body *v1.ExtendSandbox
	},
	) (*answer[v1.Sandbox], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		var d time.Duration
		if in.Body != nil {
			d = millis(in.Body.LifetimeMS)
		}
		if err := s.Extend(ctx, d); err != nil {
			return nil, err
		}
		return &answer[v1.Sandbox]{viewSandbox(s)}, nil
	})
	register(a, huma.Operation{
		OperationID: "get-usage", Method: http.MethodGet, Path: "/v1/sandboxes/{sandbox_id}/usage", Tags: tags,
		Summary: "Read the sandbox's resource counters", Description: "A sleeping sandbox is not woken: it has no memory and no processes, and `disk_bytes` is what it takes on the server's disk.",
	}, func(ctx context.Context, in *SandboxPath) (*answer[v1.Usage], error) {
		s, err := a.sandbox(ctx, in.SandboxID)
		if err != nil {
			return nil, err
		}
		u, err := usage(ctx, s)
		return &answer[v1.Usage]{u}, err
	})
}

// usage reads a sandbox's counters. Looking at it neither keeps it alive nor
// wakes it: asleep it uses nothing but disk.
func usage(ctx context.Context, s *fleet.Sandbox) (v1.Usage, error) {
	if v := s.View(); v.State == sandbox.StatePaused {
		return v1.Usage{
			MemoryLimitBytes: v.Limits.MemoryBytes, DiskLimitBytes: v.Limits.DiskBytes, DiskBytes: v.SavedBytes, At: time.Now().UTC(),
		}, nil
	}
	u, err := s.Agent().Usage(ctx)
	return v1.Usage(u), s.Explain(err)
}

// millis reads a duration of a request. The most that fits is far beyond any
// bound, so that nothing wraps around to a small or negative duration.
func millis(ms int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Millisecond)
	return time.Duration(min(ms, most)) * time.Millisecond
}
