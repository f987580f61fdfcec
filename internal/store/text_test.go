package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/caesarion/caesarion/internal/store"
)

// What people and sandboxes name things comes back as it was, whatever it is.
func TestAnyText(t *testing.T) { onBoth(t, anyText) }

func anyText(t *testing.T, d database) {
	s := d.open(t, store.Options{})
	n := 0
	check := func(fatal func(string, ...any), text string) {
		n++
		row := session(fmt.Sprintf("ses_%d", n))
		row.Title, row.ClientID = text, text+fmt.Sprint(n)
		put(t, s, store.Batch{SessionID: row.ID, Session: row, Events: []store.Event{{Seq: 1, Type: text, Line: []byte(text)}, {Seq: 2, Type: text, Line: []byte(text)}}})
		if got, err := s.SessionByClientID(t.Context(), row.ClientID); err != nil || got.Title != text || got.ClientID != row.ClientID {
			fatal("title %q came back as %q, %v", text, got.Title, err)
		}
		if _, err := s.Session(t.Context(), "x"+text); codeOf(err) != "session-not-found" {
			fatal("a session named %q: %v", text, err)
		}
		if _, err := s.Outputs(t.Context(), text, text); codeOf(err) != "item-not-found" {
			fatal("an item named %q: %v", text, err)
		}
		if e, err := s.Events(t.Context(), row.ID, 0, 9, 1<<20); err != nil || len(e) != 2 || e[1].Type != text || string(e[1].Line) != text {
			fatal("events of type %q: %+v, %v", text, e, err)
		}
		if text == "" {
			return
		}
		want := store.File{Path: text, Type: "symlink", Mode: 0o777, Mtime: -5, Target: text, Lost: text}
		if err := s.ChangeFiles(t.Context(), row.ID, store.FileChanges{Put: []store.File{want}}); err != nil {
			fatal("file %q: %v", text, err)
		}
		want.Mtime = 7
		if err := s.ChangeFiles(t.Context(), row.ID, store.FileChanges{Put: []store.File{want}, Bin: []store.File{want}, BinTime: time.UnixMicro(5)}); err != nil {
			fatal("file %q again: %v", text, err)
		}
		if files, _, err := s.Files(t.Context(), row.ID); err != nil || cmp.Diff(files, []store.File{want}) != "" {
			fatal("file %q came back as %+v, %v", text, files, err)
		}
		if files, at, err := s.BinnedFiles(t.Context(), row.ID, text); err != nil || len(files) != 1 || at.UnixMicro() != 5 {
			fatal("file %q in the bin: %+v, %v, %v", text, files, at, err)
		}
		if err := s.ChangeFiles(t.Context(), row.ID, store.FileChanges{Delete: []string{text}, Unbin: []string{text}, UnbinAt: time.UnixMicro(5)}); err != nil {
			fatal("file %q is deleted: %v", text, err)
		}
		if files, _, err := s.Files(t.Context(), row.ID); err != nil || len(files) != 0 {
			fatal("file %q is still there: %+v, %v", text, files, err)
		}
	}
	for _, text := range []string{"", "\x00", "a\x00b", "\xff\xfe", "a\xc3", "\uFDD0", "\uFDD000", "\uFDD0\xef\xb7", "\uFFFD", "ä\u0000ö", `a\b%_'"`, "?", "$1"} {
		check(t.Fatalf, text)
	}
	rapid.Check(t, func(rt *rapid.T) {
		raw := rapid.SliceOfN(rapid.ByteRange(0, 255), 0, 20).Draw(rt, "bytes")
		check(rt.Fatalf, rapid.OneOf(rapid.StringN(0, 20, 60), rapid.Just(string(raw))).Draw(rt, "text"))
	})
}

// The longest path that Linux has is longer than an entry of an index may be.
func TestLongPaths(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		s := d.open(t, store.Options{})
		put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
		var long strings.Builder
		for i := 0; long.Len() < 4090; i++ { // what can't be compressed
			fmt.Fprintf(&long, "/%x", i*7919*104729)
		}
		file := store.File{Path: long.String(), Type: "file", Mode: 0o644}
		for _, size := range []int64{1, 2} {
			file.Size = size
			if err := s.ChangeFiles(t.Context(), "ses_a", store.FileChanges{Put: []store.File{file}, Bin: []store.File{file}, BinTime: time.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		if files, _, err := s.Files(t.Context(), "ses_a"); err != nil || len(files) != 1 || files[0].Path != file.Path || files[0].Size != 2 {
			t.Errorf("%d files, %v", len(files), err)
		}
	})
}

func TestEventsArePagedBySize(t *testing.T) {
	onBoth(t, func(t *testing.T, d database) {
		s := d.open(t, store.Options{})
		b := store.Batch{SessionID: "ses_a", Session: session("ses_a")}
		for i := range int64(5000) {
			b.Events = append(b.Events, store.Event{Seq: i + 1, Type: "a", Line: []byte(strings.Repeat("x", int(i%50)))})
		}
		put(t, s, b)
		for _, page := range []int64{1, 1000, 1 << 30} {
			next, pages := int64(1), 0
			for ; next <= 4000; pages++ {
				list, err := s.Events(t.Context(), "ses_a", next-1, 4000, page)
				if err != nil || len(list) == 0 {
					t.Fatalf("after %d: %v", next-1, err)
				}
				size := int64(0)
				for i, e := range list {
					if e.Seq != next || len(e.Line) != int((e.Seq-1)%50) {
						t.Fatalf("event %d follows %d", e.Seq, next-1)
					}
					if i > 0 && size >= page {
						t.Fatalf("a page has %d bytes and more, and may have %d", size, page)
					}
					size += int64(len(e.Line)) + 64
					next++
				}
				if page == 1 && pages > 20 {
					break
				}
			}
		}
	})
}
