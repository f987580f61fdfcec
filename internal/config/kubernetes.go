package config

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// The drivers.
const (
	DriverGVisor     = "gvisor"
	DriverKubernetes = "kubernetes"
)

// DatabaseURLEnv is the environment variable that holds the database's address
// itself. There is no flag for it, as it has a password.
const DatabaseURLEnv = "CAESARION_DATABASE_URL"

// minSecretBytes is the shortest secret from which tokens may derive.
const minSecretBytes = 32

// DatabaseURL gives the address of Postgres, or "" when sessions are kept in a
// file of the data directory.
func (s *Server) DatabaseURL() (Secret, error) {
	from, text := DatabaseURLEnv, os.Getenv(DatabaseURLEnv)
	if text == "" && s.DatabaseURLFile != "" {
		content, err := os.ReadFile(s.DatabaseURLFile)
		if err != nil {
			return "", fmt.Errorf("config: database_url_file: %w", err)
		}
		from, text = "database_url_file "+s.DatabaseURLFile, string(content)
	}
	text = strings.TrimSpace(text)
	if text == "" && from == DatabaseURLEnv {
		return "", nil
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		// Neither the text nor what url.Parse says of it is shown: they have the password.
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: not the address of a Postgres database", from).
			WithHint("write it as postgres://USER:PASSWORD@HOST:5432/NAME")
	}
	return Secret(text), nil
}

// Secret gives the installation's secret, or nil when none is set.
func (s *Server) Secret() ([]byte, error) {
	if s.SecretFile == "" {
		return nil, nil
	}
	content, err := os.ReadFile(s.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("config: secret_file: %w", err)
	}
	secret := []byte(strings.TrimSpace(string(content)))
	if len(secret) < minSecretBytes {
		return nil, errdefs.New(errdefs.ErrInvalid, CodeInvalid, "secret_file %s has %d bytes", s.SecretFile, len(secret)).
			WithHint("at least %d, such as those of: openssl rand -hex 32", minSecretBytes)
	}
	return secret, nil
}

// dnsLabel is what Kubernetes takes as the name of a namespace or a service.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// validateCluster checks what several servers and pods need.
func (s *Server) validateCluster() error {
	if s.ReplicaAddress != "" {
		if host, _, err := net.SplitHostPort(s.ReplicaAddress); err != nil || host == "" {
			return invalid("replica_address", s.ReplicaAddress, "write IP:PORT, as other servers reach this one")
		}
		if s.SecretFile == "" {
			return missing("secret_file", "replica_address", "servers prove to each other by it who they are")
		}
	}
	switch s.Driver {
	case DriverGVisor, "":
		return nil
	case DriverKubernetes:
	default:
		return invalid("driver", s.Driver, "allowed are gvisor and kubernetes")
	}
	switch {
	case s.KubeNamespace == "":
		return missing("kube_namespace", "driver kubernetes", "the namespace that sandboxes run in, and nothing else should")
	case !dnsLabel.MatchString(s.KubeNamespace):
		return invalid("kube_namespace", s.KubeNamespace, "up to 63 lower-case letters, digits and dashes")
	case !dnsLabel.MatchString(s.KubeInstallation):
		return invalid("kube_installation", s.KubeInstallation, "up to 63 lower-case letters, digits and dashes")
	case s.KubeService != "" && !dnsLabel.MatchString(s.KubeService):
		return invalid("kube_service", s.KubeService, "up to 63 lower-case letters, digits and dashes")
	case s.KubeAgentImage == "":
		return missing("kube_agent_image", "driver kubernetes", "the image of this program, best by digest")
	case s.SecretFile == "":
		return missing("secret_file", "driver kubernetes", "the tokens of sandboxes derive from it")
	case s.OnExit == "delete" && s.ReplicaAddress != "":
		return invalid("on_exit", s.OnExit, "with several servers the others need the sandboxes: keep")
	}
	return nil
}

func missing(key, needed, why string) error {
	return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: not set, and %s needs it", key, needed).WithHint("%s", why)
}
