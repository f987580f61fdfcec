package session_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/session"
)

func titles(t *testing.T, svc *server, req session.ListRequest) string {
	t.Helper()
	list, err := svc.List(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list.Sessions {
		names = append(names, s.Title)
	}
	return strings.Join(names, " ")
}

func TestListSearchAndDelete(t *testing.T) {
	w := newWorld(t, false)
	w.opts.PurgeAfter = 50 * time.Millisecond
	svc := w.start(t)
	made := map[string]*session.Session{}
	for _, name := range []string{"alpha", "beta", "gamma"} {
		s, err := svc.Create(t.Context(), v1.CreateSession{Title: name})
		if err != nil {
			t.Fatal(err)
		}
		made[name] = s
	}
	addCell(t, made["alpha"], "import seaborn as sns\nsns.load_dataset('penguins')")
	if _, err := made["beta"].Update(v1.UpdateSession{Pinned: new(true)}); err != nil {
		t.Fatal(err)
	}
	if got := titles(t, svc, session.ListRequest{}); got != "beta alpha gamma" {
		t.Errorf("list = %s", got)
	}
	for query, want := range map[string]string{
		"gam": "gamma", "PENGUINS": "alpha", "penguins seaborn": "alpha", "penguins nothing": "", "alp": "alpha", "a": "beta alpha gamma",
		`"%_\`: "", "load_data": "alpha",
	} {
		if got := titles(t, svc, session.ListRequest{Query: query}); got != want {
			t.Errorf("search %q = %q, want %q", query, got, want)
		}
	}
	page, err := svc.List(t.Context(), session.ListRequest{Limit: 2})
	if err != nil || len(page.Sessions) != 2 || page.Next == "" {
		t.Fatalf("page = %+v, %v", page, err)
	}
	if got := titles(t, svc, session.ListRequest{Cursor: page.Next}); got != "gamma" {
		t.Errorf("second page = %s", got)
	}
	if _, err := svc.List(t.Context(), session.ListRequest{Cursor: "!"}); codeOf(err) != "invalid-cursor" {
		t.Errorf("a wrong cursor: %v", err)
	}

	if err := made["gamma"].Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := titles(t, svc, session.ListRequest{}) + "|" + titles(t, svc, session.ListRequest{Deleted: true}); got != "beta alpha|gamma" {
		t.Errorf("after a deletion: %s", got)
	}
	if err := made["gamma"].Undelete(); err != nil {
		t.Fatal(err)
	}
	if got := titles(t, svc, session.ListRequest{Query: "gamma"}); got != "gamma" {
		t.Errorf("after its undo: %s", got)
	}
	id := made["alpha"].ID()
	if err := made["alpha"].Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if _, err := svc.Get(t.Context(), id); codeOf(err) == "session-not-found" {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it is never forgotten")
		}
	}
	if got := titles(t, svc, session.ListRequest{Query: "penguins"}); got != "" {
		t.Errorf("its code is still found: %s", got)
	}
}

func TestReadersLearnOfTheListAndOfGaps(t *testing.T) {
	svc := newWorld(t, false).start(t)
	s := create(t, svc)
	d := s.Detail()
	r := s.ReaderFor(d.LastSeq, func(identity.Owner) bool { return true })
	defer r.Close()
	other := create(t, svc)
	batch, err := r.Next(t.Context())
	if err != nil || len(batch) != 1 || batch[0].Type != event.SessionsChanged || batch[0].Seq != 0 {
		t.Fatalf("got %+v, %v", batch, err)
	}
	r2 := other.Reader(1000)
	defer r2.Close()
	_, err = r2.Next(t.Context())
	gap, ok := errors.AsType[*event.GapError](err)
	if !ok {
		t.Fatalf("a number from the future: %v", err)
	}
	r2.Skip(gap.Oldest)
	addCell(t, other, "x")
	if batch, err := r2.Next(t.Context()); err != nil || batch[0].Seq != gap.Oldest {
		t.Errorf("after the gap: %+v, %v", batch, err)
	}
}

func TestASessionLeavesMemoryAndComesBack(t *testing.T) {
	svc := newWorld(t, false).start(t)
	s := create(t, svc)
	id := addCell(t, s, "x = 1")
	want := s.Detail()
	r := s.Reader(0)
	later := time.Now().Add(time.Hour)
	svc.Evict(later)
	if !svc.InMemory(s.ID()) {
		t.Error("a session that is read was put aside")
	}
	r.Close()
	for end := time.Now().Add(patience); svc.InMemory(s.ID()); svc.Evict(later) { // what was written last may be on its way to disk
		if time.Now().After(end) {
			t.Fatal("it stays in memory")
		}
	}
	if _, err := s.AddItem(v1.CreateItem{Kind: "cell"}); codeOf(err) != "session-reloaded" {
		t.Errorf("the old one: %v", err)
	}
	s, err := svc.Get(t.Context(), want.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.Detail(); item(got, id).Code != "x = 1" || got.LastSeq != want.LastSeq {
		t.Errorf("got %+v", got)
	}
	same(t, s)
}

// memory is files that live in memory and says what it was asked.
type memory struct {
	synced, restored atomic.Int64
	copied           atomic.Value
}

func (m *memory) Restore(context.Context, string, *fleet.Sandbox) error {
	m.restored.Add(1)
	return nil
}

func (m *memory) Sync(_ context.Context, _ string, sb *fleet.Sandbox) ([]v1.FileChange, error) {
	defer sb.Use()() // as the real one does
	m.synced.Add(1)
	return []v1.FileChange{{Path: "/workspace/a", Change: "created"}}, nil
}

func (m *memory) Copy(_ context.Context, from, to string) error {
	m.copied.Store(from + " " + to)
	return nil
}

func (m *memory) Forget(context.Context, string) error { return nil }

func TestFilesAreKept(t *testing.T) {
	w := newWorld(t, true)
	files := &memory{}
	w.opts.Files = files
	w.tmpl.IdleTimeout = 700 * time.Millisecond
	svc := w.start(t)
	s := create(t, svc)
	a := addCell(t, s, "1")
	run(t, s, a)
	await(t, s, "the changes", func(d v1.SessionDetail) bool { return len(item(d, a).Changes) == 1 })
	if files.restored.Load() != 1 {
		t.Errorf("restored %d times", files.restored.Load())
	}
	before := files.synced.Load()
	d := await(t, s, "its sandbox to be freed", func(d v1.SessionDetail) bool { return d.Sandbox.State == "none" && d.Sandbox.Reason == "idle" })
	if files.synced.Load() == before {
		t.Error("the files were not kept before the sandbox went")
	}
	if !strings.Contains(d.Sandbox.Message, "files") {
		t.Errorf("message = %q", d.Sandbox.Message)
	}
	to, err := s.Duplicate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := files.copied.Load(); got != s.ID()+" "+to.ID() {
		t.Errorf("copied = %v", got)
	}
	if got := to.Detail(); len(got.Items) != 1 || got.Items[0].ID == a || text(got.Items[0]) != text(item(d, a)) || got.Items[0].Status != "ok" {
		t.Errorf("duplicate = %+v", got)
	}
	same(t, s)
}

func TestOldEventsArePruned(t *testing.T) {
	w := newWorld(t, true)
	w.opts.EventBytes = 200_000
	svc := w.start(t)
	s := create(t, svc)
	var d v1.SessionDetail
	for i := range 4 {
		a := addCell(t, s, "for i in range(6): print(str(i) * 20_000)")
		run(t, s, a)
		d = await(t, s, "the end of cell "+strconv.Itoa(i), status(a, "ok"))
	}
	r := s.Reader(0)
	defer r.Close()
	_, err := r.Next(t.Context())
	gap, ok := errors.AsType[*event.GapError](err)
	if !ok {
		t.Fatalf("got %v, want a gap", err)
	}
	r.Skip(gap.Oldest)
	for last := gap.Oldest - 1; last < d.LastSeq; {
		batch, err := r.Next(t.Context())
		if err != nil {
			t.Fatalf("after %d: %v", last, err)
		}
		if batch[0].Seq != last+1 {
			t.Fatalf("%d follows %d", batch[0].Seq, last)
		}
		last = batch[len(batch)-1].Seq
	}
	whole, err := s.Items(t.Context())
	if err != nil || len(text(whole[0])) != 120_006 {
		t.Errorf("the first cell has %d bytes, %v", len(text(whole[0])), err)
	}
}

func TestASessionOf500ItemsOpensFast(t *testing.T) {
	svc := newWorld(t, false).start(t)
	items := make([]v1.Item, 500)
	for i := range items {
		items[i] = v1.Item{Kind: "cell", Status: "ok", Code: strings.Repeat("x = 1\n", 10), Outputs: []v1.Output{
			{Type: "stream", Name: "stdout", Text: strings.Repeat("a line of output\n", 200)},
			{Type: "display_data", Data: map[string]rawJSON{"image/png": rawJSON(`"` + strings.Repeat("A", 8000) + `"`)}, Metadata: rawJSON("{}")},
		}}
	}
	s, err := svc.Import(t.Context(), v1.CreateSession{}, items)
	if err != nil {
		t.Fatal(err)
	}
	session.Forget(s)
	start := time.Now()
	if s, err = svc.Get(t.Context(), s.ID()); err != nil {
		t.Fatal(err)
	}
	loaded := time.Since(start)
	if n := len(s.Detail().Items); n != 500 {
		t.Fatalf("%d items", n)
	}
	start = time.Now()
	body := s.DetailJSON()
	sent := time.Since(start)
	t.Logf("read from the store in %v, %d bytes of detail in %v", loaded, len(body), sent)
	var d v1.SessionDetail
	if err := json.Unmarshal(body, &d); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(asJSON(t, s.Detail()), asJSON(t, d)); diff != "" {
		t.Errorf("the two details differ:\n%s", diff)
	}
	if d := loaded + sent; d > 5*time.Second { // bounds a mistake, not a busy machine
		t.Errorf("it took %v", d)
	}
}

func TestADatabaseThatCantBeUsed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "caesarion.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openStore(t, path); codeOf(err) != "store-corrupt" {
		t.Errorf("damaged: %v", err)
	}
}

func TestWhatCantBeKeptIsNotShown(t *testing.T) {
	svc := newWorld(t, false).start(t)
	s := create(t, svc)
	addCell(t, s, "kept")
	before := s.Detail()
	r := s.Reader(before.LastSeq)
	defer r.Close()
	exec := func(query string) {
		t.Helper()
		if err := svc.store.Write(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, query)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TRIGGER full BEFORE INSERT ON events BEGIN SELECT RAISE (ABORT, 'as if the disk were full'); END`)
	if it, err := s.AddItem(v1.CreateItem{Kind: "cell", Code: "lost"}); codeOf(err) != "store-failed" {
		t.Errorf("got %+v, %v", it, err)
	}
	for {
		batch, err := r.Next(t.Context())
		if err != nil {
			if codeOf(err) != "store-failed" {
				t.Errorf("the reader gets %v", err)
			}
			break
		}
		if batch[0].Seq != 0 {
			t.Errorf("a reader saw %s", batch[0].Line)
		}
	}
	exec(`DROP TRIGGER full`)
	s, err := svc.Get(t.Context(), s.ID())
	if err != nil {
		t.Fatal(err)
	}
	if d := s.Detail(); len(d.Items) != 1 || d.LastSeq != before.LastSeq {
		t.Errorf("after it: %+v", d)
	}
	addCell(t, s, "again")
	same(t, s)
}
