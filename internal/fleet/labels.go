package fleet

import (
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/caesarion/caesarion/internal/identity"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/sandbox/pool"
)

// Labels on the driver's sandbox are the only durable record of what this
// package decided. The caller's own labels carry a prefix, so that they can't
// collide with these.
const (
	labelKernel  = "caesarion.kernel"               // id of the default kernel
	labelExpires = "caesarion.expires"              // RFC 3339
	labelUsed    = "caesarion.used"                 // RFC 3339; written now and then, not at each use
	labelExec    = "caesarion.execution_timeout_ms" // decimal
	labelIdle    = "caesarion.idle_timeout_ms"      // decimal
	labelLife    = "caesarion.lifetime_ms"          // decimal
	labelSeed    = "caesarion.seed"                 // "sandbox-1a2b3c4d": its name in the original's API
	labelSession = "caesarion.session"              // the session it belongs to
	labelPause   = "caesarion.pause_after_ms"       // decimal; -1: never
	labelStrict  = "caesarion.idle_strict"          // "1": unused for its idle time it goes, asleep or awake
	labelStart   = "caesarion.start"                // pool.Start
	labelRestart = "caesarion.restarted"            // RFC 3339, a space, the code: see Restarted
	labelUser    = "caesarion.owner_user"           // whose it is; absent: nobody's
	labelOrg     = "caesarion.owner_org"
	labelMaker   = "caesarion.replica" // the replica that makes it, or made it or took it over; see Keys
	userPrefix   = "user."
)

// record is the part of a sandbox that labels keep.
type record struct {
	kernelID  string
	expires   time.Time // of one that sleeps: had it slept from then on no longer
	used      time.Time
	execution time.Duration
	idle      time.Duration
	life      time.Duration
	seedID    string
	session   string
	pause     time.Duration // not positive: never
	strict    bool
	start     pool.Start
	restarted *Restarted // never changed in place
	owner     identity.Owner
	maker     string
	user      map[string]string
}

func (r record) labels() map[string]string {
	m := make(map[string]string, 12+len(r.user))
	for k, v := range r.user {
		m[userPrefix+k] = v
	}
	put := func(k, v string) {
		if v != "" {
			m[k] = v
		}
	}
	put(labelKernel, r.kernelID)
	put(labelSeed, r.seedID)
	put(labelSession, r.session)
	put(labelStart, string(r.start))
	put(labelUser, r.owner.User)
	put(labelOrg, r.owner.Org)
	put(labelMaker, r.maker)
	if r.strict {
		m[labelStrict] = "1"
	}
	if r.restarted != nil {
		m[labelRestart] = r.restarted.At.UTC().Format(time.RFC3339Nano) + " " + r.restarted.Reason
	}
	m[labelPause] = "-1"
	if r.pause > 0 {
		m[labelPause] = strconv.FormatInt(max(r.pause.Milliseconds(), 1), 10)
	}
	m[labelExpires] = r.expires.UTC().Format(time.RFC3339Nano)
	m[labelUsed] = r.used.UTC().Format(time.RFC3339Nano)
	m[labelExec] = strconv.FormatInt(r.execution.Milliseconds(), 10)
	m[labelIdle] = strconv.FormatInt(r.idle.Milliseconds(), 10)
	m[labelLife] = strconv.FormatInt(r.life.Milliseconds(), 10)
	return m
}

// recordOf reads the labels of a sandbox that an earlier process made. What is
// missing or damaged is taken from the template, counted from creation: a
// sandbox is never kept longer for a broken label.
func recordOf(info sandbox.Info, t Template) record {
	l := info.Labels
	r := record{
		kernelID:  l[labelKernel],
		seedID:    l[labelSeed],
		session:   l[labelSession],
		execution: labelMillis(l[labelExec], t.ExecutionTimeout),
		idle:      labelMillis(l[labelIdle], t.IdleTimeout),
		life:      labelMillis(l[labelLife], t.Lifetime),
		pause:     labelMillis(l[labelPause], t.PauseAfter),
		strict:    l[labelStrict] == "1",
		start:     pool.Start(l[labelStart]),
		owner:     ownerOf(l),
		maker:     l[labelMaker],
		user:      map[string]string{},
	}
	r.expires = labelTime(l[labelExpires], info.CreatedAt.Add(r.life))
	r.used = labelTime(l[labelUsed], info.CreatedAt)
	if now := time.Now(); r.used.After(now) { // by a clock that is ahead of this one
		r.used = now
	}
	if l[labelPause] == "-1" {
		r.pause = -1
	}
	if at, reason, ok := strings.Cut(l[labelRestart], " "); ok {
		r.restarted = newRestarted(labelTime(at, info.CreatedAt), reason)
	}
	for k, v := range l {
		if name, ok := strings.CutPrefix(k, userPrefix); ok {
			r.user[name] = v
		}
	}
	return r
}

// ownerOf gives whose a sandbox or a snapshot is, by its labels.
func ownerOf(labels map[string]string) identity.Owner {
	return identity.Owner{User: labels[labelUser], Org: labels[labelOrg]}
}

func (r record) clone() record {
	r.user = maps.Clone(r.user)
	return r
}

func labelTime(s string, otherwise time.Time) time.Time {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t
	}
	return otherwise
}

func labelMillis(s string, otherwise time.Duration) time.Duration {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 {
		return time.Duration(n) * time.Millisecond
	}
	return otherwise
}
