package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/store"
)

// Options configures a Workspace. The zero value is fit for use.
type Options struct {
	SessionBytes     int64         // kept for one session, its bin included; default 2 GiB
	FileBytes        int64         // of one file that is kept; default 1 GiB
	UploadMaxBytes   int64         // of one upload; default FileBytes
	UploadExtensions []string      // such as ".csv", that may be uploaded; empty: all
	BinFor           time.Duration // deleted files can be had back for so long; default 24 h
	UploadsFor       time.Duration // unfinished uploads are kept for so long; default 24 h
	Blobs            Blobs         // where bytes are kept; default: with the store if that is Postgres, else in a folder
	Logger           *slog.Logger  // default: discard

	// Progress is called while files are put into a sandbox, from one goroutine
	// for each session; it must not wait.
	Progress func(session string, doneBytes, totalBytes int64)
}

func (o *Options) setDefaults() {
	if o.SessionBytes <= 0 {
		o.SessionBytes = 2 << 30
	}
	if o.FileBytes <= 0 {
		o.FileBytes = 1 << 30
	}
	if o.UploadMaxBytes <= 0 {
		o.UploadMaxBytes = o.FileBytes
	}
	if o.BinFor <= 0 {
		o.BinFor = 24 * time.Hour
	}
	if o.UploadsFor <= 0 {
		o.UploadsFor = 24 * time.Hour
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// roots are the folders whose files are kept.
var roots = []string{agentapi.WorkspaceDir, agentapi.UploadsDir}

// skipped are folders that programs fill again by themselves.
var skipped = []string{"__pycache__", ".ipynb_checkpoints", ".cache"}

const (
	sweepEvery = time.Hour
	// maxLoaded bounds the sessions whose list of files is held in memory.
	maxLoaded = 32
)

// Workspace keeps the files of all sessions.
type Workspace struct {
	opts    Options
	store   *store.Store
	log     *slog.Logger
	blobs   *stage
	uploads *uploads

	mu     sync.Mutex
	states map[string]*state

	stop context.CancelFunc
	wg   sync.WaitGroup
}

// state is what is known of one session's files.
//
// Who changes files holds the turn, which may take as long as files take to be
// moved. Who only looks does not wait for that: it takes mu, which is held for
// moments.
type state struct {
	session string
	turn    chan struct{}
	users   int       // guarded by Workspace.mu
	used    time.Time // guarded by Workspace.mu

	mu      sync.RWMutex // taken for writing by the holder of the turn only
	loaded  bool
	version int64                 // of the store's, when it was read or written last
	files   map[string]store.File // by path
	sandbox string                // that has them
	cut     bool                  // the last listing had more files than are looked at
}

// set changes what others may look at. The turn is held.
func (st *state) set(change func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	change()
}

// New makes a Workspace that keeps bytes below dir: all, or the ones that have
// not yet arrived as a whole.
func New(dir string, st *store.Store, opts Options) (*Workspace, error) {
	opts.setDefaults()
	for _, sub := range []string{"blobs", "uploads"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("workspace: %w", err)
		}
	}
	kept := opts.Blobs
	switch {
	case kept != nil:
	case st.DB() != nil:
		kept = database{st}
	default:
		kept = folder{filepath.Join(dir, "blobs")}
	}
	b, err := newStage(filepath.Join(dir, "blobs"), kept)
	if err != nil {
		return nil, err
	}
	w := &Workspace{opts: opts, store: st, log: opts.Logger, blobs: b, uploads: newUploads(filepath.Join(dir, "uploads")), states: map[string]*state{}}
	ctx, stop := context.WithCancel(context.Background())
	w.stop = stop
	w.wg.Go(func() { w.sweepNowAndThen(ctx) })
	return w, nil
}

// Close ends what runs in the background.
func (w *Workspace) Close() error {
	w.stop()
	w.wg.Wait()
	return nil
}

func (w *Workspace) sweepNowAndThen(ctx context.Context) {
	for {
		if err := w.Sweep(ctx); err != nil && ctx.Err() == nil {
			w.log.Warn("what nobody needs any more of sessions' files is not swept", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(sweepEvery):
		}
	}
}

// Sweep forgets deleted files and unfinished uploads whose time is over, and
// the bytes that nobody names any more.
func (w *Workspace) Sweep(ctx context.Context) error {
	now := time.Now()
	return errors.Join(
		w.store.EmptyFileBin(ctx, now.Add(-w.opts.BinFor)),
		w.uploads.sweep(now.Add(-w.opts.UploadsFor)),
		w.blobs.sweep(ctx, func(hash string) (bool, error) { return w.store.FileHashUsed(ctx, hash) }),
	)
}

// enter gives a session's state, which the caller has to leave.
func (w *Workspace) enter(session string) *state {
	w.mu.Lock()
	defer w.mu.Unlock()
	st := w.states[session]
	if st == nil {
		st = &state{session: session, turn: make(chan struct{}, 1)}
		w.states[session] = st
	}
	st.users++
	return st
}

// look gives a session's state, loaded, to callers who change nothing.
func (w *Workspace) look(ctx context.Context, session string) (*state, func(), error) {
	for {
		version, err := w.store.FilesVersion(ctx, session)
		if err != nil {
			return nil, nil, err
		}
		st := w.enter(session)
		st.mu.RLock()
		if st.loaded && st.version == version {
			return st, func() {
				st.mu.RUnlock()
				w.leave(st)
			}, nil
		}
		st.mu.RUnlock()
		w.leave(st)
		_, unlock, err := w.lock(ctx, session) // it loads, and waits for a change that is under way
		if err != nil {
			return nil, nil, err
		}
		unlock()
	}
}

// lock gives a session's state, loaded, and its turn.
func (w *Workspace) lock(ctx context.Context, session string) (*state, func(), error) {
	st := w.enter(session)
	unlock := func() {
		<-st.turn
		w.leave(st)
	}
	select {
	case st.turn <- struct{}{}:
	case <-ctx.Done():
		w.leave(st)
		return nil, nil, context.Cause(ctx)
	}
	if err := w.load(ctx, st); err != nil {
		unlock()
		return nil, nil, err
	}
	return st, unlock, nil
}

// leave says that a caller no longer needs a state, and forgets the ones that
// were used least recently.
func (w *Workspace) leave(st *state) {
	w.mu.Lock()
	defer w.mu.Unlock()
	st.users--
	st.used = time.Now()
	for len(w.states) > maxLoaded {
		var oldest *state
		for _, s := range w.states {
			if s.users == 0 && (oldest == nil || s.used.Before(oldest.used)) {
				oldest = s
			}
		}
		if oldest == nil {
			return
		}
		delete(w.states, oldest.session)
	}
}

// load reads a session's files, unless they are in memory as the store has
// them: another server may have had the session meanwhile.
func (w *Workspace) load(ctx context.Context, st *state) error {
	version, err := w.store.FilesVersion(ctx, st.session)
	if err != nil || st.loaded && st.version == version {
		return err
	}
	files, sandbox, err := w.store.Files(ctx, st.session)
	if err != nil {
		return err
	}
	byPath := make(map[string]store.File, len(files))
	for _, f := range files {
		byPath[f.Path] = f
	}
	st.set(func() { st.files, st.sandbox, st.version, st.loaded = byPath, sandbox, version, true })
	return nil
}

// change writes a change and makes it in memory. If it could not be written,
// what is in memory is read again: it may be written all the same.
func (w *Workspace) change(ctx context.Context, st *state, c store.FileChanges) error {
	if len(c.Put)+len(c.Delete)+len(c.Bin)+len(c.Unbin) == 0 && c.Sandbox == "" {
		return nil
	}
	var freed []string
	for _, p := range c.Delete {
		if old := st.files[p]; old.Hash != "" {
			freed = append(freed, old.Hash)
		}
	}
	for i := range c.Put {
		if old := st.files[c.Put[i].Path]; old.Hash != "" && old.Hash != c.Put[i].Hash {
			freed = append(freed, old.Hash)
		}
	}
	if err := w.store.ChangeFiles(ctx, st.session, c); err != nil {
		st.set(func() { st.loaded = false })
		return err
	}
	st.set(func() {
		if w.store.DB() != nil {
			st.version++ // if others changed it, too, it is read again
		}
		for _, p := range c.Delete {
			delete(st.files, p)
		}
		for _, f := range c.Put {
			st.files[f.Path] = f
		}
		if c.Sandbox != "" {
			st.sandbox = c.Sandbox
		}
	})
	w.free(ctx, freed)
	return nil
}

// free removes the bytes with these hashes, unless somebody names them.
func (w *Workspace) free(ctx context.Context, hashes []string) {
	err := w.blobs.remove(ctx, hashes, func(hash string) (bool, error) { return w.store.FileHashUsed(ctx, hash) })
	if err != nil {
		w.log.Warn("bytes of a session's file are left for the next sweep", "err", err)
	}
}

// Copy gives the session to the files of the session from. The bytes are
// shared.
func (w *Workspace) Copy(ctx context.Context, from, to string) error {
	_, unlock, err := w.lock(ctx, from)
	if err != nil {
		return err
	}
	defer unlock()
	if err := w.store.CopyFiles(ctx, from, to); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.states, to)
	return nil
}

// Forget removes all that is kept of a session's files.
func (w *Workspace) Forget(ctx context.Context, session string) error {
	st, unlock, err := w.lock(ctx, session)
	if err != nil {
		return err
	}
	defer unlock()
	var hashes []string
	for _, f := range st.files {
		if f.Hash != "" {
			hashes = append(hashes, f.Hash)
		}
	}
	st.set(func() { st.loaded = false })
	if err := w.store.ForgetFiles(ctx, session); err != nil {
		return err
	}
	w.uploads.forget(session)
	w.free(ctx, hashes) // those of the bin go with the next sweep
	return nil
}

// Notice is a sentence for people about files of the session that are not
// kept; empty when all are.
func (w *Workspace) Notice(ctx context.Context, session string) (string, error) {
	st, done, err := w.look(ctx, session)
	if err != nil {
		return "", err
	}
	defer done()
	return w.notice(st), nil
}

func (w *Workspace) notice(st *state) string {
	lost, n := "", 0
	for _, f := range st.files {
		if f.Lost != "" {
			n++
			if lost == "" || f.Path < lost {
				lost = f.Path
			}
		}
	}
	switch {
	case st.cut:
		return fmt.Sprintf("The session has more than %d files; those beyond it are lost when its sandbox ends. Keep what matters in fewer files, an archive for instance.", agentapi.MaxTree)
	case n == 0:
		return ""
	case n == 1:
		return fmt.Sprintf("%s is not kept and is lost when the sandbox ends: a file may have %s, and a session %s. Download it if you need it.", printable(lost), size(w.opts.FileBytes), size(w.opts.SessionBytes))
	}
	return fmt.Sprintf("%d files, %s for one, are not kept and are lost when the sandbox ends: a file may have %s, and a session %s. Download what you need.", n, printable(lost), size(w.opts.FileBytes), size(w.opts.SessionBytes))
}

func size(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n >= 1<<u.shift {
			return fmt.Sprintf("%.4g %s", float64(n)/float64(int64(1)<<u.shift), u.name)
		}
	}
	return fmt.Sprintf("%d bytes", n)
}
