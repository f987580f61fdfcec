package httpapitest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// pause puts a sandbox to sleep.
func (s *Server) pause(t testing.TB, id string) v1.Sandbox {
	t.Helper()
	sb := into[v1.Sandbox](t, s.send(t, "POST", "/v1/sandboxes/"+id+"/pause", nil), 200)
	if sb.State != "paused" || sb.PausedAt == nil || sb.SavedBytes <= 0 {
		t.Fatalf("paused = %+v", sb)
	}
	return sb
}

func (s *Server) get(t testing.TB, id string) v1.Sandbox {
	t.Helper()
	return into[v1.Sandbox](t, s.do(t, "GET", "/v1/sandboxes/"+id, nil), 200)
}

// snapshot saves a sandbox; what is saved goes with the test.
func (s *Server) snapshot(t testing.TB, id, name string) v1.Snapshot {
	t.Helper()
	a := s.send(t, "POST", "/v1/sandboxes/"+id+"/snapshot", v1.SnapshotSandbox{Name: name})
	snap := into[v1.Snapshot](t, a, 201)
	t.Cleanup(func() { s.do(t, "DELETE", "/v1/snapshots/"+snap.ID, nil) })
	if a.Header.Get("Location") != "/v1/snapshots/"+snap.ID || snap.SandboxID != id || snap.Name != name || !snap.Memory || snap.MemoryBytes <= 0 {
		t.Errorf("snapshot = %+v", snap)
	}
	return snap
}

func (s *Server) snapshots(t testing.TB) []v1.Snapshot {
	t.Helper()
	return into[v1.SnapshotList](t, s.do(t, "GET", "/v1/snapshots", nil), 200).Snapshots
}

// capableTest is a test of what only some drivers can do. That the others say
// so and refuse is a test of its own.
type capableTest struct {
	needs string // empty: nothing
	test
}

func needing(capability, name string, run func(t *testing.T, s *Server, id string)) capableTest {
	return capableTest{capability, test{name, run}}
}

// sleepTests are the tests for a driver that can do so much.
func sleepTests(can []string) []test {
	var out []test
	for _, t := range sleepAndCopyTests {
		if t.needs == "" || slices.Contains(can, t.needs) {
			out = append(out, t.test)
		}
	}
	return out
}

var sleepAndCopyTests = []capableTest{
	needing(sandbox.CanPause, "a sleeping sandbox wakes with its variables, by itself", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		s.run(t, sb.ID, "x = 41\nf = open('kept.txt', 'w'); f.write('before'); f.flush()")
		s.pause(t, sb.ID)
		// Looking at it wakes nothing.
		for _, path := range []string{"/v1/sandboxes", "/v1/sandboxes/" + sb.ID, "/v1/sandboxes/" + sb.ID + "/usage", "/v1/sandboxes/" + sb.ID + "/executions", "/v1/info", "/health", "/sandboxes"} {
			if a := s.do(t, "GET", path, nil); a.Status != 200 {
				t.Errorf("GET %s = %d %s", path, a.Status, a.Body)
			}
		}
		if info := into[v1.Info](t, s.do(t, "GET", "/v1/info", nil), 200); info.Sandboxes.Paused != 1 {
			t.Errorf("counted = %+v, want one asleep", info.Sandboxes)
		}
		if got := s.get(t, sb.ID); got.State != "paused" {
			t.Fatalf("looking at it woke it: %+v", got)
		}
		if again := s.pause(t, sb.ID); !again.PausedAt.Equal(*s.get(t, sb.ID).PausedAt) {
			t.Errorf("a second pause changed it: %+v", again)
		}
		if got := s.run(t, sb.ID, "x += 1; f.write(' and after'); f.close(); (x, open('kept.txt').read())"); result(t, got) != "(42, 'before and after')" {
			t.Errorf("after the sleep: %+v", got)
		}
		got := s.get(t, sb.ID)
		if got.State != "running" || got.PausedAt != nil || got.SavedBytes != 0 || got.Restarted != nil {
			t.Errorf("awake = %+v", got)
		}
	}),
	needing(sandbox.CanPause, "any call wakes, and many at once wake it once", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		s.run(t, sb.ID, "n = 0")
		for _, call := range []struct{ method, path, body string }{
			{"POST", "/resume", ""},
			{"GET", "/kernels", ""},
			{"GET", "/files?path=/workspace", ""},
			{"PUT", "/files/content?path=/workspace/put.txt", "x"},
			{"POST", "/processes", `{"command":"true"}`},
			{"POST", "/kernels/default/complete", `{"code":"impor"}`},
		} {
			s.pause(t, sb.ID)
			a := s.do(t, call.method, "/v1/sandboxes/"+sb.ID+call.path, strings.NewReader(call.body), header{"Content-Type", "application/json"})
			if a.Status != 200 && a.Status != 201 {
				t.Errorf("%s %s = %d %s", call.method, call.path, a.Status, a.Body)
			}
			if got := s.get(t, sb.ID); got.State != "running" {
				t.Errorf("%s %s left it %s", call.method, call.path, got.State)
			}
		}
		s.pause(t, sb.ID)
		const readers = 8
		done := make(chan int, readers)
		for range readers {
			go func() {
				resp, err := post(t, s, "/v1/sandboxes/"+sb.ID+"/executions", strings.NewReader(`{"code":"n += 1"}`))
				if err != nil {
					t.Error(err)
					done <- 0
					return
				}
				done <- resp.StatusCode
			}()
		}
		for range readers {
			if status := <-done; status != 200 {
				t.Errorf("status = %d", status)
			}
		}
		if got := s.run(t, sb.ID, "n"); result(t, got) != "8" {
			t.Errorf("n = %s, want 8", result(t, got))
		}
	}),
	needing(sandbox.CanPause, "the original's calls and sessions wake a sandbox as well", func(t *testing.T, s *Server, _ string) {
		made := into[struct {
			ID string `json:"id"`
		}](t, s.send(t, "POST", "/sandboxes", map[string]string{"lang": "python"}), 200)
		sb, ok := s.Fleet.BySeedID(made.ID)
		if !ok {
			t.Fatalf("no sandbox %s", made.ID)
		}
		id := string(sb.ID())
		t.Cleanup(func() { s.delete(t, id) })
		s.run(t, id, "x = 41")
		s.pause(t, id)
		if a := s.do(t, "GET", "/sandboxes/"+made.ID, nil); a.Status != 200 || !strings.Contains(string(a.Body), `"status":"Running"`) {
			t.Errorf("asleep, the original's view = %d %s", a.Status, a.Body)
		}
		if a := s.send(t, "POST", "/sandboxes/"+made.ID+"/execute", map[string]string{"code": "print(x + 1)"}); a.Status != 200 || !strings.Contains(string(a.Body), `"42\n"`) {
			t.Errorf("execute = %d %s", a.Status, a.Body)
		}
	}),
	needing(sandbox.CanPause, "a sandbox in which something runs is not put to sleep", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		exe := s.start(t, sb.ID, v1.Execute{Code: "import time\nfor i in range(600): time.sleep(0.1)"})
		s.await(t, sb.ID, exe.ID, running)
		if p := wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/pause", nil), 409, "sandbox-busy"); p.Hint == "" {
			t.Errorf("what to do? %+v", p)
		}
		if got := s.get(t, sb.ID); got.State != "running" {
			t.Errorf("state = %s", got.State)
		}
		if a := s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/executions/"+exe.ID+"/interrupt", nil); a.Status != 204 {
			t.Errorf("interrupt = %d %s", a.Status, a.Body)
		}
		s.await(t, sb.ID, exe.ID, finished)
		s.pause(t, sb.ID)
		if got := s.run(t, sb.ID, "1 + 1"); result(t, got) != "2" {
			t.Errorf("after the sleep: %+v", got)
		}
	}),
	needing(sandbox.CanPause, "an unused sandbox goes to sleep by itself, and never when asked not to", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{PauseAfterMS: 200})
		if sb.PauseAfterMS != 200 {
			t.Errorf("pause_after_ms = %d", sb.PauseAfterMS)
		}
		awake := s.create(t, v1.CreateSandbox{PauseAfterMS: -1})
		if awake.PauseAfterMS != 0 {
			t.Errorf("never is shown as %d", awake.PauseAfterMS)
		}
		s.run(t, sb.ID, "x = 1")
		for end := time.Now().Add(patience); s.get(t, sb.ID).State != "paused"; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it never slept: %+v", s.get(t, sb.ID))
			}
		}
		if got := s.get(t, awake.ID); got.State != "running" {
			t.Errorf("the other one is %s", got.State)
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes", map[string]any{"pause_after_ms": -2}), 422, "invalid-request")
	}),
	needing(sandbox.CanFork, "a copy has the variables and the files and goes its own way", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{Labels: map[string]string{"who": "me"}})
		s.run(t, sb.ID, "import random\nx = 41\nopen('a.txt', 'w').write('a')")
		list := into[v1.SandboxList](t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/fork", v1.ForkSandbox{Count: 2}), 201)
		ids := map[string]bool{sb.ID: true}
		for _, c := range list.Sandboxes {
			t.Cleanup(func() { s.delete(t, c.ID) })
			ids[c.ID] = true
			if c.Labels["who"] != "me" || c.State != "running" {
				t.Errorf("copy = %+v", c)
			}
		}
		if len(list.Sandboxes) != 2 || len(ids) != 3 {
			t.Fatalf("copies = %+v", list)
		}
		seen := map[string]bool{}
		for id := range ids {
			if got := s.run(t, id, "x += 1; open('a.txt').read() + str(x)"); result(t, got) != "'a42'" {
				t.Errorf("%s: %+v", id, got)
			}
			seen[result(t, s.run(t, id, "random.random()"))] = true
		}
		if len(seen) != 3 {
			t.Errorf("random numbers are shared: %v", seen)
		}
		if got := s.snapshots(t); len(got) != 0 {
			t.Errorf("copies left snapshots: %+v", got)
		}
	}),
	needing(sandbox.CanFork, "a cell goes on in the original and is interrupted in the copy", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		exe := s.start(t, sb.ID, v1.Execute{Code: "import time\nx = 1\nfor i in range(20):\n    print(i, flush=True); time.sleep(0.1)"})
		s.await(t, sb.ID, exe.ID, func(e v1.Execution) bool { return strings.Contains(text(e, "stdout"), "1\n") })
		list := into[v1.SandboxList](t, s.send(t, "POST", "/v1/sandboxes/"+sb.ID+"/fork", v1.ForkSandbox{Labels: map[string]string{"try": "1"}}), 201)
		if len(list.Sandboxes) != 1 || list.Sandboxes[0].Labels["try"] != "1" {
			t.Fatalf("copies = %+v", list)
		}
		copied := list.Sandboxes[0].ID
		t.Cleanup(func() { s.delete(t, copied) })
		if got := s.run(t, copied, "x + 1"); result(t, got) != "2" {
			t.Errorf("the copy = %+v", got)
		}
		var want strings.Builder
		for i := range 20 {
			fmt.Fprintln(&want, i)
		}
		if e := s.await(t, sb.ID, exe.ID, finished); e.Status != "ok" || text(e, "stdout") != want.String() {
			t.Errorf("the original = %+v", e)
		}
	}),
	needing(sandbox.CanFork, "copies are all made or none", func(t *testing.T, s *Server, id string) {
		before := s.Fleet.Count()
		for _, count := range []int{17, 1 << 30, -1} {
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/fork", map[string]any{"count": count}), 422, "invalid-request")
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/fork", v1.ForkSandbox{Count: 16}), 429, "too-many-sandboxes")
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/fork", v1.ForkSandbox{Labels: map[string]string{"a\nb": ""}}), 400, "invalid-labels")
		if after := s.Fleet.Count(); after != before {
			t.Errorf("%d sandboxes before, %d after", before, after)
		}
		if got := s.run(t, id, "1 + 1"); result(t, got) != "2" {
			t.Errorf("the sandbox itself: %+v", got)
		}
	}),
	needing(sandbox.CanFork, "a client that leaves while a sandbox is copied leaves nothing behind", func(t *testing.T, s *Server, id string) {
		before := s.Fleet.Count()
		for _, after := range []time.Duration{time.Millisecond, 20 * time.Millisecond, 60 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(t.Context(), after)
			req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/sandboxes/"+id+"/fork", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+Token)
			resp, err := http.DefaultClient.Do(req)
			if err == nil { // it was quicker
				var list v1.SandboxList
				if err := json.NewDecoder(resp.Body).Decode(&list); err == nil {
					for _, sb := range list.Sandboxes {
						s.delete(t, sb.ID)
					}
				}
				_ = resp.Body.Close()
			}
			cancel()
		}
		for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
			infos, err := s.Driver.List(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(infos) == before && s.Fleet.Count() == before {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%d sandboxes before, %d in the driver, %d in the fleet", before, len(infos), s.Fleet.Count())
			}
		}
		if got := s.run(t, id, "1 + 1"); result(t, got) != "2" {
			t.Errorf("the sandbox itself: %+v", got)
		}
	}),
	needing(sandbox.CanSnapshot, "a snapshot is a start for others", func(t *testing.T, s *Server, _ string) {
		sb := s.create(t, v1.CreateSandbox{})
		s.run(t, sb.ID, "x = 41\nopen('a.txt', 'w').write('a')")
		first := s.snapshot(t, sb.ID, "prepared")
		s.run(t, sb.ID, "x = 0")
		s.delete(t, sb.ID)
		for _, by := range []string{"prepared", first.ID} {
			made := s.create(t, v1.CreateSandbox{Snapshot: by})
			if made.Start != "restore" || made.Restarted != nil {
				t.Errorf("made = %+v", made)
			}
			if got := s.run(t, made.ID, "x += 1; open('a.txt').read() + str(x)"); result(t, got) != "'a42'" {
				t.Errorf("made from %s: %+v", by, got)
			}
			s.delete(t, made.ID)
		}
		// The name goes to the next one; the first keeps its id.
		other := s.create(t, v1.CreateSandbox{})
		s.run(t, other.ID, "x = 'second'")
		second := s.snapshot(t, other.ID, "prepared")
		if got := into[v1.Snapshot](t, s.do(t, "GET", "/v1/snapshots/prepared", nil), 200); got.ID != second.ID {
			t.Errorf("the name gives %+v, want %s", got, second.ID)
		}
		if got := into[v1.Snapshot](t, s.do(t, "GET", "/v1/snapshots/"+first.ID, nil), 200); got.Name != "" {
			t.Errorf("the first still has the name: %+v", got)
		}
		if got := s.snapshots(t); len(got) != 2 || got[0].ID != second.ID {
			t.Errorf("list = %+v", got)
		}
		for _, id := range []string{first.ID, "prepared"} {
			if a := s.do(t, "DELETE", "/v1/snapshots/"+id, nil); a.Status != 204 {
				t.Errorf("delete = %d %s", a.Status, a.Body)
			}
			wantProblem(t, s.do(t, "GET", "/v1/snapshots/"+id, nil), 404, "snapshot-not-found")
			wantProblem(t, s.do(t, "DELETE", "/v1/snapshots/"+id, nil), 404, "snapshot-not-found")
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Snapshot: id}), 404, "snapshot-not-found")
		}
	}),
	needing(sandbox.CanSnapshot, "names of snapshots are names, and lead nowhere", func(t *testing.T, s *Server, id string) {
		before := len(s.snapshots(t))
		for _, name := range []string{"..", ".", "a/b", "template/python", "a b", "\x00", "é", "-x", "snp_aaaaaaaaaaaaaaaaaaaaaaaaaa"} {
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/snapshot", v1.SnapshotSandbox{Name: name}), 400, "snapshot-name-invalid")
		}
		wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+"/snapshot", v1.SnapshotSandbox{Name: strings.Repeat("n", 200)}), 422, "invalid-request")
		for _, name := range []string{"none", "snp_aaaaaaaaaaaaaaaaaaaaaaaaaa", "..%2f..%2fetc", "template%2fpython", "%00"} {
			wantProblem(t, s.do(t, "GET", "/v1/snapshots/"+name, nil), 404, "snapshot-not-found")
			wantProblem(t, s.do(t, "DELETE", "/v1/snapshots/"+name, nil), 404, "snapshot-not-found")
		}
		for _, name := range []string{"none", "snp_aaaaaaaaaaaaaaaaaaaaaaaaaa", "../../etc", "template/python"} {
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes", v1.CreateSandbox{Snapshot: name}), 404, "snapshot-not-found")
		}
		if after := len(s.snapshots(t)); after != before {
			t.Errorf("%d snapshots before, %d after", before, after)
		}
	}),
	needing("", "what the driver can't do is refused and said beforehand", func(t *testing.T, s *Server, id string) {
		info := into[v1.Info](t, s.do(t, "GET", "/v1/info", nil), 200)
		for _, c := range []struct{ what, path, code string }{
			{sandbox.CanPause, "/pause", "pause-unsupported"},
			{sandbox.CanFork, "/fork", "fork-unsupported"},
			{sandbox.CanSnapshot, "/snapshot", "snapshot-unsupported"},
		} {
			if can := slices.Contains(s.Driver.Capabilities().Can, c.what); can != slices.Contains(info.Capabilities.Can, c.what) {
				t.Errorf("%s: the driver says %v, the API %v", c.what, can, info.Capabilities.Can)
			} else if !can {
				wantProblem(t, s.send(t, "POST", "/v1/sandboxes/"+id+c.path, nil), 501, c.code)
			}
		}
		for _, path := range []string{"/pause", "/resume", "/fork", "/snapshot"} {
			wantProblem(t, s.send(t, "POST", "/v1/sandboxes/sbx_aaaaaaaaaaaaaaaaaaaaaaaaaa"+path, nil), 404, "sandbox-not-found")
		}
	}),
	needing("", "hostile: whatever copies and snapshots are asked, the answer is one to act on", func(t *testing.T, s *Server, id string) {
		before, saved := s.Fleet.List(), s.snapshots(t)
		for _, v := range hostileValues {
			for _, call := range [][2]string{{"GET", "/v1/snapshots/" + v}, {"DELETE", "/v1/snapshots/" + v}, {"POST", "/v1/sandboxes/" + v + "/pause"}, {"POST", "/v1/sandboxes/" + v + "/fork"}} {
				if status, code := s.probe(t, call[0], call[1], ""); status < 400 || status > 499 {
					t.Errorf("%s %.60s = %d %s", call[0], call[1], status, code)
				}
			}
		}
		bodies := append([]string{
			`{"count":"2"}`, `{"count":1.5}`, `{"count":-1}`, `{"count":1e400}`, `{"count":17}`, `{"labels":[]}`, `{"labels":{"a":1}}`, `{"labels":{"":""}}`,
			`{"name":1}`, `{"name":"\u0000"}`, `{"name":"../x"}`, `{"name":"template/python"}`, `{"name":"` + strings.Repeat("n", 70_000) + `"}`,
		}, hostileBodies...)
		for _, body := range bodies {
			for _, path := range []string{"/fork", "/snapshot"} {
				status, code := s.probe(t, "POST", "/v1/sandboxes/"+id+path, body)
				if status == 201 { // an empty body is none
					for _, sb := range s.Fleet.List() {
						if !slices.Contains(before, sb) {
							s.delete(t, string(sb.ID()))
						}
					}
					for _, snap := range s.snapshots(t) {
						if !slices.Contains(saved, snap) {
							s.do(t, "DELETE", "/v1/snapshots/"+snap.ID, nil)
						}
					}
				} else if (status < 400 || status > 499) && status != 501 {
					t.Errorf("%s with %.60q = %d %s", path, body, status, code)
				}
			}
		}
		if n := s.Fleet.Count(); n != len(before) || len(s.snapshots(t)) != len(saved) {
			t.Errorf("%d sandboxes before, %d after; snapshots %+v", len(before), n, s.snapshots(t))
		}
		if got := s.run(t, id, "1 + 1"); result(t, got) != "2" {
			t.Errorf("the sandbox itself: %+v", got)
		}
	}),
}
