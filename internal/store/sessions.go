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
	OwnerUser string // whose it is; empty: nobody's
	OwnerOrg  string
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
	s.submit(job{owner: b.SessionID, write: b.write, done: done})
}

// Commit writes a batch and returns once it is kept.
func (s *Store) Commit(ctx context.Context, b Batch) error {
	return s.change(ctx, b.SessionID, b.write)
}

func (b *Batch) write(t *tx) {
	if v := b.Session; v != nil {
		t.exec(`INSERT INTO sessions (id, client_id, owner_user, owner_org, title, pinned, created_at, updated_at, deleted_at, last_seq, pruned_seq, open, view, state)
			VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO UPDATE SET
			client_id=excluded.client_id, title=excluded.title, pinned=excluded.pinned, updated_at=excluded.updated_at, deleted_at=excluded.deleted_at,
			last_seq=excluded.last_seq, pruned_seq=excluded.pruned_seq, open=excluded.open, view=excluded.view, state=excluded.state`,
			v.ID, orNull(v.ClientID), v.OwnerUser, v.OwnerOrg, v.Title, v.Pinned, micros(v.CreatedAt), micros(v.UpdatedAt), microsOrNull(v.DeletedAt),
			v.LastSeq, v.PrunedSeq, v.Open, v.View, v.State)
	}
	for i := range b.Items {
		b.Items[i].write(t, b.SessionID)
	}
	t.d.insertEvents(t, b.SessionID, b.Events)
	// The log may be ahead of the rest of the row, which changes less often.
	if n := len(b.Events); n > 0 && b.Session == nil {
		t.exec(`UPDATE sessions SET last_seq=? WHERE id=?`, b.Events[n-1].Seq, b.SessionID)
	}
	for _, e := range b.Executions {
		t.exec(`INSERT INTO executions (id, session_id, item_id, sandbox_id, seq) VALUES (?,?,?,?,?)
			ON CONFLICT (id) DO UPDATE SET sandbox_id=excluded.sandbox_id, seq=excluded.seq`, e.ID, b.SessionID, e.ItemID, e.SandboxID, e.Seq)
	}
	for _, id := range b.Ended {
		t.exec(`DELETE FROM executions WHERE id=?`, id)
	}
	if b.PruneTo > 0 {
		t.exec(`DELETE FROM events WHERE session_id=? AND seq<=?`, b.SessionID, b.PruneTo)
	}
}

func (it *Item) write(t *tx, session string) {
	if it.Keep {
		t.exec(`INSERT INTO items (session_id, id, seq, tree, body) VALUES (?,?,?,?,?)
			ON CONFLICT (session_id, id) DO UPDATE SET seq=excluded.seq, tree=excluded.tree, body=excluded.body`,
			session, it.ID, it.Seq, it.Tree, it.Body)
	} else {
		t.exec(`INSERT INTO items (session_id, id, seq, tree, body, outputs, short) VALUES (?,?,?,?,?,?,?)
			ON CONFLICT (session_id, id) DO UPDATE SET seq=excluded.seq, tree=excluded.tree, body=excluded.body, outputs=excluded.outputs, short=excluded.short`,
			session, it.ID, it.Seq, it.Tree, it.Body, it.Outputs, it.Short)
	}
	if it.Search == nil {
		return
	}
	t.exec(t.d.unindex, session, it.ID)
	if *it.Search != "" {
		t.exec(t.d.index, *it.Search, session, it.ID)
	}
}

const sessionColumns = `id, coalesce(client_id, ''), owner_user, owner_org, title, pinned, created_at, updated_at, coalesce(deleted_at, 0), last_seq, pruned_seq, open, view, state`

func scanSession(scan func(...any) error) (Session, error) {
	var v Session
	var created, updated, deleted int64
	err := scan(&v.ID, &v.ClientID, &v.OwnerUser, &v.OwnerOrg, &v.Title, &v.Pinned, &created, &updated, &deleted, &v.LastSeq, &v.PrunedSeq, &v.Open, &v.View, &v.State)
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
	v, err := scanSession(func(dest ...any) error { return s.one(ctx, query, []any{arg}, dest...) })
	if errors.Is(err, sql.ErrNoRows) {
		return v, errdefs.New(errdefs.ErrNotFound, "session-not-found", "There is no session %.80q.", arg).WithHint("GET /v1/sessions lists them; a deleted one is forgotten after a day.")
	}
	return v, err
}

// Items reads the items of a session in the order they were made. Outputs is
// the short form where there is one.
func (s *Store) Items(ctx context.Context, session string) ([]Item, error) {
	return collect(ctx, s, func(scan func(...any) error) (Item, error) {
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
	err := s.one(ctx, `SELECT outputs FROM items WHERE session_id=? AND id=?`, []any{session, item}, &out)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errdefs.New(errdefs.ErrNotFound, "item-not-found", "The session has no item %.80q.", item).WithHint("Get the session again: the item may have been deleted.")
	}
	return out, err
}

// Events reads events after number after up to number to, at most so many
// bytes of them but at least one if there is one. They may be fewer: who wants
// more asks again.
func (s *Store) Events(ctx context.Context, session string, after, to, maxBytes int64) ([]Event, error) {
	args := []any{session, after, to}
	if s.d.postgres {
		args = append(args, maxBytes)
	}
	var list []Event
	var size int64
	err := s.query(ctx, func(rows *sql.Rows) (bool, error) {
		var e Event
		err := s.scan(rows.Scan, []any{&e.Seq, &e.Type, &e.Line})
		size += int64(len(e.Line)) + 64
		list = append(list, e)
		return size < maxBytes, err
	}, func() { list, size = nil, 0 }, s.d.events, args...)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// EventsSize gives the bytes of a session's events after number after.
func (s *Store) EventsSize(ctx context.Context, session string, after int64) (n, bytes int64, err error) {
	err = s.one(ctx, `SELECT count(*), CAST(coalesce(sum(length(line)), 0) AS BIGINT) FROM events WHERE session_id=? AND seq>?`, []any{session, after}, &n, &bytes)
	return n, bytes, err
}

// Executions reads the runs of a session that have not ended.
func (s *Store) Executions(ctx context.Context, session string) ([]Execution, error) {
	return collect(ctx, s, func(scan func(...any) error) (Execution, error) {
		var e Execution
		err := scan(&e.ID, &e.ItemID, &e.SandboxID, &e.Seq)
		return e, err
	}, `SELECT id, item_id, sandbox_id, seq FROM executions WHERE session_id=?`, session)
}

// OpenSessions gives the sessions in which something ran when the store was
// last written.
func (s *Store) OpenSessions(ctx context.Context) ([]string, error) {
	return collect(ctx, s, scanString, s.d.openSessions)
}

// DeletedBefore gives the sessions that were deleted before a time.
func (s *Store) DeletedBefore(ctx context.Context, t time.Time) ([]string, error) {
	return collect(ctx, s, scanString, `SELECT id FROM sessions WHERE deleted_at IS NOT NULL AND deleted_at<?`, micros(t))
}

// Purge removes a session with all it holds.
func (s *Store) Purge(ctx context.Context, session string) error {
	return s.change(ctx, "", func(t *tx) {
		for _, q := range s.d.purge {
			t.exec(q, session)
		}
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
	Owners  *Owners // nil: of everybody
}

// Owners are those whose sessions a list has.
type Owners struct {
	Org     string
	User    string // empty: all of the organisation
	Unowned bool   // and those that nobody owns
}

func (o *Owners) condition() (string, []any) {
	cond, args := "(owner_org=? AND owner_org<>''", []any{o.Org}
	if o.User != "" {
		cond, args = cond+" AND owner_user=?", append(args, o.User)
	}
	if o.Unowned {
		cond += " OR owner_org='' AND owner_user=''"
	}
	return cond + ")", args
}

// Sessions reads a page of sessions: pinned ones first, then the latest.
func (s *Store) Sessions(ctx context.Context, l List) ([]Session, error) {
	where, args := []string{"deleted_at IS NULL"}, []any{}
	if l.Deleted {
		where[0] = "deleted_at IS NOT NULL"
	}
	if words := strings.FieldsFunc(l.Query, separates); len(words) > 0 {
		cond, more := s.d.searchCondition(words)
		where, args = append(where, cond), append(args, more...)
	}
	if l.Owners != nil {
		cond, more := l.Owners.condition()
		where, args = append(where, cond), append(args, more...)
	}
	if l.After.ID != "" {
		where = append(where, "(pinned, updated_at, id) < (?,?,?)")
		args = append(args, l.After.Pinned, micros(l.After.UpdatedAt), l.After.ID)
	}
	args = append(args, l.Limit)
	return collect(ctx, s, scanSession,
		`SELECT `+sessionColumns+` FROM sessions WHERE `+strings.Join(where, " AND ")+` ORDER BY pinned DESC, updated_at DESC, id DESC LIMIT ?`, args...)
}

// separates reports whether a character of a search stands between words; the
// index can't be asked for a NUL, for one.
func separates(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }

// searchCondition finds words in titles one by one and in items by the index
// of three letters; shorter words are looked for in titles only.
func (d *dialect) searchCondition(words []string) (string, []any) {
	var title, long []string
	var args []any
	for _, w := range words {
		title = append(title, `title `+d.like+` ? ESCAPE '\'`)
		args = append(args, likePattern(w))
		if len([]rune(w)) >= 3 {
			long = append(long, w)
		}
	}
	cond := "(" + strings.Join(title, " AND ")
	if len(long) > 0 {
		match, more := d.match(long)
		cond += ` OR id IN (SELECT session_id FROM items WHERE ` + match + `)`
		args = append(args, more...)
	}
	return cond + ")", args
}

// likePattern is found in all that has the word.
func likePattern(word string) string { return "%" + escapeLike.Replace(word) + "%" }

var escapeLike = strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`)

func scanString(scan func(...any) error) (string, error) {
	var v string
	err := scan(&v)
	return v, err
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
