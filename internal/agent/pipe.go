package agent

import (
	"os"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/caesarion/caesarion/internal/quiet"
)

// pipe reads one of a process's output pipes. Two may ask it to: pump, which
// sleeps until something comes, and drain, which takes what is there.
type pipe struct {
	name string
	file *os.File
	conn syscall.RawConn
	take func(name string, text []byte)

	mu      sync.Mutex // held while bytes go from the pipe to take, so that they keep their order
	buf     []byte
	partial []byte // beginning of a character whose rest has not come
	ended   bool
	flows   bool // the last read found something
}

func newPipe(name string, file *os.File, take func(string, []byte)) *pipe {
	conn, err := file.SyscallConn()
	if err != nil {
		panic(err) // only a nil or closed file gives one
	}
	return &pipe{name: name, file: file, conn: conn, take: take}
}

// maxDrain is what one drain takes at most: more than a pipe can hold, so all
// that was there before, but not all that somebody writes for ever.
const maxDrain = 1 << 20

// pump reads until the pipe ends or is closed. It must not sleep before the
// pipe is empty: the poller tells of changes only.
func (p *pipe) pump() {
	_ = p.conn.Read(func(fd uintptr) bool {
		for {
			if n, again := p.one(int(fd)); !again {
				return n < 0
			}
		}
	})
}

// drain takes what is in the pipe. It uses Control, not Read, because pump
// sits in Read.
func (p *pipe) drain() {
	_ = p.conn.Control(func(fd uintptr) {
		for total := 0; total < maxDrain; {
			n, again := p.one(int(fd))
			if !again {
				return
			}
			total += n
		}
	})
}

// one reads once. It gives -1 at the end of the pipe, and again if more may be there.
func (p *pipe) one(fd int) (n int, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return -1, false
	}
	if p.buf == nil {
		p.buf = make([]byte, 4<<10)
	}
	n, err := p.read(fd)
	switch {
	case err == syscall.EAGAIN: //nolint:errorlint // a bare errno
		return 0, false
	case err != nil || n <= 0:
		p.ended = true
		p.flush()
		return -1, false
	}
	p.decode(p.buf[:n])
	if n == len(p.buf) && n < 64<<10 {
		p.buf = make([]byte, 64<<10) // somebody writes much
	}
	return n, true
}

// read reads quietly, unless the read before it found something: pump would
// otherwise let nobody have a turn while somebody writes without a pause.
func (p *pipe) read(fd int) (n int, err error) {
	if !p.flows {
		n, err = quiet.Read(uintptr(fd), p.buf)
	} else if n, err = syscall.Read(fd, p.buf); err == syscall.EINTR { //nolint:errorlint // a bare errno
		n, err = quiet.Read(uintptr(fd), p.buf)
	}
	p.flows = n > 0
	return n, err
}

// decode hands on whole characters: valid UTF-8, with U+FFFD for what is not.
func (p *pipe) decode(b []byte) {
	if len(p.partial) > 0 {
		b = append(p.partial, b...)
		p.partial = nil
	}
	// At most three bytes at the end can begin a character that is not whole.
	cut := len(b)
	for i := 1; i <= min(3, len(b)); i++ {
		if utf8.RuneStart(b[len(b)-i]) {
			if !utf8.FullRune(b[len(b)-i:]) {
				cut = len(b) - i
			}
			break
		}
	}
	if cut < len(b) {
		p.partial = append([]byte(nil), b[cut:]...)
		b = b[:cut]
	}
	p.emit(b)
}

func (p *pipe) emit(b []byte) {
	if len(b) == 0 {
		return
	}
	if !utf8.Valid(b) {
		b = toValid(b)
	}
	p.take(p.name, b)
}

// toValid replaces each byte that is not part of a character, as Python's
// errors="replace" and browsers do; bytes.ToValidUTF8 would make one of many.
func toValid(b []byte) []byte {
	out := make([]byte, 0, len(b)+16)
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		out = utf8.AppendRune(out, r) // RuneError is U+FFFD
		b = b[size:]
	}
	return out
}

// flush gives up on a character whose rest will not come.
func (p *pipe) flush() {
	if len(p.partial) > 0 {
		b := p.partial
		p.partial = nil
		p.emit(b)
	}
}

// finish takes what is left and closes the pipe; pump returns.
func (p *pipe) finish() {
	p.drain()
	p.mu.Lock()
	p.flush()
	p.ended = true
	p.mu.Unlock()
	_ = p.file.Close() // the descriptor is gone either way
}
