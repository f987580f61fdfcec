package egress

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Place is where of a request a placeholder is replaced.
type Place uint8

// The places.
const (
	InHeaders Place = 1 << iota // values of headers, also inside Basic credentials; the default
	InQuery
	InBody
)

// Bounds of a secret's value: shorter ones would be masked in answers where
// they mean something else.
const (
	minSecret = 4
	maxSecret = 16 << 10
)

// Secret is a value that programs use without having it: they send the
// placeholder, and the gateway puts the value in its place on the way to Host.
type Secret struct {
	Name        string
	Host        Rule
	Placeholder string // default "{{secret.NAME}}"
	Value       func() (string, error)
	In          Place // default InHeaders
	PlainHTTP   bool  // also by http://, where all on the way can read it; default: https:// only
}

func (s Secret) placeholder() string {
	if s.Placeholder != "" {
		return s.Placeholder
	}
	return "{{secret." + s.Name + "}}"
}

// secretsFor gives the secrets that t may get.
func (p Policy) secretsFor(t target) []Secret {
	var out []Secret
	for _, s := range p.Secrets {
		if s.Host.matches(t) {
			out = append(out, s)
		}
	}
	return out
}

// injection is the secrets of one request and answer.
type injection struct {
	secrets []Secret
	plain   bool     // the request goes by http://
	values  []string // "" where a value can't be had
	masks   []pair   // what was sent, and its placeholder
}

// newInjection reads the values. One that can't be read is an error only if
// the request asks for it.
func newInjection(secrets []Secret, plain bool) *injection {
	in := &injection{secrets: secrets, plain: plain, values: make([]string, len(secrets))}
	for i, s := range secrets {
		if plain && !s.PlainHTTP {
			continue
		}
		if v, err := readSecret(s); err == nil {
			in.values[i] = v
			in.mask(v, s.placeholder())
		}
	}
	return in
}

func readSecret(s Secret) (string, error) {
	if s.Value == nil {
		return "", errors.New("no value")
	}
	v, err := s.Value()
	switch {
	case err != nil:
		return "", err
	case len(v) < minSecret || len(v) > maxSecret:
		return "", errors.New("too short or too long")
	case strings.ContainsAny(v, "\r\n\x00"):
		return "", errors.New("a line break within")
	}
	return v, nil
}

// mask notes v, and how servers commonly write it down, as not to be shown.
func (in *injection) mask(v, placeholder string) {
	add := func(form string) {
		if form != "" && !slices.ContainsFunc(in.masks, func(p pair) bool { return string(p.from) == form }) {
			in.masks = append(in.masks, pair{[]byte(form), []byte(placeholder)})
		}
	}
	add(v)
	add(url.QueryEscape(v))
	add(url.PathEscape(v))
	add(html.EscapeString(v))
	add(strings.ReplaceAll(html.EscapeString(v), "+", "&#43;"))
	if b, err := json.Marshal(v); err == nil {
		add(strings.Trim(string(b), `"`))
	}
	add(base64.StdEncoding.EncodeToString([]byte(v)))
}

// into puts the values into a request.
func (in *injection) into(r *http.Request) *Refusal {
	var failed *Refusal
	use := func(i int) string {
		if in.values[i] == "" {
			failed = in.missing(i)
		}
		return in.values[i]
	}
	for name, values := range r.Header {
		for j, v := range values {
			for i, s := range in.secrets {
				if s.In != 0 && s.In&InHeaders == 0 {
					continue
				}
				ph := s.placeholder()
				if strings.Contains(v, ph) {
					v = strings.ReplaceAll(v, ph, use(i))
				}
				if name == "Authorization" {
					v = in.basic(v, ph, func() string { return use(i) })
				}
			}
			values[j] = v
		}
	}
	for i, s := range in.secrets {
		if ph := s.placeholder(); s.In&InQuery != 0 {
			for _, form := range []string{ph, url.QueryEscape(ph), url.PathEscape(ph)} {
				if strings.Contains(r.URL.RawQuery, form) {
					r.URL.RawQuery = strings.ReplaceAll(r.URL.RawQuery, form, url.QueryEscape(use(i)))
				}
			}
		}
	}
	if failed != nil {
		return failed
	}
	return in.body(r)
}

// missing is why a request that asks for a secret does not get it.
func (in *injection) missing(i int) *Refusal {
	name := printable(in.secrets[i].Name, 64)
	if in.plain && !in.secrets[i].PlainHTTP {
		return denied(codeSecretPlain, "the secret %s is sent by https:// only, and this is http:// (ask the operator: plain_http)", name)
	}
	return denied(codeSecret, "the secret %s can't be read now (ask the operator: secrets)", name)
}

// basic replaces within Basic credentials.
func (in *injection) basic(v, ph string, value func() string) string {
	scheme, coded, ok := strings.Cut(v, " ")
	if !ok || !strings.EqualFold(scheme, "basic") {
		return v
	}
	plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(coded))
	if err != nil || !bytes.Contains(plain, []byte(ph)) {
		return v
	}
	after := base64.StdEncoding.EncodeToString(bytes.ReplaceAll(plain, []byte(ph), []byte(value())))
	in.masks = append(in.masks, pair{[]byte(after), []byte(coded)})
	return scheme + " " + after
}

func (in *injection) body(r *http.Request) *Refusal {
	if r.Body == nil || r.Body == http.NoBody {
		return nil
	}
	var pairs []pair
	for i, s := range in.secrets {
		if s.In&InBody == 0 {
			continue
		}
		if in.values[i] == "" {
			if in.plain && !s.PlainHTTP {
				continue // its placeholder stays text, and nothing has to be looked for
			}
			return in.missing(i)
		}
		ph := s.placeholder()
		pairs = append(pairs, pair{[]byte(ph), []byte(in.values[i])})
		if q := url.QueryEscape(ph); q != ph {
			pairs = append(pairs, pair{[]byte(q), []byte(url.QueryEscape(in.values[i]))})
		}
	}
	if pairs != nil {
		r.Body = newReplacer(r.Body, pairs)
		r.ContentLength = -1
		r.Header.Del("Content-Length")
	}
	return nil
}

// outOf masks the values in an answer: by the placeholder in headers and in
// texts, by as many asterisks in everything else, whose length must stay.
func (in *injection) outOf(resp *http.Response) error {
	if len(in.masks) == 0 {
		return nil
	}
	in.hide(resp.Header)
	if resp.StatusCode == http.StatusSwitchingProtocols || resp.Body == nil || resp.Body == http.NoBody || resp.Request.Method == http.MethodHead {
		return nil
	}
	text := textual(resp.Header.Get("Content-Type")) && resp.StatusCode != http.StatusPartialContent
	body := resp.Body
	switch enc := strings.ToLower(strings.TrimSpace(resp.Header.Get("Content-Encoding"))); enc {
	case "", "identity":
	case "gzip", "x-gzip":
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			return unreachable(codeEcho, err, "the host's answer is broken: it is not gzip, as it says")
		}
		body, text = struct {
			io.Reader
			io.Closer
		}{z, resp.Body}, true
		resp.Header.Del("Content-Encoding")
	default:
		return unreachable(codeEcho, nil, "the host's answer is encoded as %s though the plain form was asked for; hosts with secrets must answer plainly", printable(enc, 20))
	}
	pairs := in.masks
	if text {
		resp.ContentLength = -1
		resp.Header.Del("Content-Length")
		resp.Header.Del("Content-Md5")
		resp.Header.Del("Digest")
	} else {
		pairs = make([]pair, len(in.masks))
		for i, p := range in.masks {
			pairs[i] = pair{p.from, bytes.Repeat([]byte{'*'}, len(p.from))}
		}
	}
	resp.Body = &lastWords{ReadCloser: newReplacer(body, pairs), in: in, resp: resp}
	return nil
}

// hide masks the values of headers.
func (in *injection) hide(h http.Header) {
	for _, values := range h {
		for j, v := range values {
			b, _ := replaceIn(nil, []byte(v), in.masks, true)
			values[j] = string(b)
		}
	}
}

// lastWords masks the trailer, which is there when the body has ended.
type lastWords struct {
	io.ReadCloser
	in   *injection
	resp *http.Response
}

func (b *lastWords) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.in.hide(b.resp.Trailer)
	}
	return n, err
}

func textual(contentType string) bool {
	mt, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	if strings.HasPrefix(mt, "text/") || strings.HasSuffix(mt, "+json") || strings.HasSuffix(mt, "+xml") {
		return true
	}
	switch mt {
	case "application/json", "application/xml", "application/javascript", "application/x-ndjson", "application/x-www-form-urlencoded", "application/yaml", "application/graphql-response+json":
		return true
	}
	return false
}
