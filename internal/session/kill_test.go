package session_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/fleet"
	"github.com/caesarion/caesarion/internal/sandbox/fake"
	"github.com/caesarion/caesarion/internal/session"
)

// childEnv makes the test binary a server that writes until it is killed; it
// names the database.
const childEnv = "CAESARION_SESSION_TEST_CHILD"

// child has several turns write at once, and prints what a reader of one sees.
func child() {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	host, err := fake.NewHost(fake.Options{})
	must(err)
	fl, err := fleet.New(ctx, host.Driver(), nil, fleet.Options{})
	must(err)
	st, err := openDatabase(ctx, os.Getenv(childEnv))
	must(err)
	svc, err := session.New(ctx, fl, st, session.Options{})
	must(err)
	for i := range 4 {
		s, err := svc.ByClientID(ctx, "client-"+strconv.Itoa(i), true)
		must(err)
		turn, err := s.BeginTurn(ctx, session.TurnStart{Text: "go"})
		must(err)
		go func() {
			for n := 0; ; {
				id, err := turn.StartText()
				must(err)
				for range 50 {
					must(turn.Append(id, "text", strconv.Itoa(n)+" "))
					if n++; n%10 == 0 {
						_, err := s.AddItem(v1.CreateItem{Kind: "note", Text: strconv.Itoa(n)}) // waits for its commit
						must(err)
					}
				}
				must(turn.FinishItem(id, "ok", ""))
			}
		}()
	}
	s, err := svc.ByClientID(ctx, "client-0", false)
	must(err)
	r := s.Reader(0)
	for {
		batch, err := r.Next(ctx)
		must(err)
		for _, rec := range batch {
			if rec.Seq > 0 {
				fmt.Println(string(rec.Line)) // one write, straight to the pipe
			}
		}
	}
}

func TestAKillTakesBackNoNumberThatWasSeen(t *testing.T) {
	for round := range 3 {
		path := newDatabase(t)
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var seen []string
		scan := bufio.NewScanner(out)
		scan.Buffer(nil, 16<<20)
		for scan.Scan() {
			if seen = append(seen, scan.Text()); len(seen) == 300+200*round {
				if err := cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
		}
		_ = cmd.Wait() // it was killed
		if len(seen) < 300 {
			t.Fatalf("saw %d events: the child ended too early", len(seen))
		}
		last := seen[len(seen)-1]
		if !json.Valid([]byte(last)) { // the kill cut the pipe
			seen = seen[:len(seen)-1]
		}

		svc := (&world{host: newWorld(t, false).host, path: path}).start(t)
		s, err := svc.ByClientID(t.Context(), "client-0", false)
		if err != nil {
			t.Fatal(err)
		}
		d := s.Detail()
		lines := everything(t, s, d.LastSeq)
		if len(lines) < len(seen) {
			t.Fatalf("%d events were seen, %d are kept", len(seen), len(lines))
		}
		for i := range seen {
			if seen[i] != string(lines[i]) {
				t.Fatalf("event %d was seen as %s and is %s", i+1, seen[i], lines[i])
			}
		}
		same(t, s)
		if d.Turn != nil {
			t.Error("the turn still runs")
		}
		cut, next := 0, 0
		for _, it := range d.Items {
			if it.Status == "cut" {
				cut++
			}
			if it.Kind != "assistant" {
				continue
			}
			for word := range strings.FieldsSeq(it.Text) {
				if word != strconv.Itoa(next) {
					t.Fatalf("after %d comes %s", next-1, word)
				}
				next++
			}
		}
		if cut > 1 || next == 0 {
			t.Errorf("%d items are cut, %d words", cut, next)
		}
		svc.stop()
	}
}
