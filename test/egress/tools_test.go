package egress

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/test/servertest"
)

// download gets wheels for the image's Python, with all that they need, from
// the index that this environment's pip has, and puts them into the outside's.
func (o *Outside) download(t *testing.T, names ...string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"-m", "pip", "download", "--quiet", "--only-binary=:all:", "--python-version=3.13", "--dest=" + dir}
	for _, p := range []string{"manylinux_2_41", "manylinux_2_28", "manylinux_2_17", "manylinux2014"} {
		args = append(args, "--platform="+p+"_x86_64")
	}
	if out, err := exec.CommandContext(t.Context(), "python3", append(args, names...)...).CombinedOutput(); err != nil {
		servertest.Skip(t, fmt.Sprintf("pip has no index here: %v\n%s", err, out))
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(files) < len(names) {
		t.Fatalf("%d wheels, %v", len(files), err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Base(file)
		name, _, _ := strings.Cut(base, "-")
		o.Wheels[strings.ReplaceAll(strings.ToLower(name), "_", "-")] = Wheel{base, data}
	}
}

// Tools that are not in the image come from the index and find the way out by
// themselves, as those that are.
func TestToolsFromTheIndex(t *testing.T) {
	o := NewOutside(t, Loopback)
	o.download(t, "uv", "aiohttp")
	s := start(t, o, servertest.DataDir(t))
	sb := Create(t, s, v1.CreateSandbox{Template: "listed"})
	sb.Want("binary wheels", "%pip install -q uv aiohttp\nprint('installed')", "installed")
	sb.Want("uv", "!uv venv -q /tmp/v && uv pip install -q --python /tmp/v tinypure && /tmp/v/bin/python -c 'import tinypure; print(tinypure.answer)'", "42")
	sb.Want("uv and one that is not there", "!uv pip install -q --python /tmp/v nothere", "nothere was not found in the package registry")
	get := func(url string) string {
		return fmt.Sprintf(`
import aiohttp
async def get(url):
    async with aiohttp.ClientSession() as session, session.get(url) as answer: return answer.status, await answer.text()
print(await get(%q))`, url)
	}
	for _, base := range []string{o.Plain.URL, o.TLS.URL} {
		sb.Want("aiohttp, "+base, get(base+"/hello"), "(200, 'hello')")
	}
	sb.Want("aiohttp and what is not on the list", get("http://example.com/"), "(403, 'example.com is not among the hosts")
	sb.Want("aiohttp and what is not on the list", get("https://example.com/"), "403, message='example.com is not among the hosts")

	closed := Create(t, s, v1.CreateSandbox{Template: "closed"})
	const none = "[caesarion] This sandbox has no network: nothing can be downloaded or installed."
	for _, code := range []string{"%pip install uv", "!pip install uv", "!python -m pip install -q aiohttp"} {
		if got := closed.Run(code); strings.Count(got, none) != 1 {
			t.Errorf("%s without a network shows %q, want one clear sentence", code, got)
		}
	}
}

// Each tool shows why a host is refused.
func TestEachToolShowsWhy(t *testing.T) {
	o := NewOutside(t, Loopback)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	const why = "example.com is not among the hosts this sandbox may reach (template listed; ask the operator: egress)"
	for _, scheme := range []string{"http", "https"} {
		url := scheme + "://example.com/"
		for tool, code := range map[string]string{
			"urllib":   Fetch(url),
			"requests": fmt.Sprintf("import requests; print(requests.get(%q, timeout=20).text)", url),
			"httpx":    fmt.Sprintf("import httpx; print(httpx.get(%q, timeout=20).text)", url),
			"curl":     fmt.Sprintf("!curl -sSv %s 2>&1", url),
			"pandas":   fmt.Sprintf("import pandas; print(pandas.read_csv(%q))", url+"a.csv"),
			"pip":      fmt.Sprintf("!pip install --index-url %s --trusted-host example.com tinypure 2>&1", url),
		} {
			if got := strings.ReplaceAll(sb.Run(code), "\n", " "); !strings.Contains(got, why) {
				t.Errorf("%s, %s: %.600q, want %q in it", tool, scheme, got, why)
			}
		}
	}
}
