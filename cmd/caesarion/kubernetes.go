package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/metrics"
	"github.com/caesarion/caesarion/internal/replica"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/kube"
)

// openPods opens the driver that makes sandboxes as pods, and keeps some ready
// together with the other servers of the installation.
func (s *server) openPods(ctx context.Context, opts serverOptions, fleetOpts *fleet.Options) error {
	me := cmp.Or(s.replicas.ID(), replica.NewID(hostName())) // pods say by it who starts them
	driverOpts, err := podOptions(opts.cfg, me, opts.log)
	if err != nil {
		return err
	}
	driver, err := kube.New(ctx, driverOpts)
	if err != nil {
		return err
	}
	s.driver = driver
	for name, t := range fleetOpts.Templates {
		t.PoolSize = clusterPoolSize(name, opts.cfg.Templates[name])
		t.PauseAfter = 0 // a pod can't sleep
		fleetOpts.Templates[name] = t
	}
	fleetOpts.Starts = clusterStarts
	if fleetOpts.MaxSandboxes == 0 {
		fleetOpts.MaxSandboxes = -1 // the cluster's quota decides, not this machine's memory
	}
	warmOpts, err := warmOptions(opts.cfg, opts.metrics, opts.log)
	if err != nil {
		return err
	}
	warmOpts.Reaper = s.reaper(me, fleetOpts.Templates)
	warm, err := kube.NewWarm(ctx, driver, warmOpts)
	if err != nil {
		return err
	}
	s.pool = warm
	return nil
}

// clusterStarts is how many pods start at once: the cluster does the work, and
// each takes seconds.
const clusterStarts = 64

// reaper says what of pods only servers know. Where there is one server, alone
// with its own database, its fleet has every sandbox that anybody has, and
// nobody else starts any.
func (s *server) reaper(me string, templates map[string]fleet.Template) kube.ReaperOptions {
	opts := kube.ReaperOptions{
		Expired: func(info sandbox.Info, now time.Time) (string, bool) {
			return fleet.Expired(info, templates[info.Template], now)
		},
		Owned: func(ctx context.Context, id sandbox.ID, session string) (bool, error) {
			_, owned, err := s.replicas.Owner(ctx, cmp.Or(session, string(id)))
			return owned, err
		},
		Alive: s.replicas.Alive,
	}
	if s.replicas == nil {
		opts.Owned = func(_ context.Context, id sandbox.ID, _ string) (bool, error) {
			f := s.adopted.Load() // nil: it looks at what it finds right now
			return f == nil || f.Has(id), nil
		}
		opts.Alive = func(_ context.Context, replica string) (bool, error) { return replica == me, nil }
	}
	return opts
}

// podOptions turns settings into what the driver takes.
func podOptions(cfg config.Server, replica string, log *slog.Logger) (kube.Options, error) {
	opts := kube.Options{
		Namespace:    cfg.KubeNamespace,
		Installation: cfg.KubeInstallation,
		Replica:      replica,
		AgentImage:   cfg.KubeAgentImage,
		Service:      cfg.KubeService,
		Pods:         make(map[string]kube.PodTemplate, len(cfg.Templates)),
		Logger:       log,
	}
	var err error
	if opts.Secret, err = cfg.Secret(); err != nil {
		return opts, err
	}
	if opts.Config, err = kube.LoadConfig(cfg.Kubeconfig); err != nil {
		return opts, err
	}
	for _, name := range cfg.SortedTemplates() {
		if opts.Pods[name], err = kube.ParsePodTemplate(cfg.Templates[name].Kubernetes); err != nil {
			return opts, fmt.Errorf("templates.%s.kubernetes: %w", name, err)
		}
	}
	return opts, nil
}

// warmOptions turns settings into what keeps pods ready.
func warmOptions(cfg config.Server, m *metrics.Metrics, log *slog.Logger) (kube.WarmOptions, error) {
	opts := kube.WarmOptions{Templates: make(map[string]kube.WarmTemplate, len(cfg.Templates)), Metrics: m, Logger: log}
	for name, t := range cfg.Templates {
		opts.Templates[name] = kube.WarmTemplate{Image: t.Image, Limits: templateLimits(t), Preload: t.Preload, Size: clusterPoolSize(name, t)}
	}
	if cfg.PoolNight == "" {
		return opts, nil
	}
	from, to, _ := strings.Cut(cfg.PoolNight, "-")
	var err error
	if opts.Night, err = kube.ParseNight(strings.TrimSpace(from), strings.TrimSpace(to), cfg.PoolNightZone); err != nil {
		return opts, fmt.Errorf("pool_night: %w", err)
	}
	return opts, nil
}

// clusterPool is how many pods of the default template are kept ready in a
// cluster whose settings leave it open: enough that one person does not wait.
const clusterPool = 2

func clusterPoolSize(name string, t config.Template) int {
	switch {
	case t.PoolSize != config.AutoPoolSize:
		return int(t.PoolSize)
	case name == config.DefaultTemplate:
		return clusterPool
	}
	return 0
}
