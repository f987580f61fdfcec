package store

import (
	"strconv"
	"strings"
	"sync"
)

// dialect is where the two databases differ. Queries stand as SQLite has them,
// with ? for values; only what one of them can't take is here.
type dialect struct {
	postgres bool

	openSessions string   // query of OpenSessions
	events       string   // query of Events
	like         string   // compares without regard to case
	found        string   // condition on n, an item's row, that its text has a word; empty: see match
	unindex      string   // removes the text of an item
	index        string   // puts the text of an item, which has none
	purge        []string // removes a session with all it holds
	pathKey      string   // what of a path is in the indexes
	pathIs       string   // compares a path
	setSandbox   string   // sets the sandbox that has a session's files
	raiseFiles   string   // notes a change of a session's files; empty: nobody asks
}

var sqliteDialect = &dialect{
	openSessions: `SELECT id FROM sessions WHERE open=1`,
	events:       `SELECT seq, type, line FROM events WHERE session_id=? AND seq>? AND seq<=? ORDER BY seq`,
	like:         `LIKE`,
	unindex:      `DELETE FROM search WHERE rowid=(SELECT n FROM items WHERE session_id=? AND id=?)`,
	index:        `INSERT INTO search (rowid, text) SELECT n, ? FROM items WHERE session_id=? AND id=?`,
	purge: []string{
		`DELETE FROM search WHERE rowid IN (SELECT n FROM items WHERE session_id=?)`,
		`DELETE FROM sessions WHERE id=?`, // the rest goes with it
	},
	pathKey:    `path`,
	pathIs:     `path=?`,
	setSandbox: `INSERT INTO files_sandbox (session_id, sandbox_id) VALUES (?,?) ON CONFLICT (session_id) DO UPDATE SET sandbox_id=excluded.sandbox_id`,
}

var postgresDialect = &dialect{
	postgres:     true,
	openSessions: `SELECT id FROM sessions WHERE open`,
	// A result that is not read to its end has to be received all the same, so
	// the server itself stops. It adds up sizes without reading the lines.
	events: `SELECT seq, type, line FROM (
		SELECT seq, type, line, sum(length(line)+64) OVER (ORDER BY seq ROWS UNBOUNDED PRECEDING) - length(line) - 64 AS before FROM (
			SELECT seq, type, line FROM events WHERE session_id=? AND seq>? AND seq<=? ORDER BY seq LIMIT 2048) page) sized
		WHERE before < ? ORDER BY seq`,
	like:    `ILIKE`,
	found:   `text ILIKE ?`,
	unindex: `DELETE FROM search WHERE n=(SELECT n FROM items WHERE session_id=? AND id=?)`,
	index:   `INSERT INTO search (n, text) SELECT n, CAST(? AS TEXT) FROM items WHERE session_id=? AND id=?`,
	purge:   []string{`DELETE FROM sessions WHERE id=?`},
	// An entry of an index has room for 2,704 bytes, and a path may have more.
	pathKey: `sha256(path)`,
	pathIs:  `sha256(path)=sha256(?)`,
	setSandbox: `INSERT INTO files_sandbox (session_id, sandbox_id, version) VALUES (?,?,1)
		ON CONFLICT (session_id) DO UPDATE SET sandbox_id=excluded.sandbox_id, version=files_sandbox.version+1`,
	raiseFiles: `INSERT INTO files_sandbox (session_id, sandbox_id, version) VALUES (?,'',1) ON CONFLICT (session_id) DO UPDATE SET version=files_sandbox.version+1`,
}

// insertEvents writes a run of events.
func (d *dialect) insertEvents(t *tx, session string, events []Event) {
	if d.postgres && len(events) > 1 { // one statement, however many
		seqs, types, lines := make([]int64, len(events)), make([]string, len(events)), make([][]byte, len(events))
		for i, e := range events {
			seqs[i], types[i], lines[i] = e.Seq, e.Type, e.Line
		}
		t.exec(`INSERT INTO events (session_id, seq, type, line) SELECT CAST(? AS TEXT), u.* FROM unnest(CAST(? AS BIGINT[]), CAST(? AS TEXT[]), CAST(? AS BYTEA[])) AS u`,
			session, seqs, types, lines)
		return
	}
	for _, e := range events {
		t.exec(`INSERT INTO events (session_id, seq, type, line) VALUES (?,?,?,?)`, session, e.Seq, e.Type, e.Line)
	}
}

// match gives the condition that the text of item n has all words, each of
// three letters or more.
func (d *dialect) match(words []string) (string, []any) {
	if !d.postgres {
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = `"` + strings.ReplaceAll(w, `"`, `""`) + `"`
		}
		return `n IN (SELECT rowid FROM search WHERE search MATCH ?)`, []any{strings.Join(quoted, " AND ")}
	}
	conds, args := make([]string, len(words)), make([]any, len(words))
	for i, w := range words {
		conds[i], args[i] = d.found, likePattern(w)
	}
	return `n IN (SELECT n FROM search WHERE ` + strings.Join(conds, " AND ") + `)`, args
}

// bind gives a query and its values as the database takes them.
func (d *dialect) bind(query string, args []any) (string, []any) {
	if !d.postgres {
		return query, args
	}
	return numbered(query), textArgs(args)
}

// numberedQueries has each query that was rewritten; there are some fifty.
var numberedQueries sync.Map

// numbered writes $1, $2, … for the ? of a query, which has no other.
func numbered(query string) string {
	if known, ok := numberedQueries.Load(query); ok {
		return known.(string) //nolint:forcetypeassert // nothing else is in it
	}
	var b strings.Builder
	for n, part := range strings.Split(query, "?") {
		if n > 0 {
			b.WriteString("$" + strconv.Itoa(n))
		}
		b.WriteString(part)
	}
	// Searches differ by their number of words: those are few, but bounded they are not.
	if len(query) < 2000 {
		numberedQueries.Store(query, b.String())
	}
	return b.String()
}
