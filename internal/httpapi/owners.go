package httpapi

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/session"
)

// keyOf gives the key of what a request is about, by which it has an owner; ""
// for what any replica answers. Of a chat's request it reads the body, which it
// gives back.
func (a *API) keyOf(w http.ResponseWriter, r *http.Request) (string, error) {
	if a.opts.Sessions == nil {
		return "", nil
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	for i, p := range parts {
		if u, err := url.PathUnescape(p); err == nil {
			parts[i] = u
		}
	}
	at := func(i int) string {
		if i < len(parts) {
			return parts[i]
		}
		return ""
	}
	switch at(0) {
	case "v1":
		switch {
		case at(1) == "sandboxes" && at(2) != "":
			return a.sandboxKey(r, at(2))
		case at(1) == "sessions" && session.IsKey(at(2)):
			return at(2), nil
		}
		return "", nil
	case "api":
		switch {
		case at(1) == "chat" && at(2) != "":
			return a.nameKey(r, at(2), false)
		case at(1) == "chat" && r.Method == http.MethodPost:
			return a.chatKey(w, r)
		case at(1) == "sessions" && at(3) == "initialize":
			return a.nameKey(r, at(2), true)
		}
		parts = parts[1:]
	}
	switch {
	case at(0) != "sandboxes" || at(1) == "":
		return "", nil
	case at(1) == "upload":
		return a.nameKey(r, r.URL.Query().Get("session_id"), false)
	}
	return a.sandboxKey(r, at(1))
}

// sandboxKey gives the key of a sandbox by its id or its name in the original's
// API.
func (a *API) sandboxKey(r *http.Request, name string) (string, error) {
	if key, ok := a.fleet.Locate(r.Context(), name); ok {
		return key, nil
	}
	if !sandbox.ID(name).Valid() {
		return "", nil
	}
	// One that is gone. Its owner has what ran in it for a while; why it is gone
	// all replicas know, also when the owner is gone itself.
	key := name
	gone, ok, err := a.opts.Replicas.Gone(r.Context(), name)
	if err != nil {
		return "", err
	}
	if ok {
		key = gone.Key
	}
	o, ok, err := a.opts.Replicas.Owner(r.Context(), key)
	if err != nil || !ok || o.Mine {
		return "", err
	}
	return key, nil
}

// nameKey gives the key of the session that has an id, or that its client named
// so. If there is none, the session that is to be made has an owner already,
// and what only looks for it finds nothing anywhere.
func (a *API) nameKey(r *http.Request, name string, create bool) (string, error) {
	key, ok, err := a.opts.Sessions.KeyOf(r.Context(), name)
	if err != nil || !ok || !create && !session.IsKey(key) {
		return "", err
	}
	return key, nil
}

// chatKey gives the key of the session that a chat's request names in its body.
// What is wrong with the body its handler says.
func (a *API) chatKey(w http.ResponseWriter, r *http.Request) (string, error) {
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxChatBody))
	giveBack(r, raw)
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return "", errdefs.New(errdefs.ErrTooLarge, "body-too-large", "The request is larger than %d MiB.", maxChatBody>>20).
				WithHint("Upload large files instead of attaching them.")
		}
		return "", err
	}
	var body struct {
		Session any `json:"session_id"`
		ID      any `json:"id"`
	}
	if json.Unmarshal(raw, &body) != nil {
		return "", nil
	}
	name, _ := body.Session.(string)
	if name == "" {
		name, _ = body.ID.(string)
	}
	return a.nameKey(r, name, true)
}
