package agent

import (
	"context"
	"encoding/json"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/caesarion/caesarion/internal/agentapi"
)

// trimRequest is one of the kernel program's own, see memory.py.
const trimRequest = "trim_request"

// trimTimeout bounds what one kernel's collection may take.
const trimTimeout = 10 * time.Second

// trim gives back memory that is not needed: that of idle kernels and of the
// agent itself. A kernel that runs code or does not answer is left alone.
func (a *Agent) trim(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, trimTimeout)
	defer cancel()
	a.mu.Lock()
	keepers := slices.Collect(maps.Values(a.kernels))
	a.mu.Unlock()
	var wg sync.WaitGroup
	for _, k := range keepers {
		wg.Go(func() { k.trim(ctx) })
	}
	wg.Wait()
	debug.FreeOSMemory()
}

func (k *keeper) trim(ctx context.Context) {
	k.mu.Lock()
	inc, idle := k.inc, k.state == agentapi.KernelIdle
	k.mu.Unlock()
	if inc == nil || !idle {
		return
	}
	if m, err := inc.ask(ctx, trimRequest, json.RawMessage("{}")); err == nil {
		err = checkReply(m, "memory could not be given back")
		if err != nil {
			k.agent.log.Warn("kernel", "kernel", k.id(), "err", err)
		}
	}
}
