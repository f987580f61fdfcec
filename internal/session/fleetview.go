package session

import (
	"context"
	"encoding/json"
	"time"

	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
)

// What of a sandbox's sleep the fleet tells, as far as it does.

type view struct {
	State     sandbox.State
	Restarted *restarted
}

type restarted struct {
	At      time.Time
	Reason  string
	Message string
}

func viewOf(sb *fleet.Sandbox) view {
	var v view
	_ = json.Unmarshal(encode(sb.View()), &v)
	return v
}

func changed(sb *fleet.Sandbox) <-chan struct{} {
	if x, ok := any(sb).(interface{ Changed() <-chan struct{} }); ok {
		return x.Changed()
	}
	return nil
}

func resume(ctx context.Context, sb *fleet.Sandbox) error {
	if x, ok := any(sb).(interface {
		Resume(ctx context.Context) error
	}); ok {
		return x.Resume(ctx)
	}
	return nil
}
