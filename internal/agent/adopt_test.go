package agent_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/caesarion/caesarion/internal/agent"
	"github.com/caesarion/caesarion/internal/agent/agenttest"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
)

// prestarted gives an agent whose kernel waits for a name.
func prestarted(t testing.TB, change func(*agent.Options)) (*agent.Agent, *agentapi.Client) {
	t.Helper()
	a, client, _ := serve(t, func(o *agent.Options) {
		withPython(t)(o)
		if change != nil {
			change(o)
		}
	})
	if err := a.Prestart(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a, client
}

func configure(t testing.TB, client *agentapi.Client, conf agentapi.Configure) agentapi.Health {
	t.Helper()
	h, err := client.Configure(t.Context(), conf)
	if err != nil {
		t.Fatal(err)
	}
	client.SetToken(conf.Token)
	return h
}

func TestConfigureHandsThePrestartedKernelOver(t *testing.T) {
	_, client := prestarted(t, nil)
	s := &agenttest.Sandbox{Client: client, KernelID: agenttest.NewID("krn"), T: t}
	conf := agentapi.Configure{Token: testToken, Env: map[string]string{"A": "1", "Ü": "'\"\n"}, KernelID: s.KernelID}
	if h := configure(t, client, conf); h.KernelID != s.KernelID {
		t.Fatalf("health: %+v", h)
	}
	r := s.Run("import os; print(os.environ['A'], repr(os.environ['Ü']), os.path.basename(os.getcwd()), In)")
	if got, want := r.Text("stdout"), "1 '\\'\"\\n' workspace "; !strings.HasPrefix(got, want) || r.Finished.ExecutionCount != 1 {
		t.Errorf("got %q, %+v; want %q", got, r.Finished, want)
	}
	s.Run("os.environ['A'] = 'mine'; os.chdir('/')").Expect(t, event.StatusOK, "")
	if h := configure(t, client, conf); h.KernelID != s.KernelID { // its answer was lost, say
		t.Errorf("second configure: %+v", h)
	}
	if got := s.Run("print(os.environ['A'], os.getcwd())").Text("stdout"); got != "mine /\n" {
		t.Errorf("a second configure changed the kernel: %q", got)
	}
	_, err := client.StartKernel(t.Context(), agentapi.StartKernel{ID: s.KernelID})
	if codeOf(err) != "kernel-exists" || !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("start of a kernel that was handed over: %v", err)
	}
	if list, err := client.Kernels(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("kernels: %+v, %v", list, err)
	}
}

func TestAPrestartedKernelIsPristine(t *testing.T) {
	const state = `import sys, json, builtins, linecache
names = sorted(n for n in globals() if n not in ('sys', 'json', 'builtins', 'linecache'))
print(json.dumps([names, _, __, ___, In[:-1], Out, get_ipython().execution_count, hasattr(builtins, '_'), hasattr(sys, 'last_value'), hasattr(sys, 'last_exc'),
    get_ipython().history_manager.output_hist_reprs, get_ipython().last_execution_succeeded, len([n for n in linecache.cache if 'caesarion_' in n])]))`
	get := func(client *agentapi.Client, kernelID string) string {
		s := &agenttest.Sandbox{Client: client, KernelID: kernelID, T: t}
		r := s.Run(state)
		r.Expect(t, event.StatusOK, "")
		return r.Text("stdout")
	}
	preload := func(o *agent.Options) { o.Preload = []string{"numpy", "pandas"} }
	_, client := prestarted(t, preload)
	configure(t, client, agentapi.Configure{Token: testToken, KernelID: "krn_warm"})
	fresh, _ := configured(t, agentapi.Configure{}, func(o *agent.Options) { withPython(t)(o); preload(o) })
	if _, err := fresh.StartKernel(t.Context(), agentapi.StartKernel{ID: "krn_cold"}); err != nil {
		t.Fatal(err)
	}
	if got, want := get(client, "krn_warm"), get(fresh, "krn_cold"); got != want {
		t.Errorf("a kernel that was started beforehand differs:\n got  %s\n want %s", got, want)
	}
	k, err := client.Kernel(t.Context(), "krn_warm")
	if err != nil || k.ExecutionCount != 1 {
		t.Errorf("kernel: %+v, %v", k, err)
	}
	if list, err := client.Executions(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("executions: %+v, %v", list, err)
	}
}

func TestConfigureWithoutAPrestartedKernelSaysSo(t *testing.T) {
	_, client, _ := serve(t, nil)
	if h := configure(t, client, agentapi.Configure{Token: testToken, KernelID: "krn_a"}); h.KernelID != "" {
		t.Errorf("health: %+v", h)
	}
	if _, err := client.Configure(t.Context(), agentapi.Configure{Token: testToken, KernelID: "../x"}); codeOf(err) != "invalid-id" {
		t.Errorf("bad id: %v", err)
	}
}

func TestACheckLeavesNothingBehind(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{})
	s.Run("41+1").Expect(t, event.StatusOK, "")
	state := func() string {
		return s.Start("import json; print(json.dumps([_, __, _i, _ii, len(In), sorted(Out), get_ipython().execution_count, sorted(globals())]))",
			func(e *agentapi.Execute) { e.StoreHistory = false }).Wait().Text("stdout")
	}
	state() // imports json
	before := state()
	for range 3 {
		if err := s.Check(t.Context(), s.KernelID); err != nil {
			t.Fatal(err)
		}
	}
	if after := state(); after != before || !strings.HasPrefix(after, `[42,`) {
		t.Errorf("got  %s want %s", after, before)
	}
	if err := s.Trim(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context(), "krn_other"); codeOf(err) != "kernel-not-found" {
		t.Errorf("check of no kernel: %v", err)
	}
	r := s.Start("input()", func(e *agentapi.Execute) { e.AllowStdin = true })
	r.Until(event.InputRequested, "")
	if err := s.Check(t.Context(), s.KernelID); codeOf(err) != "kernel-busy" {
		t.Errorf("check of a busy kernel: %v", err)
	}
	if err := s.Trim(t.Context()); err != nil { // waits for nobody
		t.Error(err)
	}
	if err := s.Input(t.Context(), r.ID, agentapi.Input{Value: "x"}); err != nil {
		t.Error(err)
	}
	r.Wait().Expect(t, event.StatusOK, "")
}

// draws gives a number of each generator that programs share.
const draws = `print(random.random(), numpy.random.rand(), uuid.uuid1(), next(tempfile._get_candidate_names()), legacy.normal(), multiprocessing.current_process().authkey.hex())`

func TestACopyDrawsOtherNumbers(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{})
	s.Run(`
import random, numpy, uuid, ssl, tempfile, multiprocessing
from numpy.random import mtrand
legacy = mtrand._rand
def start():
    random.seed(1); numpy.random.seed(1); random.gauss(0, 1); numpy.random.randn()
start()
`+draws).Expect(t, event.StatusOK, "")
	first := strings.Fields(s.Run("start(); " + draws).Text("stdout"))
	// What the user has put in the place of the functions that seed is of no matter.
	s.Run("start(); random.seed = numpy.random.seed = lambda *a: print('seeded!')").Expect(t, event.StatusOK, "")
	configure(t, s.Client, agentapi.Configure{Token: "of the copy", Clone: true})
	r := s.Run(draws)
	second := strings.Fields(r.Text("stdout"))
	if len(first) != 6 || len(second) != 6 || strings.Contains(r.Text("stdout"), "seeded") {
		t.Fatalf("got %q and %q", first, second)
	}
	for i := range first {
		if first[i] == second[i] {
			t.Errorf("number %d is the same: %s", i, first[i])
		}
	}
	if node := func(id string) string { return id[strings.LastIndexByte(id, '-'):] }; node(first[2]) == node(second[2]) {
		t.Errorf("uuid1 of the same node: %s, %s", first[2], second[2])
	}
}

func TestACopyOfASandboxThatWorks(t *testing.T) {
	s, _ := newSandbox(t, agentapi.Configure{})
	s.Run("import random, time; x = 41; random.seed(1); want = random.random(); random.seed(1)").Expect(t, event.StatusOK, "")
	running := s.Start("print('on', flush=True)\nwhile True: time.sleep(0.01)", nil)
	running.Until(event.OutputStream, "on")
	waiting := s.Start("x = 0", nil)
	waiting.Until(event.ExecutionQueued, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	command, err := s.Client.Run(ctx, agentapi.Run{ID: agenttest.NewID("prc"), Args: []string{"sleep", "600"}})
	if err != nil {
		t.Fatal(err)
	}
	defer command.Close() //nolint:errcheck // it is only read

	configure(t, s.Client, agentapi.Configure{Token: "of the copy", Clone: true})
	configure(t, s.Client, agentapi.Configure{Token: "of the copy", Clone: true}) // once more does no harm
	if list, err := s.Executions(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("executions are remembered: %+v, %v", list, err)
	}
	running.Wait().Expect(t, event.StatusInterrupted, "")
	waiting.Wait().Expect(t, event.StatusAborted, event.ReasonRestarted)
	if got := s.Run("print(x, random.random() == want)").Text("stdout"); got != "41 False\n" {
		t.Errorf("got %q", got)
	}
	for {
		if _, err := command.Next(); err != nil {
			break // it ended
		}
	}
}
