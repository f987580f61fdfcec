package chat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/errdefs"
	"github.com/caesarion/caesarion/internal/event"
	"github.com/caesarion/caesarion/internal/llm"
	"github.com/caesarion/caesarion/internal/session"
)

// The statuses of a turn and of its items, as api/v1 has them.
const (
	statusOK      = "ok"
	statusError   = "error"
	statusStopped = "stopped"
	statusLimit   = "limit"
)

// The codes of turns that ended otherwise than by a failure of the model's
// server, which have llm's codes.
const (
	codeRounds  = "too-many-rounds"
	codeLength  = "answer-too-long"
	codeRefusal = "model-declined"
	codeEmpty   = "model-empty-answer"
	codeSandbox = "sandbox-failed"
	codeClosing = "server-stopping"
)

// loop is one turn at work. It belongs to the turn's goroutine, but for what
// runTools shares.
type loop struct {
	s     *Service
	sess  *session.Session
	t     *session.Turn
	model llm.Model
	log   *slog.Logger

	system  string
	history historyOptions
	before  []v1.Item // the thread when the turn began
	own     []entry   // what the turn added, as the model is to see it

	failures int    // of the sandbox, in a row
	lastText string // the turn's last item, if that is text
}

// outcome is how a turn ended.
type outcome struct{ status, code, message string }

// start finds the model and runs.
func (l *loop) start(ctx context.Context) outcome {
	var err error
	if l.model, err = l.s.models.Get(ctx, l.t.Model()); err != nil {
		return l.failed(ctx, err)
	}
	return l.run(ctx)
}

// run works until the model has said what there is to say.
func (l *loop) run(ctx context.Context) outcome {
	l.before = l.t.History()
	for i, it := range l.before {
		if it.Tool != nil && it.Kind == "cell" && (it.Status == "queued" || it.Status == "running") {
			l.before[i] = l.awaitCell(ctx, it)
		}
	}
	info := l.model.Info()
	l.history.vision = info.Vision
	var err error
	if l.system, err = l.s.systemPrompt(info.Name, info.Vision); err != nil {
		return l.failed(ctx, err)
	}
	l.lookAtFiles(ctx, l.before)
	empty := false
	for round := 1; ; round++ {
		if round > l.s.opts.MaxRounds {
			return outcome{statusLimit, codeRounds, fmt.Sprintf("The model worked %d rounds without coming to an end, and was stopped there. Let it continue, or ask for a smaller step.", l.s.opts.MaxRounds)}
		}
		a, err := l.ask(ctx, round)
		if err != nil {
			return l.failed(ctx, err)
		}
		if len(a.calls) == 0 {
			if a.finish == llm.FinishStop && a.text == "" && !empty {
				empty = true // some servers do that now and then; once more is cheap
				continue
			}
			return a.outcome()
		}
		if err := l.runTools(ctx, round, a); err != nil {
			return l.failed(ctx, err)
		}
	}
}

// awaitCell waits for a cell of an earlier turn that outlived its server, as
// the turn would have.
func (l *loop) awaitCell(ctx context.Context, it v1.Item) v1.Item {
	ctx, cancel := context.WithTimeout(ctx, l.s.opts.ToolTimeout)
	defer cancel()
	src := l.sess.Reader(l.sess.View().LastSeq)
	defer src.Close()
	for {
		now, err := l.sess.Item(ctx, it.ID)
		if err != nil {
			return it
		}
		if now.Status != "queued" && now.Status != "running" {
			return now
		}
		_, err = src.Next(ctx)
		if gap, ok := errors.AsType[*event.GapError](err); ok {
			src.Skip(gap.Oldest)
		} else if err != nil {
			return now
		}
	}
}

// outcome says how an answer without calls ends the turn.
func (a *answer) outcome() outcome {
	switch {
	case a.finish == llm.FinishLength:
		return outcome{statusLimit, codeLength, "The answer reached the most that the model may write at once. Let it continue."}
	case a.finish == llm.FinishRefusal:
		return outcome{statusOK, codeRefusal, "The model declined to answer this."}
	case a.text == "":
		return outcome{statusError, codeEmpty, "The model gave an empty answer. Try again, or choose another model."}
	}
	return outcome{status: statusOK}
}

// tell puts what ended a turn that did not come to its end into its last item:
// the turn itself is not kept.
func (l *loop) tell(o outcome) {
	status := statusError
	switch o.status {
	case statusLimit:
		status = statusStopped
	case statusError:
	default:
		return
	}
	if l.lastText == "" {
		var err error
		if l.lastText, err = l.t.StartText(); err != nil {
			l.lost(err)
			return
		}
	}
	l.finish(l.lastText, status, o.message)
}

// failed says how an error ends the turn.
func (l *loop) failed(ctx context.Context, err error) outcome {
	if ctx.Err() != nil {
		return outcome{status: statusStopped}
	}
	o := outcome{statusError, "internal", "Something went wrong in the server; its log has the reason. Try again."}
	if e, ok := errors.AsType[*errdefs.Error](err); ok {
		o.message = e.Msg
		if e.Hint != "" {
			o.message += " " + sentence(e.Hint)
		}
		if e.Code != "" {
			o.code = e.Code
		}
	}
	l.log.Warn("a turn failed", slog.String("code", o.code), slog.Any("err", err))
	return o
}

// closing says that the server stops. What is under way is left as it is: the
// next process cuts it, and follows a cell that still runs.
func closing(ctx context.Context) bool { return errors.Is(context.Cause(ctx), errClosing) }

// request is what the model gets next, in a history of at most so many tokens,
// and how many it took.
func (l *loop) request(budget int64) (llm.Request, int64) {
	entries := make([]entry, 0, len(l.before)+len(l.own))
	for _, it := range l.before {
		entries = append(entries, entry{Item: it})
	}
	entries = append(entries, l.own...)
	blocks := fit(history(entries, l.history), budget)
	return llm.Request{Messages: flatten(l.system, blocks), Tools: l.s.tools()}, blocksSize(blocks)
}

// minBudget is the smallest history that is worth a request.
const minBudget = 300

// ask calls the model once, and puts what it says into the session as it comes.
func (l *loop) ask(ctx context.Context, round int) (*answer, error) {
	budget := windowBudget(l.model.Info(), l.system)
	for {
		if err := l.s.mayAsk(l.sess); err != nil {
			return nil, err
		}
		a := &answer{l: l, round: round}
		req, size := l.request(budget)
		err := l.stream(ctx, a, req)
		l.s.asked(l.sess, a, size, err)
		if err == nil {
			a.closeText(statusOK)
			l.t.Round(round, v1.TokenUsage{InputTokens: a.usage.InputTokens, CachedInputTokens: a.usage.CachedInputTokens, OutputTokens: a.usage.OutputTokens})
			return a, nil
		}
		if !closing(ctx) {
			a.abandon(ctx)
		}
		e, _ := errors.AsType[*errdefs.Error](err)
		if budget = min(budget, size) / 2; e == nil || e.Code != llm.CodeContextLength || a.began || budget < minBudget {
			return nil, err
		}
		// The estimate, or what is known of the window, was wrong.
	}
}

func (l *loop) stream(ctx context.Context, a *answer, req llm.Request) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.s.opts.RoundTimeout, errdefs.New(errdefs.ErrUnavailable, llm.CodeTimeout,
		"The model took longer than %s for one answer.", durationText(l.s.opts.RoundTimeout)).WithHint("try again, or choose a faster model"))
	defer cancel()
	for ev, err := range l.model.Stream(ctx, req) {
		if err == nil {
			err = a.add(ev)
		}
		if err != nil {
			return explainTools(err)
		}
	}
	return context.Cause(ctx)
}

// answer is one answer of the model on its way into the session.
type answer struct {
	l     *loop
	round int

	began    bool   // something of it is in the session
	item     string // the assistant item that is open
	text     string // of all its assistant items together
	itemText string
	calls    []*call
	finish   llm.FinishReason
	usage    llm.Usage
}

// call is one call in an answer.
type call struct {
	llm.ToolCall
	item   string
	stream codeStream
	shown  []byte // code that is in the cell so far
}

func (a *answer) add(ev llm.Event) error {
	t := a.l.t
	switch ev.Kind {
	case llm.Retry:
		a.l.log.Info("asking the model again", slog.String("reason", ev.Text), slog.Duration("duration", ev.After))
	case llm.Text, llm.Reasoning:
		a.began = true
		if a.item == "" {
			var err error
			if a.item, err = t.StartText(); err != nil {
				return err
			}
		}
		field := "text"
		if ev.Kind == llm.Reasoning {
			field = "reasoning"
		} else {
			a.text += ev.Text
			a.itemText += ev.Text
		}
		return t.Append(a.item, field, ev.Text)
	case llm.ToolCallStart:
		a.began = true
		a.closeText(statusOK)
		a.l.lastText = ""
		if err := a.showTool(); err != nil {
			return err
		}
		c := &call{ToolCall: llm.ToolCall{ID: ev.ID, Name: ev.Name}}
		a.calls = append(a.calls, c)
		if c.Name == toolPython {
			// It can start while the code is still being written.
			if _, err := a.l.sess.EnsureSandbox(); err != nil {
				a.l.log.Debug("no sandbox yet", slog.Any("err", err)) // the run will say why
			}
			var err error
			c.item, err = t.StartCell(v1.ToolCall{ID: c.ID, Name: c.Name})
			return err
		}
	case llm.ToolArguments:
		c := a.calls[ev.Index]
		c.Arguments += ev.Text
		if c.Name != toolPython {
			return nil
		}
		if piece := c.stream.Write(ev.Text); piece != "" {
			c.shown = append(c.shown, piece...)
			return t.Append(c.item, "code", piece)
		}
	case llm.Finish:
		a.finish, a.usage = ev.FinishReason, ev.Usage
		return a.showTool()
	}
	return nil
}

// showTool makes the item of the last call, when it has none yet: its
// arguments are complete when something else follows.
func (a *answer) showTool() error {
	if len(a.calls) == 0 {
		return nil
	}
	c := a.calls[len(a.calls)-1]
	if c.item != "" {
		return nil
	}
	args := json.RawMessage(c.Arguments)
	if object, err := parseObject(c.Arguments, false); err == nil {
		args, _ = json.Marshal(object) // what JSON gave
	}
	if !json.Valid(args) {
		args, _ = json.Marshal(map[string]string{"arguments": c.Arguments}) // strings
	}
	var err error
	c.item, err = a.l.t.StartTool(v1.ToolCall{ID: c.ID, Name: c.Name, Arguments: args})
	return err
}

func (a *answer) closeText(status string) {
	if a.item == "" {
		return
	}
	a.l.finish(a.item, status, "")
	a.l.lastText = a.item
	a.l.own = append(a.l.own, entry{round: a.round, Item: v1.Item{ID: a.item, Kind: "assistant", Text: a.itemText}})
	a.item, a.itemText = "", ""
}

// abandon ends what an answer that broke off has begun: no call of it runs.
func (a *answer) abandon(ctx context.Context) {
	status, text := statusError, "The model's answer broke off here; this did not run."
	if ctx.Err() != nil {
		status, text = statusStopped, ""
	}
	a.closeText(status)
	for _, c := range a.calls {
		switch {
		case c.item == "":
		case c.Name == toolPython:
			// The call gets arguments, without which it would be no call.
			code := string(c.shown)
			a.l.setCode(c.item, code, v1.ToolCall{ID: c.ID, Name: c.Name, Arguments: json.RawMessage(codeArguments(code))})
			a.l.finish(c.item, status, text)
		default:
			a.l.finishTool(c.item, nil, cmp.Or(text, "Aborted by the user."))
		}
	}
}

// sentence gives a hint the form of a sentence.
func sentence(s string) string {
	if s[0] >= 'a' && s[0] <= 'z' {
		s = string(s[0]-'a'+'A') + s[1:]
	}
	switch s[len(s)-1] {
	case '.', '!', '?':
		return s
	}
	return s + "."
}
