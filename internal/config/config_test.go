package config_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func valid() config.Server {
	return config.Server{
		Listen: "127.0.0.1:8000", Auth: "token", MaxSandboxes: 0, OnExit: "keep",
		Snapshots: true, KeepMemory: config.Seconds(7 * 24 * 3600), KeepFiles: config.Seconds(30 * 24 * 3600),
		Network: "none", Driver: "gvisor", Migrate: true, KubeInstallation: "caesarion", PoolNightZone: "UTC",
		DiscoverModels: true, ChatMaxRounds: 25, ChatRoundTimeout: config.Seconds(300), ChatToolTimeout: config.Seconds(300),
		WeatherBaseURL: "https://api.open-meteo.com",
		Templates:      map[string]config.Template{config.DefaultTemplate: standard()},
	}
}

// standard is the default template.
func standard() config.Template {
	t := config.DefaultLimits()
	t.Preload = config.DefaultPreload()
	return t
}

func TestLoadWithoutFileGivesTheDefaults(t *testing.T) {
	got, err := config.Load(config.Base{Config: write(t, "")})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(valid(), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestOrderIsDefaultFileEnvironmentFlag(t *testing.T) {
	file := write(t, "listen: 127.0.0.1:1001\nmax_sandboxes: 11\nallowed_hosts: [a.example, b.example]\nlog_level: warn\n")
	tests := []struct {
		name string
		env  map[string]string
		args []string
		want string
	}{
		{"the file beats the default", nil, nil, "127.0.0.1:1001"},
		{"the environment beats the file", map[string]string{"CAESARION_LISTEN": "127.0.0.1:1002"}, nil, "127.0.0.1:1002"},
		{"a flag beats the environment", map[string]string{"CAESARION_LISTEN": "127.0.0.1:1002"}, []string{"--listen=127.0.0.1:1003"}, "127.0.0.1:1003"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for k, v := range tt.env {
				t.Setenv(k, v)
			}
			f, err := config.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var got struct {
				config.Base   `embed:""`
				config.Server `embed:""`
			}
			parser, err := kong.New(&got, config.Vars(), kong.Resolvers(f))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := parser.Parse(tt.args); err != nil {
				t.Fatal(err)
			}
			if got.Listen != tt.want {
				t.Errorf("listen = %q, want %q", got.Listen, tt.want)
			}
			if got.MaxSandboxes != 11 || got.LogLevel != "warn" || got.Auth != "token" || len(got.AllowedHosts) != 2 {
				t.Errorf("other settings: %+v", got)
			}
		})
	}
}

func TestTemplatesKeepTheDefaultsTheyDoNotName(t *testing.T) {
	srv, err := config.Load(config.Base{Config: write(t, `
templates:
  small:
    memory: 512MiB
    execution_timeout: 30s
    env: {LANG: C.UTF-8}
`)})
	if err != nil {
		t.Fatal(err)
	}
	want := config.DefaultLimits()
	want.Memory = 512 << 20
	want.ExecutionTimeout = config.Seconds(30)
	want.Env = map[string]string{"LANG": "C.UTF-8"}
	if diff := cmp.Diff(map[string]config.Template{"small": want, config.DefaultTemplate: standard()}, srv.Templates); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFileMistakesNameKeyValueAndWhatIsAllowed(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string
	}{
		{"unknown key at the top", "listen: 127.0.0.1:1\nlissten: x\n", []string{":2:", `"lissten"`, "data_dir", "listen", "templates"}},
		{"unknown key in a template", "templates:\n  a:\n    memroy: 1GiB\n", []string{":3:", `"memroy"`, "memory"}},
		{"a size that is none", "templates: {a: {memory: lots}}", []string{"templates.a", `"lots"`, "2GiB"}},
		{"a duration without unit", "templates: {a: {idle_timeout: 300}}", []string{"templates.a", `"300"`, "300s"}},
		{"a word where a number belongs", "templates: {a: {cpus: many}}", []string{"templates.a", "many"}},
		{"a list where one value belongs", "listen: [a, b]", []string{"listen", "list"}},
		{"a map where one value belongs", "listen: {a: b}", []string{"listen", "single value"}},
		{"not YAML", "listen: [", []string{"config.yaml", "line"}},
		{"a list at the top", "- a\n", []string{"config.yaml", "line 1"}},
		{"a choice that does not exist", "auth: open", []string{"auth", "open", "token"}},
		{"a pool of words", "templates: {a: {pool_size: many}}", []string{"templates.a", `"many"`, "auto"}},
		{"a pool below nothing", "templates: {a: {pool_size: -3}}", []string{"templates.a", `"-3"`, "auto"}},
		{"one word where modules belong", "templates: {a: {preload: numpy}}", []string{"templates.a", "numpy"}},
		{"a module that is none", "templates: {a: {preload: ['os; evil()']}}", []string{"templates.a.preload", "os; evil()", "matplotlib.pyplot"}},
		{"a sleep of no time", "templates: {a: {pause_after: 1ms}}", []string{"templates.a.pause_after", "1ms", "0 for never"}},
		{"a quota that holds nothing", "disk_quota: 1MiB", []string{"disk_quota", "1MiB", "64MiB"}},
		{"files that go before memory", "keep_files: 1d", []string{"keep_files", "24h", "keep_memory", "7d"}},
		{"memory that is never kept", "keep_memory: 0s", []string{"keep_memory", "0s"}},
		{"a value Validate refuses", "templates: {a: {memory: 1MiB}}", []string{"templates.a.memory", "1MiB", "128MiB"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			refused(t, tt.text, tt.want)
		})
	}
}

// refused wants a file not to be taken, for a reason that people understand:
// it says all of want, and shows nothing of Go and no secret.
func refused(t *testing.T, text string, want []string) {
	t.Helper()
	_, err := config.Load(config.Base{Config: write(t, text)})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q does not say %q", err, w)
		}
	}
	for _, not := range []string{"config.Template", "config.M", "float64", "int64", "yaml.", "secret-value"} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("%q shows %q", err, not)
		}
	}
}

func TestAFileThatIsNamedMustExist(t *testing.T) {
	if _, err := config.Load(config.Base{Config: filepath.Join(t.TempDir(), "none.yaml")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not exist", err)
	}
}

func TestValidate(t *testing.T) {
	cert := write(t, "a certificate")
	tests := []struct {
		name string
		edit func(*config.Server)
		want string // empty: allowed
	}{
		{"the defaults", func(*config.Server) {}, ""},
		{"port 0", func(s *config.Server) { s.Listen = "localhost:0" }, ""},
		{"IPv6 loopback", func(s *config.Server) { s.Listen = "[::1]:80" }, ""},
		{"all of 127/8", func(s *config.Server) { s.Listen = "127.1.2.3:80" }, ""},
		{"no port", func(s *config.Server) { s.Listen = "127.0.0.1" }, "HOST:PORT"},
		{"port too large", func(s *config.Server) { s.Listen = "127.0.0.1:70000" }, "65535"},
		{"every address without TLS", func(s *config.Server) { s.Listen = "0.0.0.0:8000" }, "--insecure-listen"},
		{"empty host means every address", func(s *config.Server) { s.Listen = ":8000" }, "--insecure-listen"},
		{"a name is not known to be loopback", func(s *config.Server) { s.Listen = "example.org:8000" }, "--insecure-listen"},
		{"every address, accepted", func(s *config.Server) { s.Listen, s.InsecureListen = ":8000", true }, ""},
		{"every address with TLS", func(s *config.Server) { s.Listen, s.TLSCert, s.TLSKey = ":8000", cert, cert }, ""},
		{"certificate without key", func(s *config.Server) { s.TLSCert = cert }, "tls_key"},
		{"certificate that is not there", func(s *config.Server) { s.TLSCert, s.TLSKey = cert+"x", cert }, "tls_cert"},
		{"no auth on loopback", func(s *config.Server) { s.Auth = "none" }, ""},
		{"no auth beyond loopback", func(s *config.Server) { s.Auth, s.Listen, s.InsecureListen = "none", ":1", true }, "everybody"},
		{"unknown auth", func(s *config.Server) { s.Auth = "basic" }, "token and none"},
		{"negative sandboxes", func(s *config.Server) { s.MaxSandboxes = -1 }, "max_sandboxes"},
		{"unknown exit", func(s *config.Server) { s.OnExit = "burn" }, "keep and delete"},
		{"template name", func(s *config.Server) { s.Templates["A b"] = config.DefaultLimits() }, "lower-case"},
		{"negative time", func(s *config.Server) {
			tpl := config.DefaultLimits()
			tpl.Lifetime = -1
			s.Templates["a"] = tpl
		}, "templates.a.lifetime"},
		{"no image", func(s *config.Server) {
			tpl := config.DefaultLimits()
			tpl.Image = ""
			s.Templates["a"] = tpl
		}, "templates.a.image"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := valid()
			tt.edit(&s)
			err := s.Validate()
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if !errors.Is(err, errdefs.ErrInvalid) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an ErrInvalid that says %q", err, tt.want)
			}
		})
	}
}

func TestPrintGivesAFileThatReadsBack(t *testing.T) {
	want := valid()
	want.AllowedHosts = []string{"a.example"}
	small := config.DefaultLimits()
	small.CPUs, small.Disk = 0.5, 1<<30
	small.PauseAfter, small.PoolSize, small.Preload = 0, 3, []string{"json"}
	want.Templates["small"] = small
	var out bytes.Buffer
	base := config.Base{DataDir: "/data", LogLevel: "warn", LogFormat: "json"}
	if err := config.Print(&out, base, want); err != nil {
		t.Fatal(err)
	}
	got, err := config.Load(config.Base{Config: write(t, out.String())})
	if err != nil {
		t.Fatalf("%v in\n%s", err, out.String())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s\n%s", diff, out.String())
	}
}

func TestTokenComesFromEnvironmentOrFile(t *testing.T) {
	const good = "0123456789abcdef0123456789abcdef"
	tests := []struct {
		name, env, file string
		want            config.Secret
		bad             bool
	}{
		{"neither", "", "", "", false},
		{"the environment", good, "", good, false},
		{"the file, with a newline", "", good + "\n", good, false},
		{"the environment beats the file", good, "another-token-in-the-file", good, false},
		{"too short", "short", "", "", true},
		{"a space inside", "0123456789 abcdef0123456789", "", "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv(config.TokenEnv, tt.env)
			var base config.Base
			if tt.file != "" {
				base.TokenFile = write(t, tt.file)
			}
			got, err := base.Token()
			if got != tt.want || (err != nil) != tt.bad {
				t.Errorf("got %q, %v; want %q, error %v", got.Reveal(), err, tt.want.Reveal(), tt.bad)
			}
			if err != nil && strings.Contains(err.Error(), "0123456789") {
				t.Errorf("the message shows the token: %v", err)
			}
		})
	}
}
