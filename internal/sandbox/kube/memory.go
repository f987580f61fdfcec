package kube

import (
	"maps"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// memory is what this replica knows of the sandboxes. The watch writes it
// (watch.go), and so does whoever changes a pod, with the API server's answer.
type memory struct {
	infoOf func(*corev1.Pod) sandbox.Info

	mu      sync.Mutex
	boxes   map[string]*box // guarded by mu; by the pod's name
	ghosts  []*box          // guarded by mu; their pods are gone and nobody has deleted them, oldest first
	version uint64          // guarded by mu; resource version up to which the watch has told all
	told    chan struct{}   // guarded by mu; closed and replaced with every change
	synced  chan struct{}   // closed when everything is known for the first time
	once    sync.Once
}

// box is one sandbox.
type box struct {
	lost chan struct{} // closed when it has stopped

	// Guarded by memory.mu.
	pod      *corev1.Pod // the newest version; never changed in place
	info     sandbox.Info
	answered bool          // its agent has answered this process: it runs, whatever the kubelet has seen so far
	changed  chan struct{} // closed and replaced with every change
	gone     bool          // the pod is not in the cluster any more
	unplaced time.Time     // since when it is known here to lack a node
	warning  string        // the cluster's last event about it
	warned   time.Time     // when the first of these came
	scaling  bool          // an autoscaler adds a node for it
	buried   time.Time
}

const (
	// A sandbox whose pod went away without Delete is still known for a while,
	// so that whoever used it can be told why.
	ghostTime = time.Minute
	maxGhosts = 1024
)

func newMemory(infoOf func(*corev1.Pod) sandbox.Info) *memory {
	return &memory{infoOf: infoOf, boxes: map[string]*box{}, told: make(chan struct{}), synced: make(chan struct{})}
}

// versionOf gives a pod's resource version: a growing number, as Kubernetes
// promises since 1.35 and has always kept.
func versionOf(m metav1.ObjectMeta) uint64 {
	n, err := strconv.ParseUint(m.ResourceVersion, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// find gives the box of a pod, ghosts included; nil: there is none.
func (m *memory) find(name string) *box {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.findLocked(name)
}

func (m *memory) findLocked(name string) *box {
	if b := m.boxes[name]; b != nil {
		return b
	}
	for _, b := range m.ghosts {
		if b.pod.Name == name && time.Since(b.buried) < ghostTime {
			return b
		}
	}
	return nil
}

// seen takes a version of a pod that the watch tells, and everything before it.
func (m *memory) seen(pod *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = max(m.version, versionOf(pod.ObjectMeta))
	m.putLocked(pod)
	m.tellLocked()
}

// wrote takes the API server's answer to a write of this process.
func (m *memory) wrote(pod *corev1.Pod) *box {
	pod = trim(pod)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.boxes[pod.Name] == nil && versionOf(pod.ObjectMeta) <= m.version {
		return m.findLocked(pod.Name) // the watch has already told its end
	}
	b := m.putLocked(pod)
	m.tellLocked()
	return b
}

// putLocked keeps the newer of two versions. The pod is trimmed.
func (m *memory) putLocked(pod *corev1.Pod) *box {
	b := m.boxes[pod.Name]
	if b != nil && b.pod.UID != pod.UID { // another pod of the same name: the first one is gone
		m.buryLocked(b)
		b = nil
	}
	if b == nil {
		b = &box{lost: make(chan struct{}), changed: make(chan struct{})}
		m.boxes[pod.Name] = b
	} else if versionOf(pod.ObjectMeta) < versionOf(b.pod.ObjectMeta) {
		return b
	}
	b.pod = pod
	m.renewLocked(b)
	return b
}

// renewLocked follows a change of a box.
func (m *memory) renewLocked(b *box) {
	b.info = m.infoOf(b.pod)
	switch {
	case b.gone && b.info.State != sandbox.StateStopped:
		b.info.State, b.info.Reason = sandbox.StateStopped, ReasonPodDeleted
	case b.answered && b.info.State == sandbox.StateStarting:
		b.info.State = sandbox.StateRunning
	}
	if !lacksNode(b.pod) {
		b.unplaced = time.Time{}
	} else if b.unplaced.IsZero() {
		b.unplaced = time.Now()
	}
	if b.info.State == sandbox.StateStopped {
		select {
		case <-b.lost:
		default:
			close(b.lost)
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// tellLocked tells whoever waits for any change.
func (m *memory) tellLocked() {
	close(m.told)
	m.told = make(chan struct{})
}

// removed says that a pod is gone; last is its last version.
func (m *memory) removed(last *corev1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.version = max(m.version, versionOf(last.ObjectMeta))
	b := m.boxes[last.Name]
	if b == nil || b.pod.UID != last.UID {
		return
	}
	b.pod = last
	m.buryLocked(b)
	m.tellLocked()
}

func (m *memory) buryLocked(b *box) {
	b.gone, b.buried = true, time.Now()
	delete(m.boxes, b.pod.Name)
	m.renewLocked(b)
	old := 0
	for old < len(m.ghosts) && (time.Since(m.ghosts[old].buried) > ghostTime || len(m.ghosts)-old >= maxGhosts) {
		old++
	}
	m.ghosts = append(append([]*box(nil), m.ghosts[old:]...), b)
}

// forget drops what is left of a sandbox that was deleted here.
func (m *memory) forget(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.boxes[name]; b != nil {
		m.buryLocked(b)
	}
	for i, b := range m.ghosts {
		if b.pod.Name == name {
			m.ghosts = append(append([]*box(nil), m.ghosts[:i]...), m.ghosts[i+1:]...)
			break
		}
	}
	m.tellLocked()
}

// replace takes the whole truth as of a resource version: what is not in it is
// gone, unless it was written later.
func (m *memory) replace(pods []*corev1.Pod, version uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := make(map[string]bool, len(pods))
	for _, pod := range pods {
		there[pod.Name] = true
		m.putLocked(pod)
	}
	for name, b := range m.boxes {
		if !there[name] && versionOf(b.pod.ObjectMeta) <= version {
			m.buryLocked(b)
		}
	}
	m.version = max(m.version, version)
	m.tellLocked()
	m.once.Do(func() { close(m.synced) })
}

// answers notes that a sandbox's agent has answered.
func (m *memory) answers(b *box) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !b.answered {
		b.answered = true
		m.renewLocked(b)
		m.tellLocked()
	}
}

// view is a box at one moment.
type view struct {
	pod      *corev1.Pod
	info     sandbox.Info
	gone     bool
	changed  <-chan struct{}
	unplaced time.Time
	warning  string
	warned   time.Time
	scaling  bool
}

func (m *memory) look(b *box) view {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := view{
		pod: b.pod, info: b.info, gone: b.gone, changed: b.changed,
		unplaced: b.unplaced, warning: b.warning, warned: b.warned, scaling: b.scaling,
	}
	v.info.Labels = maps.Clone(b.info.Labels)
	return v
}

// list gives all sandboxes that have a pod.
func (m *memory) list() []sandbox.Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]sandbox.Info, 0, len(m.boxes))
	for _, b := range m.boxes {
		info := b.info
		info.Labels = maps.Clone(info.Labels)
		out = append(out, info)
	}
	return out
}

// pods gives all pods, trimmed; they are not to be changed.
func (m *memory) pods() []*corev1.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]*corev1.Pod, 0, len(m.boxes))
	for _, b := range m.boxes {
		out = append(out, b.pod)
	}
	return out
}

// next gives a channel that is closed with the next change of any sandbox.
func (m *memory) next() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.told
}

// warn notes an event of the cluster about a pod.
func (m *memory) warn(e *corev1.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b := m.boxes[e.InvolvedObject.Name]
	if b == nil || b.info.State != sandbox.StateStarting || (e.InvolvedObject.UID != "" && e.InvolvedObject.UID != b.pod.UID) {
		return
	}
	switch e.Reason {
	case "TriggeredScaleUp": // of the cluster autoscaler
		b.scaling = true
	case "FailedCreatePodSandBox", "FailedMount", "FailedAttachVolume", "FailedCreatePodContainer":
		b.warning = clip(e.Message)
		if b.warned.IsZero() {
			b.warned = time.Now()
		}
	default:
		return
	}
	close(b.changed)
	b.changed = make(chan struct{})
}
