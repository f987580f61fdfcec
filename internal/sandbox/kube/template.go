package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// PodTemplate is the part of a pod that only Kubernetes knows. All of it is
// optional. Its JSON is what the configuration has; see ParsePodTemplate.
type PodTemplate struct {
	RuntimeClass     string                            `json:"runtime_class,omitempty"` // "": the cluster's default
	NodeSelector     map[string]string                 `json:"node_selector,omitempty"`
	Tolerations      []corev1.Toleration               `json:"tolerations,omitempty"`
	PriorityClass    string                            `json:"priority_class,omitempty"`
	TopologySpread   []corev1.TopologySpreadConstraint `json:"topology_spread,omitempty"`    // without a labelSelector: of the installation's sandboxes
	ImagePullSecrets []string                          `json:"image_pull_secrets,omitempty"` // names of secrets in the sandboxes' namespace
	ServiceAccount   string                            `json:"service_account,omitempty"`    // its token is never mounted; "": default

	RequestMemory           resource.Quantity `json:"request_memory,omitzero"`            // default 2Gi; never above the limit
	RequestCPU              resource.Quantity `json:"request_cpu,omitzero"`               // default 100m; never above the limit
	RequestEphemeralStorage resource.Quantity `json:"request_ephemeral_storage,omitzero"` // default 256Mi; never above the limit
	LimitMemory             resource.Quantity `json:"limit_memory,omitzero"`              // of sandboxes without a memory limit; default 5Gi
	LimitCPU                resource.Quantity `json:"limit_cpu,omitzero"`                 // of sandboxes without a CPU limit; default 500m
	EphemeralStorage        resource.Quantity `json:"ephemeral_storage,omitzero"`         // of sandboxes without a disk limit; default 4Gi

	// Deadline ends a pod so long after its start, whoever uses it: the cluster
	// then cleans up even if no server is left. Default: none.
	Deadline metav1.Duration `json:"deadline,omitzero"`
	// NodeLostAfter is how long a sandbox stays on a node that does not answer,
	// unless Tolerations say it. Default 30 s.
	NodeLostAfter metav1.Duration `json:"node_lost_after,omitzero"`
	// DNS gives pods the cluster's DNS. Without, names fail at once, where else
	// programs would wait for answers that the network keeps away.
	DNS bool `json:"dns,omitempty"`
	// Home is the home directory of the image's user 1000. Default /home/user.
	Home string `json:"home,omitempty"`

	Labels      map[string]string `json:"labels,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// ParsePodTemplate reads a template's settings: what a YAML parser made of
// them. Tolerations and spread constraints are written as in a pod.
func ParsePodTemplate(v any) (PodTemplate, error) {
	var t PodTemplate
	b, err := json.Marshal(v)
	if err == nil {
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err = dec.Decode(&t); err == nil && dec.More() {
			err = io.ErrUnexpectedEOF
		}
	}
	if err != nil {
		msg := err.Error()
		if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			msg = e.Field + " is no " + e.Type.String()
		}
		return t, errdefs.New(errdefs.ErrInvalid, "kubernetes-settings-invalid", "the kubernetes settings can't be read: %s", msg).
			WithHint("docs/operate/kubernetes.md has every setting")
	}
	return t, nil
}

// The defaults of the original, and those of what it did not have.
const (
	defaultRequestMemory  = "2Gi"
	defaultRequestCPU     = "100m"
	defaultRequestStorage = "256Mi"
	defaultLimitMemory    = "5Gi"
	defaultLimitCPU       = "500m"
	defaultStorage        = "4Gi"
	defaultHome           = "/home/user"
	defaultNodeLostAfter  = 30 * time.Second
)

// withDefaults fills in what is not set.
func (t PodTemplate) withDefaults() PodTemplate {
	for _, q := range []struct {
		of    *resource.Quantity
		value string
	}{
		{&t.RequestMemory, defaultRequestMemory},
		{&t.RequestCPU, defaultRequestCPU},
		{&t.RequestEphemeralStorage, defaultRequestStorage},
		{&t.LimitMemory, defaultLimitMemory},
		{&t.LimitCPU, defaultLimitCPU},
		{&t.EphemeralStorage, defaultStorage},
	} {
		if q.of.IsZero() {
			*q.of = resource.MustParse(q.value)
		}
	}
	if t.Home == "" {
		t.Home = defaultHome
	}
	if t.NodeLostAfter.Duration == 0 {
		t.NodeLostAfter.Duration = defaultNodeLostAfter
	}
	return t
}
