package replicas_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
	"github.com/caesarion/caesarion/internal/replica"
)

// times is durations of the same thing.
type times []time.Duration

func (d times) report(b *testing.B, name string) {
	slices.Sort(d)
	at := func(q float64) float64 {
		return float64(d[min(len(d)-1, int(q*float64(len(d))))].Microseconds()) / 1000
	}
	b.ReportMetric(at(0.5), name+"-p50-ms")
	b.ReportMetric(at(0.99), name+"-p99-ms")
	b.ReportMetric(at(1), name+"-max-ms")
}

// BenchmarkForward compares requests to the owner with the same requests by way
// of another replica, in turns. Use -benchtime=2000x.
func BenchmarkForward(b *testing.B) {
	w := newWorld(b)
	w.ttl = replica.DefaultTTL
	owner, other := w.start(b, "a"), w.start(b, "b")
	id, _ := owner.newSession(b, "1 + 1")
	var sb v1.Sandbox
	owner.call(b, "POST", "/v1/sandboxes", map[string]any{}, 201).into(b, &sb)
	kept := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}}
	defer kept.CloseIdleConnections()
	once := func(s *server, method, path string, body any) time.Duration {
		start := time.Now()
		req, err := s.request(b.Context(), method, path, body)
		if err != nil {
			b.Fatal(err)
		}
		resp, err := kept.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode/100 != 2 {
			b.Fatal(resp.StatusCode, err)
		}
		return time.Since(start)
	}
	for _, test := range []struct {
		name, method, path string
		body               any
	}{
		{"session", "GET", "/v1/sessions/" + id, nil},
		{"execution", "POST", "/v1/sandboxes/" + sb.ID + "/executions", map[string]any{"code": "1 + 1"}},
	} {
		b.Run(test.name, func(b *testing.B) {
			for range 50 {
				once(owner, test.method, test.path, test.body)
				once(other, test.method, test.path, test.body)
			}
			var direct, forwarded times
			for b.Loop() {
				direct = append(direct, once(owner, test.method, test.path, test.body))
				forwarded = append(forwarded, once(other, test.method, test.path, test.body))
			}
			direct.report(b, "direct")
			forwarded.report(b, "forwarded")
		})
	}
}

// BenchmarkTakeOver measures what the death of a replica costs: the time until
// another answers for a session in which code runs, and until the next event is
// there. Use -benchtime=30x.
func BenchmarkTakeOver(b *testing.B) {
	for name, die := range map[string]func(*server){
		"killed": (*server).kill,
		"stopped": func(s *server) {
			if err := s.end(false); err != nil {
				b.Error(err)
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b)
			w.ttl = replica.DefaultTTL
			other := w.start(b, "b")
			w.start(b, "c")
			eventuallyReady(b, w.ttl)
			var answered, streamed times
			for b.Loop() {
				a := w.start(b, "a")
				id, cell := a.newSession(b, counting(2000, 20*time.Millisecond))
				a.run(b, id, cell)
				ctx, cancel := context.WithTimeout(b.Context(), patience)
				f, done := follow(ctx, id, cell, among(other))
				eventually(b, "output", func() bool { return f.count(cell) > 5 })
				start := time.Now()
				go die(a)
				// The first answer that is not the old one's.
				for ; ; time.Sleep(5 * time.Millisecond) {
					got, err := other.try(ctx, "GET", "/v1/sessions/"+id, nil)
					if err == nil && got.status == http.StatusOK && !a.replicas.Owns(id) {
						break
					}
				}
				answered = append(answered, time.Since(start))
				seen := f.count(cell)
				eventually(b, "the next output", func() bool { return f.count(cell) > seen })
				streamed = append(streamed, time.Since(start))
				cancel()
				<-done
				other.call(b, "POST", "/v1/sessions/"+id+"/interrupt", nil, 204)
			}
			answered.report(b, "answered")
			streamed.report(b, "streamed")
		})
	}
}

// eventuallyReady lets replicas be there for so long that they may declare
// others dead.
func eventuallyReady(tb testing.TB, ttl time.Duration) {
	tb.Helper()
	time.Sleep(ttl + ttl/2)
}
