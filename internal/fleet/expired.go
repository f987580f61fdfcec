package fleet

import (
	"time"

	"github.com/caesarion/caesarion/internal/sandbox"
)

// Expired reports whether the life or the idle time of a sandbox that is awake
// is over by what its labels say, and which. It is for sandboxes that no Fleet
// has: a Fleet ends its own, and knows better when they were used.
func Expired(info sandbox.Info, t Template, now time.Time) (reason string, yes bool) {
	rec := recordOf(info, t)
	switch {
	case now.After(rec.expires):
		return ReasonExpired, true
	case now.After(rec.used.Add(rec.idle + labelWriteEvery)):
		return ReasonIdle, true
	}
	return "", false
}
