package llm

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Hint is the line that says how to get a model where there is none.
const Hint = "Set OPENAI_API_KEY, start Ollama or llama.cpp on this machine, or list models in the settings file (docs/models.md)."

// RegistryOptions configures a Registry. With the zero value, there are the
// models given and no others.
type RegistryOptions struct {
	// Default names the model that answers where none is named; empty: the
	// first.
	Default string
	// Discover looks for model servers on this machine, when no models are
	// given.
	Discover []LocalServer
	// ProbeAgain is how old an answer of Discover may be; default 3 s, so that
	// a person who starts Ollama and reloads the page finds it.
	ProbeAgain time.Duration
	Logger     *slog.Logger // default: discard
}

// Registry knows the models of this installation. Its methods may be called
// concurrently.
type Registry struct {
	configured []Model
	def        string
	finder     *finder // nil: only the configured ones
}

// NewRegistry makes a registry of models, in the order that people see them.
func NewRegistry(models []Model, opts RegistryOptions) *Registry {
	r := &Registry{configured: models, def: opts.Default}
	if opts.ProbeAgain <= 0 {
		opts.ProbeAgain = 3 * time.Second
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if len(models) == 0 && len(opts.Discover) > 0 {
		r.finder = newFinder(opts)
	}
	return r
}

// Models lists the models, in the order that people should see them. The
// default is marked. With none configured it may look for local servers, which
// takes at most some hundred milliseconds, and nothing if it did so lately.
func (r *Registry) Models(ctx context.Context) []Info {
	models := r.models(ctx)
	infos := make([]Info, len(models))
	def := r.defaultOf(models)
	for i, m := range models {
		infos[i] = m.Info()
		infos[i].Default = i == def
	}
	return infos
}

// Default gives the name of the model that answers where none is named, or ""
// when there is no model.
func (r *Registry) Default(ctx context.Context) string {
	models := r.models(ctx)
	if i := r.defaultOf(models); i >= 0 {
		return models[i].Info().Name
	}
	return ""
}

// Get finds the model with this name; an empty name means the default one.
// The errors are CodeNone and CodeNotFound.
func (r *Registry) Get(ctx context.Context, name string) (Model, error) {
	models := r.models(ctx)
	if len(models) == 0 {
		return nil, errdefs.New(errdefs.ErrUnavailable, CodeNone, "There is no language model.").WithHint("%s", Hint)
	}
	if name == "" {
		return models[r.defaultOf(models)], nil
	}
	if i := slices.IndexFunc(models, func(m Model) bool { return m.Info().Name == name }); i >= 0 {
		return models[i], nil
	}
	return nil, errdefs.New(errdefs.ErrNotFound, CodeNotFound, "There is no model named %q here.", short(name, 100)).
		WithHint("choose another one; GET /v1/models lists them")
}

// Hint says in one line how to add a model, or nothing when there is one.
func (r *Registry) Hint(ctx context.Context) string {
	if len(r.models(ctx)) > 0 {
		return ""
	}
	return Hint
}

// CloseIdle closes connections that are kept for the next look for local
// servers.
func (r *Registry) CloseIdle() {
	if r.finder != nil {
		r.finder.client.CloseIdleConnections()
	}
}

func (r *Registry) defaultOf(models []Model) int {
	if i := slices.IndexFunc(models, func(m Model) bool { return m.Info().Name == r.def }); i >= 0 {
		return i
	}
	return min(0, len(models)-1)
}

func (r *Registry) models(ctx context.Context) []Model {
	if r.finder == nil {
		return r.configured
	}
	return r.finder.models(ctx)
}

// LocalServer is where a model server of this machine may listen.
type LocalServer struct {
	Kind    LocalKind
	BaseURL string // without path, on loopback
}

// LocalKind says what program a local server would be.
type LocalKind string

// The programs that are looked for.
const (
	Ollama   LocalKind = "Ollama"
	LlamaCPP LocalKind = "llama.cpp"
)

// LocalServers are the places where Ollama and llama.cpp listen unless told
// otherwise.
func LocalServers() []LocalServer {
	return []LocalServer{{Ollama, "http://127.0.0.1:11434"}, {LlamaCPP, "http://127.0.0.1:8080"}}
}

// probeTimeout is long for an answer from this machine, and short enough that
// a page does not wait visibly for a server that hangs.
const probeTimeout = 400 * time.Millisecond
