package chart

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/caesarion/caesarion/test/chart/helmtest"
)

// TestRefusals checks that what can't work is refused before anything is
// installed, by a message that names the value.
func TestRefusals(t *testing.T) {
	for _, tc := range []struct {
		set  []string // of values, beside testdata/base.yaml
		want []string // in the message
	}{
		{[]string{"server.replica=3"}, []string{"'/server'", "'replica' not allowed"}},
		{[]string{"sever.replicas=3"}, []string{"'sever' not allowed"}},
		{[]string{"server.replicas=two"}, []string{"'/server/replicas'", "want integer"}},
		{[]string{"server.replicas=0"}, []string{"'/server/replicas'", "minimum"}},
		{[]string{"server.logLevel=loud"}, []string{"'/server/logLevel'", "'debug', 'info', 'warn', 'error'"}},
		{[]string{"service.type=External"}, []string{"'/service/type'", "'ClusterIP', 'NodePort', 'LoadBalancer'"}},
		{[]string{"image.digest=sha256:12"}, []string{"'/image/digest'", "sha256:[0-9a-f]{64}"}},
		{[]string{"image.repository=example.org/server@sha256:12"}, []string{"'/image/repository'"}},
		{[]string{"sandboxes.templates.python.image=example.org/python:latest"}, []string{"/templates/python/image", "@sha256:"}},
		{[]string{"sandboxes.templates.python.memory=5gigs"}, []string{"/templates/python/memory"}},
		{[]string{"sandboxes.templates.python.idleTimeout=60"}, []string{"/templates/python/idleTimeout"}},
		{[]string{"sandboxes.poolNight.from=25:00"}, []string{"'/sandboxes/poolNight/from'"}},
		{[]string{"sandboxes.deadline=2d"}, []string{"'/sandboxes/deadline'"}},
		{[]string{"database.migrations=never"}, []string{"'job', 'init', 'server'"}},
		{[]string{"sandboxes.templates.python.netwrk.dns=true"}, []string{"/templates/python", "'netwrk' not allowed"}},
		{[]string{"sandboxes.templates.Py.memory=5Gi"}, []string{"/sandboxes/templates", "'Py' not allowed"}},
		{[]string{"sandboxes.tolerations[0].efect=NoSchedule"}, []string{"/sandboxes/tolerations/0", "'efect' not allowed"}},
		{[]string{"sandboxes.namespace.podSecurity=privileged"}, []string{"'/sandboxes/namespace/podSecurity'", "'restricted'"}},
		{[]string{"ingress.hosts[0]=http://x"}, []string{"/ingress/hosts/0"}},
		{[]string{"auth.existingSecret=mine"}, []string{"'/auth/existingSecret'", "want object"}},
		{[]string{"database.url=postgres://u:p@h/d"}, []string{"'/database'", "'url' not allowed"}},

		{[]string{"image.repository="}, []string{"image.repository is empty", "--set image.repository="}},
		{[]string{"image.digest="}, []string{"image.digest and image.tag are empty"}},
		{[]string{"sandboxes.image.digest="}, []string{"sandboxes.templates.python has no image"}},
		{[]string{"database.existingSecret.name="}, []string{"database.existingSecret.name is empty", "database.trial.enabled=true"}},
		{[]string{"database.trial.enabled=true"}, []string{"both set"}},
		{[]string{"database.existingSecret.name=", "database.trial.enabled=true"}, []string{"database.trial.image is empty"}},
		{[]string{"sandboxes.namespace.name=" + namespace}, []string{"need one for themselves"}},
		{[]string{"sandboxes.templates.python=null"}, []string{"has no python"}},
		{[]string{"server.config.templates.x.memory=1Gi"}, []string{"server.config.templates", "sandboxes.templates"}},
		{[]string{"server.config.egress.proxy=x"}, []string{"server.config.egress", "the value egress"}},
		{[]string{"sandboxes.templates.python.network=all"}, []string{"/templates/python/network", "none|packages|open"}},
		{[]string{"sandboxes.templates.python.network.alow[0]=x"}, []string{"/templates/python/network", "'alow' not allowed"}},
		{[]string{"sandboxes.templates.python.network.secrets[0].name=KEY", "sandboxes.templates.python.network.secrets[0].host=a.example.org"}, []string{"/network/secrets/0", "'secret'"}},
		{[]string{"sandboxes.templates.python.network.secrets[0].name=KEY", "sandboxes.templates.python.network.secrets[0].host=a.example.org", "sandboxes.templates.python.network.secrets[0].secret.name="}, []string{"KEY has no secret.name"}},
		{[]string{"sandboxes.templates.python.network.secrets[0].value=open"}, []string{"'value' not allowed"}},
		{[]string{"egress.network=all"}, []string{"'/egress/network'", "'packages'"}},
		{[]string{"egress.proxy=http://u:p@proxy.example.org:3128"}, []string{"'/egress/proxy'"}},
		{[]string{"egress.proxy=http://proxy.example.org:3128", "egress.proxySecret.name=proxy"}, []string{"egress.proxy and egress.proxySecret are both set"}},
		{[]string{"egress.allowPrivate[0]=10.0.0.1"}, []string{"/egress/allowPrivate/0"}},
		{[]string{"auth.mode=none"}, []string{"'/auth/mode'", "'token', 'accounts'"}},
		{[]string{"auth.providers[0].name=a", "auth.providers[0].issuer=https://a.example.org", "auth.providers[0].client_id=x"}, []string{"auth.mode=accounts"}},
		{[]string{"auth.mode=accounts", "auth.providers[0].name=a", "auth.providers[0].issuer=https://a.example.org", "auth.providers[0].client_id=x", "auth.providers[0].client_secret_file=/x"}, []string{"clientSecret"}},
		{[]string{"ingress.enabled=true"}, []string{"ingress.hosts is empty"}},
		{[]string{"httpRoute.enabled=true", "httpRoute.hostnames[0]=a.example.org"}, []string{"httpRoute.parentRefs"}},
		{[]string{"autoscaling.enabled=true", "autoscaling.minReplicas=9"}, []string{"minReplicas 9 is above maxReplicas 6"}},
		{[]string{"autoscaling.enabled=true", "autoscaling.targetCPU=0", "autoscaling.targetMemory=0"}, []string{"nothing to look at"}},
		{[]string{"sandboxes.poolNight.from=22:00"}, []string{"poolNight needs both"}},
		{[]string{"server.terminationGracePeriodSeconds=10"}, []string{"above preStopSeconds"}},
	} {
		t.Run(strings.Join(tc.set, " "), func(t *testing.T) {
			t.Parallel()
			args := []string{"template", release, helmtest.Chart(), "--namespace", namespace, "--values", "testdata/base.yaml"}
			for _, set := range tc.set {
				args = append(args, "--set", set)
			}
			out, message, err := helmtest.Run(t, args...)
			if err == nil {
				t.Fatalf("accepted:\n%s", out)
			}
			for _, want := range tc.want {
				if !strings.Contains(message, want) {
					t.Errorf("no %q in: %s", want, message)
				}
			}
		})
	}
}

// schema is as much of a JSON schema as is looked at here.
type schema struct {
	Ref                  string             `json:"$ref"`
	Properties           map[string]*schema `json:"properties"`
	PatternProperties    map[string]*schema `json:"patternProperties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Definitions          map[string]*schema `json:"definitions"`
}

func readValues(t *testing.T) (map[string]any, *schema) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(helmtest.Chart(), "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(helmtest.Chart(), "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var s schema
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	return values, &s
}

// leaves calls f with the path of every setting that the schema knows, and
// with its default, if values.yaml has one.
func leaves(root, s *schema, path string, value any, f func(path string, value any, known bool)) {
	if name, ok := strings.CutPrefix(s.Ref, "#/definitions/"); ok {
		s = root.Definitions[name]
	}
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		m, _ := value.(map[string]any)
		v, known := m[key]
		child := s.Properties[key]
		if name, ok := strings.CutPrefix(child.Ref, "#/definitions/"); ok {
			child = root.Definitions[name]
		}
		at := strings.TrimPrefix(path+"."+key, ".")
		if len(child.Properties) == 0 || strings.HasSuffix(at, "resources") {
			f(at, v, known)
			continue
		}
		leaves(root, child, at, v, f)
	}
}

// TestEverySettingHasADefault checks that values.yaml shows what there is: a
// setting that only the schema knows is found by nobody.
func TestEverySettingHasADefault(t *testing.T) {
	values, s := readValues(t)
	n := 0
	leaves(s, s, "", values, func(path string, _ any, known bool) {
		n++
		if !known && path != "global" { // helm's own
			t.Errorf("values.yaml lacks %s", path)
		}
	})
	if n < 90 {
		t.Errorf("only %d settings were looked at", n)
	}
}

// TestSchemaIsStrict checks that no object of the schema lets a misspelt key
// pass, but those whose keys are the person's own.
func TestSchemaIsStrict(t *testing.T) {
	_, s := readValues(t)
	var walk func(path string, s *schema)
	walk = func(path string, s *schema) {
		if len(s.Properties)+len(s.PatternProperties) > 0 && string(s.AdditionalProperties) != "false" {
			t.Errorf("%s takes keys that it does not know", path)
		}
		for name, child := range s.Properties {
			walk(path+"."+name, child)
		}
		for name, child := range s.Definitions {
			walk("definitions."+name, child)
		}
	}
	walk("", s)
}
