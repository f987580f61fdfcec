package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/replica"
)

// Where several replicas serve one installation, a session is in the memory of
// the one that owns it. This file is what the Service is told of owners.

var _ replica.Holder = (*Service)(nil)

var sessionID = regexp.MustCompile(`^ses_[a-z2-7]{26}$`)

// nameKey begins the key of a client's name that has no session yet: who owns
// it makes the session.
const nameKey = "name:"

// KeyOf gives the key by which the session is owned that has an id, or that its
// client named so; false if that can't be a session.
func (svc *Service) KeyOf(ctx context.Context, name string) (string, bool, error) {
	if sessionID.MatchString(name) {
		return name, true, nil
	}
	if !goodClientID(name) {
		return "", false, nil
	}
	name = ownName(ctx, name)
	row, err := svc.store.SessionByClientID(ctx, name)
	switch {
	case err == nil:
		return row.ID, true, nil
	case !errors.Is(err, errdefs.ErrNotFound):
		return "", false, err
	}
	sum := sha256.Sum256([]byte(name))
	return nameKey + hex.EncodeToString(sum[:16]), true, nil
}

// IsKey reports whether an id can be that of a session.
func IsKey(id string) bool { return sessionID.MatchString(id) }

// Take is part of replica.Holder: sandboxes are adopted, and sessions in which
// something runs are read and gone on with.
func (svc *Service) Take(ctx context.Context, keys []string, done func(key string, err error)) {
	keys = slices.DeleteFunc(slices.Clone(keys), func(key string) bool {
		if strings.HasPrefix(key, nameKey) {
			done(key, nil)
			return true
		}
		return false
	})
	if len(keys) == 0 {
		return
	}
	open, err := svc.openOf(ctx, keys)
	if err != nil {
		for _, key := range keys {
			done(key, err)
		}
		return
	}
	svc.fleet.Adopt(ctx, keys, func(key string, err error) {
		if err == nil && open[key] { // without its sandbox it would be told that what ran is lost
			err = svc.goOn(ctx, key)
		}
		done(key, err)
	})
}

// goOn reads a session in which something runs or waits.
func (svc *Service) goOn(ctx context.Context, id string) error {
	s, err := svc.get(ctx, id)
	if err != nil {
		svc.log.Error("a session can't be taken over", "session_id", id, "err", err)
		if errdefs.CodeOf(err) == "session-damaged" { // which trying again does not mend
			return nil
		}
		return err
	}
	svc.mu.Lock()
	fn := svc.taken
	svc.mu.Unlock()
	if fn != nil {
		svc.background(func() { fn(s) })
	}
	return nil
}

// openOf gives those of the keys that are sessions in which something runs or
// waits.
func (svc *Service) openOf(ctx context.Context, keys []string) (map[string]bool, error) {
	open := map[string]bool{}
	if len(keys) == 1 {
		if !sessionID.MatchString(keys[0]) {
			return open, nil
		}
		row, err := svc.store.Session(ctx, keys[0])
		open[keys[0]] = row.Open
		if errors.Is(err, errdefs.ErrNotFound) {
			err = nil
		}
		return open, err
	}
	all, err := svc.store.OpenSessions(ctx)
	for _, id := range all {
		open[id] = true
	}
	return open, err
}

// WhenTaken has fn called for each session in which something ran or waits and
// that was taken over from another replica.
func (svc *Service) WhenTaken(fn func(*Session)) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	svc.taken = fn
}

// Holds is part of replica.Holder.
func (svc *Service) Holds(key string) bool {
	svc.mu.Lock()
	held := svc.live[key] != nil || svc.loading[key] != nil
	svc.mu.Unlock()
	return held || svc.fleet.Holds(key)
}

// Keys is part of replica.Holder: what has a sandbox, and sessions in which
// something runs.
func (svc *Service) Keys(ctx context.Context) ([]replica.Record, error) {
	svc.fleet.Reconcile(ctx)
	records, err := svc.fleet.Keys(ctx)
	if err != nil {
		return nil, err
	}
	open, err := svc.store.OpenSessions(ctx)
	for _, id := range open {
		records = append(records, replica.Record{Key: id})
	}
	return records, err
}

// Maker is part of replica.Holder. A session is whoever's is asked first.
func (svc *Service) Maker(ctx context.Context, key string) string {
	return svc.fleet.Maker(ctx, key)
}

// lostHold has a session that could not be written taken anew, if it still is
// this replica's: nobody may ask for it, but code may run in it.
func (s *Session) lostHold() { s.svc.opts.Replicas.Forget(s.id) }

// Other replicas are told that the list of sessions changed: at most so often,
// since busy cells change it all the time.
const (
	listChannel = "caesarion_sessions"
	tellEvery   = 200 * time.Millisecond
)

// shareList tells other replicas when the list of sessions changed here, and
// hears it from them.
func (svc *Service) shareList() {
	me := svc.opts.Replicas.ID()
	svc.background(func() {
		_ = svc.store.Listen(svc.ctx, listChannel, func(notice string) { svc.list.hear(me, notice) }) // ends with the context only
	})
	svc.background(func() {
		for {
			select {
			case <-svc.list.told:
			case <-svc.ctx.Done():
				return
			}
			for _, notice := range svc.list.untoldNotices(me) {
				if err := svc.store.Notify(svc.ctx, listChannel, notice); err != nil && svc.ctx.Err() == nil {
					svc.log.Warn("other replicas can't be told that the list of sessions changed", "err", err)
				}
			}
			select {
			case <-time.After(tellEvery):
			case <-svc.ctx.Done():
				return
			}
		}
	})
}
