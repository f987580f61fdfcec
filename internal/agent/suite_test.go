package agent_test

import (
	"testing"

	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
)

func TestSuite(t *testing.T) {
	agenttest.Run(t, func(t testing.TB) *agentapi.Client {
		client, _ := configured(t, agentapi.Configure{}, withPython(t))
		return client
	}, agenttest.Options{})
}
