// Package kube is the sandbox.Driver for a Kubernetes cluster: every sandbox is
// a pod, and the pod is the only record of it.
//
//	server ──create, patch, delete──▶ API server ◀──watch── server (all replicas)
//	   │                                  │ kubelet
//	   └──HTTP to pod IP:44772──▶ agent ◀─┘ installed by the pod's init container
//
// # What is kept where
//
// All of it is in the pod, so that any replica of the server can go on with any
// sandbox: labels say which installation and template it is of and whether it
// is pooled, annotations have the caller's labels, the limits and the time of
// the claim (labels.go). The token of a sandbox is nowhere: it derives from the
// installation's secret and the sandbox's id, and the pod only has its hash.
//
// # What is true
//
// Reads are answered from memory, which a watch keeps up to date. A replica
// sees its own writes at once, because the answer to a write goes into the same
// memory; of two versions of a pod the newer one stays. While the API server is
// away the memory stays as it is: a sandbox is lost when the cluster says that
// its pod has ended, is being deleted or is not there any more, and never
// because nobody could be asked.
//
// # States
//
//	created ─▶ starting ─▶ running ─▶ stopped (reason) ─▶ gone
//	               └──────────────────▶┘
//
// starting: no node yet, pulling, or its agent does not answer. running: the
// agent has answered the one who made it, or the kubelet. stopped: the pod has
// ended or somebody has deleted it; what it was is in Info.Reason (reason.go).
// A pod never starts anew.
//
// # Concurrency
//
// All methods may be called concurrently. mu of memory guards the maps; nothing
// blocks under it.
package kube
