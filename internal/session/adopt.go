package session

import (
	"context"
	"encoding/json"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox"
	"github.com/caesarion/caesarion/internal/store"
)

// Sentences of what a stop of the server cut.
const (
	cutTurn = "The server was restarted while the model worked. Continue, or ask again."
	cutText = "The server was restarted while this was written."
	cutCell = "The server was restarted while this ran, and its sandbox is gone. Run it again."
	cutWait = "The server was restarted before this ran. Run it again."
)

// takeOver makes a session that was just loaded agree with what is there: its
// sandbox, and what an earlier process left under way.
func (s *Session) takeOver() {
	row, err := s.svc.store.Session(s.ctx, s.id)
	if err != nil {
		return // not kept yet
	}
	executions, err := s.svc.store.Executions(s.ctx, s.id)
	if err != nil {
		s.svc.log.Error("runs of a session can't be read", "session_id", s.id, "err", err)
	}
	sb, alive := s.svc.fleet.BySession(s.id)
	_ = s.do(func() error {
		if alive {
			s.lease.sb, s.lease.had = sb, true
			s.watchLocked(sb)
		}
		if row.Open {
			s.adoptRunsLocked(sb, row, executions)
			s.cutTurnLocked()
			s.cutItemsLocked()
			s.saveSessionLocked()
		}
		s.adoptSandboxLocked(sb)
		s.workLocked()
		return nil
	})
}

func (s *Session) adoptSandboxLocked(sb *fleet.Sandbox) {
	if sb != nil {
		s.sleepLocked(sb) // it may sleep, and is not woken for this
		return
	}
	switch s.view.Sandbox.State {
	case sandboxNone, sandboxLost:
		s.lease.had = s.view.Sandbox.Reason != ""
	default:
		s.lease.had = true
		s.setSandboxLocked(s.goneLocked(s.svc.goneReason(sandbox.ID(s.view.Sandbox.ID), reasonRestart)))
	}
}

// adoptRunsLocked goes on with the cell whose execution still lives in the
// sandbox, and with those that wait behind it.
func (s *Session) adoptRunsLocked(sb *fleet.Sandbox, row store.Session, executions []store.Execution) {
	var st state
	_ = json.Unmarshal(row.State, &st) // load has read it
	for _, x := range executions {
		n := s.tree.nodes[x.ItemID]
		var exec *fleet.Execution
		if sb != nil && string(sb.ID()) == x.SandboxID {
			exec, _ = sb.Execution(x.ID) // forgotten: cut
		}
		if n == nil || n.item.ExecutionID != x.ID || exec == nil || s.runs.current != nil {
			s.pendingLocked().ended = append(s.pendingLocked().ended, x.ID)
			continue
		}
		r := &run{n: n, id: x.ID, code: n.item.Code, group: &group{}, after: x.Seq, exec: exec, done: make(chan struct{})}
		r.ctx, r.cancel = context.WithCancelCause(s.ctx)
		s.runs.current = r
	}
	if s.runs.current == nil {
		return
	}
	groups := map[int]*group{0: s.runs.current.group}
	for _, q := range st.Queue {
		n := s.tree.nodes[q.Item]
		if n == nil || n.item.ExecutionID != q.Execution || n.item.Status != "queued" {
			continue
		}
		if groups[q.Group] == nil {
			groups[q.Group] = &group{}
		}
		r := &run{n: n, id: q.Execution, code: n.item.Code, timeout: q.Timeout, group: groups[q.Group], done: make(chan struct{})}
		r.ctx, r.cancel = context.WithCancelCause(s.ctx)
		s.runs.queue = append(s.runs.queue, r)
	}
}

func (s *Session) cutTurnLocked() {
	t := s.view.Turn
	if t == nil {
		return
	}
	s.endTurnLocked(t, "cut", "server-restarted", cutTurn)
}

// cutItemsLocked marks what nobody works on any more.
func (s *Session) cutItemsLocked() {
	working := map[*node]bool{}
	if r := s.runs.current; r != nil {
		working[r.n] = true
	}
	for _, r := range s.runs.queue {
		working[r.n] = true
	}
	for _, n := range s.tree.nodes {
		if finished(n.item.Status) || working[n] {
			continue
		}
		message := cutText
		switch n.item.Status {
		case "queued":
			message = cutWait
		case "running":
			message = cutCell
			if n.item.Kind == "tool" {
				message = cutText
			}
		}
		s.cutLocked(n, "cut", message)
	}
}

func (s *Session) cutLocked(n *node, status, message string) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	s.changeLocked(n, func(it *v1.Item) {
		it.Status, it.Message, it.Input = status, message, nil
		if it.Kind == "cell" && it.StartedAt != nil {
			it.FinishedAt = &now
		}
	})
	s.saveWholeLocked(n)
}

// endTurnLocked ends a turn in the log.
func (s *Session) endTurnLocked(t *v1.Turn, status, code, message string) {
	now := time.Now().UTC().Truncate(time.Microsecond)
	t.Status, t.Code, t.Message, t.FinishedAt = status, code, message, &now
	last := *t
	s.view.Turn, s.view.LastTurn = nil, &last
	s.emitLocked(event.TurnFinished, "", "", *t)
	s.touchLocked()
	s.changedLocked()
}
