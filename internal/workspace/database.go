package workspace

import (
	"context"
	"os"

	"github.com/caesarion/caesarion/internal/store"
)

// database is Blobs in the Postgres database of several servers. What is put
// stays for an hour even if nobody names it: another of them may be about to.
type database struct{ store *store.Store }

func (b database) Put(ctx context.Context, hash string, size int64, from *os.File) error {
	return b.store.PutBlob(ctx, hash, size, from)
}

// Sync has nothing to do: Put returns after a commit.
func (b database) Sync([]string) error { return nil }

func (b database) Open(ctx context.Context, hash string) (Blob, error) {
	blob, err := b.store.OpenBlob(ctx, hash)
	if err != nil {
		return nil, err // a nil *store.Blob is not a nil Blob
	}
	return blob, nil
}

func (b database) Has(ctx context.Context, hash string) (bool, error) {
	return b.store.HasBlob(ctx, hash)
}

// Delete leaves the question who names them to the database, which knows of
// all servers.
func (b database) Delete(ctx context.Context, hashes []string, _ func(string) (bool, error)) error {
	return b.store.DeleteBlobs(ctx, hashes)
}

func (b database) List(ctx context.Context, fn func(hash string) error) error {
	hashes, err := b.store.UnusedBlobs(ctx)
	if err != nil {
		return err
	}
	for _, hash := range hashes {
		if err := fn(hash); err != nil {
			return err
		}
	}
	return nil
}
