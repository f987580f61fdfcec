package agent_test

import (
	"errors"
	"io"
	"testing"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
)

// BenchmarkExecute is 1+1 from the request to the last byte, client, agent and
// kernel on one machine; BenchmarkHealth is the part of it that is HTTP.
func BenchmarkExecute(b *testing.B) {
	s, _ := newSandbox(b, agentapi.Configure{MemoryBytes: 8 << 30, Processes: 1000})
	s.Usable()
	for b.Loop() {
		stream, err := s.Execute(b.Context(), s.KernelID, agentapi.Execute{ID: agenttest.NewID("exe"), Code: "1+1", StoreHistory: true})
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = stream.Next()
		}
		if !errors.Is(err, io.EOF) {
			b.Fatal(err)
		}
	}
}

func BenchmarkHealth(b *testing.B) {
	client, _ := configured(b, agentapi.Configure{}, nil)
	for b.Loop() {
		if _, err := client.Health(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
