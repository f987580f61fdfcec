// Package identitytest is a provider of OpenID Connect for tests: a real issuer
// on a socket of loopback, with discovery, keys, PKCE, codes that are good once,
// ID tokens by RS256 and user info. It lets in whoever the test says.
package identitytest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// Client is what the issuer knows of who asks it.
const (
	ClientID     = "caesarion"
	ClientSecret = "secret of the client"
)

// Issuer is a provider.
type Issuer struct {
	URL string

	mu     sync.Mutex
	key    *rsa.PrivateKey
	kid    string
	claims map[string]any // of whoever signs in next
	info   map[string]any // what only user info says
	Spoil  func(claims map[string]any)
	Forge  func(claims []byte) string // makes the ID token in the place of the issuer's key
	codes  map[string]pending
	tokens map[string]map[string]any
}

type pending struct {
	redirect, challenge, nonce string
	claims, info               map[string]any
}

// New starts an issuer, which ends with the test.
func New(tb testing.TB) *Issuer {
	tb.Helper()
	i := &Issuer{codes: map[string]pending{}, tokens: map[string]map[string]any{}}
	i.Rotate(tb)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /token", i.token)
	mux.HandleFunc("GET /userinfo", i.userinfo)
	srv := httptest.NewServer(mux)
	tb.Cleanup(srv.Close)
	i.URL = srv.URL
	return i
}

// Rotate has the issuer sign with another key from now on.
func (i *Issuer) Rotate(tb testing.TB) {
	tb.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		tb.Fatal(err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.key, i.kid = key, random()
}

// Key gives the public key, and its name.
func (i *Issuer) Key() (*rsa.PublicKey, string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return &i.key.PublicKey, i.kid
}

// Next says who signs in next: the claims of the ID token, and those that only
// user info has.
func (i *Issuer) Next(claims, info map[string]any) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims, i.info = claims, info
}

func write(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client may have left
}

func refuse(w http.ResponseWriter, code string) {
	write(w, http.StatusBadRequest, map[string]string{"error": code})
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	write(w, http.StatusOK, map[string]any{
		"issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token", "jwks_uri": i.URL + "/keys",
		"userinfo_endpoint": i.URL + "/userinfo", "response_types_supported": []string{"code"}, "subject_types_supported": []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "code_challenge_methods_supported": []string{"S256"},
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	key, kid := i.Key()
	write(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key, KeyID: kid, Algorithm: "RS256", Use: "sig"}}})
}

func random() string {
	var b [24]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// authorize is the page where a person would sign in.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if q.Get("client_id") != ClientID || q.Get("response_type") != "code" || q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") == "" || q.Get("state") == "" || q.Get("nonce") == "" {
		refuse(w, "invalid_request")
		return
	}
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil {
		refuse(w, "invalid_request")
		return
	}
	answer := url.Values{"state": {q.Get("state")}}
	i.mu.Lock()
	if i.claims == nil {
		answer.Set("error", "access_denied")
	} else {
		code := random()
		i.codes[code] = pending{q.Get("redirect_uri"), q.Get("code_challenge"), q.Get("nonce"), maps.Clone(i.claims), maps.Clone(i.info)}
		answer.Set("code", code)
	}
	i.mu.Unlock()
	back.RawQuery = answer.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	id, secret, ok := r.BasicAuth()
	if id, _ = url.QueryUnescape(id); !ok {
		id, secret = r.PostFormValue("client_id"), r.PostFormValue("client_secret")
	} else {
		secret, _ = url.QueryUnescape(secret)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	code := r.PostFormValue("code")
	p, known := i.codes[code]
	delete(i.codes, code) // it is good once
	sum := sha256.Sum256([]byte(r.PostFormValue("code_verifier")))
	switch {
	case id != ClientID || secret != ClientSecret:
		write(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client"})
		return
	case !known || r.PostFormValue("redirect_uri") != p.redirect || base64.RawURLEncoding.EncodeToString(sum[:]) != p.challenge:
		refuse(w, "invalid_grant")
		return
	}
	now := time.Now()
	claims := map[string]any{"iss": i.URL, "aud": ClientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": p.nonce}
	maps.Copy(claims, p.claims)
	if i.Spoil != nil {
		i.Spoil(claims)
	}
	body, err := json.Marshal(claims)
	if err != nil {
		refuse(w, "server_error")
		return
	}
	text, err := Sign(body, jose.RS256, i.key, i.kid)
	if i.Forge != nil {
		text = i.Forge(body)
	}
	if err != nil {
		refuse(w, "server_error")
		return
	}
	access := random()
	info := map[string]any{"sub": p.claims["sub"]}
	maps.Copy(info, p.info)
	i.tokens[access] = info
	write(w, http.StatusOK, map[string]any{"access_token": access, "token_type": "Bearer", "expires_in": 300, "id_token": text})
}

func (i *Issuer) userinfo(w http.ResponseWriter, r *http.Request) {
	const scheme = "Bearer "
	auth := r.Header.Get("Authorization")
	i.mu.Lock()
	info, ok := i.tokens[auth[min(len(scheme), len(auth)):]]
	i.mu.Unlock()
	if !ok {
		write(w, http.StatusUnauthorized, map[string]string{"error": "invalid_token"})
		return
	}
	write(w, http.StatusOK, info)
}

// Sign gives a token as text.
func Sign(claims []byte, alg jose.SignatureAlgorithm, key any, kid string) (string, error) {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: key}, (&jose.SignerOptions{}).WithHeader("kid", kid))
	if err != nil {
		return "", err
	}
	signed, err := signer.Sign(claims)
	if err != nil {
		return "", err
	}
	return signed.CompactSerialize()
}
