package replicas_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// line is an event as it comes.
type line struct {
	Seq    int64           `json:"seq"`
	Type   string          `json:"type"`
	ItemID string          `json:"item_id"`
	Data   json.RawMessage `json:"data"`
}

// follower reads a session's events as a page does: by whichever server it
// asks, again after the last number when the stream ends.
type follower struct {
	ask func() *server

	mu      sync.Mutex
	lines   []line
	breaks  int // how often the stream ended
	refused int // how often it was told to come back later
	err     error
}

// follow reads a session until the execution of a cell has ended, or ctx.
func follow(ctx context.Context, session, cell string, ask func() *server) (*follower, <-chan struct{}) {
	return followPath(ctx, "/v1/sessions/"+session+"/events", cell, ask)
}

// followPath reads events there until an execution has ended: that of a cell,
// or with "" the only one.
func followPath(ctx context.Context, path, cell string, ask func() *server) (*follower, <-chan struct{}) {
	f := &follower{ask: ask}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !f.once(ctx, path, cell) {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return f, done
}

// once follows one stream and reports whether no more is wanted.
func (f *follower) once(ctx context.Context, path, cell string) bool {
	f.mu.Lock()
	after := int64(len(f.lines))
	f.mu.Unlock()
	req, err := f.ask().request(ctx, "GET", fmt.Sprintf("%s?after=%d", path, after), nil)
	if err != nil {
		f.err = err
		return true
	}
	req.Header.Set("Accept", v1.MediaNDJSON)
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.refused++
		if resp.StatusCode != http.StatusServiceUnavailable {
			text, _ := io.ReadAll(resp.Body)
			f.err = fmt.Errorf("%d: %.300s", resp.StatusCode, text)
			return true
		}
		return false
	}
	scan := bufio.NewScanner(resp.Body)
	scan.Buffer(nil, 16<<20)
	for scan.Scan() {
		var l line
		if err := json.Unmarshal(scan.Bytes(), &l); err != nil {
			break // cut in the middle of a line
		}
		if l.Seq == 0 {
			continue
		}
		f.mu.Lock()
		if want := int64(len(f.lines)) + 1; l.Seq != want {
			f.err = fmt.Errorf("event %d comes where %d should", l.Seq, want)
		}
		f.lines = append(f.lines, l)
		f.mu.Unlock()
		if f.err != nil || l.ItemID == cell && l.Type == "execution.finished" {
			return true
		}
	}
	f.mu.Lock()
	f.breaks++
	f.mu.Unlock()
	return false
}

// text gives what a cell has written by its events.
func (f *follower) text(cell string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var b strings.Builder
	for _, l := range f.lines {
		if l.ItemID == cell && l.Type == "output.stream" {
			var d struct {
				Text string `json:"text"`
			}
			_ = json.Unmarshal(l.Data, &d)
			b.WriteString(d.Text)
		}
	}
	return b.String()
}

// count gives how many lines a cell has written so far.
func (f *follower) count(cell string) int { return strings.Count(f.text(cell), "\n") }
