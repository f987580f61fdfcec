package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

const (
	// Work that takes less than this is done silently.
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
)

// progress tells a person what is going on once it takes longer than a
// second: a line that is rewritten on a terminal, one line in all elsewhere.
type progress struct {
	w    io.Writer
	tty  bool
	what string
	stop chan struct{}
	done sync.WaitGroup

	mu    sync.Mutex
	bytes int64 // guarded by mu, as all below
	total int64 // 0: unknown, then no bar
	begun time.Time
	shown bool
}

// startProgress begins to tell. Nothing is said to programs.
func startProgress(g *globals, what string) *progress {
	p := &progress{w: g.Stderr, tty: isTerminal(g.Stderr), what: what, stop: make(chan struct{}), begun: time.Now()}
	if g.JSON {
		return p
	}
	p.done.Go(func() {
		timer := time.NewTimer(progressAfter)
		defer timer.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-timer.C:
				p.show()
				if !p.tty {
					return
				}
				timer.Reset(progressEvery)
			}
		}
	})
	return p
}

// Done ends it and wipes the line.
func (p *progress) Done() {
	close(p.stop)
	p.done.Wait()
	if p.shown && p.tty {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// Expect says how many bytes there are in all.
func (p *progress) Expect(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total = total
}

// Write counts bytes that went by; it makes progress an io.Writer for TeeReader.
func (p *progress) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bytes += int64(len(b))
	return len(b), nil
}

func (p *progress) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown = true
	if !p.tty {
		fmt.Fprintf(p.w, "%s …\n", p.what)
		return
	}
	elapsed := time.Since(p.begun)
	line := fmt.Sprintf("%s … %ds", p.what, int(elapsed.Seconds()))
	if p.bytes > 0 {
		rate := sizeText(int64(float64(p.bytes)/elapsed.Seconds())) + "/s"
		if p.total > 0 {
			const width = 24
			full := int(min(width, p.bytes*width/p.total))
			bar := strings.Repeat("█", full) + strings.Repeat("░", width-full)
			line = fmt.Sprintf("%s %s %3d%%  %s of %s  %s", p.what, bar, min(100, p.bytes*100/p.total), sizeText(p.bytes), sizeText(p.total), rate)
		} else {
			line = fmt.Sprintf("%s … %s  %s", p.what, sizeText(p.bytes), rate)
		}
	}
	fmt.Fprint(p.w, "\r\x1b[K"+line)
}

// sizeText gives a size for people, in the units files are sold in.
func sizeText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	value, i := float64(n), 0
	for value >= 1000 && i < len(units)-1 {
		value, i = value/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[i])
}

// ageText gives a duration for people, in its largest unit.
func ageText(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}
