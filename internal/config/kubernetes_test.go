package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

func inCluster() config.Server {
	s := valid()
	s.Driver, s.KubeNamespace, s.KubeAgentImage = config.DriverKubernetes, "sandboxes", "caesarion@sha256:abc"
	s.SecretFile, s.ReplicaAddress = "/secret", "10.0.0.1:8000"
	return s
}

func TestSettingsOfACluster(t *testing.T) {
	s := inCluster()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*config.Server){
		"driver":            func(s *config.Server) { s.Driver = "docker" },
		"kube_namespace":    func(s *config.Server) { s.KubeNamespace = "A" },
		"kube_installation": func(s *config.Server) { s.KubeInstallation = "" },
		"kube_service":      func(s *config.Server) { s.KubeService = "a.b" },
		"kube_agent_image":  func(s *config.Server) { s.KubeAgentImage = "" },
		"secret_file":       func(s *config.Server) { s.SecretFile = "" },
		"replica_address":   func(s *config.Server) { s.ReplicaAddress = ":8000" },
		"on_exit":           func(s *config.Server) { s.OnExit = "delete" },
	} {
		s := inCluster()
		change(&s)
		e, ok := errors.AsType[*errdefs.Error](s.Validate())
		if !ok || e.Code != config.CodeInvalid || !strings.HasPrefix(e.Msg, want+":") || e.Hint == "" {
			t.Errorf("%s: got %v", want, e)
		}
	}
}

func TestThePodOfATemplate(t *testing.T) {
	file, err := config.ReadFile(write(t, `
templates:
  python:
    kubernetes:
      runtime_class: gvisor
      request_memory: 1Gi
      tolerations:
        - {key: sandbox.gke.io/runtime, operator: Equal, value: gvisor, effect: NoSchedule}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"runtime_class": "gvisor", "request_memory": "1Gi",
		"tolerations": []any{map[string]any{"key": "sandbox.gke.io/runtime", "operator": "Equal", "value": "gvisor", "effect": "NoSchedule"}},
	}
	if diff := cmp.Diff(want, file.Templates["python"].Kubernetes); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTheDatabasesAddressIsNeverShown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "url")
	s := config.Server{DatabaseURLFile: path}
	for text, good := range map[string]bool{
		"postgres://u:pass-word@db/caesarion?sslmode=require\n": true,
		"postgresql://db/x":            true,
		"mysql://u:pass-word@db/x":     false,
		"postgres://u:pass-word@[db/x": false,
		"":                             false,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := s.DatabaseURL()
		if (err == nil) != good || good && got.Reveal() != strings.TrimSpace(text) || strings.Contains(got.String(), "word") {
			t.Errorf("%q: %v, %v", text, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "word") {
			t.Errorf("the password is in %v", err)
		}
	}
	t.Setenv(config.DatabaseURLEnv, "postgres://environment/x")
	if got, err := s.DatabaseURL(); err != nil || got.Reveal() != "postgres://environment/x" {
		t.Errorf("got %v, %v", got.Reveal(), err)
	}
}

func TestTheSecretIsLong(t *testing.T) {
	s := config.Server{SecretFile: write(t, strings.Repeat("a", 31)+"\n")}
	if _, err := s.Secret(); !errors.Is(err, errdefs.ErrInvalid) {
		t.Errorf("31 bytes: %v", err)
	}
	s.SecretFile = write(t, strings.Repeat("a", 32)+"\n")
	if got, err := s.Secret(); err != nil || len(got) != 32 {
		t.Errorf("32 bytes: %d, %v", len(got), err)
	}
}
