package agent_test

import (
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
)

func TestOnlyTheRightTokenMayConfigure(t *testing.T) {
	sum := sha256.Sum256([]byte(testToken))
	_, client, _ := serve(t, func(o *agent.Options) {
		o.TokenSHA256 = sum[:]
		o.Limits = &agentapi.Configure{MemoryBytes: 5 << 30, DiskBytes: 1 << 30}
	})
	ctx := t.Context()
	for _, token := range []string{"", "wrong"} {
		client.SetToken(token)
		if _, err := client.Configure(ctx, agentapi.Configure{Token: "mine"}); errdefs.CodeOf(err) != "unauthenticated" {
			t.Errorf("configure with the token %q: %v", token, err)
		}
		if _, err := client.Usage(ctx); errdefs.CodeOf(err) != "unauthenticated" {
			t.Errorf("usage with the token %q: %v", token, err)
		}
	}
	client.SetToken(testToken)
	health, err := client.Health(ctx)
	if err != nil || health.Configured {
		t.Errorf("before configure: %+v, %v", health, err)
	}
	usage, err := client.Usage(ctx)
	if err != nil || usage.MemoryLimitBytes != 5<<30 {
		t.Errorf("the limits it was started with: %+v, %v", usage, err)
	}
	if _, err := client.Configure(ctx, agentapi.Configure{Token: testToken, MemoryBytes: 1 << 30}); err != nil {
		t.Error(err)
	}
	health, err = client.Health(ctx)
	if err != nil || !health.Configured {
		t.Errorf("after configure: %+v, %v", health, err)
	}
}

func TestOwnDiskIsCounted(t *testing.T) {
	client, root := configured(t, agentapi.Configure{DiskBytes: 1 << 30}, func(o *agent.Options) { o.OwnDisk = true })
	file := filepath.Join(root, agentapi.WorkspaceDir, "a")
	if err := os.WriteFile(file, make([]byte, 3<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	u, err := client.Usage(t.Context())
	if err != nil || u.DiskBytes < 3<<20 || u.DiskBytes > 4<<20 || u.DiskLimitBytes != 1<<30 {
		t.Errorf("got %+v, %v", u, err)
	}
}

func TestReadyIsSaidLater(t *testing.T) {
	a, _, _ := serve(t, nil)
	status := func() int {
		answer := httptest.NewRecorder()
		a.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/ready", nil))
		return answer.Code
	}
	if got := status(); got != 503 {
		t.Errorf("GET /ready: %d before it is", got)
	}
	a.Ready()
	if got := status(); got != 200 {
		t.Errorf("GET /ready: %d", got)
	}
}
