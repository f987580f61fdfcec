package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// Whatever is in the file, reading it gives settings that Validate accepts or
// an error, and never a panic.
func FuzzReadFile(f *testing.F) {
	for _, seed := range []string{
		"", "listen: 127.0.0.1:1", "templates: {a: {memory: 1GiB, cpus: 0.5, env: {A: b}}}", "allowed_hosts: [a, b]",
		"templates: [1]", "? {a: b}\n: c", "a: &a [*a]", "listen: !!binary aGk=", "templates: {a: null}", "--- a\n--- b",
		"tls_cert: {}\n", "max_sandboxes: 1e400", "templates: {python: {idle_timeout: 9223372036854775807h}}",
	} {
		f.Add([]byte(seed))
	}
	path := filepath.Join(f.TempDir(), "config.yaml")
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		srv, err := config.Load(config.Base{Config: path})
		if err != nil {
			return
		}
		if err := srv.Validate(); err != nil && errors.Is(err, errdefs.ErrInvalid) {
			t.Errorf("Load accepted what Validate refuses: %v", err)
		}
		if _, ok := srv.Templates[config.DefaultTemplate]; !ok {
			t.Error("there is no default template")
		}
	})
}
