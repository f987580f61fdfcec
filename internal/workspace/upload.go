package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/store"
)

// Part is a piece of an upload, or all of it.
type Part struct {
	Path      string
	ID        string // the client's random name of the upload; empty: it can't be resumed
	Start     int64  // of Body in the file
	Length    int64  // of Body; -1: what comes is all of the file, however long
	Total     int64  // of the file; -1 with Length -1
	Overwrite bool
	Body      io.Reader
}

// Progress is how far an upload has come.
type Progress struct {
	Offset int64 // bytes that are there, from the beginning
	Total  int64
	File   *v1.File // once it is complete
}

// OffsetError says that a part does not begin where the last one ended.
type OffsetError struct {
	Err *errdefs.Error
	Progress
}

func (e *OffsetError) Error() string { return e.Err.Error() }

// Unwrap gives the failure in words.
func (e *OffsetError) Unwrap() error { return e.Err }

const (
	maxUploadID = 128
	// maxUnfinished bounds the unfinished uploads of a session.
	maxUnfinished = 200
)

// uploads is a folder of unfinished uploads: one folder a session, one file an
// upload, named by digests and the size it will have.
type uploads struct {
	dir string

	mu   sync.Mutex
	busy map[string]bool // files that a request writes to
}

func newUploads(dir string) *uploads { return &uploads{dir: dir, busy: map[string]bool{}} }

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}

func (u *uploads) folder(session string) string { return filepath.Join(u.dir, digest(session)) }

// find gives the file of an upload, and its total; "" if there is none.
func (u *uploads) find(session, key string) (name string, total int64) {
	entries, _ := os.ReadDir(u.folder(session)) // absent: there is none
	for _, e := range entries {
		if text, ok := strings.CutPrefix(e.Name(), key+"."); ok {
			if total, err := strconv.ParseInt(text, 10, 64); err == nil {
				return filepath.Join(u.folder(session), e.Name()), total
			}
		}
	}
	return "", 0
}

// take makes an upload the caller's until it calls release.
func (u *uploads) take(key string) (release func(), ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.busy[key] {
		return nil, false
	}
	u.busy[key] = true
	return func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		delete(u.busy, key)
	}, true
}

// room checks that a session may begin one more upload.
func (u *uploads) room(session string, total, limit int64) error {
	entries, err := os.ReadDir(u.folder(session))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diskError(err)
	}
	sum := total
	for _, e := range entries {
		n, _ := strconv.ParseInt(strings.TrimPrefix(filepath.Ext(e.Name()), "."), 10, 64)
		sum += n
	}
	if len(entries) >= maxUnfinished || sum > limit {
		return errdefs.New(errdefs.ErrExhausted, "too-many-uploads", "the session has %d unfinished uploads already", len(entries)).
			WithHint("complete them; those that nobody goes on with are dropped after a day")
	}
	return nil
}

// sweep removes the uploads that nobody has gone on with since t.
func (u *uploads) sweep(t time.Time) error {
	folders, err := os.ReadDir(u.dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, folder := range folders {
		dir := filepath.Join(u.dir, folder.Name())
		files, err := os.ReadDir(dir)
		errs = append(errs, err)
		for _, f := range files {
			if info, err := f.Info(); err == nil && info.ModTime().Before(t) {
				errs = append(errs, os.Remove(filepath.Join(dir, f.Name())))
			}
		}
		_ = os.Remove(dir) // if it is empty
	}
	return errors.Join(errs...)
}

func (u *uploads) forget(session string) { _ = os.RemoveAll(u.folder(session)) } // else sweep does

// checkUpload refuses what may not be uploaded at all.
func (w *Workspace) checkUpload(p string, total int64) error {
	if total > w.opts.UploadMaxBytes {
		return errdefs.New(errdefs.ErrTooLarge, "upload-too-large", "the file has %s, and an upload may have %s", size(total), size(w.opts.UploadMaxBytes)).
			WithHint("upload a smaller file, or have the operator raise upload_max_bytes")
	}
	allowed, name := w.opts.UploadExtensions, strings.ToLower(path.Base(p))
	if len(allowed) > 0 && !slices.ContainsFunc(allowed, func(a string) bool {
		return strings.HasSuffix(name, "."+strings.ToLower(strings.TrimPrefix(a, "."))) // also of two parts, such as tar.gz
	}) {
		return errdefs.New(errdefs.ErrForbidden, "upload-extension", "files of type %.20q may not be uploaded here", path.Ext(name)).
			WithHint("allowed are %s", strings.Join(allowed, ", "))
	}
	return nil
}

// uploadPath gives the path of an upload. A plain name goes to the folder of
// uploads.
func uploadPath(name string) (string, error) {
	if name != "" && !strings.Contains(name, "/") {
		name = agentapi.UploadsDir + "/" + name
	}
	p, err := cleanPath(name)
	if err == nil && isRoot(p) {
		err = errdefs.New(errdefs.ErrInvalid, "is-a-directory", "%s is a folder", p).WithHint("add the file's name")
	}
	return p, err
}

// Uploaded tells how much of an upload is there.
func (w *Workspace) Uploaded(session, name, id string) (Progress, error) {
	p, err := uploadPath(name)
	if err != nil {
		return Progress{}, err
	}
	file, total := w.uploads.find(session, digest(session, p, id))
	if info, err := os.Stat(file); file != "" && err == nil {
		return Progress{Offset: info.Size(), Total: total}, nil
	}
	return Progress{}, errdefs.New(errdefs.ErrNotFound, "upload-not-found", "there is no unfinished upload of that name and Upload-Id").
		WithHint("begin it with the first bytes")
}

// Upload takes a part of a file. What has arrived stays, also when the
// connection is cut; with the last part the file becomes one of the session's,
// and is put into its sandbox. live gives that, or nil if there is none.
func (w *Workspace) Upload(ctx context.Context, session string, part Part, live func() *fleet.Sandbox) (Progress, []v1.FileChange, error) {
	p, err := uploadPath(part.Path)
	if err != nil {
		return Progress{}, nil, err
	}
	if err := w.checkUpload(p, part.Total); err != nil {
		return Progress{}, nil, err
	}
	if len(part.ID) > maxUploadID {
		return Progress{}, nil, errdefs.New(errdefs.ErrInvalid, "invalid-upload-id", "Upload-Id has at most %d characters", maxUploadID).WithHint("a random UUID is fit")
	}
	resumable := part.ID != "" && part.Length >= 0
	key := digest(session, p, part.ID)
	if resumable {
		release, ok := w.uploads.take(key)
		if !ok {
			return Progress{}, nil, errdefs.New(errdefs.ErrConflict, "upload-busy", "another request is sending this upload just now").
				WithHint("try again in a second, with HEAD first")
		}
		defer release()
	} else if part.Start != 0 || part.Length != part.Total {
		return Progress{}, nil, errdefs.New(errdefs.ErrInvalid, "upload-id-missing", "a part of a file needs an Upload-Id").
			WithHint("choose a random one for each file, and send it with all parts")
	}
	file, err := w.openUpload(ctx, session, key, p, part, resumable, live)
	if err != nil {
		return Progress{}, nil, err
	}
	defer file.Close()
	offset, err := w.receive(file, part)
	if err != nil {
		if !resumable {
			_ = os.Remove(file.Name()) // else sweep does
		}
		return Progress{Offset: offset, Total: part.Total}, nil, err
	}
	if part.Length < 0 {
		part.Total = offset
	}
	if offset < part.Total {
		return Progress{Offset: offset, Total: part.Total}, nil, nil
	}
	out, told, err := w.complete(ctx, session, p, file, part, live)
	if err != nil {
		if !resumable {
			_ = os.Remove(file.Name())
		}
		return Progress{Offset: offset, Total: part.Total}, nil, err
	}
	return Progress{Offset: offset, Total: part.Total, File: &out}, told, nil
}

// openUpload opens the file of an upload at the place where the part begins.
func (w *Workspace) openUpload(ctx context.Context, session, key, p string, part Part, resumable bool, live func() *fleet.Sandbox) (*os.File, error) {
	name, total := "", int64(0)
	if resumable {
		name, total = w.uploads.find(session, key)
	}
	if name == "" {
		if part.Start != 0 {
			return nil, &OffsetError{errdefs.New(errdefs.ErrConflict, "upload-offset", "the part begins at %d, and nothing of this upload is there", part.Start).
				WithHint("begin at 0; unfinished uploads are dropped after a day"), Progress{Total: part.Total}}
		}
		// Asked now, so that nobody sends a gigabyte in vain; and again at the end.
		if err := w.mayCreate(ctx, session, p, part, live); err != nil {
			return nil, err
		}
		if err := w.uploads.room(session, max(part.Total, 0), w.opts.SessionBytes+w.opts.UploadMaxBytes); err != nil {
			return nil, err
		}
		if err := os.MkdirAll(w.uploads.folder(session), 0o700); err != nil {
			return nil, diskError(err)
		}
		if !resumable {
			f, err := os.CreateTemp(w.uploads.folder(session), "whole-*."+strconv.FormatInt(max(part.Total, 0), 10))
			return f, diskError(err)
		}
		name, total = filepath.Join(w.uploads.folder(session), key+"."+strconv.FormatInt(part.Total, 10)), part.Total
	}
	if total != part.Total {
		return nil, errdefs.New(errdefs.ErrConflict, "upload-changed", "this upload was begun with %d bytes in total, and now has %d", total, part.Total).
			WithHint("the file has changed meanwhile: begin again with a new Upload-Id")
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, diskError(err)
	}
	at, err := f.Seek(0, io.SeekEnd)
	if err == nil && at != part.Start && part.Length > 0 {
		err = &OffsetError{errdefs.New(errdefs.ErrConflict, "upload-offset", "the part begins at %d, and %d bytes are there", part.Start, at).
			WithHint("go on where the Range header says"), Progress{Offset: at, Total: total}}
	}
	if err != nil {
		_ = f.Close()
		return nil, diskError(err)
	}
	return f, nil
}

// receive appends a part. It gives the bytes that are there then.
func (w *Workspace) receive(file *os.File, part Part) (int64, error) {
	at, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, diskError(err)
	}
	limit := part.Length
	if limit < 0 {
		limit = w.opts.UploadMaxBytes + 1
	}
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	src := &readError{r: io.LimitReader(part.Body, limit)}
	n, err := io.CopyBuffer(struct{ io.Writer }{file}, struct{ io.Reader }{src}, *buf)
	at += n
	switch {
	case err != nil && src.err == nil:
		return at, diskError(err)
	case src.err != nil, part.Length >= 0 && n < part.Length:
		return at, errdefs.New(errdefs.ErrInvalid, "upload-incomplete", "the upload was cut; %d bytes are there", at).
			WithHint("go on from there with the same Upload-Id, if it had one").WithCause(src.err)
	case part.Length < 0 && at > w.opts.UploadMaxBytes:
		return at, w.checkUpload("", at)
	}
	return at, nil
}

// mayCreate refuses what would replace a file, or not fit.
func (w *Workspace) mayCreate(ctx context.Context, session, p string, part Part, live func() *fleet.Sandbox) error {
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return err
	}
	defer unlock()
	return w.mayCreateLocked(ctx, st, p, part, live())
}

func (w *Workspace) mayCreateLocked(ctx context.Context, st *state, p string, part Part, sb *fleet.Sandbox) error {
	old, known := st.files[p]
	isDir := known && old.Type == string(agentapi.TypeDir)
	if sb != nil {
		f, err := sb.Agent().Stat(ctx, p)
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) {
			return sb.Explain(err)
		}
		known, isDir = err == nil, err == nil && f.Type == agentapi.TypeDir
	} else if _, err := st.parents(p); err != nil {
		return err
	}
	switch {
	case isDir:
		return errdefs.New(errdefs.ErrConflict, "is-a-directory", "%.300q is a folder", printable(p)).WithHint("choose another name")
	case known && !part.Overwrite:
		return errExists(p).WithHint("send overwrite=true to replace it, or name it %s", printable(path.Base(st.freeName(p))))
	}
	used, err := w.store.BinnedBytes(ctx, st.session)
	if err != nil {
		return err
	}
	for _, f := range st.files {
		if f.Hash != "" && f.Path != p {
			used += f.Size
		}
	}
	if used+max(part.Total, 0) > w.opts.SessionBytes {
		return errdefs.New(errdefs.ErrTooLarge, "session-full", "the session has %s of files, and may have %s", size(used), size(w.opts.SessionBytes)).
			WithHint("delete files that are not needed; deleted ones count for a day, as they can be had back")
	}
	return nil
}

// freeName gives a name like that of p which no file has.
func (st *state) freeName(p string) string {
	ext := path.Ext(p)
	stem := strings.TrimSuffix(p, ext)
	for n := 2; ; n++ {
		name := fmt.Sprintf("%s (%d)%s", stem, n, ext)
		if _, taken := st.files[name]; !taken {
			return name
		}
	}
}

// complete makes an upload that is all there a file of the session.
func (w *Workspace) complete(ctx context.Context, session, p string, file *os.File, part Part, live func() *fleet.Sandbox) (v1.File, []v1.FileChange, error) {
	sum := sha256.New()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return v1.File{}, nil, diskError(err)
	}
	buf := copyBuffers.Get().(*[]byte) //nolint:forcetypeassert // the pool holds nothing else
	_, err := io.CopyBuffer(struct{ io.Writer }{sum}, struct{ io.Reader }{file}, *buf)
	copyBuffers.Put(buf)
	if err != nil {
		return v1.File{}, nil, diskError(err)
	}
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return v1.File{}, nil, err
	}
	defer unlock()
	sb := live()
	if err := w.mayCreateLocked(ctx, st, p, part, sb); err != nil {
		return v1.File{}, nil, err
	}
	dirs, err := st.parents(p)
	if err != nil && sb == nil {
		return v1.File{}, nil, err
	}
	f := store.File{Path: p, Type: string(agentapi.TypeFile), Mode: fileMode, Mtime: time.Now().UnixNano(), Size: part.Total, Hash: string(sum.Sum(nil))}
	if old := st.files[p]; old.Type == f.Type && old.Mode != 0 {
		f.Mode = old.Mode
	}
	// First the sandbox: should this end before the file is kept, the next sync
	// finds it there.
	if sb != nil {
		defer sb.Use()()
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			return v1.File{}, nil, diskError(err)
		}
		there, err := sb.Agent().Upload(ctx, p, struct{ io.Reader }{file}, part.Total) // which does not close it
		if err != nil {
			return v1.File{}, nil, sb.Explain(err)
		}
		f.Mtime = there.ModifiedAt.UnixNano()
	}
	if err := w.blobs.keep(ctx, &staged{file: file, hash: f.Hash, size: f.Size}); err != nil {
		return v1.File{}, nil, err
	}
	defer w.blobs.unpin(f.Hash)
	if err := w.blobs.Sync([]string{f.Hash}); err != nil {
		return v1.File{}, nil, err
	}
	change := store.FileChanges{Put: append(dirs, f)}
	told := w.tell(st, change)
	if err := w.change(context.WithoutCancel(ctx), st, change); err != nil {
		return v1.File{}, nil, err
	}
	return st.view(p), told, nil
}
