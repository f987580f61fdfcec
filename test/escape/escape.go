package escape

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// Patience bounds each wait: a busy machine may be slow, but what takes this
// long is broken.
const Patience = 3 * time.Minute

// World is one way of running sandboxes, and a host that has something to lose.
type World struct {
	Name   string // as the table's column has it, see Worlds
	Create func(testing.TB) Box
	// Canaries are files on the host that anybody there may read. Each holds
	// Canary, as does the environment of the process that drives the sandboxes.
	Canaries []string
	Canary   string
	// Server has addresses at which something answers that is not for sandboxes.
	// Where the driver alone does not keep them away, it is empty.
	Server []string
	// HostInodes counts what the sandboxes of this host take of its file
	// systems; nil: not known here.
	HostInodes func(testing.TB) uint64
}

// NodeKernel are the worlds whose sandboxes have the kernel of their host.
var NodeKernel = []string{"pod, runc"}

// Worlds are the names that World may have, in the order of the columns.
var Worlds = []string{"gVisor", "pod, runc", "pod, gVisor"}

// Box is a sandbox.
type Box struct {
	*agentapi.Client
	Info sandbox.Info
}

// Attack is one thing that hostile code tries. It has Code or Go or Test.
type Attack struct {
	Group string
	Name  string
	Does  string
	// Code is the body of a Python function that returns what came of it. What
	// it may use is in prelude.py.
	Code string
	// Go is an attack in which the server takes part. It returns what came of it.
	Go func(testing.TB, World, Box) string
	// Test names the tests that prove it already.
	Test string
	// Want has the answers that are right, whatever the driver.
	Want []string
	// Node has those that are right only in the worlds of NodeKernel.
	Node []string
	// Flood says that it takes all there is, so that it runs last and alone.
	Flood bool
}

// wants tells whether an answer is right in a world.
func (a Attack) wants(world, answer string) bool {
	return slices.Contains(a.Want, answer) || slices.Contains(NodeKernel, world) && slices.Contains(a.Node, answer)
}

// Attacks is the table.
func Attacks() []Attack {
	return slices.Concat(hostFiles, kernelCalls, neighbours, agentAndServer, fileRaces, floods, elsewhere)
}

// NewCanary plants a secret on the host: in files, and in this process.
func NewCanary(tb testing.TB, dirs ...string) (canary string, files []string) {
	tb.Helper()
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	canary = hex.EncodeToString(b[:])
	tb.Setenv("CAESARION_CANARY", "canary:"+canary)
	for _, dir := range dirs {
		f, err := os.CreateTemp(dir, "caesarion-canary-")
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = os.Remove(f.Name()) })
		_, err = f.WriteString("canary:" + canary + "\n")
		if err := errors.Join(err, f.Chmod(0o644), f.Close()); err != nil {
			tb.Fatal(err)
		}
		files = append(files, f.Name())
	}
	return canary, files
}

//go:embed prelude.py
var prelude string

// Run runs the table and gives what was measured, by the names of attacks.
func Run(t *testing.T, w World) map[string]string {
	measured := map[string]string{}
	got := func(t *testing.T, a Attack, answer string) {
		t.Helper()
		answer = clip(answer)
		measured[a.Name] = answer
		if !a.wants(w.Name, answer) {
			t.Errorf("%s: got %q, want one of %q", a.Name, answer, a.Want)
		}
	}
	victim := w.Create(t)
	live := haunt(t, victim)
	attacker := w.Create(t)

	var scripted []Attack
	for _, a := range Attacks() {
		if a.Code != "" && !a.Flood {
			scripted = append(scripted, a)
		}
	}
	answers := w.script(t, attacker, scripted)
	for _, a := range scripted {
		t.Run(a.Name, func(t *testing.T) {
			answer, ok := answers[a.Name]
			if !ok {
				t.Fatal("no answer: the attack ended what runs them")
			}
			if answer == skipped {
				return
			}
			got(t, a, answer)
		})
	}
	usable(t, attacker)
	for _, a := range Attacks() {
		if a.Go != nil && !a.Flood {
			t.Run(a.Name, func(t *testing.T) { got(t, a, a.Go(t, w, attacker)) })
		}
	}
	usable(t, attacker)

	for _, a := range Attacks() {
		if !a.Flood || a.Code == "" && a.Go == nil {
			continue
		}
		t.Run(a.Name, func(t *testing.T) {
			if os.Getenv("CAESARION_NO_FLOODS") != "" { // of a machine on which others work
				t.Skip("no floods now")
			}
			box := w.Create(t) // which may be lost
			before := inodes(t, w)
			answer := ""
			if a.Go != nil {
				answer = a.Go(t, w, box)
			} else {
				answer = w.script(t, box, []Attack{a})[a.Name]
			}
			got(t, a, answer)
			if after := inodes(t, w); after > before+1000 {
				t.Errorf("the host has %d files more than before", after-before)
			}
			live(t)
		})
	}
	live(t)
	return measured
}

func inodes(t testing.TB, w World) uint64 {
	t.Helper()
	if w.HostInodes == nil {
		return 0
	}
	return w.HostInodes(t)
}

// skipped is what an attack answers that can't be tried in a world.
const skipped = "not tried here"

// script runs attacks in one program of a sandbox, each in a process of its
// own, and gives their answers.
func (w World) script(t testing.TB, b Box, attacks []Attack) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	sum := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	facts := map[string]any{
		"canary": sum(w.Canary), "token": sum(b.Info.AgentToken), "files": w.Canaries, "server": append([]string{}, w.Server...), "ours": haunted,
		"agent_port": agentapi.Port,
	}
	text, err := json.Marshal(facts)
	if err != nil {
		t.Fatal(err)
	}
	var program strings.Builder
	program.WriteString(strings.Replace(prelude, "FACTS = {}", "FACTS = json.loads(r'''"+string(text)+"''')", 1))
	for _, a := range attacks {
		name, _ := json.Marshal(a.Name)
		body := "    " + strings.ReplaceAll(strings.TrimSpace(a.Code), "\n", "\n    ")
		fmt.Fprintf(&program, "\n@attack(%s)\ndef _():\n%s\n", name, body)
	}
	program.WriteString("\nrun_all()\n")
	path := agentapi.WorkspaceDir + "/attacks.py"
	if _, err := b.Upload(ctx, path, strings.NewReader(program.String()), int64(program.Len())); err != nil {
		t.Fatal(err)
	}
	out := output(ctx, t, b, "exec python3 -I "+path+" 2>&1")
	answers := map[string]string{}
	for line := range strings.Lines(out) {
		var answer struct{ Name, Got string }
		if json.Unmarshal([]byte(line), &answer) == nil && answer.Name != "" {
			answers[answer.Name] = answer.Got
		} else if strings.TrimSpace(line) != "" {
			t.Logf("%s", line)
		}
	}
	return answers
}

// output runs a shell command in a sandbox and gives what it wrote until it
// ended, or the sandbox did.
func output(ctx context.Context, t testing.TB, b Box, command string) string {
	t.Helper()
	stream, err := b.Run(ctx, agentapi.Run{ID: "prc_" + sandbox.RandomSuffix(), Command: command})
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	var text strings.Builder
	for {
		rec, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return text.String()
		}
		if err != nil {
			return text.String() + fmt.Sprintf("\nthe sandbox ended: %v\n", err)
		}
		if rec.Type == event.OutputStream {
			var e struct{ Data event.Stream }
			if err := json.Unmarshal(rec.Line, &e); err != nil {
				t.Fatal(err)
			}
			text.WriteString(strings.ReplaceAll(e.Data.Text, "\r\n", "\n"))
		}
	}
}

// begin starts a program in a sandbox and returns when it has written "ready".
func begin(t testing.TB, b Box, program string) (alive func() bool, stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	path := agentapi.WorkspaceDir + "/program-" + sandbox.RandomSuffix() + ".py"
	if _, err := b.Upload(ctx, path, strings.NewReader(program), int64(len(program))); err != nil {
		t.Fatal(err)
	}
	id := "prc_" + sandbox.RandomSuffix()
	life, end := context.WithCancel(t.Context())
	stream, err := b.Run(life, agentapi.Run{ID: id, Command: "exec python3 -I -u " + path})
	if err != nil {
		end()
		t.Fatal(err)
	}
	ready, ended := make(chan struct{}), make(chan struct{})
	var said bytes.Buffer
	go func() {
		defer close(ended)
		told := false
		for {
			rec, err := stream.Next()
			if err != nil {
				return
			}
			if !told && rec.Type == event.OutputStream {
				said.Write(rec.Line)
				if bytes.Contains(said.Bytes(), []byte("ready")) {
					told = true
					close(ready)
				}
			}
		}
	}()
	stop = func() {
		_ = b.KillProcess(context.WithoutCancel(t.Context()), id) // it may have ended
		_ = stream.Close()
		end()
		<-ended
	}
	t.Cleanup(stop)
	select {
	case <-ready:
	case <-ended:
		t.Fatalf("it ended before it was ready: %s", said.Bytes())
	case <-ctx.Done():
		t.Fatalf("it is never ready")
	}
	return func() bool {
		select {
		case <-ended:
			return false
		default:
			return true
		}
	}, stop
}

// usable checks that a sandbox still does what it is for.
func usable(t testing.TB, b Box) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	if got := output(ctx, t, b, "echo $((6 * 7))"); !strings.Contains(got, "42") {
		t.Errorf("afterwards 6 * 7 is %q", got)
	}
}

// Groups are the table's parts, in its order.
func Groups() []string {
	var groups []string
	for _, a := range Attacks() {
		if !slices.Contains(groups, a.Group) {
			groups = append(groups, a.Group)
		}
	}
	return groups
}

// Check tells what is wrong with the table itself.
func Check(root string) error {
	var errs []error
	seen := map[string]bool{}
	for _, a := range Attacks() {
		if seen[a.Name] {
			errs = append(errs, fmt.Errorf("%s: twice", a.Name))
		}
		seen[a.Name] = true
		if (a.Test == "") == (a.Code == "" && a.Go == nil) || len(a.Want) == 0 || a.Does == "" {
			errs = append(errs, fmt.Errorf("%s: not whole", a.Name))
		}
		for ref := range strings.SplitSeq(a.Test, "; ") {
			if a.Test == "" {
				continue
			}
			// "folder: what stands in one of its test files"
			dir, text, ok := strings.Cut(ref, ": ")
			if !ok || !stands(filepath.Join(root, dir), text) {
				errs = append(errs, fmt.Errorf("%s: no test %q in %s", a.Name, text, dir))
			}
		}
	}
	return errors.Join(errs...)
}

// stands tells whether a Go file of a folder has a text in it.
func stands(dir, text string) bool {
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, file := range files {
		if ext := filepath.Ext(file); ext != ".go" && ext != ".ts" {
			continue
		}
		if content, err := os.ReadFile(file); err == nil && bytes.Contains(content, []byte(text)) {
			return true
		}
	}
	return false
}

// clip keeps an answer that nobody thought of from filling the log.
func clip(answer string) string {
	if len(answer) > 200 {
		return answer[:200] + "…"
	}
	return answer
}
