package accounts

import (
	"context"
	"fmt"
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

// Anybody can fail without end, and so fill the disk or push what others did out
// of the queue. Of the same things in a minute, by the same caller, so many are
// told one by one; the others are counted, and told together when it is over.
const (
	sumAfter    = time.Minute
	sameActs    = 1200   // that succeed
	sameFails   = 20     // that fail
	strangeFail = 300    // that fail, of all who are not signed in
	maxKinds    = 10_000 // that are counted apart
)

// kind is what counts as the same.
type kind struct{ user, org, address, action, code string }

type kindCount struct {
	n, more int
	last    Entry
}

type auditQueue struct {
	writing sync.Mutex // held while entries are written, so that who reads has them all
	now     func() time.Time
	full    chan struct{} // has room for one: there is much to write

	mu        sync.Mutex
	list      []Entry
	lost      int64
	kinds     map[kind]*kindCount
	sumAt     time.Time
	strangers int
}

func (q *auditQueue) init(now func() time.Time) {
	q.now, q.full, q.kinds, q.sumAt = now, make(chan struct{}, 1), map[kind]*kindCount{}, now().Add(sumAfter)
}

// counted tells whether there were too many of an entry to tell it by itself.
func (q *auditQueue) countedLocked(e Entry) bool {
	k, bound := kind{e.User, e.Org, "", e.Action, e.Code}, sameActs
	failed := e.Status >= 400 || e.Status == 0
	if failed {
		bound = sameFails
	}
	if e.User == "" {
		k.address = place(e.Address)
		if failed {
			q.strangers++
			if q.strangers > strangeFail {
				k.address, bound = "", 0
			}
		}
	}
	c := q.kinds[k]
	if c == nil && len(q.kinds) >= maxKinds {
		k, bound = kind{action: e.Action, code: e.Code}, 0
		c = q.kinds[k]
	}
	if c == nil {
		c = &kindCount{}
		q.kinds[k] = c
	}
	c.n++
	if c.n <= bound {
		return false
	}
	if k.user == "" && k.address == "" && e.User == "" {
		e.Address = ""
	}
	c.more, c.last = c.more+1, e
	return true
}

// sumUp tells how many there were of what was not told one by one; the zero
// time: whether or not its time has come.
func (q *auditQueue) sumUp(now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !now.IsZero() && now.Before(q.sumAt) {
		return
	}
	for k, c := range q.kinds {
		if c.more > 0 {
			e := c.last
			e.Object, e.Request = fmt.Sprintf("%d more", c.more), ""
			if k.user != e.User { // of several
				e.User, e.Org, e.Name, e.Via, e.Address = "", "", "", "", ""
			}
			q.list = append(q.list, e)
		}
	}
	clear(q.kinds)
	q.strangers, q.sumAt = 0, now.Add(sumAfter)
}

// Record queues an entry; it is written within a second or so.
func (s *Service) Record(e Entry) {
	q := &s.audit
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.countedLocked(e) {
		return
	}
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
