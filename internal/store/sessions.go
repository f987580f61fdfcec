package store

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"
	"unicode"

	"github.com/caesarion/caesarion/internal/errdefs"
)

// Session is the row of a session.
type Session struct {
	ID        string
	ClientID  string // name its client gave it; empty: none
	Title     string
	Pinned    bool
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt time.Time // zero: it is not
	LastSeq   int64
	PrunedSeq int64 // events up to this number are gone
	Open      bool  // something runs
	View      []byte
	State     []byte
}

// Item is the row of an item.
type Item struct {
	ID      string
	Seq     int64 // events up to this number are in it
	Tree    []byte
	Body    []byte
	Outputs []byte  // all; nil: none
	Short   []byte  // with long values cut; nil: there are none
	Keep    bool    // writing leaves Outputs and Short as they are
	Search  *string // writing puts this text into search; nil leaves what is there
}

// Event is one entry of a session's log.
type Event struct {
	Seq  int64
	Type string
	Line []byte
}

// Execution is the row of a run that has not ended.
type Execution struct {
	ID        string
	ItemID    string
	SandboxID string
	Seq       int64 // the execution's own number of the last event in the session's log
}

// Batch is what one session writes together.
type Batch struct {
	SessionID  string
	Session    *Session // nil: unchanged
	Items      []Item
	Events     []Event
	Executions []Execution
	Ended      []string // executions whose rows go
	PruneTo    int64    // events up to this number go; 0: none
}

// Submit queues a batch and returns at once. Batches are committed in the
// order they come, each whole or not at all; done is called from the writer
// and must not wait for the Store.
func (s *Store) Submit(b Batch, done func(error)) {
	s.submit(func(t *tx) error { return b.write(t) }, done)
}

// Commit writes a batch and returns once it is kept.
func (s *Store) Commit(ctx context.Context, b Batch) error {
	result := make(chan error, 1)
	s.Submit(b, func(err error) { result <- err })
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (b *Batch) write(t *tx) error {
	if v := b.Session; v != nil {
		if err := t.exec(`INSERT INTO sessions (id, client_id, title, pinned, created_at, updated_at, deleted_at, last_seq, pruned_seq, open, view, state)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
			client_id=excluded.client_id, title=excluded.title, pinned=excluded.pinned, updated_at=excluded.updated_at, deleted_at=excluded.deleted_at,
			last_seq=excluded.last_seq, pruned_seq=excluded.pruned_seq, open=excluded.open, view=excluded.view, state=excluded.state`,
			v.ID, orNull(v.ClientID), v.Title, v.Pinned, micros(v.CreatedAt), micros(v.UpdatedAt), microsOrNull(v.DeletedAt),
			v.LastSeq, v.PrunedSeq, v.Open, v.View, v.State); err != nil {
			return err
		}
	}
	for i := range b.Items {
		if err := b.Items[i].write(t, b.SessionID); err != nil {
			return err
		}
	}
	for _, e := range b.Events {
		if err := t.exec(`INSERT INTO events (session_id, seq, type, line) VALUES (?,?,?,?)`, b.SessionID, e.Seq, e.Type, e.Line); err != nil {
			return err
		}
	}
	// The log may be ahead of the rest of the row, which changes less often.
	if n := len(b.Events); n > 0 && b.Session == nil {
		if err := t.exec(`UPDATE sessions SET last_seq=? WHERE id=?`, b.Events[n-1].Seq, b.SessionID); err != nil {
			return err
		}
	}
	for _, e := range b.Executions {
		if err := t.exec(`INSERT INTO executions (id, session_id, item_id, sandbox_id, seq) VALUES (?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET sandbox_id=excluded.sandbox_id, seq=excluded.seq`, e.ID, b.SessionID, e.ItemID, e.SandboxID, e.Seq); err != nil {
			return err
		}
	}
	for _, id := range b.Ended {
		if err := t.exec(`DELETE FROM executions WHERE id=?`, id); err != nil {
			return err
		}
	}
	if b.PruneTo > 0 {
		return t.exec(`DELETE FROM events WHERE session_id=? AND seq<=?`, b.SessionID, b.PruneTo)
	}
	return nil
}

func (it *Item) write(t *tx, session string) error {
	var err error
	if it.Keep {
		err = t.exec(`INSERT INTO items (session_id, id, seq, tree, body) VALUES (?,?,?,?,?)
			ON CONFLICT (session_id, id) DO UPDATE SET seq=excluded.seq, tree=excluded.tree, body=excluded.body`,
			session, it.ID, it.Seq, it.Tree, it.Body)
	} else {
		err = t.exec(`INSERT INTO items (session_id, id, seq, tree, body, outputs, short) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (session_id, id) DO UPDATE SET seq=excluded.seq, tree=excluded.tree, body=excluded.body, outputs=excluded.outputs, short=excluded.short`,
			session, it.ID, it.Seq, it.Tree, it.Body, it.Outputs, it.Short)
	}
	if err != nil || it.Search == nil {
		return err
	}
	if err := t.exec(`DELETE FROM search WHERE rowid=(SELECT n FROM items WHERE session_id=? AND id=?)`, session, it.ID); err != nil {
		return err
	}
	if *it.Search == "" {
		return nil
	}
	return t.exec(`INSERT INTO search (rowid, text) SELECT n, ? FROM items WHERE session_id=? AND id=?`, *it.Search, session, it.ID)
}

const sessionColumns = `id, coalesce(client_id, ''), title, pinned, created_at, updated_at, coalesce(deleted_at, 0), last_seq, pruned_seq, open, view, state`

func scanSession(scan func(...any) error) (Session, error) {
	var v Session
	var created, updated, deleted int64
	err := scan(&v.ID, &v.ClientID, &v.Title, &v.Pinned, &created, &updated, &deleted, &v.LastSeq, &v.PrunedSeq, &v.Open, &v.View, &v.State)
	v.CreatedAt, v.UpdatedAt = time.UnixMicro(created).UTC(), time.UnixMicro(updated).UTC()
	if deleted != 0 {
		v.DeletedAt = time.UnixMicro(deleted).UTC()
	}
	return v, err
}

// Session reads a session's row.
func (s *Store) Session(ctx context.Context, id string) (Session, error) {
	return s.oneSession(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE id=?`, id)
}

// SessionByClientID reads the row of the session that its client named so.
func (s *Store) SessionByClientID(ctx context.Context, name string) (Session, error) {
	return s.oneSession(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE client_id=?`, name)
}

func (s *Store) oneSession(ctx context.Context, query, arg string) (Session, error) {
	v, err := scanSession(s.read.QueryRowContext(ctx, query, arg).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return v, errdefs.New(errdefs.ErrNotFound, "session-not-found", "There is no session %.80q.", arg).WithHint("GET /v1/sessions lists them; a deleted one is forgotten after a day.")
	}
	return v, explainRead(err)
}

// Items reads the items of a session in the order they were made. Outputs is
// the short form where there is one.
func (s *Store) Items(ctx context.Context, session string) ([]Item, error) {
	return collect(ctx, s.read, func(scan func(...any) error) (Item, error) {
		var it Item
		var cut bool
		err := scan(&it.ID, &it.Seq, &it.Tree, &it.Body, &it.Outputs, &cut)
		if cut {
			it.Outputs, it.Short = nil, it.Outputs
		}
		return it, err
	}, `SELECT id, seq, tree, body, coalesce(short, outputs), short IS NOT NULL FROM items WHERE session_id=? ORDER BY n`, session)
}

// Outputs reads all outputs of an item, whole.
func (s *Store) Outputs(ctx context.Context, session, item string) ([]byte, error) {
	var out []byte
	err := s.read.QueryRowContext(ctx, `SELECT outputs FROM items WHERE session_id=? AND id=?`, session, item).Scan(&out)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errdefs.New(errdefs.ErrNotFound, "item-not-found", "The session has no item %.80q.", item).WithHint("Get the session again: the item may have been deleted.")
	}
	return out, explainRead(err)
}

// Events reads events after number after up to number to, at most so many
// bytes of them but at least one if there is one.
func (s *Store) Events(ctx context.Context, session string, after, to, maxBytes int64) ([]Event, error) {
	rows, err := s.read.QueryContext(ctx, `SELECT seq, type, line FROM events WHERE session_id=? AND seq>? AND seq<=? ORDER BY seq`, session, after, to)
	if err != nil {
		return nil, explainRead(err)
	}
	defer rows.Close()
	var list []Event
	for size := int64(0); size < maxBytes && rows.Next(); {
		var e Event
		if err := rows.Scan(&e.Seq, &e.Type, &e.Line); err != nil {
			return nil, explainRead(err)
		}
		size += int64(len(e.Line)) + 64
		list = append(list, e)
	}
	return list, explainRead(rows.Err())
}

// EventsSize gives the bytes of a session's events after number after.
func (s *Store) EventsSize(ctx context.Context, session string, after int64) (n, bytes int64, err error) {
	err = s.read.QueryRowContext(ctx, `SELECT count(*), coalesce(sum(length(line)), 0) FROM events WHERE session_id=? AND seq>?`, session, after).Scan(&n, &bytes)
	return n, bytes, explainRead(err)
}

// Executions reads the runs of a session that have not ended.
func (s *Store) Executions(ctx context.Context, session string) ([]Execution, error) {
	return collect(ctx, s.read, func(scan func(...any) error) (Execution, error) {
		var e Execution
		err := scan(&e.ID, &e.ItemID, &e.SandboxID, &e.Seq)
		return e, err
	}, `SELECT id, item_id, sandbox_id, seq FROM executions WHERE session_id=?`, session)
}

// OpenSessions gives the sessions in which something ran when the store was
// last written.
func (s *Store) OpenSessions(ctx context.Context) ([]string, error) {
	return collect(ctx, s.read, scanString, `SELECT id FROM sessions WHERE open=1`)
}

// DeletedBefore gives the sessions that were deleted before a time.
func (s *Store) DeletedBefore(ctx context.Context, t time.Time) ([]string, error) {
	return collect(ctx, s.read, scanString, `SELECT id FROM sessions WHERE deleted_at IS NOT NULL AND deleted_at<?`, micros(t))
}

// Purge removes a session with all it holds.
func (s *Store) Purge(ctx context.Context, session string) error {
	return s.Write(ctx, func(ctx context.Context, tx *sql.Tx) error {
		for _, q := range []string{
			`DELETE FROM search WHERE rowid IN (SELECT n FROM items WHERE session_id=?)`,
			`DELETE FROM sessions WHERE id=?`, // the rest goes with it
		} {
			if _, err := tx.ExecContext(ctx, q, session); err != nil {
				return err
			}
		}
		return nil
	})
}

// Place is where a page of a list ended. The zero value is the beginning.
type Place struct {
	Pinned    bool
	UpdatedAt time.Time
	ID        string
}

// List asks for a page of sessions.
type List struct {
	Query   string // words that all must be in the title or in one item; empty: every session
	Deleted bool   // the deleted ones, instead of those that are not
	After   Place
	Limit   int
}

// Sessions reads a page of sessions: pinned ones first, then the latest.
func (s *Store) Sessions(ctx context.Context, l List) ([]Session, error) {
	where, args := []string{"deleted_at IS NULL"}, []any{}
	if l.Deleted {
		where[0] = "deleted_at IS NOT NULL"
	}
	if words := strings.FieldsFunc(l.Query, separates); len(words) > 0 {
		cond, more := searchCondition(words)
		where, args = append(where, cond), append(args, more...)
	}
	if l.After.ID != "" {
		where = append(where, "(pinned, updated_at, id) < (?,?,?)")
		args = append(args, l.After.Pinned, micros(l.After.UpdatedAt), l.After.ID)
	}
	args = append(args, l.Limit)
	return collect(ctx, s.read, scanSession,
		`SELECT `+sessionColumns+` FROM sessions WHERE `+strings.Join(where, " AND ")+` ORDER BY pinned DESC, updated_at DESC, id DESC LIMIT ?`, args...)
}

// separates reports whether a character of a search stands between words; the
// index can't be asked for a NUL, for one.
func separates(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// searchCondition finds words in titles by LIKE and in items by the trigram
// index, which needs three letters; shorter words are then looked for in what
// the longer ones found, or in titles only.
func searchCondition(words []string) (string, []any) {
	var title, match []string
	var args []any
	for _, w := range words {
		title = append(title, `title LIKE ? ESCAPE '\'`)
		args = append(args, "%"+escapeLike.Replace(w)+"%")
		if len([]rune(w)) >= 3 {
			match = append(match, `"`+strings.ReplaceAll(w, `"`, `""`)+`"`)
		}
	}
	cond := "(" + strings.Join(title, " AND ")
	if len(match) > 0 {
		cond += ` OR id IN (SELECT session_id FROM items WHERE n IN (SELECT rowid FROM search WHERE search MATCH ?))`
		args = append(args, strings.Join(match, " AND "))
	}
	return cond + ")", args
}

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func scanString(scan func(...any) error) (string, error) {
	var v string
	err := scan(&v)
	return v, err
}

// collect reads all rows of a query.
func collect[T any](ctx context.Context, db *sql.DB, read func(scan func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, explainRead(err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := read(rows.Scan)
		if err != nil {
			return nil, explainRead(err)
		}
		list = append(list, v)
	}
	return list, explainRead(rows.Err())
}

func explainRead(err error) error {
	if err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return errdefs.New(errdefs.ErrUnavailable, "store-failed", "The server could not read its database.").
		WithHint("The server's log has the reason.").WithCause(err)
}

func micros(t time.Time) int64 { return t.UnixMicro() }

func microsOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
