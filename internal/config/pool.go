package config

// What an automatic pool may take of the machine.
const (
	maxAutoPool  = 8
	readyMemory  = Bytes(128 << 20) // a ready sandbox with pandas imported, generously
	poolFraction = 16               // of the memory that ready sandboxes may take
)

// PoolSizes gives how many sandboxes of each template are kept ready on a
// machine of so many cores and bytes of memory (0: unknown). What the settings
// leave to the machine is one for each core, as far as a sixteenth of the
// memory goes, for the default template, and none for the others: they may
// never be asked for. Without snapshots making one ready takes seconds of all
// cores, so that none are kept unless the settings say so.
func (s *Server) PoolSizes(cores int, memory int64) map[string]int {
	sizes := make(map[string]int, len(s.Templates))
	for name, t := range s.Templates {
		switch {
		case t.PoolSize != AutoPoolSize:
			sizes[name] = int(t.PoolSize)
		case s.Snapshots && name == DefaultTemplate:
			n := min(cores, maxAutoPool)
			if memory > 0 {
				n = min(n, int(memory/poolFraction/int64(readyMemory)))
			}
			sizes[name] = max(n, 1)
		default:
			sizes[name] = 0
		}
	}
	return sizes
}
