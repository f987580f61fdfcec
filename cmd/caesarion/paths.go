package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caesarion/caesarion/internal/config"
	"github.com/caesarion/caesarion/internal/errdefs"
)

// What is in the data directory, besides what image, driver and agent keep:
//
//	token             the server's token, 0600
//	server.json       the running server, 0600; gone when none runs
//	server.lock       locked while a process uses state/
//	state/            the sandboxes of the server
//	solo/<random>/    those of one command that runs without a server
//	shell_history     lines typed into caesarion shell, 0600
const (
	tokenFile  = "token"
	serverFile = "server.json"
	lockFile   = "server.lock"
	stateDir   = "state"
	soloDir    = "solo"
	imagesDir  = "images"
	agentsDir  = "agents"
)

// serverRecord is server.json: how commands of the same user find the server.
type serverRecord struct {
	URL       string    `json:"url"`
	Token     string    `json:"token,omitempty"`      // the file is as secret as the token file
	TLSSHA256 string    `json:"tls_sha256,omitempty"` // of the certificate, which may name another host or be self-signed
	PID       int       `json:"pid"`
	StartedAt time.Time `json:"started_at"`
}

// makeDataDir makes the data directory, which holds secrets and users' files.
func makeDataDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errdefs.New(errdefs.ErrInvalid, "data-dir-unusable", "the data directory can't be made").
			WithHint("name another with --data-dir, or make it writable").WithCause(err)
	}
	return nil
}

// loadToken gives the server's token: the one that settings name, or the one
// in the data directory, made at the first start.
func loadToken(base config.Base) (config.Secret, error) {
	if token, err := base.Token(); token != "" || err != nil {
		return token, err
	}
	path := filepath.Join(base.DataDir, tokenFile)
	own := config.Base{TokenFile: path}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		if err := writeSecret(path, []byte(newToken()+"\n")); err != nil {
			return "", err
		}
	}
	return own.Token()
}

// newToken makes a token of 256 random bits.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// writeSecret writes a file that only its owner can read, all of it or nothing.
func writeSecret(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

func writeServerRecord(dataDir string, rec serverRecord) error {
	text, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	return writeSecret(filepath.Join(dataDir, serverFile), append(text, '\n'))
}

// readServerRecord gives the record of the server that runs, or said it runs,
// on a data directory.
func readServerRecord(dataDir string) (serverRecord, error) {
	var rec serverRecord
	text, err := os.ReadFile(filepath.Join(dataDir, serverFile))
	if err != nil {
		return rec, err
	}
	if err := json.Unmarshal(text, &rec); err != nil {
		return rec, fmt.Errorf("%s: %w", serverFile, err)
	}
	return rec, nil
}

// fileLock is a lock that the kernel lets go when its process ends, however.
type fileLock struct{ f *os.File }

// errLocked says that another process has the lock.
var errLocked = errors.New("locked by another process")

// tryLock takes the lock of a file, which stays when the lock is let go:
// removing it would let two processes lock two files of one name.
func tryLock(path string) (*fileLock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &fileLock{f}, nil
}

// Close lets the lock go.
func (l *fileLock) Close() error { return l.f.Close() }

// lockData takes the lock of the data directory's sandboxes, waiting a moment
// for commands that only hold it briefly.
func lockData(dataDir string, wait time.Duration) (*fileLock, error) {
	for deadline := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		lock, err := tryLock(filepath.Join(dataDir, lockFile))
		if !errors.Is(err, errLocked) {
			return lock, err
		}
		if time.Now().Before(deadline) {
			continue
		}
		who := "another caesarion process"
		if rec, err := readServerRecord(dataDir); err == nil {
			who = fmt.Sprintf("the server with process id %d, at %s,", rec.PID, rec.URL)
		}
		return nil, errdefs.New(errdefs.ErrConflict, "data-dir-in-use", "%s uses the data directory %s", who, dataDir).
			WithHint("stop it first, or name another data directory with --data-dir")
	}
}
