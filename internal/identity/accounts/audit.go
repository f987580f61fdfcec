package accounts

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/store"
)

// Entry tells who did what to which object, when and from where. It never has
// contents: no code, no texts, no names of files.
type Entry struct {
	N         int64
	At        time.Time
	User, Org string
	Name      string // of the user, at that time
	Via       string // the key or the sign-in
	Action    string // the operation of the API
	Object    string // its id
	Status    int    // of the answer
	Code      string // why it was refused
	Address   string
	Request   string // its id, as in the log
}

// NewEntry begins an entry of what somebody does.
func NewEntry(who identity.Principal, action string) Entry {
	e := Entry{At: time.Now().UTC(), User: who.User, Org: who.Org, Name: who.Name, Via: who.Login, Action: action}
	if who.Key != "" {
		e.Via = who.Key
	}
	return e
}

// maxAuditWaiting bounds entries that wait for a database that is away: some 50 MB.
const maxAuditWaiting = 100_000

type auditQueue struct {
	writing sync.Mutex // held while entries are written, so that who reads has them all

	mu   sync.Mutex
	list []Entry
	lost int64
	full chan struct{} // has room for one: there is much to write
}

func (q *auditQueue) init() { q.full = make(chan struct{}, 1) }

// Record queues an entry; it is written within a second or so.
func (s *Service) Record(e Entry) {
	q := &s.audit
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) >= maxAuditWaiting {
		q.lost++
		return
	}
	q.list = append(q.list, e)
	if len(q.list) == 500 {
		select {
		case q.full <- struct{}{}:
		default:
		}
	}
}

// flushAudit writes what waits. What can't be written waits on.
func (s *Service) flushAudit(ctx context.Context) error {
	q := &s.audit
	q.writing.Lock()
	defer q.writing.Unlock()
	q.mu.Lock()
	list, lost := q.list, q.lost
	q.list, q.lost = nil, 0
	q.mu.Unlock()
	if lost > 0 {
		s.log.Error("entries of the audit are lost: the database can't be written for too long", "entries", lost)
		e := NewEntry(identity.Principal{Name: "server"}, "audit-lost")
		e.Status = int(lost)
		list = append(list, e)
	}
	for len(list) > 0 {
		part := list[:min(len(list), 500)]
		err := s.store.Transact(ctx, func(t *store.Tx) error {
			for _, e := range part {
				if _, err := t.Exec(`INSERT INTO audit (at, user_id, org_id, name, via, action, object, status, code, address, request) VALUES (?,?,?,?,?,?,?,?,?,?,?)`,
					micros(e.At), e.User, e.Org, e.Name, e.Via, e.Action, short(e.Object), int64(e.Status), e.Code, e.Address, e.Request); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			q.mu.Lock()
			q.list = append(list, q.list...)
			q.mu.Unlock()
			return err
		}
		list = list[len(part):]
	}
	return nil
}

// short bounds what a client chose.
func short(s string) string {
	if len(s) > 200 {
		s = s[:200]
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "?")
	}
	return s
}

// AuditQuery asks for entries, the latest first.
type AuditQuery struct {
	Org, User, Object, Action string // empty: any
	Before                    int64  // entries with smaller numbers; 0: from the last on
	Limit                     int
}

// Audit reads entries, those too that still waited to be written.
func (s *Service) Audit(ctx context.Context, q AuditQuery) ([]Entry, error) {
	if err := s.flushAudit(ctx); err != nil {
		return nil, err
	}
	if q.Limit <= 0 || q.Limit > 1000 {
		q.Limit = 100
	}
	where, args := []string{"1=1"}, []any{}
	for _, f := range []struct{ column, value string }{{"org_id", q.Org}, {"user_id", q.User}, {"object", q.Object}, {"action", q.Action}} {
		if f.value != "" {
			where, args = append(where, f.column+"=?"), append(args, f.value)
		}
	}
	if q.Before > 0 {
		where, args = append(where, "n<?"), append(args, q.Before)
	}
	return store.Select(ctx, s.store, func(scan store.Scan) (e Entry, err error) {
		var at, status int64
		err = scan(&e.N, &at, &e.User, &e.Org, &e.Name, &e.Via, &e.Action, &e.Object, &status, &e.Code, &e.Address, &e.Request)
		e.At, e.Status = timeOf(at), int(status)
		return e, err
	}, `SELECT n, at, user_id, org_id, name, via, action, object, status, code, address, request FROM audit WHERE `+strings.Join(where, " AND ")+` ORDER BY n DESC LIMIT ?`, append(args, q.Limit)...)
}
