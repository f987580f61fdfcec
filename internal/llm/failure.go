package llm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// failure is a request that the server did not take.
type failure struct {
	err          *errdefs.Error
	again        bool          // asking again may help
	after        time.Duration // when; -1: the server does not say
	fieldRefused bool          // the status is that of a request with a wrong field
	words        string        // of the server, in full
}

// serverError is what servers write into failures, in all its spellings.
type serverError struct {
	message, code, typ, param string
}

func readServerError(body []byte) serverError {
	var doc struct {
		Error   json.RawMessage `json:"error"`
		Message json.RawMessage `json:"message"`
		Detail  json.RawMessage `json:"detail"` // FastAPI
	}
	if json.Unmarshal(body, &doc) != nil {
		text := strings.TrimSpace(string(body))
		if strings.HasPrefix(text, "<") { // a proxy's page
			text = ""
		}
		return serverError{message: text}
	}
	var inner struct {
		Message json.RawMessage `json:"message"`
		Code    json.RawMessage `json:"code"`
		Type    json.RawMessage `json:"type"`
		Param   json.RawMessage `json:"param"`
	}
	if json.Unmarshal(doc.Error, &inner) == nil && len(inner.Message) > 0 {
		return serverError{plain(inner.Message), plain(inner.Code), plain(inner.Type), plain(inner.Param)}
	}
	for _, raw := range []json.RawMessage{doc.Error, doc.Message, doc.Detail} {
		if text := plain(raw); text != "" {
			return serverError{message: text}
		}
	}
	return serverError{}
}

// plain gives a JSON string's text, and any other value as it is written.
func plain(raw json.RawMessage) string {
	var text string
	if len(raw) == 0 || string(raw) == "null" || json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// failed says what an answer with another status than 200 means.
func (c *chatCompletions) failed(resp *http.Response, body []byte) *failure {
	se := readServerError(body)
	f := &failure{after: retryAfter(resp.Header), words: strings.ToLower(se.message + " " + se.param)}
	f.err, f.again = c.classify(resp.StatusCode, se)
	f.fieldRefused = resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusUnprocessableEntity
	if location := resp.Header.Get("Location"); resp.StatusCode/100 == 3 && location != "" {
		f.err = errdefs.New(errdefs.ErrUnavailable, CodeBadAnswer, "The server of model %q sends us on to %s; the key stays here.", c.ep.Info.Name, short(hostOf(location), 100)).
			WithHint("set the model's base_url to the right address")
	}
	return f
}

// failedMidway says what an error inside a stream means.
func (c *chatCompletions) failedMidway(data []byte) *errdefs.Error {
	se := readServerError(data)
	status, _ := strconv.Atoi(se.code) // some put the status there; 0: none
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
		if strings.Contains(se.code+se.typ, "rate_limit") {
			status = http.StatusTooManyRequests
		}
	}
	err, _ := c.classify(status, se)
	return err
}

// classify gives the error of a status and the server's words, and whether
// asking again may help.
func (c *chatCompletions) classify(status int, se serverError) (*errdefs.Error, bool) {
	name := c.ep.Info.Name
	words := strings.ToLower(strings.Join([]string{se.message, se.code, se.typ}, " "))
	said := c.said(se.message)
	badRequest := status == http.StatusBadRequest || status == http.StatusUnprocessableEntity || status == http.StatusInternalServerError
	switch {
	case badRequest && has(words, contextWords) || status == http.StatusRequestEntityTooLarge:
		return errdefs.New(errdefs.ErrTooLarge, CodeContextLength, "The conversation is longer than model %q can read%s.", name, said).
			WithHint("start a new session, delete large outputs, or choose a model with a larger context; context_tokens in the settings must not be above the model's own"), false
	case badRequest && has(words, filterWords):
		return c.filtered(), false
	case status == http.StatusUnauthorized:
		return errdefs.New(errdefs.ErrUnavailable, CodeAuth, "The server of model %q does not accept our key.", name).
			WithHint("whoever runs this server: check the model's API key"), false
	case status == http.StatusForbidden:
		return errdefs.New(errdefs.ErrUnavailable, CodeAuth, "The server of model %q does not let our key use it%s.", name, said).
			WithHint("whoever runs this server: check the key's rights and the account"), false
	case status == http.StatusNotFound, status == http.StatusBadRequest && has(words, notFoundWords):
		return errdefs.New(errdefs.ErrNotFound, CodeNotFound, "The server at %s has no model %q%s.", hostOf(c.ep.BaseURL), short(c.ep.Model, 100), said).
			WithHint("choose another model, or correct model and base_url in the settings"), false
	case status == http.StatusPaymentRequired, status == http.StatusTooManyRequests && has(words, quotaWords):
		return errdefs.New(errdefs.ErrExhausted, CodeRateLimited, "The account behind model %q has used up its quota%s.", name, said).
			WithHint("whoever runs this server: check plan and billing; or choose another model"), false
	case status == http.StatusTooManyRequests:
		return errdefs.New(errdefs.ErrExhausted, CodeRateLimited, "The server of model %q gets too many requests%s.", name, said).
			WithHint("wait a moment and try again, or choose another model"), true
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status >= 500:
		return errdefs.New(errdefs.ErrUnavailable, CodeUnavailable, "The server of model %q has a problem%s.", name, said).
			WithHint("try again in a moment, or choose another model").WithCause(fmt.Errorf("status %d", status)), true
	default:
		return errdefs.New(errdefs.ErrInvalid, CodeRejected, "The server of model %q does not accept the request%s.", name, said).
			WithHint("check the model's settings; it must be able to chat and to call tools").WithCause(fmt.Errorf("status %d", status)), false
	}
}

// What servers write where their codes do not tell.
var (
	contextWords = []string{
		"context_length", "context length", "context window", "context size", "exceed_context", "maximum context", "prompt is too long",
		"too many tokens", "reduce the length", "input is too long", "exceeds the maximum number of tokens", "token limit",
	}
	filterWords   = []string{"content_filter", "content_policy", "content policy", "content management policy", "responsibleaipolicy"}
	notFoundWords = []string{"model_not_found", "model not found", "no such model", "unknown model", "invalid model", "model does not exist"}
	quotaWords    = []string{"insufficient_quota", "billing", "quota exceeded", "exceeded your current quota"}
)

func has(text string, words []string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(text, w) })
}

func (c *chatCompletions) filtered() *errdefs.Error {
	return errdefs.New(errdefs.ErrInvalid, CodeRefused, "A content filter of the server of model %q stopped the answer.", c.ep.Info.Name).
		WithHint("say it in other words, or choose another model")
}

func (c *chatCompletions) unreachable(err error) *failure {
	return &failure{
		err: errdefs.New(errdefs.ErrUnavailable, CodeUnreachable, "The server of model %q can't be reached at %s.", c.ep.Info.Name, hostOf(c.ep.BaseURL)).
			WithHint("see that it runs and that the model's base_url is right").WithCause(errors.New(c.scrub(err.Error()))),
		again: true, after: -1,
	}
}

func (c *chatCompletions) timeout(what string) *errdefs.Error {
	return errdefs.New(errdefs.ErrUnavailable, CodeTimeout, "The server of model %q %s for %s.", c.ep.Info.Name, what, c.ep.Timeout).
		WithHint("try again; a model that needs longer to begin gets it by timeout in the settings")
}

func (c *chatCompletions) bad(what string, err error) *errdefs.Error {
	e := errdefs.New(errdefs.ErrUnavailable, CodeBadAnswer, "What the server of model %q answers can't be used: %s.", c.ep.Info.Name, what).
		WithHint("try again; if it stays so, check that base_url belongs to an OpenAI-compatible server")
	if err != nil {
		e = e.WithCause(errors.New(c.scrub(err.Error())))
	}
	return e
}

// broken says why a stream ended before its time.
func (c *chatCompletions) broken(ctx context.Context, err error, acc *accumulator) error {
	switch {
	case errors.Is(context.Cause(ctx), errSilent):
		if acc.any {
			return c.timeout("has said nothing more")
		}
		return c.timeout("did not answer")
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errTooLong):
		return c.bad("it is too long", err)
	default:
		return errdefs.New(errdefs.ErrUnavailable, CodeCut, "The connection to the server of model %q broke in the middle of the answer.", c.ep.Info.Name).
			WithHint("continue, or ask again").WithCause(errors.New(c.scrub(err.Error())))
	}
}

// said gives the server's words as the end of a sentence.
func (c *chatCompletions) said(words string) string {
	words = strings.TrimRight(short(c.scrub(words), 300), ". ")
	if words == "" {
		return ""
	}
	return ": " + words
}

// scrub takes what is secret out of a text; servers like to repeat wrong keys.
func (c *chatCompletions) scrub(text string) string {
	secrets := []string{c.ep.Key}
	for _, value := range c.ep.Headers {
		secrets = append(secrets, value, strings.TrimPrefix(value, "Bearer "))
	}
	for _, s := range secrets {
		if len(s) >= 4 { // shorter ones are no secrets, and would garble words
			text = strings.ReplaceAll(text, s, "[redacted]")
		}
	}
	return text
}

// short makes foreign text fit for one line: no control characters, and at
// most so many characters.
func short(text string, most int) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.IsControl(r) || r == unicode.ReplacementChar
	}), " ")
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// hostOf gives the part of an address that people may see.
func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return "its address"
	}
	return u.Host
}

// retryAfter reads when the server wants to be asked again; -1: it does not
// say.
//
// Source: RFC 9110 §10.2.3; retry-after-ms is OpenAI's.
func retryAfter(h http.Header) time.Duration {
	if ms, err := strconv.ParseFloat(h.Get("Retry-After-Ms"), 64); err == nil && ms >= 0 && ms < 1e9 {
		return time.Duration(ms * float64(time.Millisecond))
	}
	value := strings.TrimSpace(h.Get("Retry-After"))
	if s, err := strconv.ParseFloat(value, 64); err == nil && s >= 0 {
		return time.Duration(min(s, 1e6) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(time.Until(at), 0)
	}
	return -1
}
