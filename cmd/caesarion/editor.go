package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/caesarion/caesarion/internal/event"
)

// editor edits lines on a terminal. The terminal is raw only while a line is
// read, so that during an execution Ctrl-C is a signal and output needs no care.
type editor struct {
	in, out *os.File
	keys    *keys
	term    *term.Terminal
	history *history
	shell   *shell
}

const (
	keyCtrlC = 3
	keyTab   = '\t'
	// A kernel that is busy answers after its cell; a person waits less.
	completeTimeout = 3 * time.Second
)

// keys hands the terminal's bytes on, but for Ctrl-C: term.Terminal takes that
// for the end of input. A read ends when ctx does.
type keys struct {
	in      *os.File
	ctx     context.Context // of the line being read
	pending []byte
}

// pollFor is how long a read waits before it looks whether it is still wanted,
// in milliseconds.
const pollFor = 50

func (k *keys) Read(b []byte) (int, error) {
	for len(k.pending) == 0 {
		if k.ctx.Err() != nil {
			return 0, context.Cause(k.ctx)
		}
		if n, err := k.fill(pollFor); n == 0 && err != nil {
			return 0, err
		}
	}
	switch i := bytes.IndexByte(k.pending, keyCtrlC); i {
	case 0:
		k.pending = k.pending[1:]
		return 0, errInterrupted
	case -1:
		n := copy(b, k.pending)
		k.pending = k.pending[n:]
		return n, nil
	default:
		n := copy(b, k.pending[:i])
		k.pending = k.pending[n:]
		return n, nil
	}
}

// drain takes what was typed already.
func (k *keys) drain() {
	for {
		if n, err := k.fill(0); n == 0 || err != nil {
			return
		}
	}
}

// fill takes what was typed, and waits up to so many milliseconds for it; 0 and
// no error: nothing was.
func (k *keys) fill(wait int) (int, error) {
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(k.in.Fd()), Events: unix.POLLIN}}, wait)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("terminal: %w", err)
		}
		if ready == 0 {
			return 0, nil
		}
		buf := make([]byte, 256)
		n, err := k.in.Read(buf)
		k.pending = append(k.pending, buf[:n]...)
		return n, err
	}
}

func newEditor(in, out *os.File, historyFile string, s *shell) (*editor, error) {
	h, err := loadHistory(historyFile)
	if err != nil {
		return nil, err
	}
	e := &editor{in: in, out: out, keys: &keys{in: in}, history: h, shell: s}
	e.reset()
	return e, nil
}

// reset makes a fresh terminal: after Ctrl-C, the old one still has the line.
func (e *editor) reset() {
	e.term = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{e.keys, e.out}, "")
	e.term.History = e.history
	e.term.AutoCompleteCallback = e.complete
}

// Close saves the history.
func (e *editor) Close() { e.history.save() }

// raw calls read with the terminal in raw mode.
func (e *editor) raw(ctx context.Context, read func() (string, error)) (string, error) {
	e.keys.ctx = ctx
	n := int(e.in.Fd())
	state, err := term.MakeRaw(n)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	if width, height, err := term.GetSize(n); err == nil && width > 0 {
		_ = e.term.SetSize(width, height)
	}
	line, err := read()
	if errors.Is(err, term.ErrPasteIndicator) {
		err = nil
	}
	switch {
	case errors.Is(err, errInterrupted):
		fmt.Fprint(e.out, "^C\r\n")
		e.reset()
	case ctx.Err() != nil:
		fmt.Fprint(e.out, "\r\n")
		e.reset()
	}
	if err == nil {
		e.interruptTyped(n)
	}
	return line, errors.Join(err, term.Restore(n, state))
}

// interruptTyped makes a signal of a Ctrl-C that was typed after Enter, while
// the terminal was raw still: it is meant for the code that starts now. As in
// any terminal, what was typed before it is forgotten.
func (e *editor) interruptTyped(n int) {
	// Later ones are signals by themselves from here on: none is lost between.
	if t, err := unix.IoctlGetTermios(n, unix.TCGETS); err == nil {
		t.Lflag |= unix.ISIG
		_ = unix.IoctlSetTermios(n, unix.TCSETS, t)
	}
	e.keys.drain()
	if i := bytes.LastIndexByte(e.keys.pending, keyCtrlC); i >= 0 {
		e.keys.pending = e.keys.pending[i+1:]
		e.reset()
		select {
		case e.shell.signals <- os.Interrupt:
		default: // there is one already
		}
	}
}

// ReadLine implements prompter.
func (e *editor) ReadLine(ctx context.Context, prompt string) (string, error) {
	return e.raw(ctx, func() (string, error) {
		e.term.SetPrompt(prompt)
		return e.term.ReadLine()
	})
}

// Ask implements asker: answers to input() are edited too, but kept out of the
// history.
func (e *editor) Ask(ctx context.Context, in event.Input) (string, error) {
	e.history.pause(true)
	defer e.history.pause(false)
	complete := e.term.AutoCompleteCallback
	e.term.AutoCompleteCallback = nil
	defer func() { e.term.AutoCompleteCallback = complete }()
	// The prompt of input() may have lines; only the last one can be edited.
	prompt := in.Prompt
	if i := strings.LastIndexByte(prompt, '\n'); i >= 0 {
		fmt.Fprint(e.out, prompt[:i+1])
		prompt = prompt[i+1:]
	}
	return e.raw(ctx, func() (string, error) {
		if in.Password {
			return e.term.ReadPassword(prompt)
		}
		e.term.SetPrompt(prompt)
		return e.term.ReadLine()
	})
}

// complete is called for every key; it acts on Tab. Behind white space, Tab
// indents, as at Python's own prompt.
func (e *editor) complete(line string, pos int, key rune) (newLine string, newPos int, ok bool) {
	if key != keyTab {
		return "", 0, false
	}
	before, after := line[:pos], line[pos:]
	if strings.TrimSpace(before) == "" {
		return before + "    " + after, pos + 4, true
	}
	ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
	defer cancel()
	// Earlier lines of the block matter: they say what the names are.
	code := e.shell.block + before
	found, err := e.shell.box.Complete(ctx, e.shell.box.id, e.shell.kernel, code, utf8.RuneCountInString(code))
	if err != nil || len(found.Matches) == 0 {
		return line, pos, true
	}
	start := byteOffset(before, found.CursorStart-utf8.RuneCountInString(e.shell.block))
	common := commonPrefix(found.Matches)
	if len(common) > len(before)-start || len(found.Matches) == 1 {
		return before[:start] + common + after, start + len(common), true
	}
	e.list(e.shell.promptText+line, found.Matches)
	return line, pos, true
}

// list shows what there is to choose from. Terminal.Write draws the prompt
// anew below it.
func (e *editor) list(line string, matches []string) {
	const most = 60
	more := ""
	if len(matches) > most {
		more = fmt.Sprintf("… and %d more\n", len(matches)-most)
		matches = matches[:most]
	}
	width, _, err := term.GetSize(int(e.out.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	longest := 0
	for i, m := range matches {
		matches[i] = oneLine(m)
		longest = max(longest, utf8.RuneCountInString(matches[i]))
	}
	columns := max(1, width/(longest+2))
	var b strings.Builder
	for i, m := range matches {
		b.WriteString(m)
		if (i+1)%columns == 0 || i == len(matches)-1 {
			b.WriteByte('\n')
		} else {
			b.WriteString(strings.Repeat(" ", longest+2-utf8.RuneCountInString(m)))
		}
	}
	// Write wipes prompt and line and draws them again below. So that the list
	// has the line above it, as in other shells, it is printed once more.
	_, _ = fmt.Fprint(e.term, line+"\n"+b.String()+more) // no terminal: the next read says so
}

// byteOffset turns a place counted in characters into one in bytes.
func byteOffset(s string, runes int) int {
	for i := range s {
		if runes <= 0 {
			return i
		}
		runes--
	}
	return len(s)
}

func commonPrefix(words []string) string {
	prefix := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, prefix) {
			_, size := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-size]
		}
	}
	return prefix
}

// history is the lines typed before, kept in a file that only its owner can
// read: people type secrets.
type history struct {
	path string

	mu     sync.Mutex
	lines  []string // guarded by mu, oldest first
	paused bool     // guarded by mu
}

const historyLines = 1000

func loadHistory(path string) (*history, error) {
	h := &history{path: path}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		h.lines = append(h.lines, s.Text())
	}
	return h, nil
}

func (h *history) pause(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paused = on
}

// Add implements term.History.
func (h *history) Add(line string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paused || strings.TrimSpace(line) == "" || len(h.lines) > 0 && h.lines[len(h.lines)-1] == line {
		return
	}
	h.lines = append(h.lines, line)
	if len(h.lines) > historyLines {
		h.lines = h.lines[len(h.lines)-historyLines:]
	}
}

// Len implements term.History.
func (h *history) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.lines)
}

// At implements term.History; 0 is the newest line.
func (h *history) At(i int) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.lines[len(h.lines)-1-i]
}

// save writes the file. A history that is lost is no reason to fail.
func (h *history) save() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.lines) > 0 {
		_ = writeSecret(h.path, []byte(strings.Join(h.lines, "\n")+"\n"))
	}
}
