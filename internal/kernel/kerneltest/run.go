package kerneltest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/caesarion/caesarion/internal/kernel"
)

// Client is what a case needs of a kernel.
type Client interface {
	kernel.Conn
	Interrupt() error
}

// Received is a message as it came, with the step that caused it.
type Received struct {
	Step     int             `json:"step"`
	Type     string          `json:"type"`
	Content  json.RawMessage `json:"content"`
	Metadata json.RawMessage `json:"metadata"`
}

// Run runs the steps of a case one after the other, gives every message that came back and closes
// the client: that is what ends the goroutine that receives.
func Run(ctx context.Context, c Case, client Client) ([]Received, error) {
	r := &run{client: client, step: map[string]int{}, messages: make(chan *kernel.Message), failed: make(chan error, 1)}
	stop := make(chan struct{})
	finished := make(chan struct{})
	defer func() {
		close(stop)
		_ = client.Close() // the messages are here; how the connection ends is of no interest
		<-finished
	}()
	go func() {
		defer close(finished)
		r.receive(stop)
	}()
	for i, step := range c.Steps {
		if err := r.do(ctx, i+1, step); err != nil {
			return r.all, fmt.Errorf("%s, step %d: %w", c.Name, i+1, err)
		}
	}
	return r.all, nil
}

type run struct {
	client   Client
	step     map[string]int // by msg_id of the request
	pending  int            // requests without their idle status
	messages chan *kernel.Message
	failed   chan error
	all      []Received
}

func (r *run) receive(stop <-chan struct{}) {
	for {
		m, err := r.client.Receive()
		if err != nil {
			r.failed <- err
			return
		}
		select {
		case r.messages <- m:
		case <-stop:
			return
		}
	}
}

func (r *run) do(ctx context.Context, number int, step Step) error {
	content, err := json.Marshal(step.Content)
	if err != nil {
		return err
	}
	id := fmt.Sprintf("step-%d", number)
	r.step[id] = number
	r.pending++
	err = r.client.Send(&kernel.Message{
		Channel: step.Channel,
		Header: kernel.Header{
			MsgID: id, MsgType: step.Type, Session: "kerneltest", Username: "test",
			Date: time.Now().UTC().Format(time.RFC3339Nano), Version: kernel.ProtocolVersion,
		},
		Content: content,
	})
	if err != nil || step.Options.NoWait {
		return err
	}
	var interrupt, late <-chan time.Time
	if ms := step.Options.InterruptAfter; ms > 0 {
		interrupt = time.After(time.Duration(ms) * time.Millisecond)
	}
	input := step.Options.Input
	for {
		if r.pending == 0 && late == nil {
			if step.Options.Wait == 0 {
				return nil
			}
			late = time.After(time.Duration(step.Options.Wait) * time.Millisecond)
		}
		select {
		case m := <-r.messages:
			r.record(m)
			if m.Header.MsgType == "input_request" && len(input) > 0 {
				if err := r.answer(m, input[0]); err != nil {
					return err
				}
				input = input[1:]
			}
		case err := <-r.failed:
			return fmt.Errorf("receive: %w", err)
		case <-interrupt:
			if err := r.client.Interrupt(); err != nil {
				return err
			}
		case <-late:
			return nil
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), fmt.Errorf("received so far: %+v", r.all))
		}
	}
}

func (r *run) record(m *kernel.Message) {
	step := r.step[m.ParentID]
	if m.Header.MsgType == "status" {
		var status struct {
			State string `json:"execution_state"`
		}
		if json.Unmarshal(m.Content, &status) == nil && status.State == "idle" && step > 0 {
			r.pending--
		}
	}
	r.all = append(r.all, Received{Step: step, Type: m.Header.MsgType, Content: m.Content, Metadata: m.Metadata})
}

func (r *run) answer(m *kernel.Message, value string) error {
	content, err := json.Marshal(map[string]string{"value": value})
	if err != nil {
		return err
	}
	return r.client.Send(&kernel.Message{
		Channel:      kernel.Stdin,
		Header:       kernel.Header{MsgID: "answer", MsgType: "input_reply", Session: "kerneltest", Version: kernel.ProtocolVersion},
		ParentHeader: mustMarshal(m.Header),
		Content:      content,
	})
}

func mustMarshal(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // plain structs of strings
	}
	return b
}
