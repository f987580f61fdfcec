package install

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/store/pgtest"
	"github.com/caesarion/caesarion/test/chart/helmtest"
	"github.com/caesarion/caesarion/test/chart/installed"
	"github.com/caesarion/caesarion/test/kubetest"
)

// blocks matches what a reader of the document types.
var blocks = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// manifests matches the commands of the part for those without Helm.
var manifests = regexp.MustCompile("(?s)\n## Without Helm\n.*?\n```console\n(.*?)\n```\n")

func document(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(helmtest.Root(), "docs", "operate", "kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// follow runs commands of the document in a folder that looks like the
// repository, as a reader would who stops at the first failure. What they make
// goes with the test.
func follow(t *testing.T, script string) (in *installation, said, dir string) {
	t.Helper()
	dir = t.TempDir()
	binary, err := helmtest.Binary()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"deploy":        filepath.Join(helmtest.Root(), "deploy"),
		"bin/helm":      binary,
		"bin/caesarion": program(t),
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	in = &installation{&installed.Installation{Namespace: "caesarion", Sandboxes: "caesarion-sandboxes", Kube: kubernetes.NewForConfigOrDie(kubetest.Config(t))}}
	dsn := in.OpenDatabase(t, pgtest.New(t))
	server, serverDigest, _ := strings.Cut(kubetest.Image(t, "server"), "@")
	python, pythonDigest, _ := strings.Cut(kubetest.Image(t, "python"), "@")
	t.Cleanup(func() {
		if t.Failed() {
			in.Explain(t)
		}
		out, err := kubectl(context.Background(), "delete", "namespace", in.Namespace, in.Sandboxes, "--ignore-not-found", "--timeout=2m")
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"+script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"), "HOME="+dir,
		"SERVER_REPOSITORY="+server, "SERVER_DIGEST="+serverDigest, "SANDBOX_REPOSITORY="+python, "SANDBOX_DIGEST="+pythonDigest,
		"DATABASE_URL="+dsn)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	return in, string(out), dir
}

// TestDocument does what docs/operate/kubernetes.md says, word for word. Both ways
// use the same namespaces.
func TestDocument(t *testing.T) {
	t.Parallel()
	t.Run("with Helm", testWithHelm)
	t.Run("without Helm", testWithoutHelm)
}

// testWithHelm follows the document and wants the plot.
func testWithHelm(t *testing.T) {
	var script strings.Builder
	found := blocks.FindAllSubmatch(document(t), -1)
	if len(found) < 7 {
		t.Fatalf("only %d blocks in the document", len(found))
	}
	for _, b := range found {
		script.Write(b[1])
	}
	_, said, dir := follow(t, script.String())
	if !strings.Contains(said, "the answer is 45") {
		t.Error("no answer")
	}
	if n := strings.Count(said, "is out of reach"); n != 3 {
		t.Errorf("%d addresses are out of reach, want 3", n)
	}
	if yes, no := count(said, "yes"), count(said, "no"); yes != 1 || no != 4 {
		t.Errorf("%d rights and %d refusals, want 1 and 4", yes, no)
	}
	pictures, err := filepath.Glob(filepath.Join(dir, "plots", "*.png"))
	if err != nil || len(pictures) != 1 {
		t.Fatalf("pictures: %v, %v", pictures, err)
	}
	if png, err := os.ReadFile(pictures[0]); err != nil || !bytes.HasPrefix(png, []byte("\x89PNG\r\n")) || len(png) < 5000 {
		t.Errorf("%s: %d bytes, %v", pictures[0], len(png), err)
	}
}

// testWithoutHelm applies the plain manifests as the document says.
func testWithoutHelm(t *testing.T) {
	block := manifests.FindSubmatch(document(t))
	if block == nil {
		t.Fatal("the document has no commands for those without Helm")
	}
	var script strings.Builder
	for line := range strings.Lines(string(block[1])) {
		script.WriteString(strings.TrimPrefix(line, "$ "))
	}
	in, _, _ := follow(t, script.String())
	kubetest.Kubectl(t, "-n", in.Namespace, "rollout", "status", "deployment/"+release, "--timeout=3m")
	secret, err := in.Kube.CoreV1().Secrets(in.Namespace).Get(t.Context(), "caesarion-token", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	api, err := client.New(in.URL(t), client.Options{Token: string(secret.Data["token"])})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	if got := python(t, api, create(t, api, ""), "print(6 * 7)"); got != "42\n" {
		t.Errorf("the answer is %q", got)
	}
	for _, namespace := range []string{in.Namespace, in.Sandboxes} {
		ns, err := in.Kube.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if err != nil || ns.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			t.Errorf("%s: %v, %v", namespace, ns.Labels, err)
		}
	}
}

// count counts lines.
func count(text, line string) int {
	n := 0
	for l := range strings.Lines(text) {
		if strings.TrimSpace(l) == line {
			n++
		}
	}
	return n
}

// program gives the product's binary, which the cluster's image has too.
func program(t *testing.T) string {
	t.Helper()
	for _, path := range []string{
		filepath.Join(helmtest.Root(), "bin", "caesarion"),
		filepath.Join(helmtest.Root(), ".cache", "cluster", "bin", "caesarion"),
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	t.Fatal("bin/caesarion is not built: make build")
	return ""
}
