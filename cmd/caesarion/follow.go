package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/caesarion/caesarion/internal/client"
	"github.com/caesarion/caesarion/internal/event"
)

// callTimeout bounds the small calls made beside a stream: an interrupt, an
// answer to input(), a deletion at the end.
const callTimeout = 30 * time.Second

// asker answers the code's input() and getpass().
type asker interface {
	// Ask gives the line that was typed. It ends early with
	// context.Cause(ctx), with errInterrupted after Ctrl-C, or with io.EOF.
	Ask(ctx context.Context, in event.Input) (string, error)
}

// follower runs one execution after the other and shows what they do.
type follower struct {
	client  *client.Client
	sandbox string
	show    *renderer
	ask     asker
	signals <-chan os.Signal
	notes   io.Writer               // for words that are ours, not the code's
	events  func(event.Event) error // when set, gets the events instead of show
	kill    func(ctx context.Context, kernel string) error
}

type next struct {
	ev  event.Event
	err error
}

type answer struct {
	line string
	err  error
}

// Follow shows the events of an execution until its end. The first signal
// interrupts the code, the second one kills it.
func (f *follower) Follow(ctx context.Context, s *client.Stream) (event.Finished, error) {
	var fin event.Finished
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan next)
	go func() {
		defer close(events)
		for {
			ev, err := s.Next()
			select {
			case events <- next{ev, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	answers, asking := make(chan answer, 1), false
	defer func() { // the reader ends before the stream is given back
		cancel()
		_ = s.Close()
		for range events {
		}
	}()
	stopAsking := func() {}
	defer func() { // nobody else may read the terminal before the question is gone
		if stopAsking(); asking {
			<-answers
		}
	}()

	kernel, signalled := "", 0
	for {
		select {
		case n, ok := <-events:
			if !ok { // the reader gave up because ctx ended
				return fin, context.Cause(ctx)
			}
			if errors.Is(n.err, io.EOF) {
				return fin, nil
			}
			if n.err != nil {
				return fin, n.err
			}
			if err := f.event(n.ev); err != nil {
				return fin, err
			}
			switch n.ev.Type {
			case event.ExecutionStarted:
				var started event.Started
				if json.Unmarshal(n.ev.Data, &started) == nil {
					kernel = started.KernelID
				}
			case event.InputRequested:
				var in event.Input
				if err := json.Unmarshal(n.ev.Data, &in); err != nil {
					return fin, fmt.Errorf("%s: %w", n.ev.Type, err)
				}
				askCtx, stop := context.WithCancel(ctx)
				stopAsking, asking = stop, true
				go func() {
					line, err := f.ask.Ask(askCtx, in)
					answers <- answer{line, err}
				}()
			case event.ExecutionFinished:
				if err := json.Unmarshal(n.ev.Data, &fin); err != nil {
					return fin, fmt.Errorf("%s: %w", n.ev.Type, err)
				}
				return fin, nil
			}
		case a := <-answers:
			stopAsking()
			asking = false
			if err := f.answer(ctx, s.ID, a); err != nil {
				return fin, err
			}
		case sig := <-f.signals:
			signalled++
			// Only who sits at the keyboard gets to try again.
			if signalled == 1 && sig == os.Interrupt {
				if err := f.interrupt(ctx, s.ID); err != nil {
					return fin, err
				}
				continue
			}
			if err := f.kill(ctx, kernel); err != nil {
				return fin, err
			}
			why := "killed by a second Ctrl-C"
			if sig != os.Interrupt {
				why = "killed by signal: " + sig.String()
			}
			return event.Finished{Status: event.StatusKilled, Message: why}, nil
		}
	}
}

func (f *follower) event(ev event.Event) error {
	if f.events != nil {
		return f.events(ev)
	}
	switch ev.Type {
	case event.ExecutionQueued:
		var q event.Queued
		if json.Unmarshal(ev.Data, &q) == nil && q.Ahead > 0 {
			fmt.Fprintf(f.notes, "waiting: %d other executions come first on this kernel\n", q.Ahead)
		}
		return nil
	case event.KernelRestarted:
		f.show.freshLine()
		fmt.Fprintln(f.notes, "the kernel was started anew: variables are gone, files are still there")
		return nil
	}
	return f.show.Show(ev)
}

func (f *follower) interrupt(ctx context.Context, execution string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f.client.Interrupt(ctx, f.sandbox, execution)
}

// answer hands a line to the code. Code that asks when there is nobody to
// answer is interrupted: Jupyter's protocol has no end of input.
func (f *follower) answer(ctx context.Context, execution string, a answer) error {
	switch {
	case errors.Is(a.err, io.EOF):
		fmt.Fprintln(f.notes, "the code asks for input, but standard input has ended: interrupting it")
		return f.interrupt(ctx, execution)
	case errors.Is(a.err, errInterrupted):
		return f.interrupt(ctx, execution)
	case errors.Is(a.err, context.Canceled):
		return nil // the question is no longer asked
	case a.err != nil:
		return a.err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return f.client.Input(ctx, f.sandbox, execution, a.line)
}

// lineAsker reads answers from standard input, terminal or not.
type lineAsker struct {
	in     io.Reader
	out    io.Writer // for prompts
	reader *bufio.Reader
}

// Ask implements asker. A terminal's line cannot be taken back once its read
// has begun, so the read goes on when ctx ends, and its line is lost.
func (l *lineAsker) Ask(ctx context.Context, in event.Input) (string, error) {
	fmt.Fprint(l.out, in.Prompt)
	done := make(chan answer, 1)
	go func() {
		line, err := l.read(in.Password)
		done <- answer{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case a := <-done:
		return a.line, a.err
	}
}

func (l *lineAsker) read(password bool) (string, error) {
	if n, ok := fd(l.in); ok && password {
		secret, err := term.ReadPassword(n)
		fmt.Fprintln(l.out)
		return string(secret), err
	}
	if l.reader == nil {
		l.reader = bufio.NewReader(l.in)
	}
	line, err := l.reader.ReadString('\n')
	if errors.Is(err, io.EOF) && line != "" {
		err = nil
	}
	return strings.TrimRight(line, "\r\n"), err
}

// statusError turns the end of an execution into the program's end, and says
// what the outputs did not.
func statusError(fin event.Finished, notes io.Writer) error {
	status := exitFailed
	switch fin.Status {
	case event.StatusOK:
		return nil
	case event.StatusError:
		return &exitError{exitFailed} // the traceback has been shown
	case event.StatusInterrupted:
		status = exitInterrupted
	case event.StatusTimeout:
		status = exitTimeout
	case event.StatusKilled:
		status = exitKilled
	}
	text := string(fin.Status)
	if fin.Reason != "" {
		text += " (" + oneLine(string(fin.Reason)) + ")"
	}
	if fin.Message != "" {
		text += ": " + oneLine(fin.Message)
	}
	fmt.Fprintln(notes, "caesarion: "+text)
	return &exitError{status}
}
