package replicas_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"
)

// link is the way of one server to the database.
type link struct {
	to string
	ln net.Listener
	wg sync.WaitGroup

	mu     sync.Mutex
	state  string // "", "held": nothing passes, "cut": connections break
	change chan struct{}
	conns  map[net.Conn]bool
}

func newLink(tb testing.TB, to string) *link {
	tb.Helper()
	ln, err := new(net.ListenConfig).Listen(context.WithoutCancel(tb.Context()), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	l := &link{to: to, ln: ln, change: make(chan struct{}), conns: map[net.Conn]bool{}}
	l.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() { l.serve(c) })
		}
	})
	tb.Cleanup(func() {
		l.Cut()
		_ = ln.Close()
		l.wg.Wait()
	})
	return l
}

func (l *link) Address() string { return l.ln.Addr().String() }

func (l *link) serve(c net.Conn) {
	defer c.Close()
	l.mu.Lock()
	cut := l.state == "cut"
	l.mu.Unlock()
	if cut {
		return
	}
	up, err := (&net.Dialer{Timeout: 5 * time.Second}).Dial("tcp", l.to)
	if err != nil {
		return
	}
	defer up.Close()
	l.mu.Lock()
	l.conns[c], l.conns[up] = true, true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.conns, c)
		delete(l.conns, up)
		l.mu.Unlock()
	}()
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		defer func() { done <- struct{}{}; _ = to.Close(); _ = from.Close() }()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if !l.pass() {
				return
			}
			if n > 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			}
			if err != nil {
				return
			}
		}
	}
	go pipe(up, c)
	pipe(c, up)
	<-done
	<-done
}

// pass waits while the link is held; false when it is cut.
func (l *link) pass() bool {
	for {
		l.mu.Lock()
		state, change := l.state, l.change
		l.mu.Unlock()
		if state != "held" {
			return state == ""
		}
		<-change
	}
}

func (l *link) set(state string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state
	close(l.change)
	l.change = make(chan struct{})
	if state == "cut" {
		for c := range l.conns {
			_ = c.Close()
		}
	}
}

// Hold lets nothing pass, as a network that swallows packets; Cut breaks all
// connections and takes none; Mend ends either.
func (l *link) Hold() { l.set("held") }

func (l *link) Cut() { l.set("cut") }

func (l *link) Mend() { l.set("") }
