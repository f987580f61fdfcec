package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	v1 "github.com/caesarion/caesarion/api/v1"
)

// sessionPage is the largest page of the list; webPage what the page asks for
// when it opens.
const (
	sessionPage = 200
	webPage     = 50
	listRepeats = 100
)

// list measures the list of many sessions that nobody uses, some of which have
// a sandbox that sleeps, and what the server needs for them.
func list(ctx context.Context, r *run) (err error) {
	var made []string
	defer func() {
		for _, id := range made {
			ctx := context.WithoutCancel(ctx)
			err = errors.Join(err, r.server.call(ctx, http.MethodDelete, "/v1/sessions/"+id+"", nil, nil))
		}
	}()
	sleeping, slept := 0, ""
	for i := range r.Sessions {
		var s v1.Session
		notebook := ""
		if err := r.server.call(ctx, http.MethodPost, "/v1/sessions", v1.CreateSession{Title: fmt.Sprintf("bench %d", i), Model: &notebook}, &s); err != nil {
			return err
		}
		made = append(made, s.ID)
		var cell v1.Item
		if err := r.server.call(ctx, http.MethodPost, "/v1/sessions/"+s.ID+"/items", v1.CreateItem{Kind: "cell", Code: prepare}, &cell); err != nil {
			return err
		}
		if i >= r.Sleeping || slept != "" {
			continue
		}
		reason, err := r.putToSleep(ctx, s.ID, cell.ID)
		if err != nil {
			return err
		}
		if slept = reason; reason == "" {
			sleeping++
		}
	}
	if err := r.server.Ready(ctx); err != nil {
		return err
	}
	whole, page := &series{}, &series{}
	for range listRepeats {
		start := time.Now()
		n, err := r.server.listAll(ctx)
		took := time.Since(start)
		if err == nil && n < r.Sessions {
			err = fmt.Errorf("%d of %d sessions are in the list", n, r.Sessions)
		}
		if err != nil {
			whole.failures++
			r.fail(r.server, err)
		} else {
			whole.add(took)
		}
		start = time.Now()
		var first v1.SessionList
		if err := r.server.call(ctx, http.MethodGet, fmt.Sprintf("/v1/sessions?limit=%d", webPage), nil, &first); err != nil {
			page.failures++
			r.fail(r.server, err)
			continue
		}
		page.add(time.Since(start))
	}
	note := fmt.Sprintf("all %s, in pages of %d; %d with a sandbox asleep", thousands(int64(r.Sessions)), sessionPage, sleeping)
	if slept != "" {
		note += ": " + slept
	}
	r.reportTimed("list", []Subject{r.server}, []*series{whole}, func(_ int, res *Result) { res.Note = note })
	r.reportTimed("list-page", []Subject{r.server}, []*series{page}, func(_ int, res *Result) {
		res.Note = fmt.Sprintf("the first %d, as the page asks", webPage)
	})
	rss, err := memoryOf(r.server.PID)
	if err != nil || r.server.PID == 0 {
		return err
	}
	r.report(Result{Scenario: "list-server", Subject: r.server.Name(), N: 1, Value: float64(rss) / (1 << 20), Unit: "MiB", Note: "resident memory of the server, with these sessions"})
	return nil
}

// putToSleep runs a cell in a session, so that it gets a sandbox, and puts that
// to sleep. It says why a server can't.
func (r *run) putToSleep(ctx context.Context, session, cell string) (string, error) {
	var detail v1.SessionDetail
	if err := r.server.call(ctx, http.MethodPost, "/v1/sessions/"+session+"/run", v1.RunItems{Items: []string{cell}}, nil); err != nil {
		return "", err
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		if err := r.server.call(ctx, http.MethodGet, "/v1/sessions/"+session, nil, &detail); err != nil {
			return "", err
		}
		if detail.Sandbox.State == "ready" && len(detail.Items) == 1 && detail.Items[0].Status == "ok" {
			break
		}
		if time.Now().After(deadline) {
			return "", fmt.Errorf("session %s has not run its cell after a minute: sandbox %s", session, detail.Sandbox.State)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := r.server.pause(ctx, detail.Sandbox.ID)
		if reason := unsupported(err); reason != "" {
			return reason, nil
		}
		// The session may still be keeping the files that the cell changed.
		if p, ok := errors.AsType[*v1.Problem](err); !ok || p.Status != http.StatusConflict || time.Now().After(deadline) {
			return "", err
		}
	}
}

// listAll pages through the sessions and counts them.
func (c *Caesarion) listAll(ctx context.Context) (int, error) {
	n, query := 0, url.Values{"limit": {fmt.Sprint(sessionPage)}}
	for {
		var page v1.SessionList
		if err := c.call(ctx, http.MethodGet, "/v1/sessions?"+query.Encode(), nil, &page); err != nil {
			return n, err
		}
		n += len(page.Sessions)
		if page.Next == "" {
			return n, nil
		}
		query.Set("cursor", page.Next)
	}
}
