package pool

// WithMemory has a pool see this machine's memory.
func (o Options) WithMemory(memory func() (total, available int64)) Options {
	o.memory = memory
	return o
}

// WaitingForTurn counts the requests that wait in the gate.
func (p *Pool) WaitingForTurn() int {
	p.gate.mu.Lock()
	defer p.gate.mu.Unlock()
	return len(p.gate.queue)
}

// HasSnapshots reports whether the pool makes them.
func (p *Pool) HasSnapshots() bool { return p.snap != nil }
