package image_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/image"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CAESARION_TEST_IMPORT_INTO"); dir != "" {
		importForever(dir, os.Getenv("CAESARION_TEST_IMPORT_FROM"))
	}
	goleak.VerifyTestMain(m,
		// Idle connections of the test registry's client; they end by themselves.
		goleak.IgnoreTopFunction("net/http.(*persistConn).readLoop"),
		goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop"),
		goleak.IgnoreTopFunction("internal/poll.runtime_pollWait"),
	)
}

func code(err error) string {
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		return e.Code
	}
	return fmt.Sprint(err)
}

func TestResolve(t *testing.T) {
	s := newStore(t)
	one := importTar(t, s, "one", withPython(file("x", "1")))
	two := importTar(t, s, "two", withPython(file("x", "2")))
	hex := strings.TrimPrefix(one.Digest, "sha256:")
	for _, query := range []string{"one", one.Digest, hex, hex[:12], "sha256:" + hex[:8]} {
		got, err := s.Resolve(query)
		if err != nil || got.Digest != one.Digest || got.Name != "one" {
			t.Errorf("%s: got %s %s, %v, want one", query, got.Name, got.Digest, err)
		}
	}
	for query, want := range map[string]string{
		"three": "image-not-found", "": "image-not-found", hex[:3]: "image-not-found", "../catalog": "image-not-found",
		strings.Repeat("0", 64): "image-not-found",
	} {
		if _, err := s.Resolve(query); code(err) != want || !errors.Is(err, errdefs.ErrNotFound) {
			t.Errorf("%q: got %v, want %s", query, err, want)
		}
	}
	if err := os.Remove(two.EROFSPath); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("two"); code(err) != "image-damaged" {
		t.Errorf("an image that lost its file: got %v, want image-damaged", err)
	}
}

func TestListAndRemove(t *testing.T) {
	data := t.TempDir()
	s, err := image.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	path := writeTemp(t, "root.tar", makeTar(t, withPython(file("x", "1"))))
	for _, name := range []string{"b", "a"} { // one image, two names
		if _, err := s.Import(t.Context(), path, image.ImportOptions{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	first, err := s.Resolve("a")
	if err != nil {
		t.Fatal(err)
	}
	second := importTar(t, s, "b", withPython(file("x", "2"))) // takes a name away
	var got []string
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		got = append(got, img.Name+" "+img.Digest)
	}
	if diff := cmp.Diff([]string{"a " + first.Digest, "b " + second.Digest}, got); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	d, err := s.Inspect(second.Digest)
	if err != nil || len(d.Layers) != 1 || !cmp.Equal(d.Names, []string{"b"}) {
		t.Errorf("inspect: got %+v, %v", d, err)
	}

	busy := func(digest string) bool { return digest == second.Digest }
	if err := s.Remove(t.Context(), "b", busy, nil); code(err) != "image-in-use" || !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("remove an image in use: got %v, want image-in-use", err)
	}
	if err := s.Remove(t.Context(), "none", nil, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("remove nothing: got %v, want not found", err)
	}
	if err := s.Remove(t.Context(), "a", busy, nil); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(first.EROFSPath); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a's file: got %v, want that it is gone", err)
	}
	if _, err := s.Resolve("b"); err != nil {
		t.Errorf("b after the removal of a: %v", err)
	}
	if err := s.Remove(t.Context(), second.Digest[:20], nil, nil); err != nil {
		t.Error(err)
	}
	wantEmpty(t, data)
}

func TestRemoveOneOfTwoNames(t *testing.T) {
	s := newStore(t)
	path := writeTemp(t, "root.tar", makeTar(t, withPython()))
	if err := os.Chtimes(path, longAgo, longAgo); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b"} {
		if _, err := s.Import(t.Context(), path, image.ImportOptions{Name: name}, nil); err != nil {
			t.Fatal(err)
		}
	}
	// The name may go although the image is in use: its files stay.
	if err := s.Remove(t.Context(), "a", func(string) bool { return true }, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resolve("a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a: got %v, want not found", err)
	}
	if img, err := s.Resolve("b"); err != nil {
		t.Error(err)
	} else {
		openEROFS(t, img.EROFSPath)
	}
}

// A writer waits for the one before, says so, and stops waiting with its context.
func TestWritersWait(t *testing.T) {
	s := newStore(t)
	unlock, err := s.TryLock()
	if err != nil {
		t.Fatal(err)
	}
	path := writeTemp(t, "root.tar", makeTar(t, withPython()))
	reason := errors.New("tired of waiting")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err = s.Import(ctx, path, image.ImportOptions{Name: "never"}, func(u image.Update) {
		if u.Stage == image.StageWaiting {
			cancel(reason)
		}
	})
	if !errors.Is(err, reason) {
		t.Errorf("got %v, want the context's cause", err)
	}

	waiting := make(chan struct{})
	var once sync.Once
	done := make(chan error, 1)
	go func() {
		_, err := s.Import(t.Context(), path, image.ImportOptions{Name: "later"}, func(u image.Update) {
			if u.Stage == image.StageWaiting {
				once.Do(func() { close(waiting) })
			}
		})
		done <- err
	}()
	<-waiting
	// Whoever opens the store meanwhile must not take the writer's work away.
	leftover := filepath.Join(s.OCILayout(), "tmp", "in-progress")
	if err := os.WriteFile(leftover, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Open(filepath.Dir(s.OCILayout())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(leftover); err != nil {
		t.Errorf("Open removed the work of a running writer: %v", err)
	}
	if _, err := s.Resolve("later"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("got %v before the first writer ended", err)
	}
	unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Concurrent imports into one store, of which two are of one image, all succeed.
func TestConcurrentImports(t *testing.T) {
	s := newStore(t)
	var wg sync.WaitGroup
	for i := range 6 {
		path := writeTemp(t, "root.tar", makeTar(t, withPython(file("x", fmt.Sprint(i/2)))))
		wg.Go(func() {
			if _, err := s.Import(t.Context(), path, image.ImportOptions{Name: fmt.Sprintf("image-%d", i)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := s.List()
	if err != nil || len(list) != 6 {
		t.Errorf("got %d images, %v, want 6", len(list), err)
	}
}

// importForever is a child process that is killed at a random moment.
func importForever(dir, from string) {
	s, err := image.Open(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		name := fmt.Sprintf("image-%d", i%2)
		if _, err := s.Import(context.Background(), from, image.ImportOptions{Name: name}, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if err := s.Remove(context.Background(), name, nil, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// A writer that is killed leaves whole images or nothing, and no other files.
func TestKilledWriterLeavesNothing(t *testing.T) {
	data := t.TempDir()
	var more []entry
	for i := range 300 {
		more = append(more, file(fmt.Sprintf("data/%d", i), strings.Repeat("x", i*40)))
	}
	from := writeTemp(t, "root.tar", makeTar(t, withPython(more...)))
	rng := rand.New(rand.NewPCG(1, 2))
	whole := 0
	for range 25 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "CAESARION_TEST_IMPORT_INTO="+data, "CAESARION_TEST_IMPORT_FROM="+from)
		var out strings.Builder
		cmd.Stderr = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30*time.Millisecond + time.Duration(rng.IntN(120))*time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); !strings.Contains(fmt.Sprint(err), "killed") {
			t.Fatalf("the writer ended by itself: %v\n%s", err, out.String())
		}

		s, err := image.Open(data)
		if err != nil {
			t.Fatal(err)
		}
		list, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		keep := map[string]bool{}
		for _, img := range list {
			whole++
			fsys := openEROFS(t, img.EROFSPath)
			if got := len(readFile(t, fsys, "data/299")); got != 299*40 {
				t.Errorf("a file of a believed image has %d bytes", got)
			}
			checkLayout(t, s, img.Digest)
			keep[filepath.Base(img.EROFSPath)] = true
		}
		for _, dir := range []string{"tmp", "erofs"} {
			entries, err := os.ReadDir(filepath.Join(data, "images", dir))
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if !keep[e.Name()] {
					t.Errorf("%s/%s is left", dir, e.Name())
				}
			}
		}
	}
	t.Logf("%d of 25 kills met a whole image", whole)
}

func TestOpenRefusesANewerStore(t *testing.T) {
	data := t.TempDir()
	if _, err := image.Open(data); err != nil {
		t.Fatal(err)
	}
	content := []byte(`{"version": 99, "names": {}, "images": {}}`)
	if err := os.WriteFile(filepath.Join(data, "images", "catalog.json"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Open(data); !errors.Is(err, errdefs.ErrUnsupported) {
		t.Errorf("got %v, want unsupported", err)
	}
}
