package kube

import (
	"time"
	_ "time/tzdata" // zones have names, and the server's image has no files of them

	"github.com/caesarion/caesarion/internal/errdefs"
)

// defaultNightIdle is how long nobody must have asked for a template at night.
const defaultNightIdle = 15 * time.Minute

// Night is the time of day in which nothing is kept ready of a template that
// nobody asks for. The zero value is never.
type Night struct {
	From, To time.Duration  // since midnight, by the clock on the wall; From after To goes over midnight
	Zone     *time.Location // default: UTC
	Idle     time.Duration  // nobody has asked for so long; default 15 min
}

// ParseNight reads a night as settings have it: "22:00", "06:30" and the name
// of a time zone, "Europe/Berlin"; "" is UTC. Two empty times are no night.
func ParseNight(from, to, zone string) (Night, error) {
	if from == "" && to == "" {
		return Night{}, nil
	}
	n := Night{Zone: time.UTC}
	for _, end := range []struct {
		what, text string
		at         *time.Duration
	}{{"from", from, &n.From}, {"to", to, &n.To}} {
		t, err := time.Parse("15:04", end.text)
		if err != nil {
			return Night{}, errdefs.New(errdefs.ErrInvalid, "invalid-night", "%q is no time of day for a night's %s", end.text, end.what).
				WithHint("write hours and minutes, as in 22:00")
		}
		*end.at = time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
	}
	if n.From == n.To {
		return Night{}, errdefs.New(errdefs.ErrInvalid, "invalid-night", "a night from %s to %s has no time or all of it", from, to).
			WithHint("give two times, or set the pool's size to 0")
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		return Night{}, errdefs.New(errdefs.ErrInvalid, "invalid-night", "%q is no time zone", zone).
			WithHint("use a name of the IANA database, as in Europe/Berlin").WithCause(err)
	}
	n.Zone = loc
	return n, nil
}

// covers reports whether it is night at t.
func (n Night) covers(t time.Time) bool {
	if n.From == n.To {
		return false
	}
	zone := n.Zone
	if zone == nil {
		zone = time.UTC
	}
	h, m, s := t.In(zone).Clock()
	at := time.Duration(h)*time.Hour + time.Duration(m)*time.Minute + time.Duration(s)*time.Second
	if n.From < n.To {
		return n.From <= at && at < n.To
	}
	return n.From <= at || at < n.To
}

// until gives the end of the night on the wall.
func (n Night) until() string { return time.Time{}.Add(n.To).Format("15:04") }
