package install

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/chart/installed"
)

const (
	// patience bounds every wait: far beyond what a loaded machine needs.
	patience = 2 * time.Minute
	release  = installed.Release
)

// installation is the chart in a cluster, with somebody who calls it.
type installation struct{ *installed.Installation }

// install installs the chart with its defaults, as docs/operate/kubernetes.md
// says, and more values on top. It goes with the test.
func install(t *testing.T, values string) *installation {
	t.Helper()
	return &installation{installed.Install(t, pgtest.New(t), values)}
}

// api gives a client of the installation's service, with the token that was
// made for it.
func (in *installation) api(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(in.URL(t), client.Options{Token: in.Token(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// create makes a sandbox.
func create(t *testing.T, api *client.Client, template string) string {
	t.Helper()
	box, err := api.CreateSandbox(t.Context(), v1.CreateSandbox{Template: template})
	if err != nil {
		t.Fatalf("create a sandbox of %q: %v", template, err)
	}
	return box.ID
}

// python runs code in a sandbox and gives what it printed.
func python(t *testing.T, api *client.Client, sandbox, code string) string {
	t.Helper()
	stream, err := api.Execute(t.Context(), sandbox, v1.Execute{Code: code})
	if err != nil {
		t.Fatalf("execute: %v", err)
	}
	defer stream.Close()
	var out strings.Builder
	for {
		e, err := stream.Next()
		if err != nil {
			t.Fatalf("execution: %v (so far: %s)", err, out.String())
		}
		switch e.Type {
		case event.OutputStream:
			var data event.Stream
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			out.WriteString(data.Text)
		case event.ExecutionFinished:
			var data event.Finished
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			if data.Status != "ok" {
				t.Fatalf("the code ended with %+v: %s", data, out.String())
			}
			return out.String()
		}
	}
}

// podOf gives the name of a sandbox's pod.
func podOf(sandbox string) string { return "sbx-" + strings.TrimPrefix(sandbox, "sbx_") }

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var last error
	for {
		done, err := ok(ctx)
		if done {
			return
		}
		if err != nil && ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s (%v)", what, patience, last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// post makes a request without a client, for its headers.
func (in *installation) post(t *testing.T, path, body string) (*http.Response, v1.Problem) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, in.URL(t)+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+in.Token(t))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var p v1.Problem
	_ = json.Unmarshal(text, &p) // not a problem: it stays empty
	return resp, p
}
