package fleet

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// CreateRequest asks for a sandbox. The zero value gives the default template.
// Limits and durations may only be lower than the template's; zero keeps it.
type CreateRequest struct {
	Template         string
	Labels           map[string]string
	Env              map[string]string
	Limits           sandbox.Limits
	ExecutionTimeout time.Duration
	IdleTimeout      time.Duration
	Lifetime         time.Duration
	PauseAfter       time.Duration // 0: the template's; negative: never
	Snapshot         string        // id or name of a snapshot to make it from; empty: none
	Session          string        // the session it belongs to; empty: none
	Owner            identity.Owner
	Sees             func(identity.Owner) bool // whose snapshots are there for the caller; nil: everybody's
}

// Leaser gives running sandboxes: the warm pool of one machine or of a cluster.
type Leaser interface {
	Lease(ctx context.Context, req pool.Request) (*pool.Lease, error)
	Stats() map[string]pool.Stats
}

// cold is a Leaser without anything ready.
type cold struct{ driver sandbox.Driver }

func (c cold) Lease(ctx context.Context, req pool.Request) (*pool.Lease, error) {
	info, err := c.driver.Create(ctx, req.Spec)
	if err != nil {
		return nil, err
	}
	return &pool.Lease{Info: info, Start: pool.StartCold}, nil
}

func (cold) Stats() map[string]pool.Stats { return nil }

// Create makes a sandbox and returns once its agent answers. Its default
// kernel runs already, or starts meanwhile: the first execution waits for it.
// If ctx ends first, nothing is left.
func (f *Fleet) Create(ctx context.Context, req CreateRequest) (*Sandbox, error) {
	if req.Snapshot != "" {
		return f.createFrom(ctx, req)
	}
	name := req.Template
	if name == "" {
		name = f.opts.DefaultTemplate
	}
	t, ok := f.opts.Templates[name]
	if !ok {
		names := slices.Sorted(maps.Keys(f.opts.Templates))
		return nil, errdefs.New(errdefs.ErrInvalid, "template-unknown", "There is no template %q.", name).
			WithHint("The templates are: %s.", strings.Join(names, ", "))
	}
	rec, limits, err := f.plan(ctx, req, t)
	if err != nil {
		return nil, err
	}
	admitted, leave, err := f.enter(ctx, req.Owner, limits)
	if err != nil {
		return nil, err
	}
	defer leave()

	lease, err := f.pool.Lease(ctx, pool.Request{KernelID: rec.kernelID, Spec: sandbox.Spec{
		ID:       sandbox.NewID(),
		Template: name,
		Image:    t.Image,
		Limits:   limits,
		Env:      f.withNetwork(environment(t, req), name),
		Labels:   rec.labels(),
	}})
	if err != nil {
		return nil, fmt.Errorf("fleet: create from %s: %w", name, err)
	}
	rec.start = lease.Start // written down with the first use, not here
	var s *Sandbox
	if err := admitted.become(limits, func() (err error) {
		s, err = f.attach(lease.Info, rec, lease.Client)
		return err
	}); err != nil {
		return nil, err
	}
	if err := s.own(ctx); err != nil {
		return nil, err
	}
	s.beginCPU(ctx)
	if lease.KernelReady {
		s.mu.Lock()
		s.kernel = startedKernel(rec.kernelID)
		s.mu.Unlock()
	} else {
		s.startDefaultKernel()
	}
	f.log.Info("sandbox created", "sandbox_id", string(lease.Info.ID), "template", name, "start", string(lease.Start))
	return s, nil
}

func environment(t Template, req CreateRequest) map[string]string {
	env := maps.Clone(t.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, req.Env)
	return env
}

// plan checks a request against its template.
func (f *Fleet) plan(ctx context.Context, req CreateRequest, t Template) (record, sandbox.Limits, error) {
	now := time.Now()
	rec := record{
		kernelID: "krn_" + sandbox.RandomSuffix(),
		used:     now,
		seedID:   f.newSeedID(ctx),
		session:  req.Session,
		owner:    req.Owner,
		user:     maps.Clone(req.Labels),
		strict:   req.IdleTimeout > 0 && req.IdleTimeout < t.IdleTimeout,
		pause:    cmp.Or(req.PauseAfter, t.PauseAfter),
		maker:    f.opts.Replicas.ID(),
	}
	if err := checkLabels(req.Labels); err != nil {
		return rec, sandbox.Limits{}, err
	}
	if err := checkEnv(req.Env); err != nil {
		return rec, sandbox.Limits{}, err
	}
	for _, d := range []struct {
		field       string
		asked, most time.Duration
		to          *time.Duration
	}{
		{"execution_timeout_ms", req.ExecutionTimeout, t.ExecutionTimeout, &rec.execution},
		{"idle_timeout_ms", req.IdleTimeout, t.IdleTimeout, &rec.idle},
		{"lifetime_ms", req.Lifetime, t.Lifetime, &rec.life},
	} {
		v, err := lower(d.field, d.asked.Milliseconds(), d.most.Milliseconds())
		if err != nil {
			return rec, sandbox.Limits{}, err
		}
		*d.to = time.Duration(v) * time.Millisecond
	}
	rec.expires = now.Add(rec.life)

	limits := t.Limits
	var err error
	if limits.MemoryBytes, err = lower("limits.memory_bytes", req.Limits.MemoryBytes, t.Limits.MemoryBytes); err != nil {
		return rec, limits, err
	}
	if limits.CPUs, err = lower("limits.cpus", req.Limits.CPUs, t.Limits.CPUs); err != nil {
		return rec, limits, err
	}
	if limits.Processes, err = lower("limits.processes", req.Limits.Processes, t.Limits.Processes); err != nil {
		return rec, limits, err
	}
	limits.DiskBytes, err = lower("limits.disk_bytes", req.Limits.DiskBytes, t.Limits.DiskBytes)
	return rec, limits, err
}

// lower gives what was asked for if it is within most; zero means most, and a
// most of zero allows anything.
func lower[T int | int64 | float64](field string, asked, most T) (T, error) {
	switch {
	case asked < 0:
		return 0, errdefs.New(errdefs.ErrInvalid, "invalid-limit", "%s can't be negative.", field)
	case asked == 0:
		return most, nil
	case most > 0 && asked > most:
		return 0, errdefs.New(errdefs.ErrInvalid, "limit-too-high", "%s is %v, and the template allows at most %v.", field, asked, most)
	}
	return asked, nil
}

var seedName = regexp.MustCompile(`^sandbox-[0-9a-f]{8}$`)

// newSeedID makes a name as the original's API has it: "sandbox-" and the first
// eight characters of a UUID. So few may collide; a taken one is not used, also
// one of another replica that the driver knows.
func (f *Fleet) newSeedID(ctx context.Context) string {
	var b [4]byte
	for {
		_, _ = rand.Read(b[:]) // never fails, see crypto/rand
		id := "sandbox-" + hex.EncodeToString(b[:])
		if _, taken := f.BySeedID(id); taken {
			continue
		}
		if f.opts.Replicas != nil {
			if _, err := f.look(ctx, id); err == nil {
				continue
			}
		}
		return id
	}
}

const (
	maxLabels     = 32
	maxLabelValue = 255
	maxEnv        = 128
	maxEnvBytes   = 64 << 10 // far below what execve takes (128 KiB a string)
)

var labelKey = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]{0,61}[A-Za-z0-9])?$`)

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return errdefs.New(errdefs.ErrInvalid, "invalid-labels", "There are %d labels, and at most %d are kept.", len(labels), maxLabels)
	}
	for k, v := range labels {
		if !labelKey.MatchString(k) {
			return errdefs.New(errdefs.ErrInvalid, "invalid-labels", "The label name %.80q is not allowed.", k).
				WithHint("Use up to 63 letters, digits, '.', '_', '/' and '-', beginning and ending with a letter or digit.")
		}
		if len(v) > maxLabelValue {
			return errdefs.New(errdefs.ErrInvalid, "invalid-labels", "The value of label %q has %d bytes, and at most %d are kept.", k, len(v), maxLabelValue)
		}
	}
	return nil
}

var envKey = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

func checkEnv(env map[string]string) error {
	if len(env) > maxEnv {
		return errdefs.New(errdefs.ErrInvalid, "invalid-env", "There are %d environment variables, and at most %d are taken.", len(env), maxEnv)
	}
	total := 0
	for k, v := range env {
		if !envKey.MatchString(k) || strings.ContainsRune(v, 0) {
			return errdefs.New(errdefs.ErrInvalid, "invalid-env", "The environment variable %.80q is not allowed.", k).
				WithHint("Names are letters, digits and '_' and don't begin with a digit; values have no NUL.")
		}
		total += len(k) + len(v) + 2
	}
	if total > maxEnvBytes {
		return errdefs.New(errdefs.ErrInvalid, "invalid-env", "The environment has %d bytes, and at most %d are taken.", total, maxEnvBytes)
	}
	return nil
}
