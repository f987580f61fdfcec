package fleet

import (
	"maps"
	"slices"
)

// Running gives how many executions have not ended, those that wait included,
// over the sandboxes that this server has.
func (f *Fleet) Running() int {
	f.mu.Lock()
	boxes := slices.Collect(maps.Values(f.alive))
	f.mu.Unlock()
	n := 0
	for _, s := range boxes {
		s.execs.mu.Lock()
		n += s.execs.open
		s.execs.mu.Unlock()
	}
	return n
}
