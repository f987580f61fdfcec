package kube

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

const (
	// agentMount is where the agent stands in every sandbox.
	agentMount = "/opt/caesarion"
	agentName  = "caesarion-agent"

	// container and installer are the names of a pod's containers.
	container = "sandbox"
	installer = "agent"

	// sandboxUID is who everything in a sandbox runs as, the agent included.
	sandboxUID = 1000

	// stopGrace is how long a pod has to end by itself: the agent cannot, so the
	// least that the kubelet still calls a grace. Without one the API server
	// forgets the pod while it still runs.
	stopGrace = 1

	// Probes. The first one is asked often, because somebody waits for it. A
	// sandbox that is busy may be slow to answer for long before it is ended.
	startPeriod, startFailures = 1, 180
	readyPeriod                = 20
	livePeriod, liveFailures   = 20, 6
	probeTimeout               = 5

	// agentVolume bounds the agent's own volume, which has one small program.
	agentVolume = "64Mi"
	// shmVolume bounds /dev/shm, which counts as memory.
	shmVolume = "256Mi"
)

// token gives what the agent of a sandbox asks for. Every replica can tell it.
func (d *Driver) token(id sandbox.ID) string {
	mac := hmac.New(sha256.New, d.opts.Secret)
	mac.Write([]byte("agent token " + string(id)))
	return hex.EncodeToString(mac.Sum(nil))
}

// templateOf gives the settings of a template's pods.
func (d *Driver) templateOf(name string) PodTemplate {
	if t, ok := d.templates[name]; ok {
		return t
	}
	return d.templates[""]
}

// limitsOf fills in the limits that a spec leaves to its template.
func (d *Driver) limitsOf(spec sandbox.Spec) sandbox.Limits {
	t, limits := d.templateOf(spec.Template), spec.Limits
	if limits.MemoryBytes <= 0 {
		limits.MemoryBytes = t.LimitMemory.Value()
	}
	if limits.CPUs <= 0 {
		limits.CPUs = float64(t.LimitCPU.MilliValue()) / 1000
	}
	if limits.DiskBytes <= 0 {
		limits.DiskBytes = t.EphemeralStorage.Value()
	}
	return limits
}

// podOf gives the pod of a sandbox. Its ID is set and valid.
func (d *Driver) podOf(spec sandbox.Spec) (*corev1.Pod, error) {
	if err := checkImage(spec.Image); err != nil {
		return nil, err
	}
	t := d.templateOf(spec.Template)
	tokenHash := sha256.Sum256([]byte(d.token(spec.ID)))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(spec.ID), Namespace: d.opts.Namespace,
			Labels: maps.Clone(t.Labels), Annotations: maps.Clone(t.Annotations),
		},
		Spec: d.podSpec(spec, hex.EncodeToString(tokenHash[:])),
	}
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if pod.Annotations == nil {
		pod.Annotations = map[string]string{}
	}
	maps.Copy(pod.Labels, map[string]string{
		labelName: sandboxName, labelManagedBy: managedBy, labelInstallation: d.opts.Installation,
		labelTemplate: labelValue(spec.Template), labelHash: d.hashOf(spec), labelPooled: strconv.FormatBool(spec.Pooled),
	})
	maps.Copy(pod.Annotations, map[string]string{
		annotationLabels: encode(spec.Labels), annotationLimits: encode(d.limitsOf(spec)),
		annotationCreatedBy: d.opts.Replica,
	})
	if pod.Labels[labelTemplate] != spec.Template {
		pod.Annotations[annotationTemplate] = spec.Template
	}
	if !spec.Pooled {
		pod.Annotations[annotationClaimedAt] = time.Now().UTC().Format(time.RFC3339Nano)
	}
	return pod, nil
}

// hashOf names what makes pods alike: all of the template, image, limits and
// preloaded modules, and nothing of the sandbox's own. A pooled pod of another
// hash is of no use any more.
func (d *Driver) hashOf(spec sandbox.Spec) string {
	t := d.templateOf(spec.Template)
	own := sandbox.Spec{Template: spec.Template, Image: spec.Image, Limits: spec.Limits, Prestart: true, Preload: spec.Preload}
	b, err := json.Marshal([]any{d.podSpec(own, ""), d.limitsOf(spec), t.Labels, t.Annotations})
	if err != nil {
		return "" // plain structs: it never fails
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}

// podSpec fits the "restricted" Pod Security standard, whatever the settings.
func (d *Driver) podSpec(spec sandbox.Spec, tokenHash string) corev1.PodSpec {
	t, limits := d.templateOf(spec.Template), d.limitsOf(spec)
	resources := t.resources(limits)
	tr, no := true, false
	seconds := func(of time.Duration) *int64 {
		n := int64(math.Ceil(of.Seconds()))
		return &n
	}
	secured := &corev1.SecurityContext{
		AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &tr, RunAsNonRoot: &tr, Privileged: &no,
		Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
	}
	user := int64(sandboxUID)
	mounts, volumes := storage(limits.DiskBytes, t.Home)
	out := corev1.PodSpec{
		RestartPolicy:                 corev1.RestartPolicyNever, // a new process would be another sandbox
		TerminationGracePeriodSeconds: new(int64(stopGrace)),
		AutomountServiceAccountToken:  &no,
		EnableServiceLinks:            &no,
		ServiceAccountName:            t.ServiceAccount,
		NodeSelector:                  t.NodeSelector,
		Tolerations:                   t.tolerations(),
		PriorityClassName:             t.PriorityClass,
		Subdomain:                     d.opts.Service,
		SecurityContext: &corev1.PodSecurityContext{
			RunAsNonRoot: &tr, RunAsUser: &user, RunAsGroup: &user, FSGroup: &user,
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		},
		InitContainers: []corev1.Container{{
			Name: installer, Image: d.opts.AgentImage, ImagePullPolicy: corev1.PullIfNotPresent,
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			Command:                  []string{"/" + agentName, "install", agentMount},
			Resources:                resources, // it is gone when the other begins: together they need no more
			SecurityContext:          secured,
			VolumeMounts:             []corev1.VolumeMount{{Name: "agent", MountPath: agentMount}},
		}},
		Containers: []corev1.Container{{
			Name: container, Image: spec.Image, ImagePullPolicy: corev1.PullIfNotPresent,
			TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
			Command:                  append([]string{agentMount + "/" + agentName}, t.agentArgs(spec, limits, tokenHash)...),
			Env:                      []corev1.EnvVar{{Name: "HOME", Value: t.Home}, {Name: "TMPDIR", Value: "/tmp"}},
			Ports:                    []corev1.ContainerPort{{Name: "agent", ContainerPort: agentapi.Port, Protocol: corev1.ProtocolTCP}},
			Resources:                resources,
			SecurityContext:          secured,
			VolumeMounts:             append(mounts, corev1.VolumeMount{Name: "agent", MountPath: agentMount, ReadOnly: true}),
			StartupProbe:             probe("/ready", startPeriod, startFailures),
			ReadinessProbe:           probe("/ready", readyPeriod, liveFailures),
			LivenessProbe:            probe("/health", livePeriod, liveFailures),
		}},
		Volumes: append(volumes, emptyDir("agent", resource.MustParse(agentVolume))),
	}
	if spec.ID != "" {
		out.Hostname = podName(spec.ID)
	}
	if !t.DNS {
		out.DNSPolicy = corev1.DNSNone
		out.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"127.0.0.1"}} // where nobody answers
	}
	if t.RuntimeClass != "" {
		out.RuntimeClassName = &t.RuntimeClass
	}
	if t.Deadline.Duration > 0 {
		out.ActiveDeadlineSeconds = seconds(t.Deadline.Duration)
	}
	for _, name := range t.ImagePullSecrets {
		out.ImagePullSecrets = append(out.ImagePullSecrets, corev1.LocalObjectReference{Name: name})
	}
	for _, c := range t.TopologySpread {
		if c.LabelSelector == nil {
			c.LabelSelector = &metav1.LabelSelector{MatchLabels: map[string]string{labelName: sandboxName, labelInstallation: d.opts.Installation}}
		}
		out.TopologySpreadConstraints = append(out.TopologySpreadConstraints, c)
	}
	return out
}

// agentArgs are the arguments of a sandbox's agent.
func (t PodTemplate) agentArgs(spec sandbox.Spec, limits sandbox.Limits, tokenHash string) []string {
	memory := t.agentMemory(limits.MemoryBytes)
	args := []string{
		"--listen=0.0.0.0:" + strconv.Itoa(agentapi.Port), "--token-sha256=" + tokenHash, "--own-disk", "--home-from=/etc/skel", "--filter-calls",
		"--limits=" + encode(map[string]int64{
			"memory_bytes": memory, "data_bytes": memory, "processes": int64(limits.Processes), "disk_bytes": limits.DiskBytes,
		}),
	}
	if spec.Prestart {
		args = append(args, "--prestart")
		if len(spec.Preload) > 0 {
			args = append(args, "--preload="+strings.Join(spec.Preload, ","))
		}
	}
	return args
}

func probe(path string, period, failures int32) *corev1.Probe {
	return &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
			Path: path, Port: intstr.FromInt32(agentapi.Port), Scheme: corev1.URISchemeHTTP,
		}},
		PeriodSeconds: period, FailureThreshold: failures, TimeoutSeconds: probeTimeout, SuccessThreshold: 1,
	}
}

// resources gives what a sandbox is promised and what it gets at most.
func (t PodTemplate) resources(limits sandbox.Limits) corev1.ResourceRequirements {
	memory := *resource.NewQuantity(limits.MemoryBytes, resource.BinarySI)
	cpu := *resource.NewMilliQuantity(int64(math.Ceil(limits.CPUs*1000)), resource.DecimalSI)
	// The agent's volume counts too, and is not the sandbox's.
	storage := *resource.NewQuantity(nodeDisk(limits.DiskBytes), resource.BinarySI)
	storage.Add(resource.MustParse(agentVolume))
	return corev1.ResourceRequirements{
		Requests: corev1.ResourceList{
			corev1.ResourceMemory:           least(t.RequestMemory, memory),
			corev1.ResourceCPU:              least(t.RequestCPU, cpu),
			corev1.ResourceEphemeralStorage: least(t.RequestEphemeralStorage, storage),
		},
		Limits: corev1.ResourceList{
			corev1.ResourceMemory: memory, corev1.ResourceCPU: cpu, corev1.ResourceEphemeralStorage: storage,
		},
	}
}

// nodeDisk is how much disk the node lets a sandbox use. The agent keeps the
// limit itself and lets go what is over it; the node ends the whole sandbox, but
// only looks once in a while, and is there for what gets around the agent.
func nodeDisk(limit int64) int64 {
	const part, least = 4, 256 << 20
	return limit + max(limit/part, least)
}

func least(a, b resource.Quantity) resource.Quantity {
	if a.Cmp(b) > 0 {
		return b
	}
	return a
}

// tolerations of a template, and how long a sandbox outlives its node.
func (t PodTemplate) tolerations() []corev1.Toleration {
	out := slices.Clone(t.Tolerations)
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if slices.ContainsFunc(out, func(o corev1.Toleration) bool {
			return (o.Key == key || o.Key == "") && (o.Effect == "" || o.Effect == corev1.TaintEffectNoExecute)
		}) {
			continue
		}
		out = append(out, corev1.Toleration{
			Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute,
			TolerationSeconds: new(int64(math.Ceil(t.NodeLostAfter.Seconds()))),
		})
	}
	return out
}

// storage gives the places that a sandbox may write to. Each may have all of
// the disk; the sum is bounded by the ephemeral-storage limit.
func storage(disk int64, home string) ([]corev1.VolumeMount, []corev1.Volume) {
	size := *resource.NewQuantity(nodeDisk(disk), resource.BinarySI)
	shm := emptyDir("shm", resource.MustParse(shmVolume))
	shm.EmptyDir.Medium = corev1.StorageMediumMemory
	mounts := []corev1.VolumeMount{
		{Name: "workspace", MountPath: agentapi.WorkspaceDir},
		{Name: "uploads", MountPath: agentapi.UploadsDir},
		{Name: "home", MountPath: home},
		{Name: "tmp", MountPath: "/tmp"},
		{Name: "shm", MountPath: "/dev/shm"},
	}
	return mounts, []corev1.Volume{
		emptyDir("workspace", size), emptyDir("uploads", size), emptyDir("home", size), emptyDir("tmp", size), shm,
	}
}

func emptyDir(name string, size resource.Quantity) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}}
}

// configureOf is what an agent is told about its owner.
func (d *Driver) configureOf(info sandbox.Info, env map[string]string, kernelID string) agentapi.Configure {
	memory := d.templateOf(info.Template).agentMemory(info.Limits.MemoryBytes)
	return agentapi.Configure{
		Token: info.AgentToken, SandboxID: string(info.ID), Env: env,
		MemoryBytes: memory, Processes: info.Limits.Processes, DiskBytes: info.Limits.DiskBytes, DataBytes: memory,
		UnixTimeNanos: time.Now().UnixNano(), KernelID: kernelID,
	}
}

// agentMemory is what of a container's memory the agent lets be used. At the
// container's own limit the node ends the whole sandbox without a word; before
// that the agent ends the kernel and says why. A runtime class is mostly
// gVisor's: its own memory is in the container's, too, and what code takes
// between two looks.
func (t PodTemplate) agentMemory(limit int64) int64 {
	part, least, most := int64(16), int64(32<<20), int64(256<<20)
	if t.RuntimeClass != "" {
		part, least, most = 8, 256<<20, 512<<20
	}
	return limit - min(max(limit/part, least), most, limit/2)
}

// checkImage wants a digest: what runs is then what was meant, on every node.
func checkImage(ref string) error {
	name, digest, ok := strings.Cut(ref, "@sha256:")
	if !ok || name == "" || len(digest) != sha256.Size*2 || strings.Trim(digest, "0123456789abcdef") != "" {
		return errdefs.New(errdefs.ErrInvalid, "image-not-pinned", "%.200q does not name an image by its digest", ref).
			WithHint("give it as registry/name@sha256:…; `crane digest` or `docker buildx imagetools inspect` tell the digest")
	}
	return nil
}
