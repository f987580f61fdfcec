package kube

import (
	"log/slog"
	"time"

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
