package kube

import (
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/client-go/rest"
)

// Options configures a Driver. Everything of a pod that an installation may
// choose stands here.
type Options struct {
	Config       *rest.Config           // of the API server; see LoadConfig
	Namespace    string                 // of the sandboxes
	Installation string                 // tells installations in one namespace apart; default "caesarion"
	Replica      string                 // name of this process; default: the host's name
	Secret       []byte                 // at least 32 bytes; the sandboxes' tokens derive from it
	AgentImage   string                 // has /caesarion-agent, which its init container installs
	Service      string                 // headless service, the pods' subdomain; "": none
	Pods         map[string]PodTemplate // by template name; "" is for those that are not listed

	// UnschedulableAfter is how long a new pod may lack a node before its
	// Create fails: time for an autoscaler to say that it adds one. Default 10 s.
	UnschedulableAfter time.Duration
	// StartTimeout bounds a Create whose context does not. Default 3 min.
	StartTimeout time.Duration
	// DeleteTimeout bounds how long Delete waits for the node to say that
	// nothing is left. Default 40 s.
	DeleteTimeout time.Duration

	Logger *slog.Logger // default: discard
}

// PodTemplate is the part of a pod that only Kubernetes knows. All of it is
// optional.
type PodTemplate struct {
	RuntimeClass     string                            `yaml:"runtime_class"`      // "": the cluster's default, which is runc
	NodeSelector     map[string]string                 `yaml:"node_selector"`      //
	Tolerations      []corev1.Toleration               `yaml:"tolerations"`        //
	PriorityClass    string                            `yaml:"priority_class"`     //
	TopologySpread   []corev1.TopologySpreadConstraint `yaml:"topology_spread"`    // without a labelSelector: over the installation's sandboxes
	ImagePullSecrets []string                          `yaml:"image_pull_secrets"` // names of secrets in the sandboxes' namespace
	ServiceAccount   string                            `yaml:"service_account"`    // its token is never mounted; "": default

	RequestMemory    resource.Quantity `yaml:"request_memory"`    // default 2Gi, and never above the limit
	RequestCPU       resource.Quantity `yaml:"request_cpu"`       // default 100m, and never above the limit
	LimitMemory      resource.Quantity `yaml:"limit_memory"`      // of sandboxes without a memory limit; default 5Gi
	LimitCPU         resource.Quantity `yaml:"limit_cpu"`         // of sandboxes without a CPU limit; default 500m
	EphemeralStorage resource.Quantity `yaml:"ephemeral_storage"` // of sandboxes without a disk limit; default 4Gi

	// Deadline ends a pod so long after its start, whoever uses it: the cluster
	// then cleans up even if no server is left. Default: none.
	Deadline time.Duration `yaml:"deadline"`
	// NodeLostAfter is how long a sandbox stays on a node that does not answer,
	// unless Tolerations say it. Default 30 s.
	NodeLostAfter time.Duration `yaml:"node_lost_after"`

	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}
