package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// Labels select pods; they are few and short.
const (
	labelName         = "app.kubernetes.io/name"       // sandboxName
	labelManagedBy    = "app.kubernetes.io/managed-by" // managedBy
	labelInstallation = "caesarion.dev/installation"
	labelTemplate     = "caesarion.dev/template"
	labelHash         = "caesarion.dev/template-hash" // of what makes pods alike, see hashOf
	labelPooled       = "caesarion.dev/pooled"        // "true" until it is claimed

	sandboxName = "caesarion-sandbox"
	managedBy   = "caesarion"
)

// Annotations hold the rest of a sandbox's record.
const (
	annotationLabels    = "caesarion.dev/labels"     // JSON of sandbox.Spec.Labels
	annotationLimits    = "caesarion.dev/limits"     // JSON of sandbox.Limits
	annotationTemplate  = "caesarion.dev/template"   // a template's name that is no label value
	annotationClaimedAt = "caesarion.dev/claimed-at" // RFC 3339; of a pod that was never pooled: when it was asked for
	annotationCreatedBy = "caesarion.dev/created-by" // the replica that starts it
)

const (
	idPrefix  = "sbx_"
	podPrefix = "sbx-"
)

// podName gives the name of a sandbox's pod; id is valid.
func podName(id sandbox.ID) string { return podPrefix + strings.TrimPrefix(string(id), idPrefix) }

// idOf gives the sandbox of a pod; "" if the pod is none of ours.
func idOf(podName string) sandbox.ID {
	suffix, ok := strings.CutPrefix(podName, podPrefix)
	id := sandbox.ID(idPrefix + suffix)
	if !ok || !id.Valid() {
		return ""
	}
	return id
}

// selectorOf selects the sandboxes of an installation.
func selectorOf(installation string) string {
	return labels.Set{labelName: sandboxName, labelManagedBy: managedBy, labelInstallation: installation}.AsSelector().String()
}

func isPooled(pod *corev1.Pod) bool { return pod.Labels[labelPooled] == "true" }

// claimedAt is when a pod was given to its owner; for a pooled one, and for one
// whose record is damaged, when it was made.
func claimedAt(pod *corev1.Pod) time.Time {
	if at, err := time.Parse(time.RFC3339Nano, pod.Annotations[annotationClaimedAt]); err == nil {
		return at.UTC()
	}
	return pod.CreationTimestamp.UTC()
}

// specLabels reads the labels kept with a sandbox.
func specLabels(pod *corev1.Pod) map[string]string {
	var out map[string]string
	_ = json.Unmarshal([]byte(pod.Annotations[annotationLabels]), &out) // damaged: none are left
	return out
}

func specLimits(pod *corev1.Pod) sandbox.Limits {
	var out sandbox.Limits
	_ = json.Unmarshal([]byte(pod.Annotations[annotationLimits]), &out) // damaged: none are known
	return out
}

// encode gives what is kept in an annotation.
func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return "null" // maps of strings and plain structs: it never fails
	}
	return string(b)
}

// labelValue makes a label's value of a template's name.
func labelValue(name string) string {
	if len(validation.IsValidLabelValue(name)) == 0 {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:8])
}

// templateName gives the name of the template that a pod was made from.
func templateName(pod *corev1.Pod) string {
	if name := pod.Annotations[annotationTemplate]; name != "" {
		return name
	}
	return pod.Labels[labelTemplate]
}
