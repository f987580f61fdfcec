package kernel_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/caesarion/caesarion/internal/kernel/kerneltest"
)

var update = flag.Bool("update", false, "rewrite the expectations of the corpus")

// caseLimit is what the slowest case (pandas and polars imported cold) needs several times over.
const caseLimit = time.Minute

func caseFile(name string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "kerneltest", "testdata", name+".txtar")
}

var rewriting sync.Mutex

func rewrite(t *testing.T, name, file string, events []kerneltest.Event) {
	t.Helper()
	rewriting.Lock()
	defer rewriting.Unlock()
	body, err := os.ReadFile(caseFile(name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(caseFile(name), kerneltest.Rewrite(body, file, events), 0o644); err != nil { //nolint:gosec // a source file
		t.Fatal(err)
	}
}

// canonical makes events comparable with those read from a file.
func canonical(t *testing.T, events []kerneltest.Event) string {
	t.Helper()
	return kerneltest.Format(events)
}

func TestEachCaseGivesItsMessages(t *testing.T) {
	cases, err := kerneltest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), caseLimit)
			defer cancel()
			r := start(t)
			received, err := kerneltest.Run(ctx, c, r)
			if err != nil {
				t.Fatalf("%v; stderr: %s", err, r.pipe("stderr"))
			}
			got := kerneltest.Normalise(received)
			if *update {
				rewrite(t, c.Name, "want.jsonl", got)
				return
			}
			if diff := cmp.Diff(canonical(t, c.Want), canonical(t, got)); diff != "" {
				t.Errorf("%s\n(-want +got)\n%s", c.Doc, diff)
			}
		})
	}
}

// TestIPykernelDoesTheSame runs the corpus on real ipykernel, all cases in one driver.
func TestIPykernelDoesTheSame(t *testing.T) {
	interpreter := kerneltest.Python(t)
	cases, err := kerneltest.Cases()
	if err != nil {
		t.Fatal(err)
	}
	all := len(cases)
	cases = slices.DeleteFunc(cases, func(c kerneltest.Case) bool { return c.Alone != "" })
	input, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.CommandContext(ctx, interpreter, filepath.Join(filepath.Dir(file), "../../test/kernelsuite/reference.py")) //nolint:gosec // the test's own interpreter
	program, dir := kerneltest.Program(t), t.TempDir()
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8",
		"MPLCONFIGDIR="+filepath.Join(filepath.Dir(program), "matplotlib"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	var reference map[string][]kerneltest.Received
	if err := json.Unmarshal(stdout.Bytes(), &reference); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	differences := 0
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			got := canonical(t, kerneltest.Normalise(reference[c.Name]))
			ours := canonical(t, c.Want)
			if raw := reference[c.Name]; len(raw) == 0 || raw[0].Type == "failed" {
				t.Fatalf("ipykernel did not get through: %s", stderr.String())
			}
			if *update {
				// The other test may have rewritten it in this very run.
				body, err := os.ReadFile(caseFile(c.Name))
				if err != nil {
					t.Fatal(err)
				}
				now, err := kerneltest.Parse(c.Name, body)
				if err != nil {
					t.Fatal(err)
				}
				if got == canonical(t, now.Want) {
					rewrite(t, c.Name, "ipykernel.jsonl", nil)
				} else {
					rewrite(t, c.Name, "ipykernel.jsonl", kerneltest.Normalise(reference[c.Name]))
				}
				return
			}
			switch {
			case c.IPykernel == nil:
				if diff := cmp.Diff(got, ours); diff != "" {
					t.Errorf("ipykernel does something else (-ipykernel +ours)\n%s", diff)
				}
			case c.Reason == "":
				t.Error("a difference without difference.txt")
			case got == ours:
				t.Error("ipykernel does the same by now: remove ipykernel.jsonl")
			default:
				differences++
				if diff := cmp.Diff(canonical(t, c.IPykernel), got); diff != "" {
					t.Errorf("ipykernel has changed (-recorded +got)\n%s", diff)
				}
			}
		})
	}
	t.Logf("%d cases: %d the same, %d with a deliberate difference, %d not compared",
		all, len(cases)-differences, differences, all-len(cases))
}
