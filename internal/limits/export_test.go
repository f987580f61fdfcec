package limits

import "time"

// WithClock has a service live at the times that now says.
func (o Options) WithClock(now func() time.Time) Options {
	o.now = now
	return o
}
