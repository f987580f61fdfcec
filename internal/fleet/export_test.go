package fleet

// WithMemory has a fleet believe this of the machine.
func (o Options) WithMemory(total, available int64) Options {
	o.memory = func() (int64, int64) { return total, available }
	return o
}
