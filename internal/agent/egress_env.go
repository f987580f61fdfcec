package agent

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// proxyEnv gives the environment by which programs find the way out. It is the
// same in all sandboxes, so that kernels have it that are started beforehand.
//
// ALL_PROXY is no SOCKS address: httpx refuses to work with one unless a module
// is installed that few have, whatever it is asked for.
func proxyEnv(addr string, certs *bundle) []string {
	proxy := "http://" + addr
	index := "http://" + agentapi.PackageHost + "/simple/"
	const direct = "localhost,127.0.0.1,::1"
	env := []string{
		"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "ALL_PROXY=" + proxy, "NO_PROXY=" + direct,
		"http_proxy=" + proxy, "https_proxy=" + proxy, "all_proxy=" + proxy, "no_proxy=" + direct,
		"PIP_INDEX_URL=" + index, "PIP_TRUSTED_HOST=" + agentapi.PackageHost,
		"PIP_DISABLE_PIP_VERSION_CHECK=1", "PIP_RETRIES=2",
		"PIP_NO_CACHE_DIR=1", // the server has the cache, for all sandboxes
		"UV_DEFAULT_INDEX=" + index, "UV_INSECURE_HOST=" + agentapi.PackageHost, "UV_HTTP_RETRIES=2",
	}
	if certs != nil && certs.usable() {
		for _, name := range []string{"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS"} {
			env = append(env, name+"="+certs.path)
		}
	}
	return env
}

// bundleDir holds the file of certificates that programs trust.
const bundleDir = "/tmp/.caesarion"

// imageBundles are where images have the certificates of public authorities.
var imageBundles = []string{
	"/etc/ssl/certs/ca-certificates.crt", // Debian, Ubuntu, Alpine, Arch
	"/etc/pki/tls/certs/ca-bundle.crt",   // Fedora, Red Hat
	"/etc/ssl/ca-bundle.pem",             // SUSE
	"/etc/ssl/cert.pem",                  // Alpine, BSDs
	// In images without any, what requests brings.
	"/usr/lib/python3/dist-packages/certifi/cacert.pem",
	"/usr/local/lib/python3*/site-packages/certifi/cacert.pem",
	"/usr/local/lib/python3*/dist-packages/certifi/cacert.pem",
	"/opt/*/lib/python3*/site-packages/certifi/cacert.pem",
}

// bundle is one file that all programs are told to take their certificates
// from: at first a link to the image's, later, where the installation has
// certificates of its own, a copy with these. Its name stays.
type bundle struct {
	path  string
	image string // the image's file; "": it has none

	mu    sync.Mutex
	extra string // what was added
}

func newBundle(dir, root string) *bundle {
	b := &bundle{path: filepath.Join(dir, "ca-certificates.pem")}
	for _, pattern := range imageBundles {
		found, _ := filepath.Glob(filepath.Join(root, pattern)) // the pattern is right
		if len(found) > 0 {
			b.image = found[0]
			break
		}
	}
	if !b.usable() || os.MkdirAll(dir, 0o755) != nil || b.link() != nil { //nolint:gosec // every program reads it
		b.image = ""
	}
	return b
}

// usable reports whether programs should take it: without public certificates
// those that they brought themselves are better.
func (b *bundle) usable() bool { return b.image != "" }

// add makes programs trust the PEM certificates besides the image's, and no others.
func (b *bundle) add(pem string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if pem == b.extra || !b.usable() {
		return nil
	}
	var err error
	if pem == "" {
		err = b.link()
	} else {
		err = b.write(pem)
	}
	if err == nil {
		b.extra = pem
	}
	return err
}

// link makes the file a link to the image's.
func (b *bundle) link() error {
	tmp := b.path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(b.image, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, b.path)
}

func (b *bundle) write(pem string) error {
	image, err := os.ReadFile(b.image)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(b.path), 0o755); err != nil { //nolint:gosec // every program reads it
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(b.path), ".ca-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone after the rename
	_, err = f.Write(append(append(image, '\n'), pem...))
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), b.path)
}
