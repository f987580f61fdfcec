package kube

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/caesarion/caesarion/internal/errdefs"
)

func TestOptionsAreChecked(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"no cluster", func(o *Options) { o.Config = nil }, "kubeconfig"},
		{"a short secret", func(o *Options) { o.Secret = o.Secret[:31] }, "31 bytes, and needs at least 32"},
		{"no namespace", func(o *Options) { o.Namespace = "" }, "namespace"},
		{"a namespace that is none", func(o *Options) { o.Namespace = "A_b" }, `"A_b"`},
		{"an installation that is no label", func(o *Options) { o.Installation = "a.b" }, "installation"},
		{"a service that is none", func(o *Options) { o.Service = "1st" }, "service"},
		{"an agent image by its tag", func(o *Options) { o.AgentImage = "server:latest" }, "agent_image"},
	} {
		t.Run(c.name, func(t *testing.T) {
			opts := testOptions(nil)
			c.change(&opts)
			wantInvalid(t, opts.complete(), c.want)
		})
	}
	opts := testOptions(nil)
	if err := opts.complete(); err != nil || opts.Installation != "caesarion" || opts.Logger == nil || opts.UnschedulableAfter == 0 {
		t.Errorf("%+v, %v", opts, err)
	}
}

func wantInvalid(t *testing.T, err error, want string) {
	t.Helper()
	if errdefs.CodeOf(err) != "kubernetes-settings-invalid" || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want something about %s", err, want)
	}
}

func TestTemplatesAreChecked(t *testing.T) {
	for _, c := range []struct{ name, settings, want string }{
		{"a setting that does not exist", "runtimeClass: gvisor", `unknown field "runtimeClass"`},
		{"no quantity", "request_memory: lots", "quantities must match"},
		{"no duration", "deadline: soon", "duration"},
		{"a list where there is a name", "runtime_class: [a]", "runtime_class is no string"},
		{"a name that is none", "runtime_class: G_visor", `templates.a.kubernetes.runtime_class: "G_visor"`},
		{"a request above its limit", "{request_memory: 2Gi, limit_memory: 1Gi}", "request_memory: 2Gi is more than limit_memory, which is 1Gi"},
		{"below zero", "request_cpu: -1", "request_cpu: -1 is below zero"},
		{"too little memory", "limit_memory: 16Mi", "limit_memory: 16Mi is too little"},
		{"a deadline in the past", "deadline: -1h", "deadline"},
		{"a key that is none", `labels: {"a b": c}`, `"a b"`},
		{"a value that is none", `labels: {a: "b c"}`, `the value "b c" of a`},
		{"a label of the server's", `labels: {caesarion.dev/pooled: "true"}`, "caesarion.dev/pooled belongs to the server"},
		{"an annotation of the server's", `annotations: {caesarion.dev/labels: "{}"}`, "belongs to the server"},
		{"an operator that is none", "tolerations: [{key: a, operator: Is}]", `tolerations[0]: the operator "Is"`},
		{"an effect that is none", "tolerations: [{operator: Exists, effect: Nope}]", `the effect "Nope"`},
		{"a toleration without a key", "tolerations: [{value: a}]", "has to be Exists"},
		{"seconds with another effect", "tolerations: [{key: a, operator: Exists, effect: NoSchedule, tolerationSeconds: 1}]", "NoExecute only"},
		{"a spread of nothing", "topology_spread: [{topologyKey: zone, whenUnsatisfiable: DoNotSchedule}]", "maxSkew is 0"},
		{"a spread over nothing", "topology_spread: [{maxSkew: 1, whenUnsatisfiable: DoNotSchedule}]", "topologyKey is missing"},
		{"a spread that is in vain", "topology_spread: [{maxSkew: 1, topologyKey: zone}]", `whenUnsatisfiable ""`},
		{"the root as a home", "home: /", `home: "/"`},
		{"a home in the workspace", "home: /workspace/home", "home"},
		{"a home that is not clean", "home: /home/../etc", "home"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var settings any
			if err := yaml.Unmarshal([]byte(c.settings), &settings); err != nil {
				t.Fatal(err)
			}
			template, err := ParsePodTemplate(settings)
			if err == nil {
				opts := testOptions(map[string]PodTemplate{"a": template})
				err = opts.complete()
			}
			wantInvalid(t, err, c.want)
		})
	}
}
