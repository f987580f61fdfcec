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

// uv, which is not in the image, comes from the index and finds the way out by
// itself, as aiohttp, which is.
func TestToolsFromTheIndex(t *testing.T) {
	o := NewOutside(t, Loopback)
	o.download(t, "uv")
	s := start(t, o, servertest.DataDir(t))
	sb := Create(t, s, v1.CreateSandbox{Template: "listed"})
	sb.Want("a binary wheel", "%pip install -q uv\nprint('installed')", "installed")
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
	for _, code := range []string{"%pip install uv", "!pip install uv", "!python -m pip install -q uv"} {
		if got := closed.Run(code); strings.Count(got, none) != 1 {
			t.Errorf("%s without a network shows %q, want one clear sentence", code, got)
		}
	}
}

// repository makes a repository of one commit, as a server without git gives it out.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	script := `set -e
git init -q .
echo 'answer = 42' >answer.py
git add answer.py
git -c user.name=Ann -c user.email=ann@example.org commit -qm 'The answer'
git update-server-info`
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, ".git")
}

func TestGit(t *testing.T) {
	o := NewOutside(t, Loopback)
	o.Git = repository(t)
	sb := Create(t, start(t, o, servertest.DataDir(t)), v1.CreateSandbox{Template: "listed"})
	for _, base := range []string{o.Plain.URL, o.TLS.URL} {
		sb.Want("clone of "+base, fmt.Sprintf("!rm -rf cloned && git clone -q %s/git cloned && cd cloned && git log --format=%%s && cat answer.py", base), "The answer\nanswer = 42")
	}
	sb.Want("a host that is not on the list", "!git clone -q https://example.com/x.git 2>&1", "403")
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
