package store_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/caesarion/caesarion/internal/store"
	"github.com/caesarion/caesarion/internal/store/pgtest"
)

func TestConnectionsThatAreCutLoseNoEventAndKeepNoneTwice(t *testing.T) {
	at := pgtest.New(t)
	db := raw(t, at)
	s := openPostgres(t, at, store.Options{RetryFor: 60 * time.Second})
	l := newLoad(t, s, 4)
	for range 100 {
		l.more(t, 4)
		do(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'caesarion writer %' AND datname=current_database()`)
	}
	l.more(t, 4)
	l.end(t)
}

// cutter stands between a store and its server, and does to connections what
// networks do.
type cutter struct {
	net.Listener
	server string

	mu    sync.Mutex
	mode  string        // "": all passes; answers: the next answer is lost, and the connection; late: so is the next request, which arrives later
	held  chan<- func() // gets what delivers a late request
	conns map[net.Conn]bool
	wg    sync.WaitGroup
}

func newCutter(tb testing.TB, server string) *cutter {
	tb.Helper()
	l, err := (&net.ListenConfig{}).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c := &cutter{Listener: l, server: server, conns: map[net.Conn]bool{}}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { c.serve(conn) })
		}
	})
	tb.Cleanup(func() {
		_ = l.Close()
		c.mu.Lock()
		for conn := range c.conns {
			_ = conn.Close()
		}
		c.mu.Unlock()
		c.wg.Wait()
	})
	return c
}

func (c *cutter) url(tb testing.TB, at string) string {
	tb.Helper()
	u, err := url.Parse(at)
	if err != nil {
		tb.Fatal(err)
	}
	u.Host = c.Addr().String()
	return u.String()
}

// set chooses what happens to the next transaction of a writer.
func (c *cutter) set(mode string, held chan<- func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mode, c.held = mode, held
}

func (c *cutter) serve(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", c.server)
	if err != nil {
		return
	}
	c.mu.Lock()
	c.conns[client], c.conns[server] = true, true
	c.mu.Unlock()
	var deaf atomic.Bool // answers are lost from now on
	c.wg.Go(func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := server.Read(buf)
			if err != nil || deaf.Load() {
				_ = client.Close()
				if !deaf.Load() || err != nil {
					return
				}
				continue // the server must be able to go on
			}
			if _, err := client.Write(buf[:n]); err != nil {
				return
			}
		}
	})
	keep := false
	defer func() {
		if !keep {
			_ = server.Close()
		}
	}()
	buf := make([]byte, 1<<20)
	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}
		c.mu.Lock()
		mode, held := c.mode, c.held
		isBatch := n > 300 // all else that a writer sends is short
		if mode != "" && isBatch {
			c.mode = ""
		}
		c.mu.Unlock()
		if mode == "" || !isBatch {
			if _, err := server.Write(buf[:n]); err != nil {
				return
			}
			continue
		}
		deaf.Store(true)
		keep = true
		request := append([]byte(nil), buf[:n]...)
		deliver := func() {
			_, _ = server.Write(request) // the server may be gone
		}
		if mode == "late" {
			held <- deliver
		} else {
			deliver()
		}
		return
	}
}

// The answer to a commit is lost: it was kept, and must not be kept again.
func TestACommitWhoseAnswerIsLost(t *testing.T) {
	at := pgtest.New(t)
	u, _ := url.Parse(at)
	c := newCutter(t, u.Host)
	s := openPostgres(t, c.url(t, at), store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}})
	put(t, s, store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: 2, Type: "a", Line: []byte("x")}}}) // all is prepared
	line := []byte(strings.Repeat("long enough to be seen ", 20))
	for seq := int64(3); seq < 13; seq++ {
		c.set("answers", nil)
		put(t, s, store.Batch{SessionID: "ses_a", Events: []store.Event{{Seq: seq, Type: "a", Line: line}}})
	}
	if n, _, err := s.EventsSize(t.Context(), "ses_a", 0); err != nil || n != 12 {
		t.Errorf("%d events, %v", n, err)
	}
}

// A transaction that everybody has given up arrives at the server after all.
// Ending its connection, which the writer tries, must not be what prevents it.
func TestATransactionThatArrivesLate(t *testing.T) {
	at := pgtest.New(t)
	db := raw(t, at)
	// Found before the real one, it hides the connection from the writer.
	do(t, db, `CREATE TABLE public.pg_stat_activity (pid INT, application_name TEXT)`)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	c := newCutter(t, u.Host)
	s := openPostgres(t, c.url(t, at)+"&search_path=public,pg_catalog", store.Options{})
	put(t, s, store.Batch{SessionID: "ses_a", Session: session("ses_a"), Events: []store.Event{{Seq: 1, Type: "a", Line: []byte("x")}}})
	// An upsert would not fail the second time, but take back what came in between.
	text := func(text string) store.Batch {
		return store.Batch{SessionID: "ses_a", Items: []store.Item{{ID: "itm_1", Tree: []byte("{}"), Body: []byte(strings.Repeat(text, 300))}}}
	}
	put(t, s, text("a"))
	held := make(chan func(), 1)
	c.set("late", held)
	put(t, s, text("b"))
	deliver := <-held
	put(t, s, text("c"))
	deliver()
	eventually(t, "it is refused", func() bool {
		var n int
		if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname=current_database()
			AND application_name LIKE 'caesarion writer %' AND state='idle in transaction (aborted)'`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n == 1
	})
	items, err := s.Items(t.Context(), "ses_a")
	if err != nil || len(items) != 1 || items[0].Body[0] != 'c' {
		t.Errorf("what was given up came late and won: %.20s, %v", items[0].Body, err)
	}
}

// Bytes of files come in spite of connections that are cut.
func TestBytesThroughCutConnections(t *testing.T) {
	at := pgtest.New(t)
	s, db := openPostgres(t, at, store.Options{}), raw(t, at)
	for i := range 20 {
		data, hash := bytesOf(3<<20+i, byte(i))
		done := make(chan error, 1)
		go func() { done <- s.PutBlob(t.Context(), hash, int64(len(data)), bytes.NewReader(data)) }()
		cut := func() {
			do(t, db, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name='caesarion' AND datname=current_database()`)
		}
		for range 5 { // somewhere on its way
			cut()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		b, err := s.OpenBlob(t.Context(), hash)
		if err != nil {
			t.Fatal(err)
		}
		cut()
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes of %d, %v", len(got), len(data), err)
		}
	}
}
