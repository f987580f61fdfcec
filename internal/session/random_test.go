package session_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/session"
)

// Whatever people and the model do with a thread, its log gives the same thread
// as its detail, nothing is there twice, and a restart changes nothing.
func TestAnyHistory(t *testing.T) {
	w := newWorld(t, false)
	svc := w.start(t)
	rapid.Check(t, func(rt *rapid.T) {
		s, err := svc.Create(t.Context(), v1.CreateSession{})
		if err != nil {
			rt.Fatal(err)
		}
		var removed []string
		visible := func() []v1.Item { return s.Detail().Items }
		pick := func(what string) string {
			list := visible()
			if len(list) == 0 {
				return ""
			}
			return list[rapid.IntRange(0, len(list)-1).Draw(rt, what)].ID
		}
		n := 0
		actions := map[string]func(*rapid.T){
			"add": func(rt *rapid.T) {
				n++
				after := pick("after")
				if rapid.Bool().Draw(rt, "first") {
					after = ""
				}
				if _, err := s.AddItem(v1.CreateItem{Kind: "note", Text: fmt.Sprint(n), After: &after}); err != nil {
					rt.Fatal(err)
				}
			},
			"remove": func(rt *rapid.T) {
				if id := pick("item"); id != "" {
					if err := s.RemoveItem(id); err != nil {
						rt.Fatal(err)
					}
					removed = append(removed, id)
				}
			},
			"restore": func(rt *rapid.T) {
				if len(removed) == 0 {
					return
				}
				i := rapid.IntRange(0, len(removed)-1).Draw(rt, "which")
				if _, err := s.RestoreItem(removed[i]); err != nil {
					rt.Fatal(err)
				}
				if !slices.ContainsFunc(visible(), func(it v1.Item) bool { return it.ID == removed[i] }) {
					// It may belong to a branch that is not shown; choosing it shows it.
					if err := s.Select(removed[i]); err != nil {
						rt.Fatalf("restored, but not in the tree: %v", err)
					}
				}
				removed = slices.Delete(removed, i, i+1)
			},
			"move": func(rt *rapid.T) {
				id, to := pick("item"), pick("to")
				if id == "" || id == to {
					return
				}
				if _, err := s.UpdateItem(id, v1.UpdateItem{After: &to}); err != nil {
					rt.Fatal(err)
				}
				list := visible()
				i := slices.IndexFunc(list, func(it v1.Item) bool { return it.ID == id })
				if i < 1 || list[i-1].ID != to {
					rt.Fatalf("moved behind %s, but is at %d", to, i)
				}
			},
			"undo a removal": func(rt *rapid.T) {
				id := pick("item")
				if id == "" {
					return
				}
				before := ids(visible())
				if err := s.RemoveItem(id); err != nil {
					rt.Fatal(err)
				}
				if _, err := s.RestoreItem(id); err != nil {
					rt.Fatal(err)
				}
				if diff := cmp.Diff(before, ids(visible())); diff != "" {
					rt.Fatalf("removed and restored: %s", diff)
				}
			},
			"turn": func(rt *rapid.T) {
				start := session.TurnStart{Text: "m"}
				for _, it := range visible() {
					if it.Kind == "user" && rapid.Bool().Draw(rt, "replace") {
						start.Replaces = it.ID
					}
					if it.Kind == "assistant" && rapid.IntRange(0, 3).Draw(rt, "again") == 0 {
						start = session.TurnStart{RegenerateOf: it.ID}
					}
				}
				turn, err := s.BeginTurn(t.Context(), start)
				if err != nil {
					if codeOf(err) == "nothing-to-regenerate" { // its message was removed
						return
					}
					rt.Fatal(err)
				}
				for range rapid.IntRange(0, 2).Draw(rt, "texts") {
					id, err := turn.StartText()
					if err != nil {
						rt.Fatal(err)
					}
					_ = turn.Append(id, "text", "a")
				}
				turn.Finish("ok", "", "")
			},
			"select": func(rt *rapid.T) {
				for _, it := range visible() {
					if len(it.Siblings) > 0 && rapid.Bool().Draw(rt, "this") {
						to := it.Siblings[rapid.IntRange(0, len(it.Siblings)-1).Draw(rt, "sibling")]
						if err := s.Select(to); err != nil {
							rt.Fatal(err)
						}
						return
					}
				}
			},
			"": func(rt *rapid.T) {
				list := ids(visible())
				sorted := slices.Sorted(slices.Values(list))
				if len(slices.Compact(sorted)) != len(list) {
					rt.Fatalf("twice in the thread: %v", list)
				}
			},
		}
		rt.Repeat(actions)
		d := s.Detail()
		view := session.NewView(v1.SessionDetail{})
		for _, line := range everything(t, s, d.LastSeq) {
			if err := view.Apply(line); err != nil {
				rt.Fatalf("%s: %v", line, err)
			}
		}
		if diff := cmp.Diff(asJSON(t, d.Items), asJSON(t, view.Items())); diff != "" {
			rt.Fatalf("the log gives another thread (-detail +log):\n%s", diff)
		}
		session.Forget(s)
		s, err = svc.Get(t.Context(), d.ID)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(asJSON(t, d), asJSON(t, s.Detail())); diff != "" {
			rt.Fatalf("read again from the store (-before +after):\n%s", diff)
		}
	})
}

func ids(items []v1.Item) []string {
	list := make([]string, 0, len(items))
	for _, it := range items {
		list = append(list, it.ID)
	}
	return list
}
