package llm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// finder looks for model servers on this machine. Whoever asks while it looks
// waits for the same answer.
type finder struct {
	servers []LocalServer
	again   time.Duration // how old an answer may be
	log     *slog.Logger
	client  *http.Client

	looking chan struct{} // holds one while somebody looks

	mu     sync.Mutex
	at     time.Time // of the last look
	known  map[string]Model
	last   []Model
	titles string // what was found, to log changes only
}

func newFinder(opts RegistryOptions) *finder {
	transport := NewTransport()
	transport.Proxy = nil // this machine is not behind a proxy of itself
	return &finder{
		servers: opts.Discover,
		again:   opts.ProbeAgain,
		log:     opts.Logger,
		client: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		looking: make(chan struct{}, 1),
		known:   map[string]Model{},
	}
}

// models gives the models of the servers that answer. It looks again if the
// last look is old; a caller whose ctx ends gets what was known.
func (f *finder) models(ctx context.Context) []Model {
	if last, fresh := f.lately(); fresh {
		return last
	}
	select {
	case f.looking <- struct{}{}:
		defer func() { <-f.looking }()
	case <-ctx.Done():
		last, _ := f.lately()
		return last
	}
	if last, fresh := f.lately(); fresh { // by whom we waited for
		return last
	}
	// The look outlives a caller that leaves: others wait for it.
	ctx, done := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer done()
	found := make([][]Model, len(f.servers))
	var wg sync.WaitGroup
	for i, s := range f.servers {
		wg.Go(func() {
			models, err := f.look(ctx, s)
			if err != nil {
				f.log.Debug("no model server", "source", s.Kind, "err", err)
				return
			}
			found[i] = models
		})
	}
	wg.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last, f.at = slices.Concat(found...), time.Now()
	var names []string
	for _, m := range f.last {
		names = append(names, m.Info().Name)
	}
	if titles := strings.Join(names, ", "); titles != f.titles {
		f.titles = titles
		f.log.Info("local models", "models", names)
	}
	return f.last
}

func (f *finder) lately() ([]Model, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last, !f.at.IsZero() && time.Since(f.at) < f.again
}

func (f *finder) look(ctx context.Context, s LocalServer) ([]Model, error) {
	var infos []Info
	var err error
	switch s.Kind {
	case Ollama:
		infos, err = f.ollama(ctx, s.BaseURL)
	case LlamaCPP:
		infos, err = f.llamaCPP(ctx, s.BaseURL)
	default:
		err = fmt.Errorf("llm: no local server %q", s.Kind)
	}
	if err != nil {
		return nil, err
	}
	var models []Model
	for _, info := range infos {
		info.Source = string(s.Kind)
		m, err := f.model(s, info)
		if err != nil {
			return nil, err
		}
		models = append(models, m)
	}
	return models, nil
}

// model gives the model of an Info, the same one as long as nothing changes:
// it remembers what its server refuses.
func (f *finder) model(s LocalServer, info Info) (Model, error) {
	key := fmt.Sprintf("%s %+v", s.BaseURL, info)
	f.mu.Lock()
	defer f.mu.Unlock()
	if m, ok := f.known[key]; ok {
		return m, nil
	}
	m, err := NewChatCompletions(Endpoint{Info: info, BaseURL: s.BaseURL + "/v1", Timeout: localTimeout, Transport: f.client.Transport})
	if err != nil {
		return nil, err
	}
	if len(f.known) > 4*maxLocalModels { // names come from the server
		clear(f.known)
	}
	f.known[key] = m
	return m, nil
}

const (
	// localTimeout is the silence allowed to a model of this machine: it may
	// have to be loaded from disk first.
	localTimeout   = 5 * time.Minute
	maxLocalModels = 50
	maxProbeBody   = 4 << 20
	// ollamaContext is what Ollama gives a model unless told otherwise. What
	// is longer it cuts without a word, so less is better than more.
	ollamaContext = 4096
)

// ollama lists the models that Ollama has and that can chat.
//
// Source: Ollama's docs/api.md: /api/tags, /api/ps, /api/show.
func (f *finder) ollama(ctx context.Context, base string) ([]Info, error) {
	var tags struct {
		Models []struct {
			Name    string `json:"name"`
			Details struct {
				Families []string `json:"families"`
			} `json:"details"`
		} `json:"models"`
	}
	if err := f.call(ctx, http.MethodGet, base+"/api/tags", nil, &tags); err != nil {
		return nil, err
	}
	var loaded struct {
		Models []struct {
			Name          string `json:"name"`
			ContextLength int64  `json:"context_length"`
		} `json:"models"`
	}
	_ = f.call(ctx, http.MethodGet, base+"/api/ps", nil, &loaded) // then nothing is known of the window
	var infos []Info
	for _, m := range tags.Models {
		embeds := slices.ContainsFunc(m.Details.Families, func(family string) bool { return strings.Contains(family, "bert") })
		if !sensibleName(m.Name) || embeds || len(infos) == maxLocalModels {
			continue
		}
		info := Info{Name: m.Name, Title: strings.TrimSuffix(m.Name, ":latest"), ContextTokens: ollamaContext}
		for _, l := range loaded.Models {
			if l.Name == m.Name && l.ContextLength > 0 {
				info.ContextTokens = l.ContextLength
			}
		}
		var show struct {
			Capabilities []string `json:"capabilities"`
		}
		if f.call(ctx, http.MethodPost, base+"/api/show", map[string]string{"model": m.Name}, &show) == nil && len(show.Capabilities) > 0 {
			if !slices.Contains(show.Capabilities, "completion") {
				continue
			}
			info.Vision = slices.Contains(show.Capabilities, "vision")
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// llamaCPP gives the model that llama-server has loaded.
//
// Source: llama.cpp tools/server/README.md: /v1/models, /props.
func (f *finder) llamaCPP(ctx context.Context, base string) ([]Info, error) {
	var list struct {
		Data []struct {
			ID      string `json:"id"`
			OwnedBy string `json:"owned_by"`
			Meta    struct {
				Context int64 `json:"n_ctx_train"`
			} `json:"meta"`
		} `json:"data"`
	}
	if err := f.call(ctx, http.MethodGet, base+"/v1/models", nil, &list); err != nil {
		return nil, err
	}
	var props struct {
		Settings struct {
			Context int64 `json:"n_ctx"`
		} `json:"default_generation_settings"`
		Modalities struct {
			Vision bool `json:"vision"`
		} `json:"modalities"`
	}
	_ = f.call(ctx, http.MethodGet, base+"/props", nil, &props) // then the model's own window counts
	var infos []Info
	for _, m := range list.Data {
		// Many programs listen on this port.
		if m.OwnedBy != "llamacpp" || !sensibleName(m.ID) || len(infos) == maxLocalModels {
			continue
		}
		title := m.ID[strings.LastIndexAny(m.ID, `/\`)+1:] // a path to the file, unless named by --alias
		title = strings.TrimSuffix(title, ".gguf")
		window := props.Settings.Context
		if window <= 0 {
			window = m.Meta.Context
		}
		infos = append(infos, Info{Name: m.ID, Title: title, ContextTokens: window, Vision: props.Modalities.Vision})
	}
	if len(infos) == 0 {
		return nil, errors.New("no models of llama.cpp there")
	}
	return infos, nil
}

// sensibleName tells whether a server's name of a model can be ours.
func sensibleName(name string) bool { return name != "" && short(name, 200) == name }

func (f *finder) call(ctx context.Context, method, address string, body, answer any) error {
	var reader io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		reader = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, address, reader)
	if err != nil {
		return err
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: status %d", address, resp.StatusCode)
	}
	return json.NewDecoder(io.LimitReader(resp.Body, maxProbeBody)).Decode(answer)
}
