// Command tunnel stands in for the agent in tests: it starts kernels inside a
// real sandbox and forwards their frames, so that the corpus of kerneltest is
// run against the kernel program where it really runs.
//
//	POST /configure     as the agent's
//	POST /kernel        a fresh kernel; the connection then carries its frames. Answers 101 with its number
//	POST /interrupt?n=  interrupts kernel n
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/caesarion/caesarion/internal/agentapi"
	"github.com/caesarion/caesarion/internal/kernel"
)

type tunnel struct {
	program string

	mu      sync.Mutex
	kernels map[int]*kernel.Process // guarded by mu
}

func main() {
	program, err := kernel.Unpack(os.TempDir())
	if err != nil {
		log.Fatal(err)
	}
	t := &tunnel{program: program, kernels: map[int]*kernel.Process{}}
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(agentapi.Port)) //nolint:noctx // the program's only one
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /configure", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"version":"tunnel","configured":true}`)
	})
	mux.HandleFunc("POST /kernel", t.kernel)
	mux.HandleFunc("POST /interrupt", t.interrupt)
	fmt.Println(agentapi.ReadyLine)
	log.Fatal(http.Serve(agentapi.Listener(l), mux)) //nolint:gosec // no strangers in the test's sandbox
}

func (t *tunnel) kernel(w http.ResponseWriter, r *http.Request) {
	dir, err := os.MkdirTemp("/workspace", "case-")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// What the case compares has no trace of where it ran.
	env := append(os.Environ(), "HOME="+dir, "LC_ALL=C.UTF-8")
	p, err := kernel.Start(r.Context(), kernel.Options{Dir: dir, Env: env, ProgramDir: t.program})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	go func() { _, _ = io.Copy(io.Discard, p.Stdout) }()
	go func() { _, _ = io.Copy(io.Discard, p.Stderr) }()
	defer func() { _ = p.Kill() }()
	for ready := false; !ready; {
		m, err := p.Conn().Receive()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		ready = m.Header.MsgType == "status" && string(m.Content) == `{"execution_state":"idle"}`
	}
	t.mu.Lock()
	n := len(t.kernels)
	t.kernels[n] = p
	t.mu.Unlock()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nX-Kernel: %d\r\n\r\n", n); err != nil {
		return
	}
	client := kernel.NewConn(struct {
		io.Reader
		io.Writer
		io.Closer
	}{rw, conn, conn}, kernel.Limits{})
	go forward(client, p.Conn())
	forward(p.Conn(), client)
}

// forward passes messages on until either end is gone.
func forward(from, to kernel.Conn) {
	defer to.Close()
	for {
		m, err := from.Receive()
		if err != nil {
			return
		}
		if to.Send(m) != nil {
			return
		}
	}
}

func (t *tunnel) interrupt(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("n"))
	t.mu.Lock()
	p := t.kernels[n]
	t.mu.Unlock()
	if p == nil {
		http.NotFound(w, r)
		return
	}
	if err := p.Interrupt(); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
