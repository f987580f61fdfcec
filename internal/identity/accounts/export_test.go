package accounts

import "time"

// SetNow gives Options a clock.
func (o *Options) SetNow(now func() time.Time) { o.now = now }
