package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func bytesOf(n int, seed byte) (data []byte, hash string) {
	data = make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data) // never fails
	sum := sha256.Sum256(data)
	return data, string(sum[:])
}

func TestBytesOfFilesInPostgres(t *testing.T) {
	s := openPostgres(t, pgtest.New(t), store.Options{})
	for i, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3<<20 + 17} {
		data, hash := bytesOf(size, byte(i))
		if there, err := s.HasBlob(t.Context(), hash); err != nil || there {
			t.Fatalf("%d bytes: there before: %v, %v", size, there, err)
		}
		for range 2 { // the second time they are there
			if err := s.PutBlob(t.Context(), hash, int64(size), bytes.NewReader(data)); err != nil {
				t.Fatalf("%d bytes: %v", size, err)
			}
		}
		b, err := s.OpenBlob(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		if b.Size() != int64(size) {
			t.Errorf("size %d, want %d", b.Size(), size)
		}
		if err := iotest.TestReader(b, data); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
	_, absent := bytesOf(5, 99)
	if _, err := s.OpenBlob(t.Context(), absent); codeOf(err) != "file-damaged" {
		t.Errorf("absent: %v", err)
	}
	if err := s.DeleteBlobs(t.Context(), []string{absent}); err != nil {
		t.Errorf("deleted though absent: %v", err)
	}
}

func TestBytesThatAreNotWhatTheyAreSaidToBe(t *testing.T) {
	s := openPostgres(t, pgtest.New(t), store.Options{})
	data, hash := bytesOf(2<<20, 1)
	other, _ := bytesOf(2<<20, 2)
	if err := s.PutBlob(t.Context(), hash, int64(len(other)), bytes.NewReader(other)); codeOf(err) != "file-damaged" {
		t.Errorf("other bytes: %v", err)
	}
	if err := s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data[:1<<20])); !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("fewer bytes: %v", err)
	}
	if there, err := s.HasBlob(t.Context(), hash); err != nil || there {
		t.Errorf("half of it is there: %v", err)
	}
	if err := s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)); err != nil {
		t.Error(err)
	}
}

func TestTheSameBytesFromSeveralServers(t *testing.T) {
	at := pgtest.New(t)
	data, hash := bytesOf(5<<20, 1)
	var wg sync.WaitGroup
	for range 3 {
		s := openPostgres(t, at, store.Options{})
		for range 2 {
			wg.Go(func() {
				if err := s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	b, err := openPostgres(t, at, store.Options{}).OpenBlob(t.Context(), hash)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// One server sweeps what another is about to name.
func TestBytesOnTheirWayAreNotSwept(t *testing.T) {
	at := pgtest.New(t)
	s := openPostgres(t, at, store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a")})
	keep := func(hash string, data []byte) {
		t.Helper()
		if err := s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	there := func(what, hash string, want bool) {
		t.Helper()
		if got, err := s.HasBlob(t.Context(), hash); err != nil || got != want {
			t.Errorf("%s: there: %v, want %v, %v", what, got, want, err)
		}
	}
	data, fresh := bytesOf(100, 1)
	keep(fresh, data)
	if err := s.DeleteBlobs(t.Context(), []string{fresh}); err != nil {
		t.Fatal(err)
	}
	there("just came", fresh, true)
	do(t, s.DB(), `UPDATE blobs SET kept_at = now() - interval '2 hours'`)
	keep(fresh, data) // somebody comes with them again
	if err := s.DeleteBlobs(t.Context(), []string{fresh}); err != nil {
		t.Fatal(err)
	}
	there("came again", fresh, true)

	file := store.File{Path: "/workspace/f", Type: "file", Size: 100, Hash: fresh}
	if err := s.ChangeFiles(t.Context(), "ses_a", store.FileChanges{Put: []store.File{file}}); err != nil {
		t.Fatal(err)
	}
	do(t, s.DB(), `UPDATE blobs SET kept_at = now() - interval '2 hours'`)
	if unused, err := s.UnusedBlobs(t.Context()); err != nil || len(unused) != 0 {
		t.Errorf("%d are said to be unused, %v", len(unused), err)
	}
	if err := s.DeleteBlobs(t.Context(), []string{fresh}); err != nil {
		t.Fatal(err)
	}
	there("named", fresh, true)
	bin := time.Now()
	if err := s.ChangeFiles(t.Context(), "ses_a", store.FileChanges{Delete: []string{file.Path}, Bin: []store.File{file}, BinTime: bin}); err != nil {
		t.Fatal(err)
	}
	if err := s.DeleteBlobs(t.Context(), []string{fresh}); err != nil {
		t.Fatal(err)
	}
	there("in the bin", fresh, true)
	if err := s.EmptyFileBin(t.Context(), bin.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if unused, err := s.UnusedBlobs(t.Context()); err != nil || len(unused) != 1 || unused[0] != fresh {
		t.Errorf("%d are said to be unused, %v", len(unused), err)
	}
	if err := s.DeleteBlobs(t.Context(), []string{fresh}); err != nil {
		t.Fatal(err)
	}
	there("nobody's", fresh, false)
	var chunks int
	if err := s.DB().QueryRowContext(t.Context(), `SELECT count(*) FROM blob_chunks`).Scan(&chunks); err != nil || chunks != 0 {
		t.Errorf("%d parts are left, %v", chunks, err)
	}
}

// slow is a file that comes when it may.
type slow struct {
	*bytes.Reader
	entered chan<- struct{}
	may     <-chan struct{}
}

func (s slow) Read(p []byte) (int, error) {
	s.entered <- struct{}{}
	<-s.may
	return s.Reader.Read(p)
}

// Who renews what a replica owns does not wait for files.
func TestFilesKeepNobodyElseWaiting(t *testing.T) {
	s := openPostgres(t, pgtest.New(t), store.Options{})
	const n = 8
	entered, may := make(chan struct{}, 100), make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		data, hash := bytesOf(100, byte(i))
		wg.Go(func() {
			if err := s.PutBlob(t.Context(), hash, 100, slow{bytes.NewReader(data), entered, may}); err != nil {
				t.Error(err)
			}
		})
	}
	for range 4 { // as many as there are connections for them
		<-entered
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := s.DB().PingContext(ctx); err != nil {
		t.Error(err)
	}
	if err := s.Commit(ctx, store.Batch{SessionID: "ses_a", Session: session("ses_a")}); err != nil {
		t.Error(err)
	}
	if _, err := s.Session(ctx, "ses_a"); err != nil {
		t.Error(err)
	}
	close(may)
	wg.Wait()
}
