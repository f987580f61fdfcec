package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// api asks the components how they are. That needs no client library.
type api struct {
	http  *http.Client
	token string
}

func newAPI(token string) (*api, error) {
	ca, err := os.ReadFile(pkiDir + "/ca.crt")
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &api{token: token, http: &http.Client{
		Timeout: 5 * time.Second,
		// The controller manager and the scheduler have certificates of their own making.
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, InsecureSkipVerify: true}}, //nolint:gosec // in a network of its own
	}}, nil
}

func (a *api) do(method, url string, body string) ([]byte, error) {
	if strings.HasPrefix(url, "/") {
		url = "https://127.0.0.1:6443" + url
	}
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusMultipleChoices {
		return nil, fmt.Errorf("%s %s: %s: %.300s", method, url, resp.Status, raw)
	}
	return raw, nil
}

// healthy is nil when the address answers "ok".
func (a *api) healthy(url string) error {
	_, err := a.do(http.MethodGet, url, "")
	return err
}

// condition is nil when an object's condition is True.
func (a *api) condition(path, kind string) error {
	raw, err := a.do(http.MethodGet, path, "")
	if err != nil {
		return err
	}
	var object struct {
		Status struct {
			Conditions []struct{ Type, Status, Message string }
		}
	}
	if err := json.Unmarshal(raw, &object); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, c := range object.Status.Conditions {
		if c.Type == kind && c.Status == "True" {
			return nil
		}
	}
	return fmt.Errorf("%s is not %s: %+v", path, kind, object.Status.Conditions)
}

// patience bounds each step of a start, on a busy machine too.
const patience = 2 * time.Minute

// wait asks until there is no error.
func wait(what string, ask func() error) error {
	deadline := time.Now().Add(patience)
	for {
		err := ask()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v: %w", what, patience, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
