package main

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/image"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/sandbox/gvisor"
)

func TestMain(m *testing.M) {
	gvisor.MaybeRunsc() // gVisor re-executes the test binary
	if os.Getenv(fakeDriver) != "" {
		openDriver = openFake
	}
	testscript.Main(m, map[string]func(){
		"caesarion": func() { os.Exit(run(context.Background(), os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr})) },
	})
}

// fakeDriver is the variable that makes this test binary use sandboxes that
// isolate nothing; its value is the Python of their kernels. The program
// itself has no such thing.
const fakeDriver = "CAESARION_TEST_FAKE_DRIVER"

func openFake(_ context.Context, opts driverOptions) (sandbox.Driver, error) {
	return fake.New(fake.Options{Python: os.Getenv(fakeDriver), Images: opts.images})
}

// testData is where make image puts the sandbox image.
func testData() string {
	if dir := os.Getenv("CAESARION_DATA_DIR"); dir != "" {
		return dir
	}
	return config.DefaultDataDir()
}

// needReal skips where real sandboxes can't run; with CI=true that is a failure.
func needReal(t testing.TB) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "gVisor needs root"
	} else if store, err := image.Open(testData()); err != nil {
		missing = err.Error()
	} else if _, err := store.Resolve(config.DefaultTemplate); err != nil {
		missing = "the sandbox image is not built, run `make image`"
	}
	switch {
	case missing == "":
	case os.Getenv("CI") == "true":
		t.Fatal(missing)
	default:
		t.Skip(missing)
	}
}

// agentBinary builds the agent, once for all tests.
func agentBinary(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), agentName)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "github.com/caesarion/caesarion/cmd/caesarion-agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	return path
}

// TestScripts runs the command line, each call a process of its own, with
// real sandboxes. One file is one case.
func TestScripts(t *testing.T) {
	needReal(t)
	t.Setenv("CAESARION_AGENT", agentBinary(t))
	files, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, files)
}

// TestScriptsWithTheFake runs those scripts that need no isolation on any
// machine that has the tests' Python.
func TestScriptsWithTheFake(t *testing.T) {
	python, err := filepath.Abs("../../.cache/venv/bin/python")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(python); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no Python for the tests: %v", err)
		}
		t.Skip("no Python for the tests, run `make venv`")
	}
	t.Setenv(fakeDriver, python)
	runScripts(t, []string{"testdata/script/commands.txtar", "testdata/script/models.txtar", "testdata/script/run.txtar", "testdata/script/run_status.txtar"})
}

func runScripts(t *testing.T, files []string) {
	images := filepath.Join(testData(), imagesDir)
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	certs := certificates(t)
	testscript.Run(t, testscript.Params{
		Files:               files,
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			data := filepath.Join(env.WorkDir, "data")
			if err := os.Mkdir(data, 0o700); err != nil {
				return err
			}
			// The store is read only here, and a gigabyte.
			if _, err := os.Stat(images); err == nil {
				if err := os.Symlink(images, filepath.Join(data, imagesDir)); err != nil {
					return err
				}
			}
			env.Setenv("CAESARION_DATA_DIR", data)
			env.Setenv("CAESARION_CONFIG", os.DevNull)
			env.Setenv("CAESARION_SNAPSHOTS", "false") // a template's snapshot takes seconds; sleep.txtar has one
			env.Setenv("EXAMPLES", examples)
			env.Setenv("CERTS", certs)
			env.Setenv("CAESARION_AGENT", os.Getenv("CAESARION_AGENT"))
			env.Setenv(fakeDriver, os.Getenv(fakeDriver))
			if os.Getenv(fakeDriver) == "" {
				env.Defer(func() { sweepTest(t, data) })
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":  cmdStatus,
			"waitfor": cmdWaitFor,
			"setout":  cmdSetOut,
			"empty":   cmdEmpty,
		},
	})
}

// certificates gives a folder with a self-signed certificate and its key.
func certificates(t *testing.T) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"box.example.org"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// sweepTest deletes what a script that failed half-way has left.
func sweepTest(t *testing.T, data string) {
	if run(context.Background(), []string{"--data-dir", data, "sandbox", "rm", "--all", "--json"}, stdio{strings.NewReader(""), t.Output(), t.Output()}) != exitOK {
		t.Log("sandboxes of the script were not deleted")
	}
}

// cmdStatus runs a program and checks its exit status: status 3 caesarion ….
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// cmdWaitFor waits until a file exists, or with a text, has that text.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: waitfor file [text]")
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		content, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && (len(args) == 1 || strings.Contains(string(content), args[1])) {
			return
		}
	}
	ts.Fatalf("%s is not there after 30 s", args)
}

// cmdSetOut puts the last standard output into a variable.
func cmdSetOut(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: setout NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// cmdEmpty checks that a folder has nothing in it.
func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	if err != nil && !os.IsNotExist(err) {
		ts.Fatalf("%v", err)
	}
	if (len(entries) > 0) != neg {
		ts.Fatalf("%s has %d entries", args[0], len(entries))
	}
}
