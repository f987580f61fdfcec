package httpapi_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/httpapi/httpapitest"
	"github.com/caesarion/caesarion/internal/sandbox"
)

func benchSandbox(b *testing.B, driver sandbox.Driver) (*httpapitest.Server, *fleet.Sandbox) {
	b.Helper()
	s := httpapitest.Start(b, driver, httpapitest.Options{})
	sb, err := s.Fleet.Create(b.Context(), fleet.CreateRequest{})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := sb.DefaultKernel(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = sb.Delete(context.WithoutCancel(b.Context())) })
	return s, sb
}

// BenchmarkExecute compares executions over HTTP with the same asked of the
// agent directly: the difference is what the server adds. "live" has a real
// kernel that runs 1+1; "server" an agent that answers at once.
func BenchmarkExecute(b *testing.B) {
	b.Run("live", func(b *testing.B) { benchExecute(b, newDriver(b)) })
	b.Run("server", func(b *testing.B) { benchExecute(b, newCanned(b)) })
}

func benchExecute(b *testing.B, driver sandbox.Driver) {
	s, sb := benchSandbox(b, driver)
	for _, accept := range []string{v1.MediaJSON, v1.MediaNDJSON, v1.MediaSSE} {
		b.Run(accept, func(b *testing.B) {
			for b.Loop() {
				req, _ := http.NewRequestWithContext(b.Context(), http.MethodPost, s.URL+"/v1/sandboxes/"+string(sb.ID())+"/executions", strings.NewReader(`{"code":"1+1"}`))
				req.Header.Set("Authorization", "Bearer "+httpapitest.Token)
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Accept", accept)
				resp, err := http.DefaultClient.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
					b.Fatal(resp.Status, err)
				}
				_ = resp.Body.Close()
			}
		})
	}
	b.Run("agent", func(b *testing.B) {
		kernel, _ := sb.DefaultKernel(b.Context())
		for b.Loop() {
			stream, err := sb.Agent().Execute(b.Context(), kernel, agentapi.Execute{
				ID: "exe_" + sandbox.RandomSuffix(), Code: "1+1", StoreHistory: true,
			})
			if err != nil {
				b.Fatal(err)
			}
			for err == nil {
				_, err = stream.Next()
			}
			_ = stream.Close()
		}
	})
}

// BenchmarkFile moves 256 MiB in and out.
func BenchmarkFile(b *testing.B) {
	s, sb := benchSandbox(b, newDriver(b))
	const size = 256 << 20
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	url := s.URL + "/v1/sandboxes/" + string(sb.ID()) + "/files/content?path=big.bin"
	do := func(b *testing.B, method string, body io.Reader) {
		req, _ := http.NewRequestWithContext(b.Context(), method, url, body)
		if body != nil {
			req.ContentLength = size
		}
		req.Header.Set("Authorization", "Bearer "+httpapitest.Token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, make([]byte, 1<<20)); err != nil || resp.StatusCode != http.StatusOK {
			b.Fatal(resp.Status, err)
		}
		_ = resp.Body.Close()
	}
	b.Run("upload", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			readers := make([]io.Reader, size/len(block))
			for i := range readers {
				readers[i] = bytes.NewReader(block)
			}
			do(b, http.MethodPut, io.MultiReader(readers...))
		}
	})
	b.Run("download", func(b *testing.B) {
		b.SetBytes(size)
		for b.Loop() {
			do(b, http.MethodGet, nil)
		}
	})
}
