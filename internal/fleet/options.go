package fleet

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/machine"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Template is what sandboxes are made from. Zero durations mean the defaults.
type Template struct {
	Image            string // name or digest in the driver's image store
	Limits           sandbox.Limits
	Env              map[string]string
	ExecutionTimeout time.Duration // running time of one execution; default 300 s
	IdleTimeout      time.Duration // unused for so long: deleted, unless it can sleep; default 1 h
	Lifetime         time.Duration // deleted after so long awake, whatever it does; default 24 h
	PauseAfter       time.Duration // unused for so long: put to sleep; 0: never
	Preload          []string      // modules that kernels of the pool have imported; for the record, see pool.Template
	PoolSize         int           // likewise
}

// The defaults of a Template, fit for one machine.
const (
	DefaultExecutionTimeout = 300 * time.Second
	DefaultIdleTimeout      = time.Hour
	DefaultLifetime         = 24 * time.Hour
	DefaultKeepMemory       = 7 * 24 * time.Hour
	DefaultKeepFiles        = 30 * 24 * time.Hour
)

// DefaultTemplate is the name used when neither caller nor options name one.
const DefaultTemplate = "python"

// Options configures a Fleet. The zero value has one template named "python"
// of the image with the same name.
type Options struct {
	Templates       map[string]Template
	DefaultTemplate string // default: DefaultTemplate, or the only one there is
	MaxSandboxes    int    // awake at once; 0: from the machine's memory; negative: no bound
	EventBytes      int64  // memory for events of finished executions, all sandboxes together; default 16 MiB
	// KeepMemory is how long a sleeping sandbox keeps its memory (default 7
	// days), KeepFiles how long its files (default 30 days, at least KeepMemory).
	KeepMemory, KeepFiles time.Duration
	DiskQuota             int64 // bytes that sleeping sandboxes and snapshots may take together; not positive: no bound
	// Replicas says which sandboxes are this replica's; nil: there is one server
	// and they all are.
	Replicas *replica.Registry
	// Egress lets programs out; nil: no sandbox has a network.
	Egress Egress
	// Limits says how much owners may use; nil: as much as there is.
	Limits Limits
	// Starts is how many sandboxes are started or woken at once; others wait, and
	// their owners take turns. Default: twice the processors, at least 4.
	Starts int
	Logger *slog.Logger

	memory func() (total, available int64) // default: machine.Memory
}

func (o Options) withDefaults() (Options, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.Templates = maps.Clone(o.Templates)
	if len(o.Templates) == 0 {
		o.Templates = map[string]Template{DefaultTemplate: {Image: DefaultTemplate}}
	}
	if o.DefaultTemplate == "" {
		o.DefaultTemplate = DefaultTemplate
		if len(o.Templates) == 1 {
			o.DefaultTemplate = slices.Collect(maps.Keys(o.Templates))[0]
		}
	}
	if _, ok := o.Templates[o.DefaultTemplate]; !ok {
		return o, fmt.Errorf("fleet: default template %q is not one of the templates", o.DefaultTemplate)
	}
	for name, t := range o.Templates {
		t.ExecutionTimeout = cmp.Or(t.ExecutionTimeout, DefaultExecutionTimeout)
		t.IdleTimeout = cmp.Or(t.IdleTimeout, DefaultIdleTimeout)
		t.Lifetime = cmp.Or(t.Lifetime, DefaultLifetime)
		if t.ExecutionTimeout < 0 || t.IdleTimeout < 0 || t.Lifetime < 0 || t.PauseAfter < 0 {
			return o, fmt.Errorf("fleet: template %q: negative duration", name)
		}
		o.Templates[name] = t
	}
	if o.Starts <= 0 {
		o.Starts = max(4, 2*runtime.GOMAXPROCS(0))
	}
	o.EventBytes = cmp.Or(o.EventBytes, 16<<20)
	o.KeepMemory = cmp.Or(o.KeepMemory, DefaultKeepMemory)
	o.KeepFiles = max(cmp.Or(o.KeepFiles, DefaultKeepFiles), o.KeepMemory)
	if o.memory == nil {
		o.memory = machine.Memory
	}
	if o.MaxSandboxes == 0 {
		total, _ := o.memory()
		o.MaxSandboxes = sandboxesFor(total, o.Templates[o.DefaultTemplate].Limits.MemoryBytes)
	}
	return o, nil
}

// Sandboxes rarely use what they may: an idle one needs some 120 MB of its
// 2 GiB. So four times as many are allowed as would fit if all used their
// limit at once; when they do, the host's memory decides and the one that
// is killed gets its reason.
const overcommit = 4

func sandboxesFor(machine, perSandbox int64) int {
	if perSandbox <= 0 {
		perSandbox = 2 << 30
	}
	if machine <= 0 {
		return 16 // not Linux or no /proc: careful rather than unbounded
	}
	return int(max(2, machine*overcommit/perSandbox))
}

// roomInMemory refuses what would leave the machine without memory: others
// would be killed for it. What is said here is of a moment, so a share stays
// free.
func (f *Fleet) roomInMemory(bytes int64) error {
	total, available := f.opts.memory()
	if available == 0 || bytes <= available-total/16 {
		return nil
	}
	return errdefs.New(errdefs.ErrExhausted, "host-memory-short", "This needs %d MiB of memory, and the server has %d MiB left.", bytes>>20, available>>20).
		WithHint("Pause or delete sandboxes that are not needed, or ask for fewer copies.")
}
