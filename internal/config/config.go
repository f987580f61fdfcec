package config

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Base is what every command needs to know.
type Base struct {
	Config    string `help:"Read settings from this YAML file." placeholder:"FILE" env:"CAESARION_CONFIG" group:"Global"`
	DataDir   string `help:"Keep images, sandboxes and the token here (default: ${data_dir})." placeholder:"DIR" env:"CAESARION_DATA_DIR" group:"Global"`
	TokenFile string `help:"Take the token from this file; CAESARION_TOKEN gives it directly (default: token in the data directory, made at first start)." placeholder:"FILE" env:"CAESARION_TOKEN_FILE" group:"Global"`
	LogLevel  string `help:"Least level to log: debug, info, warn or error." default:"info" enum:"debug,info,warn,error" placeholder:"LEVEL" env:"CAESARION_LOG_LEVEL" group:"Global"`
	LogFormat string `help:"How to log: text for people, json for programs." default:"text" enum:"text,json" placeholder:"FORMAT" env:"CAESARION_LOG_FORMAT" group:"Global"`
}

// Server is what a server needs to know beyond Base.
type Server struct {
	Listen         string   `help:"Address and port to listen on; port 0 takes a free one." default:"127.0.0.1:8000" placeholder:"HOST:PORT" env:"CAESARION_LISTEN"`
	TLSCert        string   `help:"Serve TLS with this certificate chain (PEM)." placeholder:"FILE" env:"CAESARION_TLS_CERT"`
	TLSKey         string   `help:"Private key of --tls-cert (PEM)." placeholder:"FILE" env:"CAESARION_TLS_KEY"`
	InsecureListen bool     `help:"Allow listening beyond loopback without TLS: tokens, code and files then cross the network in clear." env:"CAESARION_INSECURE_LISTEN"`
	Auth           string   `help:"Who may call: token (whoever has the token), accounts (users who sign in, and their API keys) or none (everybody; only on loopback)." default:"token" enum:"token,none,accounts" placeholder:"HOW" env:"CAESARION_AUTH"`
	PublicURL      string   `help:"Address by which browsers reach the server, where a proxy stands before it." placeholder:"URL" env:"CAESARION_PUBLIC_URL"`
	TrustedProxies []string `help:"Networks of proxies that are believed where a request comes from (X-Forwarded-For)." placeholder:"NETWORK,…" env:"CAESARION_TRUSTED_PROXIES"`
	AllowedHosts   []string `help:"Host names that requests may carry besides loopback and the address listened on." placeholder:"NAME,…" env:"CAESARION_ALLOWED_HOSTS"`
	MaxSandboxes   int      `help:"Most sandboxes that exist at a time; 0 takes a number that fits the machine's memory." default:"0" placeholder:"N" env:"CAESARION_MAX_SANDBOXES"`
	Agent          string   `help:"The agent's binary (default: caesarion-agent beside this program, or on the PATH)." placeholder:"FILE" env:"CAESARION_AGENT"`
	OnExit         string   `help:"What to do with the sandboxes when the server stops: keep them for the next one, or delete them." default:"keep" enum:"keep,delete" placeholder:"HOW" env:"CAESARION_ON_EXIT"`
	Snapshots      bool     `help:"Start sandboxes from a snapshot of their template, which is made in the background at the first start." default:"true" negatable:"" env:"CAESARION_SNAPSHOTS"`
	KeepMemory     Duration `help:"How long a sleeping sandbox keeps its variables; after that only its files are kept." default:"7d" placeholder:"TIME" env:"CAESARION_KEEP_MEMORY"`
	KeepFiles      Duration `help:"How long a sleeping sandbox keeps its files; after that it is deleted." default:"30d" placeholder:"TIME" env:"CAESARION_KEEP_FILES"`
	DiskQuota      Bytes    `help:"What sleeping sandboxes and snapshots may take on disk, together; 0 takes a quarter of the data directory's disk, or half of what is free if that is less." default:"0" placeholder:"SIZE" env:"CAESARION_DISK_QUOTA"`
	Network        string   `help:"What sandboxes may reach whose template does not say: none, packages (pip and uv) or open (every public address)." default:"none" enum:"none,packages,open" placeholder:"WHAT" env:"CAESARION_NETWORK"`
	WebDir         string   `help:"Serve the page from this folder instead of the built-in one, read anew each time: for work on the page." placeholder:"DIR" type:"existingdir" env:"CAESARION_WEB_DIR"`

	Driver           string `help:"Where sandboxes run: gvisor (on this machine) or kubernetes (as pods)." default:"gvisor" enum:"gvisor,kubernetes" placeholder:"NAME" env:"CAESARION_DRIVER"`
	DatabaseURLFile  string `help:"Keep sessions in the Postgres whose address (postgres://USER:PASSWORD@HOST/NAME) is in this file; CAESARION_DATABASE_URL gives it directly (default: a file in the data directory)." placeholder:"FILE" env:"CAESARION_DATABASE_URL_FILE"`
	Migrate          bool   `help:"Bring the database up to date at the start; otherwise caesarion migrate does." default:"true" negatable:"" env:"CAESARION_MIGRATE"`
	SecretFile       string `help:"Secret of the installation, the same for all its servers: at least 32 bytes. The tokens of pods derive from it." placeholder:"FILE" env:"CAESARION_SECRET_FILE"`
	ReplicaAddress   string `help:"Where other servers of the installation reach this one; together with Postgres, several share the work." placeholder:"IP:PORT" env:"CAESARION_REPLICA_ADDRESS"`
	Kubeconfig       string `help:"How to reach the cluster (default: as a pod of it, else as kubectl does)." placeholder:"FILE" env:"CAESARION_KUBECONFIG"`
	KubeNamespace    string `help:"Namespace of the sandboxes." placeholder:"NAME" env:"CAESARION_KUBE_NAMESPACE"`
	KubeInstallation string `help:"Tells installations in one namespace apart." default:"caesarion" placeholder:"NAME" env:"CAESARION_KUBE_INSTALLATION"`
	KubeAgentImage   string `help:"Image of this program, whose agent pods get." placeholder:"IMAGE" env:"CAESARION_KUBE_AGENT_IMAGE"`
	PoolNight        string `help:"Pods: between these times nothing is kept ready of what nobody asks for, such as 22:00-06:00." placeholder:"FROM-TO" env:"CAESARION_POOL_NIGHT"`
	PoolNightZone    string `help:"Time zone of --pool-night." default:"UTC" placeholder:"ZONE" env:"CAESARION_POOL_NIGHT_ZONE"`
	KubeService      string `help:"Headless service that gives pods their names (default: none)." placeholder:"NAME" env:"CAESARION_KUBE_SERVICE"`

	DefaultModel   string `help:"Model that answers where none is named (default: the first)." placeholder:"NAME" env:"CAESARION_DEFAULT_MODEL"`
	DiscoverModels bool   `help:"Without any model configured, use one that Ollama or llama.cpp offers on this machine." default:"true" negatable:"" env:"CAESARION_DISCOVER_MODELS"`

	ChatMaxRounds        int      `help:"Most calls of the model for one message." default:"25" placeholder:"N" env:"CAESARION_CHAT_MAX_ROUNDS"`
	ChatRoundTimeout     Duration `help:"Longest time of one call of the model." default:"5m" placeholder:"TIME" env:"CAESARION_CHAT_ROUND_TIMEOUT"`
	ChatToolTimeout      Duration `help:"Longest time of one tool the model calls, such as running code." default:"300s" placeholder:"TIME" env:"CAESARION_CHAT_TOOL_TIMEOUT"`
	ChatSystemPromptFile string   `help:"Template of what the model is told before each conversation, instead of the built-in one." placeholder:"FILE" env:"CAESARION_CHAT_SYSTEM_PROMPT_FILE"`
	WeatherBaseURL       string   `help:"Server that get_current_weather asks; none takes the tool away." default:"https://api.open-meteo.com" placeholder:"URL" env:"CAESARION_WEATHER_BASE_URL"`

	UploadExtensions []string `help:"Extensions of the files that the page may upload (default: all)." placeholder:"EXT,…" env:"CAESARION_UPLOAD_EXTENSIONS"`
	UploadMaxBytes   Bytes    `help:"Largest file that the page may upload; 0: as the sandbox's disk has room." default:"0" placeholder:"SIZE" env:"CAESARION_UPLOAD_MAX_BYTES"`

	// Models are the language models, in the order that people see them. With
	// none, there may still be EnvironmentModel or those of this machine.
	Models []Model `kong:"-"`

	// SignIn is how people sign in, if Auth is AuthAccounts.
	SignIn SignIn `kong:"-"`

	// Egress is how sandboxes get out, as far as their templates allow.
	Egress Egress `kong:"-"`

	// Limits says how much users and organisations may use.
	Limits Limits `kong:"-"`

	// Templates are what sandboxes are made from, by name. There is always
	// one named DefaultTemplate.
	Templates map[string]Template `kong:"-"`
}

// DefaultTemplate is the template of a sandbox that names none.
const DefaultTemplate = "python"

// Template is what a sandbox is made from. What the file leaves out has the
// value of DefaultLimits.
type Template struct {
	Image            string            `yaml:"image"`                // name or digest in the image store
	Memory           Bytes             `yaml:"memory"`               // of all processes together
	CPUs             float64           `yaml:"cpus"`                 // cores, fractions allowed
	Processes        int               `yaml:"processes"`            // processes and threads
	Disk             Bytes             `yaml:"disk"`                 // all that is written, together
	ExecutionTimeout Duration          `yaml:"execution_timeout"`    // running time of one execution
	IdleTimeout      Duration          `yaml:"idle_timeout"`         // unused for so long, a sandbox is deleted
	Lifetime         Duration          `yaml:"lifetime"`             // after so long it is deleted in any case
	PauseAfter       Duration          `yaml:"pause_after"`          // unused for so long, a sandbox is put to sleep; 0: never
	PoolSize         PoolSize          `yaml:"pool_size"`            // sandboxes kept ready
	Preload          []string          `yaml:"preload"`              // modules that kernels have imported before they are handed out
	Env              map[string]string `yaml:"env,omitempty"`        // for kernels and processes
	Network          Network           `yaml:"network,omitempty"`    // what they may reach
	Kubernetes       map[string]any    `yaml:"kubernetes,omitempty"` // what only pods have; the driver reads it
}

// DefaultPreload is what kernels of the default template and image have
// imported. Nothing is preloaded in other templates unless they ask for it:
// it is memory of each of their sandboxes.
func DefaultPreload() []string { return []string{"numpy", "pandas", "matplotlib.pyplot"} }

// DefaultLimits is a template with the defaults for one machine, without
// DefaultPreload.
func DefaultLimits() Template {
	return Template{
		Image:            DefaultTemplate,
		Memory:           2 << 30,
		CPUs:             2,
		Processes:        256,
		Disk:             5 << 30,
		ExecutionTimeout: Seconds(300),
		IdleTimeout:      Seconds(60 * 60),
		Lifetime:         Seconds(24 * 60 * 60),
		PauseAfter:       Seconds(10 * 60),
		PoolSize:         AutoPoolSize,
	}
}

// TokenEnv is the environment variable that holds the token itself. There is
// no flag for it: other users of the machine can read command lines.
const TokenEnv = "CAESARION_TOKEN"

// minTokenBytes is the shortest token accepted from outside. Ours have 43
// characters; with fewer than this, guessing over the network gets realistic.
const minTokenBytes = 16

// Token gives the token that the environment or the named file holds, or ""
// when neither is set.
func (b *Base) Token() (Secret, error) {
	from, text := TokenEnv, os.Getenv(TokenEnv)
	if text == "" && b.TokenFile != "" {
		content, err := os.ReadFile(b.TokenFile)
		if err != nil {
			return "", fmt.Errorf("config: token_file: %w", err)
		}
		from, text = "token_file "+b.TokenFile, string(content)
	}
	text = strings.TrimSpace(text)
	if text == "" && from == TokenEnv {
		return "", nil
	}
	if len(text) < minTokenBytes || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", errdefs.New(errdefs.ErrInvalid, CodeInvalid, "%s: not a usable token", from).
			WithHint("at least %d printable ASCII characters without spaces", minTokenBytes)
	}
	return Secret(text), nil
}

// Vars are the values that help texts in the tags name.
func Vars() kong.Vars { return kong.Vars{"data_dir": DefaultDataDir()} }

// DefaultDataDir is where data is kept when nothing else is said:
// /var/lib/caesarion for root, the user's own data folder otherwise.
func DefaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/caesarion"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "caesarion")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = os.TempDir()
	}
	return filepath.Join(home, ".local", "share", "caesarion")
}

// DefaultFile is the file that is read, if it exists, when none is named:
// /etc/caesarion/config.yaml for root, the user's own otherwise.
func DefaultFile() string {
	if os.Geteuid() == 0 {
		return "/etc/caesarion/config.yaml"
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "caesarion", "config.yaml")
}

// Load gives the settings of a server that has no flags of its own: defaults,
// the file that base names, and the environment.
func Load(base Base) (Server, error) {
	var srv struct {
		Server `embed:""`
	}
	file, err := ReadFile(base.Config)
	if err != nil {
		return Server{}, err
	}
	parser, err := kong.New(&srv, Vars(), kong.Name("caesarion"), kong.Exit(func(int) {}), kong.Resolvers(file))
	if err != nil {
		return Server{}, fmt.Errorf("config: %w", err)
	}
	if _, err := parser.Parse(nil); err != nil {
		return Server{}, fmt.Errorf("config: %w", err)
	}
	file.Into(&srv.Server)
	return srv.Server, srv.Validate()
}

// SortedTemplates gives the names of the templates in order.
func (s *Server) SortedTemplates() []string { return slices.Sorted(maps.Keys(s.Templates)) }

// Print writes all settings as a file that would give the same ones.
func Print(w io.Writer, base Base, srv Server) error { return printYAML(w, base, srv) }

// NoColor reports whether the person asked for output without colours
// (https://no-color.org).
func NoColor() bool { return os.Getenv("NO_COLOR") != "" }
