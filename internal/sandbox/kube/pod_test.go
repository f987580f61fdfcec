package kube

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/sandbox"
)

var update = flag.Bool("update", false, "rewrite the expectations of testdata")

const (
	testID   = sandbox.ID("sbx_aaaabbbbccccddddeeeeffff22")
	imageRef = "registry.example/python@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	agentRef = "registry.example/server@sha256:2222222222222222222222222222222222222222222222222222222222222222"
)

func testOptions(templates map[string]PodTemplate) Options {
	return Options{
		Config: &rest.Config{}, Namespace: "sandboxes", Replica: "server-1", Secret: bytes.Repeat([]byte("s"), 32),
		AgentImage: agentRef, Service: "sandboxes", Pods: templates,
	}
}

// offline gives a driver that has no cluster.
func offline(t testing.TB, templates map[string]PodTemplate) *Driver {
	t.Helper()
	opts := testOptions(templates)
	if err := opts.complete(); err != nil {
		t.Fatal(err)
	}
	d := &Driver{opts: opts, log: opts.Logger, templates: map[string]PodTemplate{"": PodTemplate{}.withDefaults()}, starting: map[sandbox.ID]bool{}}
	for name, template := range opts.Pods {
		d.templates[name] = template.withDefaults()
	}
	d.memory = newMemory(d.infoOf)
	return d
}

var claimTime = regexp.MustCompile(`caesarion.dev/claimed-at: .*`)

func TestPods(t *testing.T) {
	files, err := filepath.Glob("testdata/pods/*.txtar")
	if err != nil || len(files) < 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var settings any
			var spec sandbox.Spec
			if err := yaml.Unmarshal(ar.Files[0].Data, &settings); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(ar.Files[1].Data, &spec); err != nil {
				t.Fatal(err)
			}
			template, err := ParsePodTemplate(settings)
			if err != nil {
				t.Fatal(err)
			}
			spec.ID, spec.Image = testID, imageRef
			pod, err := offline(t, map[string]PodTemplate{spec.Template: template}).podOf(spec)
			if err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(pod)
			if err != nil {
				t.Fatal(err)
			}
			got = claimTime.ReplaceAll(got, []byte(`caesarion.dev/claimed-at: NOW`))
			if *update {
				ar.Files[2].Data = got
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(string(ar.Files[2].Data), string(got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if strings.Contains(string(got), offline(t, nil).token(testID)) {
				t.Error("the pod has the token of its sandbox")
			}
		})
	}
}

// What makes pods alike is in the hash, and what is a sandbox's own is not.
func TestHash(t *testing.T) {
	base := sandbox.Spec{ID: testID, Template: "a", Image: imageRef, Preload: []string{"numpy"}, Limits: sandbox.Limits{MemoryBytes: 1 << 30}}
	hash := func(t testing.TB, settings PodTemplate, change func(*sandbox.Spec)) string {
		spec := base
		if change != nil {
			change(&spec)
		}
		return offline(t, map[string]PodTemplate{"a": settings}).hashOf(spec)
	}
	want := hash(t, PodTemplate{}, nil)
	if !regexp.MustCompile(`^[0-9a-f]{16}$`).MatchString(want) {
		t.Errorf("hash %q", want)
	}
	for name, same := range map[string]func(*sandbox.Spec){
		"id": func(s *sandbox.Spec) { s.ID = sandbox.NewID() }, "env": func(s *sandbox.Spec) { s.Env = map[string]string{"A": "1"} },
		"labels": func(s *sandbox.Spec) { s.Labels = map[string]string{"a": "1"} }, "pooled": func(s *sandbox.Spec) { s.Pooled, s.Prestart = true, true },
	} {
		if got := hash(t, PodTemplate{}, same); got != want {
			t.Errorf("%s changes the hash", name)
		}
	}
	for name, other := range map[string]func(*sandbox.Spec){
		"image":   func(s *sandbox.Spec) { s.Image = agentRef },
		"preload": func(s *sandbox.Spec) { s.Preload = nil },
		"limits":  func(s *sandbox.Spec) { s.Limits.Processes = 5 },
	} {
		if got := hash(t, PodTemplate{}, other); got == want {
			t.Errorf("%s does not change the hash", name)
		}
	}
	for name, other := range map[string]PodTemplate{
		"runtime class": {RuntimeClass: "gvisor"}, "labels": {Labels: map[string]string{"a": "b"}}, "node selector": {NodeSelector: map[string]string{"a": "b"}},
	} {
		if got := hash(t, other, nil); got == want {
			t.Errorf("%s of the template does not change the hash", name)
		}
	}
}

func TestTokensDeriveFromSecretAndID(t *testing.T) {
	d := offline(t, nil)
	if a, b := d.token(testID), offline(t, nil).token(testID); a != b || len(a) != 64 {
		t.Errorf("two replicas give %q and %q", a, b)
	}
	if d.token(testID) == d.token(sandbox.NewID()) {
		t.Error("two sandboxes have one token")
	}
	other := offline(t, nil)
	other.opts.Secret = bytes.Repeat([]byte("t"), 32)
	if d.token(testID) == other.token(testID) {
		t.Error("the token does not depend on the secret")
	}
}

func TestImagesArePinned(t *testing.T) {
	for _, ref := range []string{"", "python", "python:3", "python@sha256:12", "@sha256:" + strings.Repeat("1", 64), "python@sha256:" + strings.Repeat("G", 64)} {
		if _, err := offline(t, nil).podOf(sandbox.Spec{ID: testID, Image: ref}); errdefs.CodeOf(err) != "image-not-pinned" {
			t.Errorf("%q: %v", ref, err)
		}
	}
}

// What a pod's record says survives a change of the template's name, and damage.
func TestInfoOfAPod(t *testing.T) {
	d := offline(t, nil)
	spec := sandbox.Spec{ID: testID, Template: "not a label!", Image: imageRef, Labels: map[string]string{"ü": "ö\n"}, Limits: sandbox.Limits{MemoryBytes: 1 << 30, CPUs: 0.25, Processes: 9, DiskBytes: 1 << 30}}
	pod, err := d.podOf(spec)
	if err != nil {
		t.Fatal(err)
	}
	got := d.infoOf(trim(pod))
	if got.CreatedAt.IsZero() {
		t.Error("no time of creation")
	}
	got.CreatedAt = spec2info(d, spec).CreatedAt
	if diff := cmp.Diff(spec2info(d, spec), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	pod.Annotations = map[string]string{annotationLabels: "{", annotationLimits: "[]", annotationClaimedAt: "yesterday"}
	if got := d.infoOf(pod); got.Labels != nil || got.Limits != (sandbox.Limits{}) || got.ID != testID {
		t.Errorf("of a damaged record: %+v", got)
	}
	for _, name := range []string{"sbx-", "web-0", "sbx-AAAABBBBCCCCDDDDEEEEFFFF22", ""} {
		if id := idOf(name); id != "" {
			t.Errorf("pod %q is taken for %s", name, id)
		}
	}
}

func spec2info(d *Driver, spec sandbox.Spec) sandbox.Info {
	return sandbox.Info{
		ID: spec.ID, Template: spec.Template, Image: spec.Image, State: sandbox.StateStarting, Limits: spec.Limits,
		Labels: spec.Labels, AgentToken: d.token(spec.ID),
	}
}
