package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// CodeInvalid is the code of every error of Validate.
const CodeInvalid = "config-invalid"

// The smallest limits with which a sandbox still starts its first kernel.
// Below them the first execution would fail with a message that does not name
// the setting.
const (
	minMemory    = Bytes(128 << 20)
	minDisk      = Bytes(16 << 20)
	minProcesses = 16
	minCPUs      = 0.05
	minDuration  = time.Second
	minQuota     = Bytes(64 << 20) // less does not hold one sandbox's memory
	maxPoolSize  = 1000
	maxPreload   = 32
)

// maxModule is longer than any module's name.
const maxModule = 255

var moduleName = regexp.MustCompile(`^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$`)

// maxTemplates bounds what one file can define; a name is also a label value.
const maxTemplates = 256

var templateName = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

func invalid(key string, value any, allowed string) error {
	return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: %v is not allowed", key, quote(value)).WithHint("%s", allowed)
}

func quote(value any) string {
	if s, ok := value.(string); ok {
		return strconv.Quote(s)
	}
	return fmt.Sprint(value)
}

// Validate checks the settings against each other and against what makes
// sense. The first thing wrong is returned, with key, value and what is allowed.
func (s *Server) Validate() error {
	host, port, err := net.SplitHostPort(s.Listen)
	if err != nil {
		return invalid("listen", s.Listen, "write HOST:PORT, such as 127.0.0.1:8000")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return invalid("listen", s.Listen, "the port is a number from 0 to 65535")
	}
	loopback := IsLoopback(host)
	tls := s.TLSCert != ""
	switch {
	case (s.TLSCert == "") != (s.TLSKey == ""):
		return errdefs.New(errdefs.ErrInvalid, CodeInvalid, "tls_cert and tls_key: one without the other").
			WithHint("give both, or neither")
	case s.Auth != AuthToken && s.Auth != AuthNone && s.Auth != AuthAccounts:
		return invalid("auth", s.Auth, "allowed are accounts, token and none")
	case s.Auth == "none" && !loopback:
		return errdefs.New(errdefs.ErrInvalid, "auth-none-beyond-loopback", "auth none together with listen %s would let everybody run code here", s.Listen).
			WithHint("listen on 127.0.0.1, or use auth token")
	case !loopback && !tls && !s.InsecureListen:
		return errdefs.New(errdefs.ErrInvalid, "insecure-listen", "listen %s is reachable from other machines, and without TLS tokens, code and files cross the network in clear", s.Listen).
			WithHint("give --tls-cert and --tls-key, listen on 127.0.0.1 behind a proxy that speaks TLS, or accept it with --insecure-listen")
	case s.MaxSandboxes < 0 || s.MaxSandboxes > 100_000:
		return invalid("max_sandboxes", s.MaxSandboxes, "allowed are 0 (fits the machine) to 100000")
	case s.OnExit != "keep" && s.OnExit != "delete":
		return invalid("on_exit", s.OnExit, "allowed are keep and delete")
	case len(s.Templates) > maxTemplates:
		return invalid("templates", len(s.Templates), fmt.Sprintf("at most %d", maxTemplates))
	}
	for _, f := range []struct{ key, path string }{{"tls_cert", s.TLSCert}, {"tls_key", s.TLSKey}, {"agent", s.Agent}, {"chat_system_prompt_file", s.ChatSystemPromptFile}} {
		if f.path == "" {
			continue
		}
		if info, err := os.Stat(f.path); err != nil || info.IsDir() {
			return invalid(f.key, f.path, "it must be a file that can be read")
		}
	}
	for _, name := range s.SortedTemplates() {
		if err := validateTemplate(name, s.Templates[name]); err != nil {
			return err
		}
	}
	if err := s.validateSaved(); err != nil {
		return err
	}
	if err := s.validateCluster(); err != nil {
		return err
	}
	if err := s.validateSignIn(); err != nil {
		return err
	}
	if err := s.validateEgress(); err != nil {
		return err
	}
	if err := s.validateLimits(); err != nil {
		return err
	}
	if err := s.validateChat(); err != nil {
		return err
	}
	return s.validateModels()
}

// validateSaved checks what sleep and snapshots may keep.
func (s *Server) validateSaved() error {
	switch {
	case s.KeepMemory.Std() < minDuration:
		return invalid("keep_memory", s.KeepMemory, fmt.Sprintf("at least %s, such as 7d", minDuration))
	case s.KeepFiles < s.KeepMemory:
		return invalid("keep_files", s.KeepFiles, fmt.Sprintf("at least keep_memory, which is %s", s.KeepMemory))
	case s.DiskQuota < 0 || s.DiskQuota > 0 && s.DiskQuota < minQuota:
		return invalid("disk_quota", s.DiskQuota, fmt.Sprintf("a size of at least %s, such as 50GiB, or 0 for a quarter of the data directory's disk", minQuota))
	}
	return nil
}

// validateChat checks what the page and its conversations follow.
func (s *Server) validateChat() error {
	switch {
	case s.ChatMaxRounds < 1 || s.ChatMaxRounds > 1000:
		return invalid("chat_max_rounds", s.ChatMaxRounds, "allowed are 1 to 1000")
	case s.ChatRoundTimeout.Std() < minDuration:
		return invalid("chat_round_timeout", s.ChatRoundTimeout, fmt.Sprintf("at least %s", minDuration))
	case s.ChatToolTimeout.Std() < minDuration:
		return invalid("chat_tool_timeout", s.ChatToolTimeout, fmt.Sprintf("at least %s", minDuration))
	case s.WeatherBaseURL != NoWeather && !httpURL(s.WeatherBaseURL):
		return invalid("weather_base_url", s.WeatherBaseURL, "write it as https://api.example.org, or none to take the tool away")
	case s.UploadMaxBytes < 0:
		return invalid("upload_max_bytes", s.UploadMaxBytes, "a size such as 100MiB, or 0 for no bound of its own")
	}
	for _, ext := range s.UploadExtensions {
		if !extension.MatchString(ext) {
			return invalid("upload_extensions", ext, "write them as csv, txt or tar.gz")
		}
	}
	return nil
}

// NoWeather is the WeatherBaseURL that takes the tool away.
const NoWeather = "none"

var extension = regexp.MustCompile(`^\.?[A-Za-z0-9_+-]+(\.[A-Za-z0-9_+-]+)*$`)

func validateTemplate(name string, t Template) error {
	key := templatesKey + "." + name
	switch {
	case !templateName.MatchString(name):
		return invalid(templatesKey, name, "a name has up to 63 lower-case letters, digits, dots, dashes and underscores, and starts and ends with a letter or digit")
	case t.Image == "":
		return invalid(key+".image", t.Image, "name an image of the store; caesarion image ls lists them")
	case t.Memory < minMemory:
		return invalid(key+".memory", t.Memory, fmt.Sprintf("at least %s", minMemory))
	case t.CPUs < minCPUs || t.CPUs > 1024:
		return invalid(key+".cpus", t.CPUs, fmt.Sprintf("allowed are %g to 1024", minCPUs))
	case t.Processes < minProcesses:
		return invalid(key+".processes", t.Processes, fmt.Sprintf("at least %d", minProcesses))
	case t.Disk < minDisk:
		return invalid(key+".disk", t.Disk, fmt.Sprintf("at least %s", minDisk))
	case t.PauseAfter != 0 && t.PauseAfter.Std() < minDuration:
		return invalid(key+".pause_after", t.PauseAfter, fmt.Sprintf("at least %s, or 0 for never", minDuration))
	case t.PoolSize < AutoPoolSize || t.PoolSize > maxPoolSize:
		return invalid(key+".pool_size", t.PoolSize, fmt.Sprintf("allowed are auto and 0 to %d", maxPoolSize))
	case len(t.Preload) > maxPreload:
		return invalid(key+".preload", len(t.Preload), fmt.Sprintf("at most %d modules", maxPreload))
	}
	for _, module := range t.Preload {
		if len(module) > maxModule || !moduleName.MatchString(module) {
			return invalid(key+".preload", module, "write modules as they are imported, such as [numpy, matplotlib.pyplot]")
		}
	}
	for _, d := range []struct {
		key   string
		value Duration
	}{{"execution_timeout", t.ExecutionTimeout}, {"idle_timeout", t.IdleTimeout}, {"lifetime", t.Lifetime}} {
		if d.value.Std() < minDuration {
			return invalid(key+"."+d.key, d.value, fmt.Sprintf("at least %s", minDuration))
		}
	}
	return nil
}

// IsLoopback reports whether a host to listen on can only be reached from this
// machine. Names other than localhost are not looked up: what they mean may
// change after the check.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}
