package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	minSecret           = 32 // bytes
	defaultUnplaced     = 10 * time.Second
	defaultStart        = 3 * time.Minute
	defaultDelete       = 40 * time.Second
	defaultInstallation = "caesarion"
)

// invalid is a setting that can't be used: which, and what is allowed.
func invalid(setting, format string, args ...any) *errdefs.Error {
	return errdefs.New(errdefs.ErrInvalid, "kubernetes-settings-invalid", "%s: %s", setting, fmt.Sprintf(format, args...))
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	o.Installation = cmp.Or(o.Installation, defaultInstallation)
	if o.Replica == "" {
		o.Replica, _ = os.Hostname()
	}
	o.UnschedulableAfter = cmp.Or(o.UnschedulableAfter, defaultUnplaced)
	o.StartTimeout = cmp.Or(o.StartTimeout, defaultStart)
	o.DeleteTimeout = cmp.Or(o.DeleteTimeout, defaultDelete)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Config == nil:
		return invalid("kubeconfig", "nothing says how to reach the cluster")
	case len(o.Secret) < minSecret:
		return invalid("secret", "the installation's secret has %d bytes, and needs at least %d", len(o.Secret), minSecret).
			WithHint("`openssl rand -hex 32` makes one")
	}
	for _, c := range []struct {
		setting, value string
		check          func(string) []string
	}{
		{"namespace", o.Namespace, validation.IsDNS1123Label},
		{"installation", o.Installation, validation.IsDNS1123Label},
		{"service", cmp.Or(o.Service, "none"), validation.IsDNS1035Label},
	} {
		if wrong := c.check(c.value); len(wrong) > 0 {
			return invalid(c.setting, "%q is no name that Kubernetes takes: %s", c.value, wrong[0])
		}
	}
	if err := checkImage(o.AgentImage); err != nil {
		return invalid("agent_image", "%q does not name an image by its digest", o.AgentImage).WithHint("give it as registry/name@sha256:…")
	}
	for _, name := range slices.Sorted(maps.Keys(o.Pods)) {
		t := o.Pods[name]
		if err := t.validate(); err != nil {
			if e, ok := errors.AsType[*errdefs.Error](err); ok {
				where := fmt.Sprintf("templates.%s.kubernetes", name)
				if name == "" {
					where = "kubernetes"
				}
				return errdefs.New(e.Kind, e.Code, "%s.%s", where, e.Msg).WithHint("%s", e.Hint)
			}
			return err
		}
	}
	return nil
}

// validate checks what can be told without the cluster.
func (t PodTemplate) validate() error {
	names := map[string]string{"runtime_class": t.RuntimeClass, "priority_class": t.PriorityClass, "service_account": t.ServiceAccount}
	for i, name := range t.ImagePullSecrets {
		names[fmt.Sprintf("image_pull_secrets[%d]", i)] = cmp.Or(name, "?")
	}
	for _, setting := range slices.Sorted(maps.Keys(names)) {
		if name := names[setting]; name != "" {
			if wrong := validation.IsDNS1123Subdomain(name); len(wrong) > 0 {
				return invalid(setting, "%q is no name that Kubernetes takes: %s", name, wrong[0])
			}
		}
	}
	if err := t.validateLabels(); err != nil {
		return err
	}
	full := t.withDefaults()
	for _, q := range []struct {
		setting, limit string
		value, most    resource.Quantity
		set            bool
	}{
		{"request_memory", "limit_memory", full.RequestMemory, full.LimitMemory, !t.RequestMemory.IsZero() && !t.LimitMemory.IsZero()},
		{"request_cpu", "limit_cpu", full.RequestCPU, full.LimitCPU, !t.RequestCPU.IsZero() && !t.LimitCPU.IsZero()},
		{"request_ephemeral_storage", "ephemeral_storage", full.RequestEphemeralStorage, full.EphemeralStorage, !t.RequestEphemeralStorage.IsZero() && !t.EphemeralStorage.IsZero()},
	} {
		switch {
		case q.value.Sign() < 0:
			return invalid(q.setting, "%s is below zero", q.value.String())
		case q.most.Sign() < 0:
			return invalid(q.limit, "%s is below zero", q.most.String())
		case q.set && q.value.Cmp(q.most) > 0:
			return invalid(q.setting, "%s is more than %s, which is %s", q.value.String(), q.limit, q.most.String())
		}
	}
	if least := resource.MustParse("64Mi"); full.LimitMemory.Cmp(least) < 0 {
		return invalid("limit_memory", "%s is too little for Python", full.LimitMemory.String()).WithHint("give at least %s", least.String())
	}
	for setting, d := range map[string]time.Duration{"deadline": t.Deadline.Duration, "node_lost_after": t.NodeLostAfter.Duration} {
		if d < 0 || d > 0 && d < time.Second {
			return invalid(setting, "%v is shorter than a second", d)
		}
	}
	if home := full.Home; !path.IsAbs(home) || path.Clean(home) != home || home == "/" || reservedPath(home) {
		return invalid("home", "%q can't be a home directory: it has to be a folder of its own, such as %s", home, defaultHome)
	}
	return t.validateScheduling()
}

func reservedPath(home string) bool {
	for _, taken := range []string{agentapi.WorkspaceDir, agentapi.UploadsDir, "/tmp", "/dev", "/proc", "/sys", "/etc", "/usr", agentMount} {
		if home == taken || strings.HasPrefix(home, taken+"/") {
			return true
		}
	}
	return false
}

func (t PodTemplate) validateLabels() error {
	for _, m := range []struct {
		setting string
		values  map[string]string
		label   bool
	}{{"labels", t.Labels, true}, {"annotations", t.Annotations, false}, {"node_selector", t.NodeSelector, true}} {
		for _, key := range slices.Sorted(maps.Keys(m.values)) {
			value := m.values[key]
			if wrong := validation.IsQualifiedName(key); len(wrong) > 0 {
				return invalid(m.setting, "%q is no key that Kubernetes takes: %s", key, wrong[0])
			}
			if wrong := validation.IsValidLabelValue(value); m.label && len(wrong) > 0 {
				return invalid(m.setting, "the value %q of %s is none that Kubernetes takes: %s", value, key, wrong[0])
			}
			if m.setting != "node_selector" && (strings.HasPrefix(key, "caesarion.dev/") || key == labelName || key == labelManagedBy) {
				return invalid(m.setting, "%s belongs to the server", key)
			}
		}
	}
	return nil
}

func (t PodTemplate) validateScheduling() error {
	for i, o := range t.Tolerations {
		where := fmt.Sprintf("tolerations[%d]", i)
		switch {
		case !slices.Contains([]corev1.TolerationOperator{"", corev1.TolerationOpExists, corev1.TolerationOpEqual}, o.Operator):
			return invalid(where, "the operator %q is neither Exists nor Equal", o.Operator)
		case o.Key == "" && o.Operator != corev1.TolerationOpExists:
			return invalid(where, "without a key the operator has to be Exists")
		case o.Operator == corev1.TolerationOpExists && o.Value != "":
			return invalid(where, "Exists takes no value")
		case !slices.Contains([]corev1.TaintEffect{"", corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute}, o.Effect):
			return invalid(where, "the effect %q is none of NoSchedule, PreferNoSchedule, NoExecute", o.Effect)
		case o.TolerationSeconds != nil && o.Effect != corev1.TaintEffectNoExecute:
			return invalid(where, "tolerationSeconds goes with the effect NoExecute only")
		}
	}
	for i, c := range t.TopologySpread {
		where := fmt.Sprintf("topology_spread[%d]", i)
		switch {
		case c.MaxSkew < 1:
			return invalid(where, "maxSkew is %d, and has to be at least 1", c.MaxSkew)
		case c.TopologyKey == "":
			return invalid(where, "topologyKey is missing").WithHint("topology.kubernetes.io/zone spreads over zones")
		case c.WhenUnsatisfiable != corev1.DoNotSchedule && c.WhenUnsatisfiable != corev1.ScheduleAnyway:
			return invalid(where, "whenUnsatisfiable %q is neither DoNotSchedule nor ScheduleAnyway", c.WhenUnsatisfiable)
		}
	}
	return nil
}

// check has the API server judge a pod of every template without making it:
// permissions, Pod Security, classes, accounts, and whatever else it knows.
func (d *Driver) check(ctx context.Context) error {
	for _, name := range slices.Sorted(maps.Keys(d.templates)) {
		pod, err := d.podOf(sandbox.Spec{ID: sandbox.NewID(), Template: name, Image: d.opts.AgentImage})
		if err != nil {
			return err
		}
		err = d.retry(ctx, func(ctx context.Context) error { return d.client.tryPod(ctx, pod) })
		err = apiError(err)
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*errdefs.Error](err)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case ok && e.Code == ReasonQuota: // full at the moment
			continue
		case ok:
			if name != "" {
				e = errdefs.New(e.Kind, e.Code, "template %s: %s", name, e.Msg).WithHint("%s", e.Hint).WithCause(e.Err)
			}
			return e
		}
		return err
	}
	// Whether pods may be watched, which a reflector would only log.
	pods := cache.ToListerWithContext(d.client.pods(selectorOf(d.opts.Installation)))
	return apiError(d.retry(ctx, func(ctx context.Context) error {
		_, err := pods.ListWithContext(ctx, metav1.ListOptions{Limit: 1})
		return err
	}))
}
