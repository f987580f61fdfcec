package install

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/caesarion/caesarion/test/kubetest"
)

// TestTrial installs the chart with the PostgreSQL that is only for trials: no
// secret is made by hand, and sessions are kept.
func TestTrial(t *testing.T) {
	t.Parallel()
	image := postgresImage(t)
	in := install(t, `
database:
  existingSecret: {name: ""}
  trial: {enabled: true, image: "`+image+`"}
server: {replicas: 1}
sandboxes:
  requests: {memory: 256Mi}
  templates:
    python: {memory: 1Gi, cpus: 0.5, poolSize: 0}
`)
	api := in.api(t)
	box := create(t, api, "")
	if got := python(t, api, box, "print('tried')"); got != "tried\n" {
		t.Errorf("it says %q", got)
	}
	out := kubetest.Kubectl(t, "-n", in.Namespace, "exec", "statefulset/caesarion-postgres", "--", "psql", "-U", "caesarion", "-Atc", "SELECT count(*) FROM replicas")
	if strings.TrimSpace(out) != "1" {
		t.Errorf("the database knows %q replicas", out)
	}
	password := kubetest.Kubectl(t, "-n", in.Namespace, "get", "secret", "caesarion-generated", "-o", "jsonpath={.data.postgres-password}")
	in.Upgrade(t, "server.logLevel=debug")
	if now := kubetest.Kubectl(t, "-n", in.Namespace, "get", "secret", "caesarion-generated", "-o", "jsonpath={.data.postgres-password}"); now != password {
		t.Error("an upgrade made another password, which the database does not have")
	}
	if got := python(t, api, box, "print('still')"); got != "still\n" {
		t.Errorf("after the upgrade it says %q", got)
	}
}

// entrypoint starts PostgreSQL by the variables of the official image.
const entrypoint = `#!/bin/sh
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf %s "$POSTGRES_PASSWORD" >/tmp/password
    initdb --pgdata="$PGDATA" --username="$POSTGRES_USER" --pwfile=/tmp/password --auth-host=scram-sha-256 --auth-local=trust --encoding=UTF8 --locale=C.UTF-8
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl --pgdata="$PGDATA" --wait -o "-c listen_addresses=''" start
    createdb --username="$POSTGRES_USER" "$POSTGRES_DB" || true
    pg_ctl --pgdata="$PGDATA" --wait stop
fi
exec postgres -D "$PGDATA" -c listen_addresses='*'
`

// postgresImage makes an image of the machine's own PostgreSQL that starts as
// the official one does, and gives its name. It is gone after the test.
func postgresImage(t *testing.T) string {
	t.Helper()
	kubetest.Need(t)
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		t.Fatal("there is no PostgreSQL: install Debian's package postgresql (scripts/deps.sh test)")
	}
	bin := bins[len(bins)-1]
	home := filepath.Dir(bin)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, dir := range []string{bin, filepath.Join(home, "lib"), filepath.Join("/usr/share/postgresql", filepath.Base(home)), "/usr/lib/locale", "/usr/share/zoneinfo"} {
		addTree(t, w, dir)
	}
	programs := []string{"/bin/sh"}
	for _, pattern := range []string{bin + "/*", home + "/lib/*.so"} {
		found, _ := filepath.Glob(pattern)
		programs = append(programs, found...)
	}
	addFile(t, w, "/bin/sh", "/bin/sh")
	for _, library := range libraries(t, programs) {
		addFile(t, w, library, library)
	}
	for name, text := range map[string]string{
		"entrypoint": entrypoint,
		"etc/passwd": "postgres:x:999:999::/tmp:/bin/sh\n",
		"etc/group":  "postgres:x:999:\n",
	} {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, content)
	if err == nil {
		image, err = mutate.ConfigFile(image, configOf(t, image, bin))
	}
	if err != nil {
		t.Fatal(err)
	}
	const reference = "registry.test/trial/postgres:test"
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "postgres.tar")
	if err := tarball.WriteToFile(file, tag, image); err != nil {
		t.Fatal(err)
	}
	ctr := func(args ...string) ([]byte, error) {
		socket := filepath.Join(os.Getenv("CAESARION_KUBE"), "containerd.sock")
		return exec.CommandContext(context.Background(), "ctr", append([]string{"-a", socket, "-n", "k8s.io", "images"}, args...)...).CombinedOutput()
	}
	if out, err := ctr("import", file); err != nil {
		t.Fatalf("import: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := ctr("rm", "--sync", reference); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	return reference
}

func configOf(t *testing.T, image v1.Image, bin string) *v1.ConfigFile {
	t.Helper()
	c, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.Entrypoint, c.Config.Env = []string{"/entrypoint"}, []string{"PATH=" + bin + ":/bin"}
	return c
}

// libraries gives what the dynamic linker loads for some programs.
func libraries(t *testing.T, programs []string) []string {
	t.Helper()
	out, _ := exec.CommandContext(t.Context(), "ldd", programs...).Output() // fails for those that are scripts
	var paths []string
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		i := slices.IndexFunc(fields, func(f string) bool { return strings.HasPrefix(f, "/") })
		if i >= 0 && !strings.HasSuffix(fields[i], ":") {
			paths = append(paths, fields[i])
		}
	}
	slices.Sort(paths)
	if paths = slices.Compact(paths); len(paths) < 5 {
		t.Fatalf("ldd says only %s", out)
	}
	return paths
}

func addTree(t *testing.T, w *tar.Writer, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == "bitcode", strings.HasPrefix(d.Name(), "llvmjit"): // large, and not needed
			if d.IsDir() {
				return filepath.SkipDir
			}
		case !d.IsDir():
			addFile(t, w, path, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// addFile adds what a path leads to, links followed.
func addFile(t *testing.T, w *tar.Writer, path, as string) {
	t.Helper()
	if info, err := os.Stat(path); os.IsNotExist(err) || err == nil && info.IsDir() { // a link to nothing, or to a second name of a folder
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(as, "/"), Mode: 0o755, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
}
