package chat

import (
	"cmp"
	"context"
	"errors"
	"hash/maphash"
	"log/slog"
	"net/http"
	"sync"
	"text/template"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/session"
)

// Options configures a Service. The zero value is fit for one machine without
// a network in its sandboxes.
type Options struct {
	SystemPrompt  string        // text/template of PromptData; default: prompt.tmpl
	MaxRounds     int           // calls of the model per turn; default 25
	RoundTimeout  time.Duration // of one answer of the model; default 10 minutes
	ToolTimeout   time.Duration // of one call of a tool; default 300 s, as the original
	WeatherURL    string        // base address; default DefaultWeatherURL, NoWeather: no such tool
	Network       string        // what sandboxes may reach, which the model is told: packages, list or open; default nothing
	PythonVersion string        // of the sandboxes; default 3.13
	HTTPClient    *http.Client  // for the weather; default http.DefaultClient
	Limits        Limits        // how much users may ask; nil: as much as they like
	Logger        *slog.Logger  // default: discard

	now func() time.Time // for tests
}

// Limits says how many tokens of models users may use. A nil Limits is none.
type Limits interface {
	// MayAsk says whether somebody has tokens left, or why not.
	MayAsk(owner identity.Owner) error
	// Asked counts the tokens of an answer.
	Asked(owner identity.Owner, tokens int64)
}

// The defaults. A local model may need minutes for a long prompt; a turn of
// more rounds than that has lost its way, and each costs money.
const (
	DefaultMaxRounds    = 25
	DefaultRoundTimeout = 10 * time.Minute
	DefaultToolTimeout  = 300 * time.Second
)

// Service answers messages in sessions. Its methods may be called concurrently.
type Service struct {
	sessions *session.Service
	models   *llm.Registry
	opts     Options
	prompt   *template.Template
	log      *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	turns  sync.WaitGroup

	seed   maphash.Seed
	starts [64]sync.Mutex // by session: held while a turn is started

	mu      sync.Mutex
	closed  bool               // guards turns against a start after Close
	running map[string]Running // by session
}

var errClosing = errors.New("chat: closing")

// New makes a Service. An invalid template of the system prompt is an error.
func New(sessions *session.Service, models *llm.Registry, opts Options) (*Service, error) {
	prompt, err := parsePrompt(opts.SystemPrompt)
	if err != nil {
		return nil, err
	}
	opts.MaxRounds = cmp.Or(opts.MaxRounds, DefaultMaxRounds)
	opts.RoundTimeout = cmp.Or(opts.RoundTimeout, DefaultRoundTimeout)
	opts.ToolTimeout = cmp.Or(opts.ToolTimeout, DefaultToolTimeout)
	opts.WeatherURL = cmp.Or(opts.WeatherURL, DefaultWeatherURL)
	opts.PythonVersion = cmp.Or(opts.PythonVersion, "3.13")
	if opts.HTTPClient == nil {
		opts.HTTPClient = http.DefaultClient
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.now == nil {
		opts.now = time.Now
	}
	s := &Service{sessions: sessions, models: models, opts: opts, prompt: prompt, log: opts.Logger, seed: maphash.MakeSeed(), running: map[string]Running{}}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	sessions.WhenTaken(s.answerWaiting)
	return s, nil
}

// Close ends all turns and waits for them. They can be continued later; a cell
// that runs goes on for the next process. Close it before its session.Service.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(errClosing)
	s.turns.Wait()
}

// Sent says what became of a message: the item it is now, or its place in the
// queue.
type Sent struct {
	ItemID string            `json:"item_id,omitempty" doc:"The message in the session's list"`
	TurnID string            `json:"turn_id,omitempty" doc:"The turn that answers it"`
	Queued *v1.QueuedMessage `json:"queued,omitempty" doc:"Set instead when the model is still busy: the message waits"`
}

// Running is a turn at work.
type Running struct {
	TurnID string
	After  int64 // number of an event before its first
}
