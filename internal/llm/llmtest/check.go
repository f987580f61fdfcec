package llmtest

import (
	"iter"

	"github.com/caesarion/caesarion/internal/llm"
)

// Check reads an answer to its end and fails the test where it breaks the
// contract of llm.Model.
func Check(tb TB, events iter.Seq2[llm.Event, error]) (llm.Answer, error) {
	tb.Helper()
	var a llm.Answer
	begun, ended := false, false
	for ev, err := range events {
		if ended {
			tb.Errorf("llmtest: %+v, %v after the end", ev, err)
		}
		if err != nil {
			if ev != (llm.Event{}) {
				tb.Errorf("llmtest: error %v with event %+v", err, ev)
			}
			return a, err
		}
		switch ev.Kind {
		case llm.Retry:
			if begun || ev.Text == "" || ev.After < 0 {
				tb.Errorf("llmtest: %+v out of place or without reason", ev)
			}
			continue
		case llm.Text, llm.Reasoning:
			if ev.Text == "" {
				tb.Errorf("llmtest: an empty delta: %+v", ev)
			}
		case llm.ToolCallStart:
			if ev.Index != len(a.ToolCalls) || ev.ID == "" {
				tb.Errorf("llmtest: call %+v has no id, or index %d is not next", ev, ev.Index)
			}
			for _, c := range a.ToolCalls {
				if c.ID == ev.ID {
					tb.Errorf("llmtest: id %q twice", ev.ID)
				}
			}
		case llm.ToolArguments:
			if ev.Text == "" || ev.Index < 0 || ev.Index >= len(a.ToolCalls) {
				tb.Errorf("llmtest: arguments %+v of no call, or empty", ev)
				continue
			}
		case llm.Finish:
			ended = true
			if ev.FinishReason == "" || ev.Usage.InputTokens < 0 || ev.Usage.OutputTokens < 0 || ev.Usage.CachedInputTokens > ev.Usage.InputTokens {
				tb.Errorf("llmtest: end %+v", ev)
			}
		default:
			tb.Errorf("llmtest: unknown kind %d", ev.Kind)
		}
		begun = true
		a.Add(ev)
	}
	if !ended {
		tb.Errorf("llmtest: neither Finish nor an error")
	}
	return a, nil
}
